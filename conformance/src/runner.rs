//! Tries cases one after another.

use std::time::Duration;

use crate::{
    case::{Case, Level, Verdict},
    report::{Outcome, Report, Tried},
};

/// How long one case may take before it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tries `cases` on `target` in their order and reports on all of them; `name` says in the report what was tried.
pub async fn run<T: Sync>(name: impl Into<String>, target: &T, cases: &[Case<T>]) -> Report {
    let mut report = Report::new(name);
    for case in cases {
        let verdict = tokio::time::timeout(PATIENCE, (case.run)(target))
            .await
            .unwrap_or_else(|_| Err(Verdict::Failed(format!("no result within {} s", PATIENCE.as_secs()))));
        report.add(Tried {
            name: case.name,
            sentence: case.sentence,
            area: case.area,
            level: case.level,
            rule: case.rule,
            outcome: judge(case.level, verdict),
        });
    }
    report
}

fn judge(level: Level, verdict: Result<(), Verdict>) -> Outcome {
    match (verdict, level) {
        (Ok(()), _) => Outcome::Passed,
        (Err(Verdict::Failed(why)), _) => Outcome::Failed { why },
        (Err(Verdict::Skipped(why)), _) => Outcome::Skipped { why },
        (Err(Verdict::Unsupported(why)), Level::Extended) => Outcome::Unsupported { why },
        (Err(Verdict::Unsupported(why)), Level::Core) => {
            Outcome::Failed { why: format!("every implementation must support this: {why}") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Area;

    fn case(name: &'static str, level: Level, run: for<'a> fn(&'a ()) -> crate::case::Trial<'a>) -> Case<()> {
        Case { name, sentence: "It holds", area: Area::Operations, level, rule: "R-TEST-1", run }
    }

    #[tokio::test]
    async fn nothing_run_is_a_failure() {
        assert!(!run("nothing", &(), &[]).await.succeeded());
        let skipped = case("skipped", Level::Core, |()| Box::pin(async { Err(Verdict::Skipped("no token".into())) }));
        let report = run("only skipped", &(), &[skipped]).await;
        assert_eq!((report.skipped(), report.succeeded()), (1, false));
    }

    #[tokio::test]
    async fn every_outcome_is_counted_apart() {
        let passes = || case("passes", Level::Core, |()| Box::pin(async { Ok(()) }));
        let fails = case("fails", Level::Core, |()| Box::pin(async { Err(Verdict::Failed("it is not so".into())) }));
        let lacks = |level| case("lacks", level, |()| Box::pin(async { Err(Verdict::Unsupported("no".into())) }));
        let skips = case("skips", Level::Core, |()| Box::pin(async { Err(Verdict::Skipped("no token".into())) }));
        let counts = |report: &Report| (report.passed(), report.failed(), report.unsupported(), report.skipped());

        let report = run("all", &(), &[passes(), fails, lacks(Level::Extended), skips]).await;
        assert_eq!(counts(&report), (1, 1, 1, 1));
        assert!(!report.succeeded());

        let report = run("extended", &(), &[passes(), lacks(Level::Extended)]).await;
        assert_eq!(counts(&report), (1, 0, 1, 0));
        assert!(report.succeeded());

        let report = run("core", &(), &[passes(), lacks(Level::Core)]).await;
        assert_eq!(counts(&report), (1, 1, 0, 0));
        assert!(!report.succeeded());
    }

    #[tokio::test(start_paused = true)]
    async fn a_case_that_hangs_has_failed() {
        let hangs = case("hangs", Level::Extended, |()| Box::pin(std::future::pending()));
        assert_eq!(run("hangs", &(), &[hangs]).await.failed(), 1);
    }
}
