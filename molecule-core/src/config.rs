//! The settings of a control plane. The library reads no environment: a frontend fills this in.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;

use crate::{audit::AuditKey, identity::SessionSource, net::Policy, templates::Templates};

/// How a control plane behaves. [`Default`] is what a server on this host's loopback uses.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where agents reach this control plane, without a slash at the end.
    pub platform_url: String,
    /// Where agents find the awareness of their fleet, where there is one.
    pub awareness_url: Option<String>,
    /// The operator's break-glass token. Setting it closes the rules that open a fresh install.
    pub admin_token: Option<SecretString>,
    /// A token worth the same, kept in a file for clients on this host. Setting it closes nothing.
    pub operator_token: Option<SecretString>,
    /// Gates open to whoever can reach the loopback address, where no `admin_token` is set.
    pub development: bool,
    /// Whoever is let in may be given a token of any workspace, as tests need it. Development does the same.
    pub test_tokens: bool,
    /// Agents may message their users by a tool of the control plane.
    pub tools_message_users: bool,
    /// Who signs people in, where somebody does.
    pub sessions: Option<SessionSource>,
    /// Which addresses agents may name as theirs.
    pub address_policy: Policy,
    /// Host folders that workspaces may be given, with all below them. None by default.
    pub workspace_roots: Vec<PathBuf>,
    /// No other process runs workspaces of the same database, so that what an earlier one had under way is begun anew at once.
    /// Always so on SQLite.
    pub alone: bool,
    /// What workspaces are made from, and which runtimes there are.
    pub templates: Templates,
    /// How long an external workspace may be silent.
    pub external_silence: Duration,
    /// How long any other workspace may be silent.
    pub managed_silence: Duration,
    /// How long a backend may take to fetch what a start needs, such as an image. That does not count as part of the try.
    pub prepare_timeout: Duration,
    /// How long a try at bringing a workspace up may take, for every runtime.
    pub provision_timeout: Option<Duration>,
    /// How long events are kept that do not tell how a workspace or its agent came and went; for good where it says
    /// nothing.
    pub event_retention: Option<Duration>,
    /// How often what is older is deleted.
    pub event_tick: Duration,
    /// How often the health sweep looks.
    pub health_tick: Duration,
    /// How often what heartbeats left in memory is saved. Well below `external_silence`: other replicas go by what is
    /// saved.
    pub telemetry_tick: Duration,
    /// How often the timeout sweep looks.
    pub timeout_tick: Duration,
    /// How often newer images are looked for; never where it says nothing.
    pub image_tick: Option<Duration>,
    /// How often idle workspaces are looked for.
    pub hibernation_tick: Duration,
    /// How often the orphan sweep looks.
    pub orphan_tick: Duration,
    /// How long a workload may be without a workspace, and a token without an agent, before it is cleared up.
    pub orphan_grace: Duration,
    /// How long the disk of a workload that no row knows is kept: the database may be the wrong one.
    pub orphan_disk_grace: Duration,
    /// How often schedules are looked at for what is due.
    pub schedule_tick: Duration,
    /// How often requests for leave are looked at for those that waited too long.
    pub approval_tick: Duration,
    /// How long a call to an agent may see no sign of life of it.
    pub a2a_idle: Duration,
    /// How long a call of one agent to another may take in all.
    pub a2a_ceiling: Duration,
    /// How often messages that are kept for agents are looked after.
    pub queue_tick: Duration,
    /// How long what a server has under way counts as its own when it says no more about it: messages, delegations, and tries
    /// at bringing workspaces up.
    pub queue_lease: Duration,
    /// How long a delegation waits before it calls an agent once more that could not be reached.
    pub delegation_retry: Duration,
    /// How long an agent that hands over a task with a tool waits for the reply before it is told to ask later.
    pub tool_patience: Duration,
    /// What the ledger of agents is signed with, if anything.
    pub audit_key: Option<AuditKey>,
    /// How long the activity log is kept.
    pub activity_retention: Duration,
    /// How often what is older is deleted.
    pub activity_tick: Duration,
    /// How long the clean-up of a delete or a pause may take.
    pub delete_budget: Duration,
    /// The pause before a machine is asked back again on a restart; doubled before the next.
    pub restart_stop_backoff: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            platform_url: "http://127.0.0.1:8080".to_owned(),
            admin_token: None,
            operator_token: None,
            development: false,
            test_tokens: false,
            tools_message_users: false,
            sessions: None,
            address_policy: Policy::Strict,
            workspace_roots: Vec::new(),
            alone: false,
            templates: Templates::default(),
            external_silence: Duration::from_secs(90),
            managed_silence: Duration::from_secs(180),
            prepare_timeout: Duration::from_secs(15 * 60),
            provision_timeout: None,
            event_retention: None,
            event_tick: Duration::from_secs(60 * 60),
            health_tick: Duration::from_secs(15),
            telemetry_tick: Duration::from_secs(30),
            timeout_tick: Duration::from_secs(30),
            awareness_url: None,
            image_tick: None,
            hibernation_tick: Duration::from_secs(120),
            orphan_tick: Duration::from_secs(60),
            orphan_grace: Duration::from_secs(5 * 60),
            orphan_disk_grace: Duration::from_secs(24 * 60 * 60),
            schedule_tick: Duration::from_secs(30),
            approval_tick: Duration::from_secs(30),
            a2a_idle: Duration::from_secs(300),
            a2a_ceiling: Duration::from_secs(30 * 60),
            queue_tick: Duration::from_secs(5),
            queue_lease: Duration::from_secs(120),
            delegation_retry: Duration::from_secs(8),
            tool_patience: Duration::from_secs(30),
            audit_key: None,
            activity_retention: Duration::from_secs(7 * 24 * 60 * 60),
            activity_tick: Duration::from_secs(6 * 60 * 60),
            delete_budget: Duration::from_secs(30),
            restart_stop_backoff: Duration::from_secs(1),
        }
    }
}

impl Config {
    /// How long a try at bringing up a workspace of `runtime` may take: the one answer for sweeps and clients.
    pub fn provision_timeout_for(&self, runtime: &str) -> Duration {
        let of_template = || self.templates.provision_timeout_for(runtime);
        self.provision_timeout.or_else(of_template).unwrap_or(match runtime {
            "hermes" => Duration::from_secs(30 * 60),
            _ => Duration::from_secs(10 * 60),
        })
    }

    /// Whether gates open without a credential, on loopback.
    pub(crate) fn dev_fail_open(&self) -> bool {
        self.development && self.admin_token.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_provision_timeout_is_resolved_in_order() {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        let config = Config::default();
        assert_eq!(config.provision_timeout_for("hermes"), minutes(30));
        assert_eq!(config.provision_timeout_for("claude-code"), minutes(10));
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        let yaml = "runtime: hermes\nruntime_config: {provision_timeout_seconds: 120}";
        std::fs::write(dir.path().join("a/config.yaml"), yaml).unwrap();
        let config = Config { templates: Templates::open(Some(dir.path().to_owned()), None), ..config };
        assert_eq!(config.provision_timeout_for("hermes"), minutes(2));
        assert_eq!(config.provision_timeout_for("claude-code"), minutes(10));
        let config = Config { provision_timeout: Some(minutes(1)), ..config };
        assert_eq!(config.provision_timeout_for("hermes"), minutes(1));
    }
}
