//! What a case is.

use std::{fmt, pin::Pin};

use serde::Serialize;

/// Checks one rule of the contract on a target of type `T`.
pub struct Case<T> {
    /// Names it for good, such as `health_answers`: lower case, with underscores.
    pub name: &'static str,
    /// What holds where it passes, as a sentence without its full stop.
    pub sentence: &'static str,
    /// The part of the contract that it belongs to.
    pub area: Area,
    /// How much it is demanded.
    pub level: Level,
    /// The rule of `docs/contract.md` that it checks.
    pub rule: &'static str,
    /// Tries it.
    pub run: for<'a> fn(&'a T) -> Trial<'a>,
}

impl<T> fmt::Debug for Case<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("rule", &self.rule).finish_non_exhaustive()
    }
}

/// A case under way.
pub type Trial<'a> = Pin<Box<dyn Future<Output = Result<(), Verdict>> + Send + 'a>>;

/// Why a case did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The target breaks the rule: what was expected and what came.
    Failed(String),
    /// The target says that it does not have what the rule is about. Counts as failed for [`Level::Core`].
    Unsupported(String),
    /// The case could not be tried: what it lacks.
    Skipped(String),
}

/// How much a rule is demanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Of every implementation.
    Core,
    /// Of implementations that have what the rule is about.
    Extended,
}

/// A part of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Area {
    /// What tells about the server itself.
    Operations,
    /// Workspaces and their lives.
    Workspaces,
    /// Agents that report in.
    Registry,
}
