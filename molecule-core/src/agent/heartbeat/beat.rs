//! What a beat says and what comes of it.

use std::{collections::BTreeMap, fmt, time::Duration};

use reqwest::StatusCode;
use serde::Serialize;

/// The body of a heartbeat, without the id of the workspace, which the client adds.
///
/// What is left out is wiped on the platform, not kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Beat {
    /// The share of recent work that failed, from 0 to 1.
    pub error_rate: f64,
    /// One of those failures.
    pub sample_error: String,
    /// How much is being worked on.
    pub active_tasks: u32,
    /// How long the agent has been up.
    pub uptime_seconds: u64,
    /// What is being worked on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_task: Option<String>,
    /// `wedged` when the agent lives and cannot work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_state: Option<String>,
    /// What the agent does by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_metadata: Option<RuntimeMetadata>,
    /// What the month has cost so far, in US cents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monthly_spend: Option<i64>,
}

/// What an agent does by itself, so that the platform does not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RuntimeMetadata {
    /// Each ability by its name: `heartbeat`, `scheduler`, `session`, `status_mgmt`, `retry`, `activity_decoration`,
    /// `channel_dispatch`.
    pub capabilities: BTreeMap<String, bool>,
    /// How long the agent may work without a sign before a call to it is given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout_seconds: Option<u64>,
}

/// What came of a beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BeatOutcome {
    /// The platform knows that the workspace lives.
    Ok {
        /// When the platform wants to hear of it again, as far as it said.
        next_heartbeat: Option<Duration>,
    },
    /// The token is missing, wrong or revoked: 401 or 403.
    Unauthorized(StatusCode),
    /// The platform has no such workspace any more: 410 or 404.
    Removed(StatusCode),
    /// Too many calls: 429.
    RateLimited {
        /// When to come back, as far as the platform said.
        retry_after: Option<Duration>,
    },
    /// Any other answer, among them redirects, which are not followed.
    ServerError(StatusCode),
    /// There was no answer, or the beat could not be sent: why, without secrets.
    Unreachable(String),
}

impl BeatOutcome {
    /// A stable name for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ok { .. } => "ok",
            Self::Unauthorized(_) => "unauthorized",
            Self::Removed(_) => "removed",
            Self::RateLimited { .. } => "rate_limited",
            Self::ServerError(_) => "server_error",
            Self::Unreachable(_) => "unreachable",
        }
    }
}

/// What came of the beat, in words for whoever runs the agent.
impl fmt::Display for BeatOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok { .. } => f.write_str("the platform knows that the workspace lives"),
            Self::Unauthorized(status) => write!(
                f,
                "HTTP {}: the token of this workspace is missing, wrong or revoked, as when the workspace was removed; issue a new one",
                status.as_u16()
            ),
            Self::Removed(status) => write!(
                f,
                "HTTP {}: this workspace was removed on the platform; create it anew, with its token",
                status.as_u16()
            ),
            Self::RateLimited { .. } => f.write_str("HTTP 429: too many calls; the loop slows down"),
            Self::ServerError(status) if status.is_redirection() => write!(
                f,
                "HTTP {}: the platform redirects, which is not followed: its URL must be the final one",
                status.as_u16()
            ),
            Self::ServerError(status) => write!(f, "HTTP {}: the platform failed", status.as_u16()),
            Self::Unreachable(reason) => write!(f, "the platform cannot be reached: {reason}"),
        }
    }
}
