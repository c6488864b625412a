//! The event log: append-only, newest first.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{
    Store, clean,
    pool::{in_transaction, on_pool, row, statements},
};
use crate::{
    error::Result,
    events::{Event, RecordedEvent, Which},
    id::{EventId, WorkspaceId},
};

/// How many events one statement deletes.
const BATCH: i64 = 1000;

/// Later than anything that is kept: what both databases can compare with.
const END_OF_TIME: DateTime<Utc> =
    DateTime::from_timestamp(253_402_300_799, 0).expect("the last second of the year 9999 is a time");

statements! {
    INSERT = "INSERT INTO structure_events (id, event_type, workspace_id, payload, created_at) \
              VALUES ($1, $2, $3, $4, $5)";
    NEWEST = "SELECT id, event_type, workspace_id, payload, created_at FROM structure_events \
              WHERE (CAST($2 AS TEXT) IS NULL OR event_type = $2) AND created_at < $3 \
              ORDER BY created_at DESC, id DESC LIMIT $1";
    NEWEST_OF = "SELECT id, event_type, workspace_id, payload, created_at FROM structure_events \
                 WHERE workspace_id = $4 AND (CAST($2 AS TEXT) IS NULL OR event_type = $2) AND created_at < $3 \
                 ORDER BY created_at DESC, id DESC LIMIT $1";
    /// How workspaces and their agents came and went is kept for good.
    DELETE_OLD = "DELETE FROM structure_events WHERE id IN (SELECT id FROM structure_events WHERE created_at < $1 \
                  AND event_type NOT LIKE 'WORKSPACE%' AND event_type NOT LIKE 'AGENT%' \
                  ORDER BY created_at LIMIT $2)";
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
    /// Records an event whose change is made already.
    pub(crate) async fn record(&self, event: &Event) -> Result<()> {
        in_transaction!(self.writer(), |tx| {
            insert_event!(tx, event)?;
            Ok(())
        })
    }

    /// The events that are asked for, newest first, of one workspace or of all.
    pub(crate) async fn newest_events(&self, of: Option<WorkspaceId>, which: &Which) -> Result<Vec<RecordedEvent>> {
        let before = which.before.unwrap_or(END_OF_TIME);
        macro_rules! select {
            ($p:expr, $statement:expr) => {
                sqlx::query_as($statement)
                    .bind(i64::from(which.limit))
                    .bind(which.event_type.as_deref().map(clean::text))
                    .bind(before)
            };
        }
        let rows: Vec<EventRow> = match of {
            None => on_pool!(self.reader(), |p| select!(p, NEWEST).fetch_all(p).await)?,
            Some(id) => on_pool!(self.reader(), |p| select!(p, NEWEST_OF).bind(id).fetch_all(p).await)?,
        };
        Ok(rows.into_iter().map(RecordedEvent::from).collect())
    }

    /// Deletes what happened before `cutoff` and is not kept for good. Between batches other writers get their turn.
    pub(crate) async fn delete_events(&self, cutoff: DateTime<Utc>) -> Result<u64> {
        let mut deleted = 0;
        loop {
            let batch = on_pool!(self.writer(), |p| sqlx::query(DELETE_OLD)
                .bind(cutoff)
                .bind(BATCH)
                .execute(p)
                .await
                .map(|done| done.rows_affected()))?;
            deleted += batch;
            if batch == 0 {
                return Ok(deleted);
            }
        }
    }
}
