//! The ledger of agents.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{FromRow, Row};

use super::{
    Store,
    activity::{TICK, no_workspace},
    clean,
    pool::{in_transaction, on_pool, statements},
};
use crate::{
    audit::{AuditEvent, AuditKey, Window},
    error::Result,
    id::WorkspaceId,
};

/// The rows that a window fits.
macro_rules! fitting {
    ($columns:expr, $rest:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM audit_events e WHERE workspace_id = $1 AND ($2 = '' OR agent_id = $2) \
             AND ($3 = '' OR session_id = $3) AND timestamp >= $4 AND timestamp < $5",
            $rest,
        )
    };
}

statements! {
    /// The signed row of an agent that no other stands behind.
    HEAD = "SELECT hmac, timestamp FROM audit_events e WHERE workspace_id = $1 AND agent_id = $2 AND hmac IS NOT NULL \
            AND NOT EXISTS (SELECT 1 FROM audit_events s WHERE s.workspace_id = e.workspace_id \
                AND s.agent_id = e.agent_id AND s.hmac IS NOT NULL AND COALESCE(s.prev_hmac, '') = e.hmac) \
            ORDER BY timestamp DESC, id DESC LIMIT 1";
    INSERT = "INSERT INTO audit_events (id, timestamp, agent_id, session_id, operation, input_hash, output_hash, \
              model_used, human_oversight_flag, risk_flag, prev_hmac, hmac, workspace_id) \
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
    LIST = fitting!(
        "id, timestamp, agent_id, session_id, operation, input_hash, output_hash, model_used, human_oversight_flag, \
         risk_flag, prev_hmac, hmac, workspace_id, \
         (prev_hmac IS NULL OR EXISTS (SELECT 1 FROM audit_events p WHERE p.workspace_id = e.workspace_id \
             AND p.agent_id = e.agent_id AND p.hmac = e.prev_hmac AND p.timestamp <= e.timestamp)) AS linked, \
         NOT EXISTS (SELECT 1 FROM audit_events s WHERE s.workspace_id = e.workspace_id \
             AND s.agent_id = e.agent_id AND s.hmac IS NOT NULL \
             AND COALESCE(s.prev_hmac, '') = COALESCE(e.prev_hmac, '') AND s.id <> e.id) AS alone",
        " ORDER BY timestamp, id LIMIT $6 OFFSET $7"
    );
    COUNT = fitting!("COUNT(*)", "");
}

/// A row of the ledger, with what is known of those around it.
#[derive(Debug, Clone)]
pub(crate) struct AuditRow {
    pub(crate) event: AuditEvent,
    /// It is the first of its chain, or the row that it was signed behind is there.
    pub(crate) linked: bool,
    /// No other signed row stands behind the same one.
    pub(crate) alone: bool,
}

impl<'r, R> FromRow<'r, R> for AuditRow
where
    R: Row,
    &'static str: sqlx::ColumnIndex<R>,
    AuditEvent: FromRow<'r, R>,
    bool: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        let event = AuditEvent::from_row(row)?;
        Ok(Self { event, linked: row.try_get("linked")?, alone: row.try_get("alone")? })
    }
}

impl Store {
    /// Keeps `event` behind the last of its agent, later than any of its workspace, and signs it where there is a key.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::ErrorKind::NotFound) where there is no such workspace.
    pub(crate) async fn append_audit(&self, event: AuditEvent, key: Option<&AuditKey>) -> Result<AuditEvent> {
        let text = |text: String| clean::text(&text).into_owned();
        let clean = AuditEvent {
            agent_id: text(event.agent_id),
            session_id: text(event.session_id),
            input_hash: event.input_hash.map(text),
            output_hash: event.output_hash.map(text),
            model_used: event.model_used.map(text),
            ..event
        };
        in_transaction!(self.writer(), |tx| {
            let mut event = clean.clone();
            // Whoever comes next waits here, so that no two stand behind one row.
            let newest: i64 = sqlx::query_scalar(TICK)
                .bind(event.workspace_id)
                .bind(event.timestamp.timestamp_micros())
                .fetch_one(&mut *tx)
                .await
                .map_err(no_workspace)?;
            event.timestamp = DateTime::from_timestamp_micros(newest).unwrap_or(event.timestamp);
            if let Some(key) = key {
                let head: Option<(String, DateTime<Utc>)> = sqlx::query_as(HEAD)
                    .bind(event.workspace_id)
                    .bind(&event.agent_id)
                    .fetch_optional(&mut *tx)
                    .await?;
                if let Some((hmac, at)) = head {
                    event.timestamp = event.timestamp.max(at + TimeDelta::microseconds(1));
                    event.prev_hmac = Some(hmac);
                }
                event.hmac = Some(key.sign(&event));
            }
            sqlx::query(INSERT)
                .bind(&event.id)
                .bind(event.timestamp)
                .bind(&event.agent_id)
                .bind(&event.session_id)
                .bind(event.operation)
                .bind(&event.input_hash)
                .bind(&event.output_hash)
                .bind(&event.model_used)
                .bind(event.human_oversight_flag)
                .bind(event.risk_flag)
                .bind(&event.prev_hmac)
                .bind(&event.hmac)
                .bind(event.workspace_id)
                .execute(&mut *tx)
                .await?;
            Ok(event)
        })
    }

    /// The rows of a window, oldest first, and how many there are with those before and behind it.
    pub(crate) async fn audit(&self, of: WorkspaceId, window: &Window) -> Result<(Vec<AuditRow>, i64)> {
        let (agent, session) = (clean::text(&window.agent_id), clean::text(&window.session_id));
        let rows = on_pool!(self.reader(), |p| sqlx::query_as(LIST)
            .bind(of)
            .bind(&*agent)
            .bind(&*session)
            .bind(window.from)
            .bind(window.to)
            .bind(window.limit)
            .bind(window.offset)
            .fetch_all(p)
            .await)?;
        let total = on_pool!(self.reader(), |p| sqlx::query_scalar(COUNT)
            .bind(of)
            .bind(&*agent)
            .bind(&*session)
            .bind(window.from)
            .bind(window.to)
            .fetch_one(p)
            .await)?;
        Ok((rows, total))
    }
}
