//! What came of a run, for people and for programs.

use std::{collections::BTreeSet, fmt, time::Duration};

use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::case::{Area, Feature, Level};

/// What came of all the cases of a run.
#[derive(Debug, Clone)]
pub struct Report {
    target: String,
    features: BTreeSet<Feature>,
    seed: Option<u64>,
    tried: Vec<Tried>,
    gaps: Vec<String>,
}

/// One case of a run, and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Tried {
    /// The name of the case.
    pub name: &'static str,
    /// What holds where it passed.
    pub sentence: &'static str,
    /// The part of the contract that it belongs to.
    pub area: Area,
    /// How much it is demanded: `core`, or the names of the features that it is demanded with.
    #[serde(serialize_with = "level_name")]
    pub level: Level,
    /// The rule that it checks.
    pub rule: &'static str,
    /// How long it took, where that was measured.
    #[serde(rename = "took_ms", serialize_with = "milliseconds", skip_serializing_if = "Option::is_none")]
    pub took: Option<Duration>,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The rule holds.
    Passed,
    /// The rule is broken.
    Failed {
        /// What was expected and what came.
        why: String,
    },
    /// The target does not have what the rule is about, and need not.
    Unsupported {
        /// What the target lacks.
        why: String,
    },
    /// The case could not be tried.
    Skipped {
        /// What it lacked.
        why: String,
    },
}

fn level_name<S: Serializer>(level: &Level, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(level)
}

fn milliseconds<S: Serializer>(took: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match took {
        Some(took) => serializer.serialize_u128(took.as_millis()),
        None => serializer.serialize_none(),
    }
}

impl Report {
    pub(crate) fn new(target: impl Into<String>) -> Self {
        Self { target: target.into(), features: BTreeSet::new(), seed: None, tried: Vec::new(), gaps: Vec::new() }
    }

    /// The same report of a target that was taken to have these features.
    #[must_use]
    pub(crate) fn with_features(mut self, features: BTreeSet<Feature>) -> Self {
        self.features = features;
        self
    }

    /// The same report of cases in the order that `seed` decided.
    #[must_use]
    pub fn with_seed(mut self, seed: Option<u64>) -> Self {
        self.seed = seed;
        self
    }

    /// The same report, which tells what the cases left out, each as a sentence without its full stop.
    #[must_use]
    pub fn with_gaps(mut self, gaps: Vec<String>) -> Self {
        self.gaps = gaps;
        self
    }

    pub(crate) fn add(&mut self, tried: Tried) {
        self.tried.push(tried);
    }

    /// What was tried.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The cases, in the order they were tried.
    pub fn tried(&self) -> &[Tried] {
        &self.tried
    }

    /// How many cases passed.
    pub fn passed(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Passed))
    }

    /// How many cases failed.
    pub fn failed(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Failed { .. }))
    }

    /// How many cases are about what the target does not have.
    pub fn unsupported(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Unsupported { .. }))
    }

    /// How many cases could not be tried.
    pub fn skipped(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Skipped { .. }))
    }

    /// How many cases that are demanded of everyone could not be tried.
    pub fn untried(&self) -> usize {
        let core = self.tried.iter().filter(|tried| tried.level == Level::Core);
        core.filter(|tried| matches!(tried.outcome, Outcome::Skipped { .. })).count()
    }

    /// Whether something passed, nothing failed, and all was tried that is demanded of everyone.
    pub fn succeeded(&self) -> bool {
        self.failed() == 0 && self.passed() > 0 && self.untried() == 0
    }

    fn count(&self, is: impl Fn(&Outcome) -> bool) -> usize {
        self.tried.iter().filter(|tried| is(&tried.outcome)).count()
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut report = serializer.serialize_struct("Report", 10)?;
        report.serialize_field("target", &self.target)?;
        let features: Vec<&str> = self.features.iter().map(|feature| feature.as_str()).collect();
        report.serialize_field("features", &features)?;
        report.serialize_field("seed", &self.seed)?;
        report.serialize_field("succeeded", &self.succeeded())?;
        report.serialize_field("passed", &self.passed())?;
        report.serialize_field("failed", &self.failed())?;
        report.serialize_field("unsupported", &self.unsupported())?;
        report.serialize_field("skipped", &self.skipped())?;
        report.serialize_field("gaps", &self.gaps)?;
        report.serialize_field("cases", &self.tried)?;
        report.end()
    }
}

/// The form for people: a line for each case, then the counts.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seed {
            Some(seed) => writeln!(f, "{} (--seed {seed})", self.target)?,
            None => writeln!(f, "{}", self.target)?,
        }
        for Tried { name, sentence, rule, outcome, .. } in &self.tried {
            let (word, why) = match outcome {
                Outcome::Passed => ("passed", None),
                Outcome::Failed { why } => ("FAILED", Some(why)),
                Outcome::Unsupported { why } => ("unsupported", Some(why)),
                Outcome::Skipped { why } => ("skipped", Some(why)),
            };
            match name == sentence {
                true => writeln!(f, "  {word:<11} {sentence} ({rule})")?,
                false => writeln!(f, "  {word:<11} {name}: {sentence} ({rule})")?,
            }
            if let Some(why) = why {
                writeln!(f, "              {why}")?;
            }
        }
        self.gaps.iter().try_for_each(|gap| writeln!(f, "  {gap}"))?;
        if self.passed() + self.failed() == 0 {
            writeln!(f, "  nothing was run, which is a failure")?;
        } else if self.untried() > 0 {
            writeln!(f, "  {} cases of what everyone must do were not tried, which is a failure", self.untried())?;
        }
        write!(
            f,
            "{} passed, {} failed, {} unsupported, {} skipped",
            self.passed(),
            self.failed(),
            self.unsupported(),
            self.skipped()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let tried = |name, outcome| Tried {
            name,
            sentence: "It holds",
            area: Area::Operations,
            level: Level::Core,
            rule: "R-TEST-1",
            took: Some(Duration::from_millis(1500)),
            outcome,
        };
        let mut report = Report::new("http://127.0.0.1:1");
        report.add(tried("one", Outcome::Passed));
        report.add(tried("two", Outcome::Failed { why: "expected 200, got 500".into() }));
        report
    }

    #[test]
    fn people_read_what_failed_and_why() {
        assert_eq!(
            report().to_string(),
            "http://127.0.0.1:1\n  \
               passed      one: It holds (R-TEST-1)\n  \
               FAILED      two: It holds (R-TEST-1)\n              \
                           expected 200, got 500\n\
             1 passed, 1 failed, 0 unsupported, 0 skipped"
        );
    }

    #[test]
    fn programs_read_the_same() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["succeeded"], false);
        assert_eq!(json["failed"], 1);
        assert_eq!(json["cases"][1]["outcome"], "failed");
        assert_eq!(json["cases"][1]["why"], "expected 200, got 500");
        assert_eq!(json["cases"][0].get("why"), None);
        assert_eq!((&json["cases"][0]["took_ms"], &json["cases"][0]["level"]), (&1500.into(), &"core".into()));
        let report = report().with_seed(Some(7)).with_gaps(vec!["no case tries R-TEST-2".into()]);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["seed"], &json["gaps"][0]), (&7.into(), &"no case tries R-TEST-2".into()));
        let text = report.to_string();
        assert!(text.starts_with("http://127.0.0.1:1 (--seed 7)\n") && text.contains("\n  no case tries R-TEST-2\n"));
    }
}
