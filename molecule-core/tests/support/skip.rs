//! The rule for tests whose engine is missing. The tests of other crates include this file.
#![allow(dead_code, reason = "each test binary uses its own part of this")]
#![expect(clippy::disallowed_methods, reason = "tests learn from the environment which engines there are")]

use std::{env, fs::OpenOptions, io::Write, thread};

/// Records that the running test was skipped, and why.
///
/// # Panics
/// Under `CI=true`, where nothing may be missing.
pub(crate) fn skip(reason: &str) {
    let test = test();
    assert!(env::var("CI").as_deref() != Ok("true"), "{test} cannot be skipped in CI: {reason}");
    record(&test, reason);
}

/// Records, in CI too, that the engine at hand cannot do what the rest of the running test needs.
pub(crate) fn cut_short(reason: &str) {
    record(&test(), reason);
}

fn record(test: &str, reason: &str) {
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

fn test() -> String {
    env::var("NEXTEST_TEST_NAME")
        .ok()
        .or_else(|| thread::current().name().map(str::to_owned))
        .unwrap_or_else(|| "a test".to_owned())
}
