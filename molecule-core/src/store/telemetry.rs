//! Saves in batches what heartbeats and the use of tokens left in memory: the last value wins.

use std::collections::HashMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use sqlx::{PgPool, SqlitePool};

use super::{
    Store,
    inbound_secrets::fingerprint,
    memory::{Condition, Used},
    pool::{Pool, answered, row},
};
use crate::{error::Result, id::WorkspaceId, workspace::Status};

/// How many rows one statement saves. Between two of them other writers get their turn.
const BATCH: usize = 1000;

type Conditions = [(WorkspaceId, Status, Condition)];

row! {
    struct Saved {
        id: WorkspaceId,
        status: Status,
        platform_inbound_secret: Option<String>,
    }
}

pub(super) mod sqlite {
    use crate::store::pool::statements;

    statements! {
        SAVE_CONDITIONS = "UPDATE workspaces SET last_heartbeat_at = b.at, last_error_rate = b.error_rate, \
                last_sample_error = CASE WHEN workspaces.status = $4 THEN workspaces.last_sample_error \
                    ELSE b.sample_error END, active_tasks = b.active_tasks, \
                uptime_seconds = b.uptime_seconds, current_task = b.current_task, \
                monthly_spend = COALESCE(b.monthly_spend, workspaces.monthly_spend), \
                spent_at = CASE WHEN b.monthly_spend IS NULL THEN workspaces.spent_at ELSE b.at END, \
                updated_at = CASE WHEN workspaces.status = $3 THEN workspaces.updated_at ELSE b.at END, \
                last_busy_at = CASE WHEN b.active_tasks > 0 THEN b.at ELSE workspaces.last_busy_at END \
            FROM (SELECT unhex(value ->> 0) AS id, value ->> 1 AS at, value ->> 2 AS error_rate, \
                    value ->> 3 AS sample_error, value ->> 4 AS active_tasks, value ->> 5 AS uptime_seconds, \
                    value ->> 6 AS current_task, value ->> 7 AS monthly_spend FROM json_each($1)) AS b \
            WHERE workspaces.id = b.id AND workspaces.status <> $2 \
            RETURNING workspaces.id, workspaces.status, workspaces.platform_inbound_secret";
        SAVE_USES = "UPDATE workspace_auth_tokens SET last_used_at = b.at \
            FROM (SELECT unhex(value ->> 0) AS id, value ->> 1 AS at FROM json_each($1)) AS b \
            WHERE workspace_auth_tokens.id = b.id";
    }
}

pub(super) mod postgres {
    use crate::store::pool::statements;

    statements! {
        /// Another replica may have heard the agent since: then its row is newer, and left as it is. A row from a time that
        /// is still to come is from before a clock went back.
        SAVE_CONDITIONS = "WITH b (id, at, error_rate, sample_error, active_tasks, uptime_seconds, current_task, \
                    monthly_spend) AS MATERIALIZED (SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::float8[], \
                    $4::text[], $5::int4[], $6::int8[], $7::text[], $8::int8[])), \
            saved AS (UPDATE workspaces SET last_heartbeat_at = b.at, last_error_rate = b.error_rate, \
                last_sample_error = CASE WHEN workspaces.status = $12 THEN workspaces.last_sample_error \
                    ELSE b.sample_error END, active_tasks = b.active_tasks, \
                uptime_seconds = b.uptime_seconds, current_task = b.current_task, \
                monthly_spend = COALESCE(b.monthly_spend, workspaces.monthly_spend), \
                spent_at = CASE WHEN b.monthly_spend IS NULL THEN workspaces.spent_at ELSE b.at END, \
                updated_at = CASE WHEN workspaces.status = $10 THEN workspaces.updated_at ELSE b.at END, \
                last_busy_at = CASE WHEN b.active_tasks > 0 THEN b.at ELSE workspaces.last_busy_at END \
                FROM b WHERE workspaces.id = b.id AND workspaces.status <> $9 \
                AND (workspaces.last_heartbeat_at > b.at AND workspaces.last_heartbeat_at <= $11) IS NOT TRUE) \
            SELECT w.id, w.status, w.platform_inbound_secret FROM workspaces w JOIN b ON w.id = b.id \
            WHERE w.status <> $9";
        SAVE_USES = "UPDATE workspace_auth_tokens SET last_used_at = b.at \
            FROM unnest($1::uuid[], $2::timestamptz[]) AS b (id, at) WHERE workspace_auth_tokens.id = b.id \
            AND (workspace_auth_tokens.last_used_at >= b.at) IS NOT TRUE";
    }
}

impl Store {
    /// Saves every condition and every use of a token that the database has not seen.
    ///
    /// Finds out on the way which workspaces moved without this process having heard of it, and forgets them.
    pub(crate) async fn save_telemetry(&self, now: DateTime<Utc>) -> Result<()> {
        // One after the other: what was taken first must not be saved last.
        let _turn = self.flushes.lock().await;
        let mut unsaved = self.memory.unsaved();
        // Rows are locked in one order, so that two replicas never wait for each other.
        unsaved.sort_unstable();
        for ids in unsaved.chunks(BATCH) {
            let batch: Vec<_> = ids.iter().filter_map(|id| self.memory.take_unsaved(*id)).collect();
            let epochs: Vec<_> = batch.iter().map(|(id, ..)| self.memory.epoch(*id)).collect();
            let saved = match self.save_conditions(&batch, now).await {
                Ok(saved) => saved.into_iter().map(|row| (row.id, row)).collect::<HashMap<_, _>>(),
                Err(error) => {
                    batch.iter().for_each(|(id, ..)| self.memory.keep_unsaved(*id));
                    return Err(error);
                }
            };
            for ((id, status, condition), epoch) in batch.iter().zip(epochs) {
                match saved.get(id) {
                    // The secret is seen on the way, so that those who beat need not have it read for them.
                    Some(row) if row.status == *status => {
                        let kept_as = fingerprint(row.platform_inbound_secret.as_deref().unwrap_or_default());
                        self.memory.saw_inbound_secret(*id, epoch, kept_as, condition.at);
                    }
                    _ => self.memory.changed(*id),
                }
            }
        }
        let mut uses = self.memory.take_uses();
        uses.sort_by_key(|used| used.id);
        for (number, batch) in uses.chunks(BATCH).enumerate() {
            if let Err(error) = self.save_uses(batch).await {
                self.memory.keep_unsaved_uses(&uses[number * BATCH..]);
                return Err(error);
            }
        }
        self.save_org_token_uses().await
    }

    async fn save_conditions(&self, batch: &Conditions, now: DateTime<Utc>) -> Result<Vec<Saved>> {
        match self.writer() {
            Pool::Sqlite(pool) => save_conditions_in_sqlite(pool, batch).await,
            Pool::Postgres(pool) => answered(save_conditions_in_postgres(pool, batch, now)).await,
        }
    }

    async fn save_uses(&self, batch: &[Used]) -> Result<()> {
        match self.writer() {
            Pool::Sqlite(pool) => {
                let rows: Vec<Value> =
                    batch.iter().map(|used| json!([hex(used.id.as_uuid()), text(used.at)])).collect();
                sqlx::query(sqlite::SAVE_USES).bind(Value::from(rows)).execute(pool).await?;
            }
            Pool::Postgres(pool) => {
                let (ids, times): (Vec<_>, Vec<_>) = batch.iter().map(|used| (used.id.as_uuid(), used.at)).unzip();
                answered(sqlx::query(postgres::SAVE_USES).bind(ids).bind(times).execute(pool)).await?;
            }
        }
        Ok(())
    }
}

async fn save_conditions_in_sqlite(pool: &SqlitePool, batch: &Conditions) -> Result<Vec<Saved>> {
    let rows: Vec<Value> = batch
        .iter()
        .map(|(id, _, condition)| {
            json!([
                hex(id.as_uuid()),
                text(condition.at),
                condition.error_rate,
                condition.sample_error,
                condition.active_tasks,
                condition.uptime_seconds,
                condition.current_task,
                condition.monthly_spend,
            ])
        })
        .collect();
    Ok(sqlx::query_as(sqlite::SAVE_CONDITIONS)
        .bind(Value::from(rows))
        .bind(Status::Removed)
        .bind(Status::Hibernating)
        .bind(Status::Failed)
        .fetch_all(pool)
        .await?)
}

async fn save_conditions_in_postgres(pool: &PgPool, batch: &Conditions, now: DateTime<Utc>) -> Result<Vec<Saved>> {
    fn column<T>(batch: &Conditions, value: impl Fn(&Condition) -> T) -> Vec<T> {
        batch.iter().map(|(_, _, condition)| value(condition)).collect()
    }
    let ids: Vec<_> = batch.iter().map(|(id, ..)| id.as_uuid()).collect();
    Ok(sqlx::query_as(postgres::SAVE_CONDITIONS)
        .bind(ids)
        .bind(column(batch, |condition| condition.at))
        .bind(column(batch, |condition| condition.error_rate))
        .bind(column(batch, |condition| condition.sample_error.to_string()))
        .bind(column(batch, |condition| condition.active_tasks))
        .bind(column(batch, |condition| condition.uptime_seconds))
        .bind(column(batch, |condition| condition.current_task.to_string()))
        .bind(column(batch, |condition| condition.monthly_spend))
        .bind(Status::Removed)
        .bind(Status::Hibernating)
        .bind(now)
        .bind(Status::Failed)
        .fetch_all(pool)
        .await?)
}

/// A UUID as `unhex` reads it.
fn hex(id: uuid::Uuid) -> String {
    id.simple().to_string()
}

/// A time as sqlx writes it into SQLite: rows are compared as text.
fn text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, false)
}
