//! An agent says that it lives. The decision what that changes is a pure function.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::{register::is_of_this_try, runtime::Runtime};
use crate::{
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    events::EventKind,
    id::WorkspaceId,
    identity::Credential,
    store::{Condition, clean},
    workspace::{Status, Workspace},
};

/// From this share of failures on, an agent is not well.
const DEGRADED_FROM: f64 = 0.5;

/// Below this share of failures it is well again; in between nothing moves.
const WELL_BELOW: f64 = 0.1;

/// The most that a workspace can say to have spent, in US cents.
const SPEND_LIMIT: i64 = 1_000_000_000_000;

/// How many bytes are kept of what an agent works on, and of what failed.
const LONGEST_TEXT: usize = 16 * 1024;

/// The only runtime state with a meaning: the agent lives and gets nothing done.
const WEDGED: &str = "wedged";

/// What an agent says about its condition.
#[derive(Debug, Clone, Default)]
pub struct Heartbeat {
    /// The share of its calls that failed lately, 0 to 1.
    pub error_rate: f64,
    /// One of those failures, for people.
    pub sample_error: String,
    /// How many tasks it works on.
    pub active_tasks: i32,
    /// How long it has been up.
    pub uptime_seconds: i64,
    /// What it works on.
    pub current_task: String,
    /// What it spent this month, in US cents; 0 or less says nothing.
    pub monthly_spend: i64,
    /// `wedged`, or anything else for well.
    pub runtime_state: String,
    /// What its runtime does by itself.
    pub runtime_metadata: Option<RuntimeMetadata>,
}

/// What an agent's runtime does by itself.
#[derive(Debug, Clone, Default)]
pub struct RuntimeMetadata {
    /// Names of capabilities, and whether it has them.
    pub capabilities: BTreeMap<String, bool>,
    /// How long it may show no sign of life during a call, in seconds.
    pub idle_timeout_seconds: Option<i64>,
}

/// What an agent is told in answer to a heartbeat.
#[derive(Debug, Clone, Default)]
pub struct HeartbeatReply {
    /// What calls of the platform present; none where the caller did not prove who it is, or it cannot be told now.
    pub inbound_secret: Option<SecretString>,
}

/// A change that a heartbeat brings about.
#[derive(Debug, Clone, PartialEq)]
struct Change {
    to: Status,
    kind: EventKind,
    payload: Value,
}

/// What `beat` changes about a workspace that is `status`. At most one thing.
fn decide(status: Status, beat: &Heartbeat) -> Option<Change> {
    let wedged = beat.runtime_state == WEDGED;
    let judges_itself = beat
        .runtime_metadata
        .as_ref()
        .is_some_and(|metadata| metadata.capabilities.get("status_mgmt").copied().unwrap_or_default());
    let online = |payload| Some(Change { to: Status::Online, kind: EventKind::WorkspaceOnline, payload });
    let degraded = |payload| Some(Change { to: Status::Degraded, kind: EventKind::WorkspaceDegraded, payload });
    match status {
        Status::Online if wedged => {
            degraded(json!({"runtime_state": WEDGED, "sample_error": short(&beat.sample_error)}))
        }
        Status::Online if !judges_itself && beat.error_rate >= DEGRADED_FROM => {
            degraded(json!({"error_rate": beat.error_rate, "sample_error": short(&beat.sample_error)}))
        }
        Status::Degraded if !judges_itself && !wedged && beat.error_rate < WELL_BELOW => online(json!({})),
        Status::Offline => online(json!({})),
        Status::Provisioning | Status::AwaitingAgent => online(json!({"recovered_from": status})),
        _ => None,
    }
}

/// What of `beat` is kept, within its bounds.
fn condition(beat: &Heartbeat, at: DateTime<Utc>) -> Condition {
    let spend = beat.monthly_spend.clamp(0, SPEND_LIMIT);
    Condition {
        at,
        error_rate: if beat.error_rate.is_finite() { beat.error_rate.clamp(0.0, 1.0) } else { 0.0 },
        sample_error: clean::text(short(&beat.sample_error)).into(),
        active_tasks: beat.active_tasks.max(0),
        uptime_seconds: beat.uptime_seconds.max(0),
        current_task: clean::text(short(&beat.current_task)).into(),
        monthly_spend: (spend > 0).then_some(spend),
        runtime: Runtime::of(beat.runtime_metadata.as_ref()),
    }
}

/// As much of `text` as is kept of each workspace, in memory and for listeners.
fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST_TEXT)]
}

impl ControlPlane {
    /// Keeps what an agent says about its condition, and moves its workspace as that demands.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown workspace, [`ErrorKind::Unauthenticated`] without its token or for a
    /// removed one.
    pub async fn heartbeat(&self, id: WorkspaceId, beat: &Heartbeat, credential: Credential) -> Result<HeartbeatReply> {
        let condition = condition(beat, self.now());
        let proven = matches!(credential, Credential::Workspace(owner) if owner.workspace_id == id);
        let steady = |status, known: &Condition| known.says_as_much(&condition) && decide(status, beat).is_none();
        if proven && self.inner.store.memory().beat(id, condition.clone(), steady) {
            self.announce_beat(id, &condition);
            return Ok(HeartbeatReply { inbound_secret: self.deliver_inbound_secret(id, "heartbeat").await });
        }
        // In a task of its own: a client that hangs up must not come between a change and the word of it.
        let (this, beat) = (self.clone(), beat.clone());
        let careful = async move { this.careful_heartbeat(id, &beat, condition, credential).await };
        self.inner.tasks.spawn(careful).await.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Unexpected, "failed to update").caused_by(error).context("workspace.id", id))
        })
    }

    /// A heartbeat that changes something, or the first one that this process hears.
    async fn careful_heartbeat(
        &self,
        id: WorkspaceId,
        beat: &Heartbeat,
        condition: Condition,
        credential: Credential,
    ) -> Result<HeartbeatReply> {
        let epoch = self.inner.store.memory().epoch(id);
        let (before, verified) = self.admit_to_registry(credential, id).await?;
        let failed = |error: Error| match error.kind() {
            ErrorKind::Unavailable => error,
            _ => error.with_message("failed to update"),
        };
        if !self.inner.store.heartbeat(id, &condition).await.map_err(failed)? {
            return Err(Error::new(ErrorKind::Unauthenticated, "invalid workspace auth token"));
        }
        // Before anything is judged by it.
        let runtime_kept = !verified || self.keep_runtime(&before, &condition).await;
        // Who has no token yet is to register. Were it online without one, the way to its first token would be shut.
        let speaks = verified && (before.status != Status::Provisioning || is_of_this_try(credential, &before));
        if let Some(change) = decide(before.status, beat).filter(|_| speaks) {
            let event = self.event(change.kind, id, change.payload);
            // Guarded by the status that was judged: whoever moved the workspace meanwhile knew better.
            if self.inner.store.step(id, before.status.to(change.to)?, &event).await.map_err(failed)? {
                tracing::info!(workspace.id = %id, from = %before.status, to = %change.to, "a heartbeat moved it");
                self.announce(event);
            }
        } else if speaks && runtime_kept {
            self.inner.store.memory().track(id, epoch, before.status, condition.clone());
        }
        if before.current_task.as_deref().unwrap_or_default() != &*condition.current_task {
            let payload = json!({"current_task": condition.current_task, "active_tasks": condition.active_tasks});
            self.announce(self.event(EventKind::TaskUpdated, id, payload));
        }
        self.announce_beat(id, &condition);
        // What else the beat brought about is done: that an agent lives matters more than what it is told.
        let inbound_secret = if verified { self.deliver_inbound_secret(id, "heartbeat").await } else { None };
        Ok(HeartbeatReply { inbound_secret })
    }

    /// Keeps what the runtime does by itself, where the row says otherwise. False where that failed: the next beat tries
    /// again.
    async fn keep_runtime(&self, before: &Workspace, condition: &Condition) -> bool {
        if Runtime::kept(before) == condition.runtime {
            return true;
        }
        let kept = self.inner.store.keep_runtime(before.id, condition.runtime).await;
        if let Err(error) = &kept {
            tracing::warn!(workspace.id = %before.id, error = error.detail(), "what a runtime does could not be kept");
        }
        kept.is_ok()
    }

    fn announce_beat(&self, id: WorkspaceId, condition: &Condition) {
        self.mention(
            EventKind::WorkspaceHeartbeat,
            id,
            || json!({"active_tasks": condition.active_tasks, "uptime_seconds": condition.uptime_seconds}),
        );
        self.drain_soon(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(error_rate: f64, runtime_state: &str, status_mgmt: bool) -> Heartbeat {
        let capabilities = BTreeMap::from([("status_mgmt".to_owned(), status_mgmt)]);
        Heartbeat {
            error_rate,
            runtime_state: runtime_state.to_owned(),
            runtime_metadata: Some(RuntimeMetadata { capabilities, ..RuntimeMetadata::default() }),
            ..Heartbeat::default()
        }
    }

    #[test]
    fn of_long_texts_only_so_much_is_kept() {
        let long = format!("x{}", "ü".repeat(LONGEST_TEXT));
        let beat = Heartbeat { current_task: long.clone(), sample_error: long, ..Heartbeat::default() };
        let kept = condition(&beat, DateTime::UNIX_EPOCH);
        let half = format!("x{}", "ü".repeat(LONGEST_TEXT / 2 - 1));
        assert_eq!((&*kept.current_task, &*kept.sample_error), (half.as_str(), half.as_str()));
    }

    #[test]
    fn what_a_beat_changes_row_by_row() {
        use Status::{
            AwaitingAgent, Degraded, Failed, Hibernated, Hibernating, Offline, Online, Paused, Provisioning, Removed,
        };
        let rows = [
            (Online, beat(0.0, "", false), None),
            (Online, beat(0.49, "", false), None),
            (Online, beat(0.5, "", false), Some((Degraded, json!({"error_rate": 0.5, "sample_error": ""})))),
            (Online, beat(0.9, "", true), None),
            (
                Online,
                beat(0.9, "wedged", true),
                Some((Degraded, json!({"runtime_state": "wedged", "sample_error": ""}))),
            ),
            (Degraded, beat(0.1, "", false), None),
            (Degraded, beat(0.09, "", false), Some((Online, json!({})))),
            (Degraded, beat(0.0, "ok", false), Some((Online, json!({})))),
            (Degraded, beat(0.0, "wedged", false), None),
            (Degraded, beat(0.0, "", true), None),
            (Offline, beat(1.0, "wedged", false), Some((Online, json!({})))),
            (Provisioning, beat(0.0, "", false), Some((Online, json!({"recovered_from": "provisioning"})))),
            (AwaitingAgent, beat(0.0, "", false), Some((Online, json!({"recovered_from": "awaiting_agent"})))),
            (Failed, beat(0.0, "", false), None),
            (Paused, beat(0.0, "", false), None),
            (Hibernating, beat(0.0, "", false), None),
            (Hibernated, beat(0.0, "", false), None),
            (Removed, beat(0.0, "", false), None),
        ];
        for (status, beat, expected) in rows {
            let change = decide(status, &beat).map(|change| {
                assert!(status.can_become(change.to), "{status} -> {}", change.to);
                (change.to, change.payload)
            });
            assert_eq!(change, expected, "{status} {beat:?}");
        }
    }
}
