//! The page with what came of whole runs of the conformance suite.

use std::{
    env,
    fs::{self, File},
    path::Path,
};

use molecule_conformance::{Report, results};

/// Demands that nothing failed and nothing was skipped, and that the page says of the run `name` what came of it. `make
/// results`, which is these tests under `UPDATE=1`, has the page written in place of that.
pub(crate) fn compare(name: &str, report: &Report) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md");
    // One at a time, whether tests run as threads or as processes.
    let lock = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("results.lock")).expect("a lock can be made");
    lock.lock().expect("a lock is free in the end");
    let page = fs::read_to_string(&path).expect("docs/conformance.md can be read");
    let written = results::with_run(&page, name, report).expect("docs/conformance.md marks its tables");
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, written).expect("docs/conformance.md can be written");
    } else {
        assert!(page == written, "docs/conformance.md says otherwise of {name}; see `make results`\n{report}");
    }
    assert!(report.succeeded() && report.skipped() == 0, "{report}");
}
