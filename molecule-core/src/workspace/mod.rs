//! A workspace: the home of one agent.

mod agent_record;
mod bootstrap;
mod budget;
mod connection;
pub(crate) mod create;
mod delete;
mod expand;
mod hibernate;
pub(crate) mod lifecycle;
mod patch;
mod pause;
mod restart;
pub(crate) mod restart_context;
mod status;

use chrono::{DateTime, Datelike, Utc};
use serde_json::Value;

pub use self::{
    agent_record::{AgentState, Moved, Replaced},
    budget::Budget,
    connection::Snippets,
    create::{CreateWorkspace, DEFAULT_RUNTIME, EXTERNAL_RUNTIME, Position},
    delete::Deleted,
    lifecycle::Created,
    patch::{Patch, PatchOutcome},
    pause::Resumed,
    restart::{Restart, Restarted},
    status::{Status, Transition},
};
use crate::{
    id::{AttemptId, WorkspaceId},
    store::pool::{row, text_enum},
};

text_enum! {
    /// What an agent may do with the host folder that its workspace was given.
    #[derive(Default)]
    pub enum Access {
        /// Nothing: it works in storage of its own.
        #[default]
        None = "none",
        /// Read it.
        ReadOnly = "read_only",
        /// Read and write it.
        ReadWrite = "read_write",
    }
}

text_enum! {
    /// How messages reach an agent.
    #[derive(Default)]
    pub enum DeliveryMode {
        /// The control plane calls the agent's URL.
        #[default]
        Push = "push",
        /// The agent asks for them.
        Poll = "poll",
    }
}

row! {
    /// A workspace as it is kept.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Workspace {
        /// Its name for machines.
        pub id: WorkspaceId,
        /// Its name for people; need not be unique.
        pub name: String,
        /// What its agent is for.
        pub role: Option<String>,
        /// How much it may use and do: 1 to 4.
        pub tier: i32,
        /// Where it is in its life.
        pub status: Status,
        /// What its agent says about itself, verbatim.
        pub agent_card: Option<Value>,
        /// Where its agent is called; empty while that is unknown.
        pub url: String,
        /// The workspace that leads it.
        pub parent_id: Option<WorkspaceId>,
        /// When its agent was last heard.
        pub last_heartbeat_at: Option<DateTime<Utc>>,
        /// The share of failures its agent reported last, 0 to 1.
        pub last_error_rate: f64,
        /// Why it failed or is not well, for people.
        pub last_sample_error: Option<String>,
        /// How many tasks its agent works on.
        pub active_tasks: i32,
        /// How many it may work on at once.
        pub max_concurrent_tasks: i32,
        /// How long its agent has been up, as it says.
        pub uptime_seconds: i64,
        /// What its agent works on, as it says.
        pub current_task: Option<String>,
        /// Which kind of agent it is; `external` for one that runs elsewhere.
        pub runtime: String,
        /// The host folder it works in.
        pub workspace_dir: Option<String>,
        /// What its agent may do there.
        pub workspace_access: Access,
        /// After how many minutes without work it hibernates; never where that is 0 or nothing.
        pub hibernation_idle_minutes: Option<i32>,
        /// Most it may spend a month, in US cents.
        pub budget_limit: Option<i64>,
        /// What it says to have spent this month, in US cents.
        pub monthly_spend: i64,
        /// When it said so last: at the end of the month it has spent nothing.
        pub spent_at: Option<DateTime<Utc>>,
        /// When it last called another agent with success.
        pub last_outbound_at: Option<DateTime<Utc>>,
        /// The name of its machine at another control plane.
        pub instance_id: Option<String>,
        /// How messages reach its agent.
        pub delivery_mode: DeliveryMode,
        /// The current try at bringing it up.
        pub provision_attempt: Option<AttemptId>,
        /// When that try began.
        pub provision_started_at: Option<DateTime<Utc>>,
        /// The template that it is configured from, empty for a made configuration; none once it has one.
        pub template: Option<String>,
        /// Its runtime keeps messages that come while it is busy.
        pub native_session: bool,
        /// Its runtime keeps its own times: schedules ask it for nothing.
        pub native_scheduler: bool,
        /// How long its agent may show no sign of life during a call, where its runtime says so.
        pub idle_timeout_seconds: Option<i32>,
        /// When it was made.
        pub created_at: DateTime<Utc>,
        /// When its row last changed.
        pub updated_at: DateTime<Utc>,
        /// Its place on the canvas.
        pub x: f64,
        /// Its place on the canvas.
        pub y: f64,
        /// Whether the canvas hides its children.
        pub collapsed: bool,
    }
}

/// Whether both are in one month, as UTC counts.
pub(crate) fn same_month(one: DateTime<Utc>, other: DateTime<Utc>) -> bool {
    (one.year(), one.month()) == (other.year(), other.month())
}

impl Workspace {
    /// Whether its agent runs somewhere else and only reports in.
    pub fn is_external(&self) -> bool {
        self.runtime == EXTERNAL_RUNTIME
    }

    /// As it is at `now`: what was spent in an earlier month does not count any more.
    pub(crate) fn at(self, now: DateTime<Utc>) -> Self {
        let counts = self.spent_at.is_none_or(|at| same_month(at, now));
        Self { monthly_spend: if counts { self.monthly_spend } else { 0 }, ..self }
    }

    /// Whether its agent says to have spent what it may.
    pub fn has_spent_its_budget(&self) -> bool {
        self.budget_limit.is_some_and(|limit| self.monthly_spend >= limit)
    }
}
