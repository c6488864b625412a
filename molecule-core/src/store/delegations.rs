//! Delegations: rows of the activity log, of which each has one request and at most one outcome.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    Store,
    activity::{insert_activity, no_workspace},
    clean,
    events::insert_event,
    pool::{in_transaction, is_taken, on_pool, statements},
};
use crate::{
    activity::{Activity, NewActivity},
    delegation::{BegunDelegation, KeptMessage, LoggedMessage, Orphan, Stranded},
    error::{Error, Result},
    events::Event,
    id::WorkspaceId,
};

macro_rules! select_row {
    ($rest:literal) => {
        concat!(
            "SELECT id, workspace_id, activity_type, source_id, target_id, method, summary, request_body, response_body, \
             tool_trace, duration_ms, status, error_detail, delegation_id, created_at FROM activity_logs ",
            $rest
        )
    };
}

statements! {
    /// One that failed does not stand in the way of another try.
    CLEAR_FAILED = "DELETE FROM activity_logs WHERE workspace_id = $1 AND idempotency_key = $2 AND status = $3";
    BY_KEY = select_row!("WHERE workspace_id = $1 AND idempotency_key = $2");
    MOVE = "UPDATE activity_logs SET status = $3 WHERE workspace_id = $1 AND delegation_id = $2 \
            AND method = 'delegate' AND status = $4";
    /// From the open statuses, and from `queued` where the queue or the agent itself says so.
    END = "UPDATE activity_logs SET status = $3, error_detail = $4 WHERE workspace_id = $1 AND delegation_id = $2 \
           AND method = 'delegate' AND status IN ($5, $6, $7)";
    CLEAR_QUEUED = "DELETE FROM activity_logs WHERE workspace_id = $1 AND delegation_id = $2 \
                    AND method = 'delegate_result' AND status = $3";
    TARGET = "SELECT target_id FROM activity_logs WHERE workspace_id = $1 AND delegation_id = $2 \
              AND method = 'delegate' ORDER BY created_at DESC LIMIT 1";
    CLAIM = "INSERT INTO delegation_claims (workspace_id, delegation_id, claim, renewed_at) VALUES ($1, $2, $3, $4)";
    RENEW = "UPDATE delegation_claims SET renewed_at = $4 WHERE workspace_id = $1 AND delegation_id = $2 AND claim = $3";
    TAKE = "UPDATE delegation_claims SET claim = $4, renewed_at = $5 \
            WHERE workspace_id = $1 AND delegation_id = $2 AND claim = $3";
    RELEASE = "DELETE FROM delegation_claims WHERE workspace_id = $1 AND delegation_id = $2";
    ORPHANS = "SELECT workspace_id, delegation_id, claim FROM delegation_claims WHERE renewed_at < $1 \
               ORDER BY renewed_at LIMIT $2";
    BEGUN = "SELECT target_id, request_body, status, created_at FROM activity_logs \
             WHERE workspace_id = $1 AND delegation_id = $2 AND method = 'delegate' ORDER BY created_at DESC LIMIT 1";
    KEPT = "SELECT status, response_body, last_error FROM a2a_queue WHERE workspace_id = $1 AND idempotency_key = $2 \
            ORDER BY enqueued_at DESC LIMIT 1";
    LOGGED = "SELECT status, response_body, error_detail, duration_ms FROM activity_logs \
              WHERE workspace_id = $1 AND source_id = $2 AND created_at >= $3 AND activity_type = 'a2a_receive' \
              AND request_body -> 'params' -> 'message' ->> 'messageId' = $4 ORDER BY created_at DESC LIMIT 1";
    STRANDED = "SELECT d.workspace_id AS source, q.workspace_id AS target, d.delegation_id, q.status, q.response_body, \
                q.last_error FROM activity_logs d JOIN a2a_queue q ON q.workspace_id = d.target_id \
                AND q.idempotency_key = d.delegation_id \
                WHERE d.method = 'delegate' AND d.status = 'queued' AND d.delegation_id IS NOT NULL \
                AND q.status IN ('completed', 'dropped', 'failed') \
                AND NOT EXISTS (SELECT 1 FROM a2a_queue o WHERE o.workspace_id = d.target_id \
                                AND o.idempotency_key = d.delegation_id AND o.status IN ('queued', 'dispatched')) \
                ORDER BY d.created_at LIMIT $1";
    LIST = select_row!(
        "WHERE workspace_id = $1 AND activity_type = 'delegation' AND method IN ('delegate', 'delegate_result') \
         ORDER BY created_at DESC, id DESC LIMIT $2"
    );
}

/// Whether a delegation was begun.
#[derive(Debug)]
pub(crate) enum Begun {
    /// By this call.
    Now,
    /// By an earlier one with the same key.
    Earlier(Box<Activity>),
}

impl Store {
    /// Keeps a delegation with its event, unless one with the same key is there that did not fail. With a `claim` it is
    /// for this process to carry it out.
    pub(crate) async fn begin_delegation(
        &self,
        row: &NewActivity,
        event: &Event,
        claim: Option<Uuid>,
    ) -> Result<Begun> {
        let key = row.idempotency_key.as_deref().map(|key| clean::text(key).into_owned());
        for _ in 0..3 {
            let begun: Result<Begun> = in_transaction!(self.writer(), |tx| {
                if let Some(key) = &key {
                    sqlx::query(CLEAR_FAILED).bind(row.workspace_id).bind(key).bind("failed").execute(&mut *tx).await?;
                    let earlier: Option<Activity> =
                        sqlx::query_as(BY_KEY).bind(row.workspace_id).bind(key).fetch_optional(&mut *tx).await?;
                    if let Some(earlier) = earlier {
                        return Ok(Begun::Earlier(Box::new(earlier)));
                    }
                }
                insert_activity!(tx, row).map_err(no_workspace)?;
                insert_event!(tx, event)?;
                if let Some(claim) = claim {
                    sqlx::query(CLAIM)
                        .bind(row.workspace_id)
                        .bind(row.delegation_id.as_deref())
                        .bind(claim)
                        .bind(row.at)
                        .execute(&mut *tx)
                        .await?;
                }
                Ok(Begun::Now)
            });
            match begun {
                Err(error) if is_taken(&error) => {}
                begun => return begun,
            }
        }
        Err(Error::new(crate::ErrorKind::Unexpected, "a delegation could not be begun"))
    }

    /// Notes that a delegation is on its way. False where it is over already.
    pub(crate) async fn dispatch_delegation(&self, of: WorkspaceId, id: &str, event: &Event) -> Result<bool> {
        in_transaction!(self.writer(), |tx| {
            let done = sqlx::query(MOVE).bind(of).bind(id).bind("dispatched").bind("pending").execute(&mut *tx).await?;
            if done.rows_affected() == 1 {
                insert_event!(tx, event)?;
            }
            Ok(done.rows_affected() == 1)
        })
    }

    /// Keeps what became of a delegation: its request takes the status of `row`, which is kept as its outcome in place
    /// of an earlier one that it waits. False, and nothing kept, where it was over already.
    pub(crate) async fn end_delegation(&self, row: &NewActivity, event: &Event, from_queued: bool) -> Result<bool> {
        let id = clean::text(row.delegation_id.as_deref().unwrap_or_default()).into_owned();
        in_transaction!(self.writer(), |tx| {
            let done = sqlx::query(END)
                .bind(row.workspace_id)
                .bind(&id)
                .bind(&row.status)
                .bind(row.error_detail.as_deref().map(|text| clean::text(text).into_owned()))
                .bind("pending")
                .bind("dispatched")
                .bind(if from_queued { "queued" } else { "dispatched" })
                .execute(&mut *tx)
                .await?;
            sqlx::query(RELEASE).bind(row.workspace_id).bind(&id).execute(&mut *tx).await?;
            if done.rows_affected() == 0 {
                return Ok(false);
            }
            sqlx::query(CLEAR_QUEUED).bind(row.workspace_id).bind(&id).bind("queued").execute(&mut *tx).await?;
            insert_activity!(tx, row).map_err(no_workspace)?;
            insert_event!(tx, event)?;
            Ok(true)
        })
    }

    /// Says that a delegation is still being carried out, by whoever holds `claim`: it may be another's by now.
    pub(crate) async fn renew_delegation(
        &self,
        of: WorkspaceId,
        id: &str,
        claim: Uuid,
        now: DateTime<Utc>,
    ) -> Result<()> {
        on_pool!(self.writer(), |p| sqlx::query(RENEW)
            .bind(of)
            .bind(id)
            .bind(claim)
            .bind(now)
            .execute(p)
            .await
            .map(drop))?;
        Ok(())
    }

    /// Delegations of which nobody said so since `time`.
    pub(crate) async fn orphaned_delegations(&self, time: DateTime<Utc>, limit: i64) -> Result<Vec<Orphan>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(ORPHANS).bind(time).bind(limit).fetch_all(p).await)?)
    }

    /// Takes over such a one. False where another did.
    pub(crate) async fn take_delegation(&self, orphan: &Orphan, claim: Uuid, now: DateTime<Utc>) -> Result<bool> {
        let done = on_pool!(self.writer(), |p| sqlx::query(TAKE)
            .bind(orphan.workspace_id)
            .bind(&orphan.delegation_id)
            .bind(orphan.claim)
            .bind(claim)
            .bind(now)
            .execute(p)
            .await
            .map(|done| done.rows_affected()))?;
        Ok(done == 1)
    }

    /// Forgets whose a delegation was that is over.
    pub(crate) async fn forget_delegation_claim(&self, of: WorkspaceId, id: &str) -> Result<()> {
        on_pool!(self.writer(), |p| sqlx::query(RELEASE).bind(of).bind(id).execute(p).await.map(drop))?;
        Ok(())
    }

    /// A delegation as it was begun; `None` where it is too old to be kept.
    pub(crate) async fn begun_delegation(&self, of: WorkspaceId, id: &str) -> Result<Option<BegunDelegation>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(BEGUN).bind(of).bind(id).fetch_optional(p).await)?)
    }

    /// The message of a delegation to `target`, where it was kept.
    pub(crate) async fn kept_message(&self, target: WorkspaceId, id: &str) -> Result<Option<KeptMessage>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(KEPT).bind(target).bind(id).fetch_optional(p).await)?)
    }

    /// What the log of `target` says of the message of a delegation that began at `since`.
    pub(crate) async fn logged_message(
        &self,
        target: WorkspaceId,
        source: WorkspaceId,
        id: &str,
        since: DateTime<Utc>,
    ) -> Result<Option<LoggedMessage>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(LOGGED)
            .bind(target)
            .bind(source)
            .bind(since)
            .bind(id)
            .fetch_optional(p)
            .await)?)
    }

    /// Delegations that wait for messages which are over.
    pub(crate) async fn stranded_delegations(&self, limit: i64) -> Result<Vec<Stranded>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(STRANDED).bind(limit).fetch_all(p).await)?)
    }

    /// Whom a delegation of this workspace went to; `None` where it made none of that id.
    pub(crate) async fn delegation_target(&self, of: WorkspaceId, id: &str) -> Result<Option<WorkspaceId>> {
        let id = clean::text(id).into_owned();
        let target: Option<Option<WorkspaceId>> =
            on_pool!(self.reader(), |p| sqlx::query_scalar(TARGET).bind(of).bind(&id).fetch_optional(p).await)?;
        Ok(target.flatten())
    }

    /// The newest rows of the delegations of a workspace.
    pub(crate) async fn delegations(&self, of: WorkspaceId, limit: i64) -> Result<Vec<Activity>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(LIST).bind(of).bind(limit).fetch_all(p).await)?)
    }
}
