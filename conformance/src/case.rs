//! What a case is.

use std::{collections::BTreeSet, fmt, pin::Pin, str::FromStr};

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
    /// The target does not have what the rule is about. Counts as failed for [`Level::Core`].
    Unsupported(String),
    /// The case could not be tried: what it lacks.
    Skipped(String),
}

impl Verdict {
    /// Why, whatever it is.
    pub fn into_reason(self) -> String {
        match self {
            Self::Failed(why) | Self::Unsupported(why) | Self::Skipped(why) => why,
        }
    }
}

/// What cases are tried on.
pub trait Target: Sync {
    /// What the target has beyond what is demanded of every one.
    fn features(&self) -> &BTreeSet<Feature>;

    /// Takes back what the case just tried left behind. What cannot be taken back is told.
    fn tidy(&self) -> impl Future<Output = Result<(), String>> + Send;
}

/// How much a rule is demanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Of every implementation.
    Core,
    /// Of implementations that have the feature.
    Extended(Feature),
    /// Of implementations that have both.
    Joint(Feature, Feature),
}

impl Level {
    /// The features that it takes.
    pub fn features(self) -> impl Iterator<Item = Feature> {
        let (one, other) = match self {
            Self::Core => (None, None),
            Self::Extended(feature) => (Some(feature), None),
            Self::Joint(one, other) => (Some(one), Some(other)),
        };
        one.into_iter().chain(other)
    }
}

/// `core`, or the names of the features that it takes: `mcp + memory`.
impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Core => f.write_str("core"),
            Self::Extended(feature) => write!(f, "{feature}"),
            Self::Joint(one, other) => write!(f, "{one} + {other}"),
        }
    }
}

macro_rules! features {
    ($($(#[$doc:meta])* $feature:ident = $name:literal,)*) => {
        /// What an implementation may have or not.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Feature {
            $($(#[$doc])* $feature,)*
        }

        impl Feature {
            /// Every feature once.
            pub const ALL: &[Self] = &[$(Self::$feature,)*];

            /// The name on the command line and in reports.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$feature => $name,)*
                }
            }
        }
    };
}

features! {
    /// Workspaces that the server brings up by itself.
    Backend = "backend",
    /// Tokens that speak for an organisation.
    OrgTokens = "org-tokens",
    /// Secrets, models and providers of workspaces.
    Secrets = "secrets",
    /// Templates that workspaces are made from.
    Templates = "templates",
    /// Pausing, resuming and hibernating.
    Lifecycle = "lifecycle",
    /// The activity log, and calls that are kept for agents that poll.
    Activity = "activity",
    /// Delegations.
    Delegation = "delegation",
    /// Memories, in both forms.
    Memory = "memory",
    /// Approvals, configuration, checkpoints, audit and instructions.
    Records = "records",
    /// Schedules.
    Schedules = "schedules",
    /// Files that workspaces keep, and such as are sent to agents and fetched from them.
    Files = "files",
    /// Events as a stream.
    Streams = "streams",
    /// Tools over the Model Context Protocol.
    Mcp = "mcp",
    /// A server of one organisation, which others find nothing on. It is seen by who names the organisation.
    Organisation = "organisation",
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Feature {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().copied();
        known.clone().find(|feature| feature.as_str() == text).ok_or_else(|| {
            let names: Vec<&str> = known.map(Self::as_str).collect();
            format!("{text:?} is none of {}", names.join(", "))
        })
    }
}

/// Declares the cases of one area: how much each is demanded, its rule, the function that tries it and names it, and
/// its sentence.
macro_rules! cases {
    ($area:expr; $($level:expr, $rule:literal, $name:ident: $sentence:literal;)*) => {
        pub(super) fn cases() -> Vec<$crate::case::Case<$crate::http::Server>> {
            #[allow(unused_imports, reason = "not every area has cases of both levels")]
            use $crate::case::{Feature, Level::{Core, Extended, Joint}};
            vec![$($crate::case::Case {
                name: stringify!($name),
                sentence: $sentence,
                area: $area,
                level: $level,
                rule: $rule,
                run: |server| Box::pin($name(server)),
            },)*]
        }
    };
}

pub(crate) use cases;

/// A part of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Area {
    /// What tells about the server itself.
    Operations,
    /// Workspaces and their lives.
    Workspaces,
    /// Agents that report in.
    Registry,
    /// Who may call what.
    Access,
    /// What happens, as it happens and as it is kept.
    Events,
    /// Secrets, models and templates.
    Templates,
    /// Calls of agents to one another, and their trail.
    A2a,
    /// What agents remember, ask for and leave.
    Data,
    /// What a backend promises the library.
    Provisioner,
    /// What the database keeps.
    Store,
    /// What the sources of the repository hold to.
    Sources,
}
