//! The event log: append-only, newest first.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{
    Store,
    pool::{on_pool, row, statements},
};
use crate::{
    error::Result,
    events::RecordedEvent,
    id::{EventId, WorkspaceId},
};

statements! {
    INSERT = "INSERT INTO structure_events (id, event_type, workspace_id, payload, created_at) \
              VALUES ($1, $2, $3, $4, $5)";
    NEWEST = "SELECT id, event_type, workspace_id, payload, created_at FROM structure_events \
              ORDER BY created_at DESC, id DESC LIMIT $1";
    NEWEST_OF = "SELECT id, event_type, workspace_id, payload, created_at FROM structure_events \
                 WHERE workspace_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2";
}

row! {
    pub(super) struct EventRow {
        pub(super) id: EventId,
        event_type: String,
        workspace_id: Option<WorkspaceId>,
        payload: Option<Value>,
        created_at: DateTime<Utc>,
    }
}

impl From<EventRow> for RecordedEvent {
    fn from(row: EventRow) -> Self {
        Self {
            id: row.id,
            event_type: row.event_type,
            workspace_id: row.workspace_id,
            payload: row.payload,
            created_at: row.created_at,
        }
    }
}

/// Binds an event to the statement that records it: for use within a transaction, beside the change it tells of.
macro_rules! insert_event {
    ($tx:expr, $event:expr) => {
        sqlx::query($crate::store::events::INSERT)
            .bind($event.id)
            .bind($event.kind.as_str())
            .bind($event.workspace_id)
            .bind($crate::store::clean::json(&$event.payload))
            .bind($event.created_at)
            .execute(&mut *$tx)
            .await
    };
}
pub(crate) use insert_event;

impl Store {
    /// The newest events, at most `limit`, of one workspace or of all.
    pub(crate) async fn newest_events(&self, of: Option<WorkspaceId>, limit: i64) -> Result<Vec<RecordedEvent>> {
        let rows: Vec<EventRow> = match of {
            None => on_pool!(self.reader(), |p| sqlx::query_as(NEWEST).bind(limit).fetch_all(p).await)?,
            Some(id) => on_pool!(self.reader(), |p| sqlx::query_as(NEWEST_OF).bind(id).bind(limit).fetch_all(p).await)?,
        };
        Ok(rows.into_iter().map(RecordedEvent::from).collect())
    }
}
