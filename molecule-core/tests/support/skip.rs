//! The rule for tests whose engine is missing. The tests of other crates include this file.
#![expect(clippy::disallowed_methods, reason = "tests learn from the environment which engines there are")]

use std::{env, fs::OpenOptions, io::Write, thread};

/// Records that the running test was skipped, and why.
///
/// # Panics
/// Under `CI=true`, where nothing may be missing.
pub(crate) fn skip(reason: &str) {
    let test = env::var("NEXTEST_TEST_NAME")
        .ok()
        .or_else(|| thread::current().name().map(str::to_owned))
        .unwrap_or_else(|| "a test".to_owned());
    assert!(env::var("CI").as_deref() != Ok("true"), "{test} cannot be skipped in CI: {reason}");
    let line = format!("SKIPPED {test}: {reason}\n");
    match env::var_os("MOLECULE_TEST_SKIPS") {
        // One write, so that lines of tests that run at once stay whole.
        Some(path) => OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .expect("the file that MOLECULE_TEST_SKIPS names takes another line"),
        None => std::io::stderr().write_all(line.as_bytes()).expect("standard error takes a line"),
    }
}
