//! What came of a run, for people and for programs.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::case::{Area, Level};

/// What came of all the cases of a run.
#[derive(Debug, Clone)]
pub struct Report {
    target: String,
    tried: Vec<Tried>,
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
    /// How much it is demanded: `core`, or the name of the feature that it is demanded with.
    #[serde(serialize_with = "level_name")]
    pub level: Level,
    /// The rule that it checks.
    pub rule: &'static str,
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
    serializer.serialize_str(match level {
        Level::Core => "core",
        Level::Extended(feature) => feature.as_str(),
    })
}

impl Report {
    pub(crate) fn new(target: impl Into<String>) -> Self {
        Self { target: target.into(), tried: Vec::new() }
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

    /// Whether nothing failed and something passed.
    pub fn succeeded(&self) -> bool {
        self.failed() == 0 && self.passed() > 0
    }

    fn count(&self, is: impl Fn(&Outcome) -> bool) -> usize {
        self.tried.iter().filter(|tried| is(&tried.outcome)).count()
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut report = serializer.serialize_struct("Report", 7)?;
        report.serialize_field("target", &self.target)?;
        report.serialize_field("succeeded", &self.succeeded())?;
        report.serialize_field("passed", &self.passed())?;
        report.serialize_field("failed", &self.failed())?;
        report.serialize_field("unsupported", &self.unsupported())?;
        report.serialize_field("skipped", &self.skipped())?;
        report.serialize_field("cases", &self.tried)?;
        report.end()
    }
}

/// The form for people: a line for each case, then the counts.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.target)?;
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
        if self.passed() + self.failed() == 0 {
            writeln!(f, "  nothing was run, which is a failure")?;
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
    }
}
