//! Tries cases one after another.

use std::time::{Duration, Instant};

use crate::{
    case::{Case, Level, Target, Verdict},
    report::{Outcome, Report, Tried},
};

/// How long one case may take before it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tries `cases` on `target` in their order and reports on all of them; `name` says in the report what was tried.
///
/// A case about a feature that the target does not have is unsupported without being tried. What a case leaves behind is
/// taken back before the next; where that fails, so has the case.
pub async fn run<T: Target>(name: impl Into<String>, target: &T, cases: &[Case<T>]) -> Report {
    run_watched(name, target, cases, |_| {}).await
}

/// The same, showing each case to `watch` as soon as it was tried.
pub async fn run_watched<T: Target>(
    name: impl Into<String>,
    target: &T,
    cases: &[Case<T>],
    mut watch: impl FnMut(&Tried),
) -> Report {
    let mut report = Report::new(name).with_features(target.features().clone());
    for case in cases {
        let began = Instant::now();
        let verdict = match case.level.features().find(|feature| !target.features().contains(feature)) {
            Some(feature) => Err(Verdict::Unsupported(format!("the feature {feature} is neither claimed nor seen"))),
            None => try_once(target, case).await,
        };
        let tried = Tried {
            name: case.name,
            sentence: case.sentence,
            area: case.area,
            level: case.level,
            rule: case.rule,
            took: Some(began.elapsed()),
            outcome: judge(case.level, verdict),
        };
        watch(&tried);
        report.add(tried);
    }
    report
}

/// Puts `cases` into an order that `seed` alone decides, so that one which needs another before it shows.
pub fn shuffle<T>(cases: &mut [Case<T>], seed: u64) {
    fastrand::Rng::with_seed(seed).shuffle(cases);
}

async fn try_once<T: Target>(target: &T, case: &Case<T>) -> Result<(), Verdict> {
    let late = || Verdict::Failed(format!("no result within {} s", PATIENCE.as_secs()));
    let verdict = tokio::time::timeout(PATIENCE, (case.run)(target)).await.unwrap_or_else(|_| Err(late()));
    let tidied = tokio::time::timeout(PATIENCE, target.tidy()).await.unwrap_or_else(|_| Err("no answer".to_owned()));
    let Err(why) = tidied else { return verdict };
    let left = format!("what it made could not be taken back: {why}");
    Err(Verdict::Failed(match verdict {
        Err(Verdict::Failed(why)) => format!("{why}; and {left}"),
        _ => left,
    }))
}

fn judge(level: Level, verdict: Result<(), Verdict>) -> Outcome {
    match (verdict, level) {
        (Ok(()), _) => Outcome::Passed,
        (Err(Verdict::Failed(why)), _) => Outcome::Failed { why },
        (Err(Verdict::Skipped(why)), _) => Outcome::Skipped { why },
        (Err(Verdict::Unsupported(why)), Level::Core) => {
            Outcome::Failed { why: format!("every implementation must support this: {why}") }
        }
        (Err(Verdict::Unsupported(why)), _) => Outcome::Unsupported { why },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::case::{Area, Feature};

    /// A target that has these features, and cannot be tidied where that is said.
    #[derive(Default)]
    struct Fake {
        features: BTreeSet<Feature>,
        untidy: bool,
    }

    impl Target for Fake {
        fn features(&self) -> &BTreeSet<Feature> {
            &self.features
        }

        async fn tidy(&self) -> Result<(), String> {
            if self.untidy { Err("it is stuck".to_owned()) } else { Ok(()) }
        }
    }

    fn case(name: &'static str, level: Level, run: for<'a> fn(&'a Fake) -> crate::case::Trial<'a>) -> Case<Fake> {
        Case { name, sentence: "It holds", area: Area::Operations, level, rule: "R-TEST-1", run }
    }

    #[tokio::test]
    async fn nothing_run_is_a_failure() {
        assert!(!run("nothing", &Fake::default(), &[]).await.succeeded());
        let skipped = case("skipped", Level::Core, |_| Box::pin(async { Err(Verdict::Skipped("no token".into())) }));
        let report = run("only skipped", &Fake::default(), &[skipped]).await;
        assert_eq!((report.skipped(), report.succeeded()), (1, false));
    }

    #[tokio::test]
    async fn what_everyone_must_do_and_was_not_tried_is_a_failure() {
        let passes = || case("passes", Level::Core, |_| Box::pin(async { Ok(()) }));
        let skips = |level| case("skips", level, |_| Box::pin(async { Err(Verdict::Skipped("no token".into())) }));
        let target = Fake { features: [Feature::Memory].into(), ..Fake::default() };
        let report = run("one skipped", &target, &[passes(), skips(Level::Core)]).await;
        assert!(!report.succeeded() && report.to_string().contains("1 cases of what everyone must do were not tried"));
        let report = run("one skipped", &target, &[passes(), skips(Level::Extended(Feature::Memory))]).await;
        assert!(report.succeeded(), "{report}");
    }

    #[tokio::test]
    async fn every_outcome_is_counted_apart() {
        let passes = || case("passes", Level::Core, |_| Box::pin(async { Ok(()) }));
        let fails = case("fails", Level::Core, |_| Box::pin(async { Err(Verdict::Failed("it is not so".into())) }));
        let lacks = |level| case("lacks", level, |_| Box::pin(async { Err(Verdict::Unsupported("no".into())) }));
        let skips = case("skips", Level::Core, |_| Box::pin(async { Err(Verdict::Skipped("no token".into())) }));
        let counts = |report: &Report| (report.passed(), report.failed(), report.unsupported(), report.skipped());

        let extended = Level::Extended(Feature::Memory);
        let target = Fake { features: [Feature::Memory].into(), ..Fake::default() };
        let report = run("all", &target, &[passes(), fails, lacks(extended), skips]).await;
        assert_eq!(counts(&report), (1, 1, 1, 1));
        assert!(!report.succeeded());

        let report = run("extended", &target, &[passes(), lacks(extended)]).await;
        assert_eq!(counts(&report), (1, 0, 1, 0));
        assert!(report.succeeded());

        let report = run("core", &target, &[passes(), lacks(Level::Core)]).await;
        assert_eq!(counts(&report), (1, 1, 0, 0));
        assert!(!report.succeeded());
    }

    #[tokio::test(start_paused = true)]
    async fn a_case_that_hangs_has_failed() {
        let hangs = case("hangs", Level::Core, |_| Box::pin(std::future::pending()));
        assert_eq!(run("hangs", &Fake::default(), &[hangs]).await.failed(), 1);
    }

    #[test]
    fn a_seed_decides_the_order() {
        let order = |seed| {
            let passes = |name| case(name, Level::Core, |_| Box::pin(async { Ok(()) }));
            let mut cases: Vec<Case<Fake>> = ["a", "b", "c", "d", "e", "f", "g", "h"].map(passes).into();
            shuffle(&mut cases, seed);
            cases.iter().map(|case| case.name).collect::<String>()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }

    #[tokio::test]
    async fn what_is_not_claimed_is_not_tried() {
        let never =
            case("never", Level::Extended(Feature::Memory), |_| Box::pin(async { unreachable!("not claimed") }));
        let both = Level::Joint(Feature::Activity, Feature::Memory);
        let neither = case("neither", both, |_| Box::pin(async { unreachable!("one is not claimed") }));
        let target = Fake { features: [Feature::Activity].into(), ..Fake::default() };
        let report = run("half claimed", &target, &[never, neither]).await;
        assert_eq!((report.unsupported(), report.succeeded()), (2, false));
    }

    #[tokio::test]
    async fn a_case_that_leaves_something_behind_has_failed() {
        let passes = case("passes", Level::Core, |_| Box::pin(async { Ok(()) }));
        let report = run("untidy", &Fake { untidy: true, ..Fake::default() }, &[passes]).await;
        assert_eq!(report.failed(), 1);
        assert!(report.to_string().contains("could not be taken back: it is stuck"), "{report}");
        let fails = case("fails", Level::Core, |_| Box::pin(async { Err(Verdict::Failed("it is not so".into())) }));
        let report = run("untidy", &Fake { untidy: true, ..Fake::default() }, &[fails]).await;
        assert!(report.to_string().contains("it is not so; and what it made could not be taken back"), "{report}");
    }
}
