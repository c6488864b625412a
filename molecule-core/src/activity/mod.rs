//! What agents did: a log for each workspace that agents report to, the control plane writes, and clients page through.

pub(crate) mod query;
mod report;
mod retention;

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

pub(crate) use self::query::Page;
pub use self::{
    query::{ActivityQuery, Source},
    report::{Attachment, REPORTABLE, Report},
};
use crate::{
    clock::random_uuid,
    control_plane::ControlPlane,
    events::EventKind,
    id::{ActivityId, WorkspaceId},
    identity,
    store::pool::row,
};

row! {
    /// One row of the log.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Activity {
        /// Names it.
        pub id: ActivityId,
        /// Whose log it is in.
        pub workspace_id: WorkspaceId,
        /// What kind of thing was done, such as `a2a_receive`.
        pub activity_type: String,
        /// Who did it; none where that was the operator or the control plane.
        pub source_id: Option<WorkspaceId>,
        /// To whom.
        pub target_id: Option<WorkspaceId>,
        /// By which method.
        pub method: Option<String>,
        /// In one line, for people.
        pub summary: Option<String>,
        /// What was asked.
        pub request_body: Option<Value>,
        /// What was answered.
        pub response_body: Option<Value>,
        /// Which tools were used.
        pub tool_trace: Option<Value>,
        /// How long it took.
        pub duration_ms: Option<i32>,
        /// How it ended: `ok`, `error` and others.
        pub status: String,
        /// Why it failed.
        pub error_detail: Option<String>,
        /// The delegation that it is about.
        pub delegation_id: Option<String>,
        /// When. Later than any row of the same workspace that could be read before.
        pub created_at: DateTime<Utc>,
    }
}

row! {
    /// Something that a search of a session found.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Found {
        /// What it is: `activity` or `memory`.
        pub kind: String,
        /// Names it.
        pub id: Uuid,
        /// The type of an activity, or the scope of a memory.
        pub label: String,
        /// Its text.
        pub content: String,
        /// By which method it was done.
        pub method: String,
        /// How it ended.
        pub status: String,
        /// When.
        pub created_at: DateTime<Utc>,
        /// What was asked.
        pub request_body: Option<Value>,
        /// What was answered.
        pub response_body: Option<Value>,
    }
}

/// A row to be written.
#[derive(Debug, Clone)]
pub(crate) struct NewActivity {
    pub(crate) id: ActivityId,
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) activity_type: String,
    pub(crate) source_id: Option<WorkspaceId>,
    pub(crate) target_id: Option<WorkspaceId>,
    pub(crate) method: Option<String>,
    pub(crate) summary: Option<String>,
    pub(crate) request_body: Option<Value>,
    pub(crate) response_body: Option<Value>,
    pub(crate) tool_trace: Option<Value>,
    pub(crate) duration_ms: Option<i32>,
    pub(crate) status: String,
    pub(crate) error_detail: Option<String>,
    pub(crate) delegation_id: Option<String>,
    pub(crate) idempotency_key: Option<String>,
    /// The earliest time that it may be given.
    pub(crate) at: DateTime<Utc>,
}

impl ControlPlane {
    /// A row of `activity_type` about `workspace_id` that went well, with nothing else said.
    pub(crate) fn new_activity(&self, workspace_id: WorkspaceId, activity_type: &str) -> NewActivity {
        NewActivity {
            id: ActivityId::from_uuid(random_uuid(&*self.inner.entropy)),
            workspace_id,
            activity_type: activity_type.to_owned(),
            source_id: None,
            target_id: None,
            method: None,
            summary: None,
            request_body: None,
            response_body: None,
            tool_trace: None,
            duration_ms: None,
            status: "ok".to_owned(),
            error_detail: None,
            delegation_id: None,
            idempotency_key: None,
            at: self.now(),
        }
    }

    /// Tells listeners of a row that was written. Its bodies are for those who may read the log.
    pub(crate) fn tell_activity(&self, new: &NewActivity) {
        self.mention(EventKind::ActivityLogged, new.workspace_id, || {
            let mut payload = serde_json::json!({
                "activity_type": new.activity_type,
                "method": new.method,
                "summary": new.summary,
                "status": new.status,
                "source_id": new.source_id,
                "target_id": new.target_id,
                "duration_ms": new.duration_ms,
            });
            if let Some(trace) = &new.tool_trace {
                payload["tool_trace"] = trace.clone();
            }
            payload
        });
    }
}

/// The longest key that is kept as it is, in bytes: an index holds no long ones.
const LONGEST_KEY: usize = 200;

/// A key as it is kept: one that is too long is known by its hash.
pub(crate) fn kept_key(key: &str) -> String {
    match key.len() {
        0..=LONGEST_KEY => key.to_owned(),
        _ => identity::hash(key).iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// The first `limit` characters of `text`, and whether there are more.
pub(crate) fn preview(text: &str, limit: usize) -> (&str, bool) {
    match text.char_indices().nth(limit) {
        Some((end, _)) => (&text[..end], true),
        None => (text, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_keys_are_known_by_their_hash() {
        let key = |length: usize| kept_key(&"ü".repeat(length));
        assert_eq!(key(100), "ü".repeat(100));
        assert_eq!((key(101).len(), key(1_000_000).len()), (64, 64));
        assert_ne!(key(101), key(102));
    }

    #[test]
    fn previews_end_between_characters() {
        assert_eq!(preview("grün 🦀!", 3), ("grü", true));
        assert_eq!(preview("grün 🦀!", 6), ("grün 🦀", true));
        assert_eq!(preview("grün 🦀!", 7), ("grün 🦀!", false));
        assert_eq!(preview("", 0), ("", false));
    }
}
