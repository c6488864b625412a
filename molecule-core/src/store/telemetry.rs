//! Saves in batches what heartbeats and the use of tokens left in memory: the last value wins.

use std::collections::HashMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use sqlx::{PgPool, SqlitePool};

use super::{
    Store,
    inbound_secrets::fingerprint,
    memory::Condition,
    pool::{Pool, row},
};
use crate::{
    error::Result,
    id::{TokenId, WorkspaceId},
    workspace::Status,
};

/// How many rows one statement saves. Between two of them other writers get their turn.
const BATCH: usize = 1000;

type Conditions = [(WorkspaceId, Status, Condition)];
type Uses = [(TokenId, DateTime<Utc>)];

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
                last_sample_error = b.sample_error, active_tasks = b.active_tasks, \
                uptime_seconds = b.uptime_seconds, current_task = b.current_task, \
                monthly_spend = COALESCE(b.monthly_spend, workspaces.monthly_spend), updated_at = b.at, \
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
        SAVE_CONDITIONS = "UPDATE workspaces SET last_heartbeat_at = b.at, last_error_rate = b.error_rate, \
                last_sample_error = b.sample_error, active_tasks = b.active_tasks, \
                uptime_seconds = b.uptime_seconds, current_task = b.current_task, \
                monthly_spend = COALESCE(b.monthly_spend, workspaces.monthly_spend), updated_at = b.at, \
                last_busy_at = CASE WHEN b.active_tasks > 0 THEN b.at ELSE workspaces.last_busy_at END \
            FROM unnest($1::uuid[], $2::timestamptz[], $3::float8[], $4::text[], $5::int4[], $6::int8[], \
                    $7::text[], $8::int8[]) \
                AS b (id, at, error_rate, sample_error, active_tasks, uptime_seconds, current_task, monthly_spend) \
            WHERE workspaces.id = b.id AND workspaces.status <> $9 \
            RETURNING workspaces.id, workspaces.status, workspaces.platform_inbound_secret";
        SAVE_USES = "UPDATE workspace_auth_tokens SET last_used_at = b.at \
            FROM unnest($1::uuid[], $2::timestamptz[]) AS b (id, at) WHERE workspace_auth_tokens.id = b.id";
    }
}

impl Store {
    /// Saves every condition and every use of a token that the database has not seen.
    ///
    /// Finds out on the way which workspaces moved without this process having heard of it, and forgets them.
    pub(crate) async fn save_telemetry(&self) -> Result<()> {
        let mut conditions = self.memory.take_unsaved();
        // Rows are locked in one order, so that two replicas never wait for each other.
        conditions.sort_by_key(|(id, ..)| *id);
        for (number, batch) in conditions.chunks(BATCH).enumerate() {
            let epochs: Vec<_> = batch.iter().map(|(id, ..)| self.memory.epoch(*id)).collect();
            let saved = match self.save_conditions(batch).await {
                Ok(saved) => saved.into_iter().map(|row| (row.id, row)).collect::<HashMap<_, _>>(),
                Err(error) => {
                    conditions[number * BATCH..].iter().for_each(|(id, ..)| self.memory.keep_unsaved(*id));
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
        uses.sort_by_key(|(id, _)| *id);
        for batch in uses.chunks(BATCH) {
            self.save_uses(batch).await?;
        }
        self.save_org_token_uses().await
    }

    async fn save_conditions(&self, batch: &Conditions) -> Result<Vec<Saved>> {
        match self.writer() {
            Pool::Sqlite(pool) => save_conditions_in_sqlite(pool, batch).await,
            Pool::Postgres(pool) => save_conditions_in_postgres(pool, batch).await,
        }
    }

    async fn save_uses(&self, batch: &Uses) -> Result<()> {
        match self.writer() {
            Pool::Sqlite(pool) => {
                let rows: Vec<Value> = batch.iter().map(|(id, at)| json!([hex(id.as_uuid()), text(*at)])).collect();
                sqlx::query(sqlite::SAVE_USES).bind(Value::from(rows)).execute(pool).await?;
            }
            Pool::Postgres(pool) => {
                let (ids, times): (Vec<_>, Vec<_>) = batch.iter().map(|(id, at)| (id.as_uuid(), *at)).unzip();
                sqlx::query(postgres::SAVE_USES).bind(ids).bind(times).execute(pool).await?;
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
    Ok(sqlx::query_as(sqlite::SAVE_CONDITIONS).bind(Value::from(rows)).bind(Status::Removed).fetch_all(pool).await?)
}

async fn save_conditions_in_postgres(pool: &PgPool, batch: &Conditions) -> Result<Vec<Saved>> {
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
