//! Messages for agents that had no time. Who claims one alone settles it.

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::{
    Store,
    activity::{insert_activity, no_workspace},
    clean,
    pool::{Pool, in_transaction, on_pool, statements},
};
use crate::{
    a2a::{ATTEMPTS, Claim, Claimed, Enqueued, NewItem, QueueItem, QueueStatus, Settled},
    activity::NewActivity,
    error::{Error, Result},
    id::{ActivityId, QueueId, WorkspaceId},
    workspace::Status,
};

statements! {
    ENQUEUE = "INSERT INTO a2a_queue (id, workspace_id, caller_id, priority, body, method, idempotency_key, status, \
               enqueued_at, expires_at, sender, protocol, claim, dispatched_at, attempts) \
               SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $12, $13, $14, $15, $16 \
               WHERE EXISTS (SELECT 1 FROM workspaces WHERE id = $2 AND status <> $11) \
               ON CONFLICT (workspace_id, idempotency_key) \
               WHERE idempotency_key IS NOT NULL AND status IN ('queued', 'dispatched') DO NOTHING";
    WAITING_ALREADY = "SELECT id FROM a2a_queue WHERE workspace_id = $1 AND idempotency_key = $2 \
                       AND status IN ('queued', 'dispatched')";
    /// A message that waits, while its agent has it by another call.
    TAKE_WAITING = "UPDATE a2a_queue SET status = $3, claim = $4, dispatched_at = $5, attempts = attempts + 1 \
                    WHERE workspace_id = $1 AND idempotency_key = $2 AND status = 'queued' \
                    AND caller_id IS NOT DISTINCT FROM $6 RETURNING id, attempts, busy_tries";
    WAITING_FROM = "SELECT id FROM a2a_queue WHERE workspace_id = $1 AND idempotency_key = $2 \
                    AND status IN ('queued', 'dispatched') AND caller_id IS NOT DISTINCT FROM $3";
    DEPTH = "SELECT COUNT(*) FROM a2a_queue WHERE workspace_id = $1 AND status = 'queued'";
    COMPLETE = "UPDATE a2a_queue SET status = $3, response_body = $4, completed_at = $5, last_error = NULL, claim = NULL \
                WHERE id = $1 AND claim = $2";
    /// It goes behind those that wait: no message stands in the way of the others.
    RETURN = "UPDATE a2a_queue SET status = $3, last_error = $4, attempts = $5, busy_tries = $6, put_back_at = $7, \
              dispatched_at = NULL, claim = NULL WHERE id = $1 AND claim = $2";
    /// What became of it is up to its agent: nothing finds it by its key any more.
    GIVE = "UPDATE a2a_queue SET status = $3, response_body = $4, completed_at = $5, last_error = NULL, claim = NULL, \
            idempotency_key = NULL WHERE id = $1 AND claim = $2";
    UNLOG = "DELETE FROM activity_logs WHERE id = $1";
    RENEW = "UPDATE a2a_queue SET dispatched_at = $3 WHERE id = $1 AND claim = $2";
    LOG_ANSWER = "UPDATE activity_logs SET response_body = $2, tool_trace = $3, duration_ms = $4, status = $5, \
                  summary = $6 WHERE id = $1";
    BY_ID = "SELECT id, workspace_id, caller_id, status, priority, attempts, last_error, response_body, enqueued_at, \
             dispatched_at, completed_at, expires_at FROM a2a_queue WHERE id = $1";
    WAITING = "SELECT DISTINCT workspace_id FROM a2a_queue WHERE status = 'queued'";
    UNTIDY = "SELECT EXISTS (SELECT 1 FROM a2a_queue WHERE status = 'queued' AND expires_at <= $1) \
              OR EXISTS (SELECT 1 FROM a2a_queue WHERE status = 'dispatched' AND dispatched_at < $2) \
              OR EXISTS (SELECT 1 FROM a2a_queue q JOIN workspaces w ON w.id = q.workspace_id \
                         WHERE q.status = 'queued' AND w.status = $3)";
    /// A dead process may have died of the message: that try counts.
    RECLAIM = "UPDATE a2a_queue SET status = CASE WHEN attempts >= $2 THEN $3 ELSE $4 END, dispatched_at = NULL, \
               claim = NULL, last_error = 'the server died while it was sent' \
               WHERE status = 'dispatched' AND dispatched_at < $1";
    EXPIRE = "UPDATE a2a_queue SET status = $2, last_error = COALESCE(last_error || '; ', '') || 'it expired' \
              WHERE status = 'queued' AND expires_at <= $1";
    ABANDON = "UPDATE a2a_queue SET status = $2, last_error = COALESCE(last_error || '; ', '') || 'its workspace is gone' \
               WHERE status = 'queued' AND workspace_id IN (SELECT id FROM workspaces WHERE status = $1)";
    DROP_STALE = "UPDATE a2a_queue SET status = $3, last_error = COALESCE(last_error || '; ', '') || $4 \
                  WHERE status = 'queued' AND enqueued_at < $1 AND (workspace_id = $2 OR $2 IS NULL)";
    FORGET = "DELETE FROM a2a_queue WHERE id IN (SELECT id FROM a2a_queue \
              WHERE enqueued_at < $1 AND status NOT IN ('queued', 'dispatched') ORDER BY enqueued_at LIMIT $2)";
}

/// What a claim looks like around the one thing in which the databases differ.
macro_rules! claim {
    ($lock:literal) => {
        concat!(
            "UPDATE a2a_queue SET status = $4, claim = $2, dispatched_at = $3, attempts = attempts + 1 \
             WHERE status = 'queued' AND id = (SELECT id FROM a2a_queue WHERE workspace_id = $1 AND status = 'queued' \
             AND (expires_at IS NULL OR expires_at > $3) \
             ORDER BY priority DESC, COALESCE(put_back_at, enqueued_at), id LIMIT 1",
            $lock,
            ") RETURNING id, caller_id, sender, protocol, body, method, attempts, busy_tries"
        )
    };
}

pub(super) mod sqlite {
    use crate::store::pool::statements;

    statements! {
        /// There is one writer at a time.
        CLAIM = claim!("");
    }
}

pub(super) mod postgres {
    use crate::store::pool::statements;

    statements! {
        /// Two that claim at once are given different messages, and neither waits.
        CLAIM = claim!(" FOR UPDATE SKIP LOCKED");
    }
}

impl Store {
    /// Keeps a message, and `row` in the log with it. One with the same key that waits or is on its way stands for it.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) where the workspace is gone.
    pub(crate) async fn enqueue(&self, new: &NewItem, row: &NewActivity) -> Result<Enqueued> {
        let key = new.idempotency_key.as_deref().map(|key| clean::text(key).into_owned());
        let status = if new.claim.is_some() { QueueStatus::Dispatched } else { QueueStatus::Queued };
        let attempts = i32::from(new.claim.is_some());
        let held = |id, attempts, busy_tries| new.claim.map(|claim| Claim { item: id, claim, attempts, busy_tries });
        // Between two statements the other one may have been answered; then this one is kept after all.
        for _ in 0..3 {
            let kept: Option<Enqueued> = in_transaction!(self.writer(), |tx| {
                let done = sqlx::query(ENQUEUE)
                    .bind(new.id)
                    .bind(new.workspace_id)
                    .bind(new.caller_id)
                    .bind(new.priority)
                    .bind(clean::json(&new.body))
                    .bind(clean::text(&new.method).into_owned())
                    .bind(&key)
                    .bind(status)
                    .bind(new.enqueued_at)
                    .bind(new.expires_at)
                    .bind(Status::Removed)
                    .bind(new.sender)
                    .bind(new.protocol.as_deref())
                    .bind(new.claim)
                    .bind(new.claim.map(|_| new.enqueued_at))
                    .bind(attempts)
                    .execute(&mut *tx)
                    .await?;
                if done.rows_affected() == 1 {
                    insert_activity!(tx, row).map_err(no_workspace)?;
                    return Ok(Some(Enqueued { id: new.id, is_new: true, claim: held(new.id, attempts, 0) }));
                }
                if new.claim.is_some() {
                    let taken: Option<(QueueId, i32, i32)> = sqlx::query_as(TAKE_WAITING)
                        .bind(new.workspace_id)
                        .bind(&key)
                        .bind(QueueStatus::Dispatched)
                        .bind(new.claim)
                        .bind(new.enqueued_at)
                        .bind(new.caller_id)
                        .fetch_optional(&mut *tx)
                        .await?;
                    if let Some((id, attempts, busy_tries)) = taken {
                        return Ok(Some(Enqueued { id, is_new: false, claim: held(id, attempts, busy_tries) }));
                    }
                }
                let there: Option<QueueId> = sqlx::query_scalar(WAITING_ALREADY)
                    .bind(new.workspace_id)
                    .bind(&key)
                    .fetch_optional(&mut *tx)
                    .await?;
                Ok(there.map(|id| Enqueued { id, is_new: false, claim: None }))
            })?;
            if let Some(kept) = kept {
                return Ok(kept);
            }
        }
        Err(Error::not_found("workspace not found"))
    }

    /// The message of that key, and from that caller, which waits or is on its way.
    pub(crate) async fn waiting_message(
        &self,
        of: WorkspaceId,
        key: &str,
        caller: Option<WorkspaceId>,
    ) -> Result<Option<QueueId>> {
        let key = clean::text(key).into_owned();
        Ok(on_pool!(self.reader(), |p| sqlx::query_scalar(WAITING_FROM)
            .bind(of)
            .bind(&key)
            .bind(caller)
            .fetch_optional(p)
            .await)?)
    }

    /// How many messages wait for an agent.
    pub(crate) async fn queue_depth(&self, of: WorkspaceId) -> Result<i64> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_scalar(DEPTH).bind(of).fetch_one(p).await)?)
    }

    /// The next message for an agent, which only the holder of `claim` may send.
    pub(crate) async fn claim_item(&self, of: WorkspaceId, claim: Uuid, now: DateTime<Utc>) -> Result<Option<Claimed>> {
        macro_rules! run {
            ($sql:expr, $pool:expr) => {
                sqlx::query_as($sql)
                    .bind(of)
                    .bind(claim)
                    .bind(now)
                    .bind(QueueStatus::Dispatched)
                    .fetch_optional($pool)
                    .await
            };
        }
        Ok(match self.writer() {
            Pool::Sqlite(pool) => run!(sqlite::CLAIM, pool),
            Pool::Postgres(pool) => run!(postgres::CLAIM, pool),
        }?)
    }

    /// Says that a message is still on its way.
    pub(crate) async fn renew_item(&self, claim: Claim, now: DateTime<Utc>) -> Result<()> {
        on_pool!(self.writer(), |p| sqlx::query(RENEW)
            .bind(claim.item)
            .bind(claim.claim)
            .bind(now)
            .execute(p)
            .await
            .map(drop))?;
        Ok(())
    }

    /// Keeps how a try ended, and with an answer what `row` says in the log. False where the claim is not held any more.
    pub(crate) async fn settle_item(
        &self,
        claim: Claim,
        settled: &Settled,
        row: &NewActivity,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let (status, attempts, busy, why) = match settled {
            Settled::Completed(_) => return self.complete_item(claim, row, now).await,
            Settled::PutBack(why) => (QueueStatus::Queued, claim.attempts - 1, 1, why),
            Settled::Missed(why) => (QueueStatus::Queued, claim.attempts, 0, why),
            Settled::GivenUp(why) => (QueueStatus::Failed, claim.attempts, 0, why),
        };
        let done = on_pool!(self.writer(), |p| sqlx::query(RETURN)
            .bind(claim.item)
            .bind(claim.claim)
            .bind(status)
            .bind(clean::text(why).into_owned())
            .bind(attempts)
            .bind(claim.busy_tries + busy)
            .bind(now)
            .execute(p)
            .await
            .map(|done| done.rows_affected()))?;
        Ok(done == 1)
    }

    async fn complete_item(&self, claim: Claim, row: &NewActivity, now: DateTime<Utc>) -> Result<bool> {
        let answer = row.response_body.as_ref().map(clean::json);
        let trace = row.tool_trace.as_ref().map(clean::json);
        let summary = row.summary.as_deref().map(|text| clean::text(text).into_owned());
        in_transaction!(self.writer(), |tx| {
            let done = sqlx::query(COMPLETE)
                .bind(claim.item)
                .bind(claim.claim)
                .bind(QueueStatus::Completed)
                .bind(&answer)
                .bind(now)
                .execute(&mut *tx)
                .await?;
            if done.rows_affected() == 1 {
                sqlx::query(LOG_ANSWER)
                    .bind(ActivityId::from_uuid(claim.item.as_uuid()))
                    .bind(&answer)
                    .bind(&trace)
                    .bind(row.duration_ms)
                    .bind(&row.status)
                    .bind(&summary)
                    .execute(&mut *tx)
                    .await?;
            }
            Ok(done.rows_affected() == 1)
        })
    }

    /// Gives a message to an agent that reads its log: `row` takes the place of the one from when it was kept. False where
    /// the claim is not held any more.
    pub(crate) async fn give_to_poller(
        &self,
        claim: Claim,
        row: &NewActivity,
        told: &Value,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        in_transaction!(self.writer(), |tx| {
            let done = sqlx::query(GIVE)
                .bind(claim.item)
                .bind(claim.claim)
                .bind(QueueStatus::Completed)
                .bind(told)
                .bind(now)
                .execute(&mut *tx)
                .await?;
            if done.rows_affected() == 0 {
                return Ok(false);
            }
            sqlx::query(UNLOG).bind(ActivityId::from_uuid(claim.item.as_uuid())).execute(&mut *tx).await?;
            insert_activity!(tx, row).map_err(no_workspace)?;
            Ok(true)
        })
    }

    /// The message of that id.
    pub(crate) async fn queue_item(&self, id: QueueId) -> Result<Option<QueueItem>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(BY_ID).bind(id).fetch_optional(p).await)?)
    }

    /// Whose agents have messages.
    pub(crate) async fn waiting_workspaces(&self) -> Result<Vec<WorkspaceId>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_scalar(WAITING).fetch_all(p).await)?)
    }

    /// Whether [`Store::tidy_queue`] has anything to do.
    pub(crate) async fn queue_is_untidy(&self, now: DateTime<Utc>, orphaned: DateTime<Utc>) -> Result<bool> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_scalar(UNTIDY)
            .bind(now)
            .bind(orphaned)
            .bind(Status::Removed)
            .fetch_one(p)
            .await)?)
    }

    /// Lets messages wait again whose claims are from before `orphaned`, and drops those that expired or whose workspace
    /// is gone. How many of each.
    pub(crate) async fn tidy_queue(&self, now: DateTime<Utc>, orphaned: DateTime<Utc>) -> Result<(u64, u64)> {
        in_transaction!(self.writer(), |tx| {
            let reclaimed = sqlx::query(RECLAIM)
                .bind(orphaned)
                .bind(ATTEMPTS)
                .bind(QueueStatus::Failed)
                .bind(QueueStatus::Queued)
                .execute(&mut *tx)
                .await?;
            let expired = sqlx::query(EXPIRE).bind(now).bind(QueueStatus::Dropped).execute(&mut *tx).await?;
            let abandoned =
                sqlx::query(ABANDON).bind(Status::Removed).bind(QueueStatus::Dropped).execute(&mut *tx).await?;
            Ok((reclaimed.rows_affected(), expired.rows_affected() + abandoned.rows_affected()))
        })
    }

    /// Drops messages from before `cutoff`, of one workspace or of all. How many there were.
    pub(crate) async fn drop_stale(&self, cutoff: DateTime<Utc>, of: Option<WorkspaceId>) -> Result<u64> {
        Ok(on_pool!(self.writer(), |p| sqlx::query(DROP_STALE)
            .bind(cutoff)
            .bind(of)
            .bind(QueueStatus::Dropped)
            .bind("it waited too long")
            .execute(p)
            .await
            .map(|done| done.rows_affected()))?)
    }

    /// Deletes messages from before `time` that are over, at most `limit`. How many there were.
    pub(crate) async fn forget_messages(&self, time: DateTime<Utc>, limit: i64) -> Result<u64> {
        Ok(on_pool!(self.writer(), |p| sqlx::query(FORGET)
            .bind(time)
            .bind(limit)
            .execute(p)
            .await
            .map(|done| done.rows_affected()))?)
    }
}
