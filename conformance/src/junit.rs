//! The report in the form that CI servers read.

use quick_junit::{NonSuccessKind, Report as Junit, TestCase, TestCaseStatus, TestSuite};

use crate::{Outcome, Report, Tried};

/// The report as JUnit XML: a case that is unsupported counts as skipped there, with its reason.
///
/// # Errors
/// Where the XML can't be written.
pub fn junit(report: &Report) -> Result<String, quick_junit::SerializeError> {
    let mut suite = TestSuite::new(report.target());
    for Tried { name, sentence, rule, outcome, took, .. } in report.tried() {
        let status = match outcome {
            Outcome::Passed => TestCaseStatus::success(),
            Outcome::Failed { why } => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(why.as_str());
                status
            }
            Outcome::Unsupported { why } | Outcome::Skipped { why } => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(why.as_str());
                status
            }
        };
        let mut case = TestCase::new(*name, status);
        case.set_classname(*rule);
        if let Some(took) = took {
            case.set_time(*took);
        }
        case.extra.insert("sentence".into(), (*sentence).into());
        suite.add_test_case(case);
    }
    let mut junit = Junit::new("molecule-conformance");
    junit.add_test_suite(suite);
    junit.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Area, Level};

    #[test]
    fn ci_servers_read_what_failed() {
        let tried = |name, outcome| Tried {
            name,
            sentence: "It holds",
            area: Area::Operations,
            level: Level::Core,
            rule: "R-TEST-1",
            took: Some(std::time::Duration::from_millis(1500)),
            outcome,
        };
        let mut report = Report::new("http://127.0.0.1:1");
        report.add(tried("one", Outcome::Passed));
        report.add(tried("two", Outcome::Failed { why: "expected <200>, got \"\u{1}\"".into() }));
        report.add(tried("three", Outcome::Skipped { why: "no token".into() }));
        let xml = junit(&report).unwrap();
        assert!(xml.contains(r#"tests="3" skipped="1" errors="0" failures="1""#), "{xml}");
        assert!(xml.contains(r#"time="1.500""#), "{xml}");
        assert!(xml.contains("expected &lt;200&gt;, got") && !xml.contains('\u{1}'), "{xml}");
    }
}
