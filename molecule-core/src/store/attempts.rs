//! Tries at bringing workspaces up. Each change goes by the try it is for: a late one of an earlier try changes nothing.

use chrono::{DateTime, Utc};

use super::{
    Store,
    events::insert_event,
    pool::{in_transaction, on_pool, row, statements},
};
use crate::{
    error::Result,
    events::Event,
    id::{AttemptId, WorkspaceId},
    workspace::{Status, Transition},
};

statements! {
    BEGIN_ATTEMPT = "UPDATE workspaces SET status = $3, url = '', last_sample_error = NULL, provision_attempt = $4, \
                     provision_started_at = $5, provision_asked_at = NULL, provision_renewed_at = $5, \
                     provision_config = CASE WHEN $8 THEN $9 ELSE provision_config END, \
                     provision_reset = CASE WHEN $8 THEN $10 ELSE provision_reset END, active_tasks = 0, \
                     current_task = '', updated_at = $5 WHERE id = $1 AND status = $2 \
                     AND ((provision_attempt = $6 AND provision_renewed_at = $7) OR $6 IS NULL) \
                     RETURNING provision_config, provision_reset";
    RENEW_ATTEMPT = "UPDATE workspaces SET provision_renewed_at = $4 WHERE id = $1 AND status = $2 \
                     AND provision_attempt = $3 AND provision_renewed_at IS NOT NULL";
    BEGIN_START = "UPDATE workspaces SET provision_asked_at = $4 \
                   WHERE id = $1 AND status = $2 AND provision_attempt = $3";
    FAIL_ATTEMPT = "UPDATE workspaces SET status = $4, last_sample_error = $5, updated_at = $6, \
                    url = COALESCE($7, url) \
                    WHERE id = $1 AND status = $2 AND provision_attempt = $3";
    ASSIGN = "UPDATE workspaces SET url = COALESCE($3, url), instance_id = COALESCE($4, instance_id), \
              template = NULL, provision_renewed_at = NULL, updated_at = $5 \
              WHERE id = $1 AND provision_attempt = $2 AND status <> $6";
}

row! {
    /// What a try is asked for besides a start.
    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    pub(crate) struct Asked {
        /// The folder below the templates whose files go into the configuration.
        pub(crate) provision_config: Option<String>,
        /// Whether the agent's conversation is forgotten.
        pub(crate) provision_reset: bool,
    }
}

/// Why a try begins.
#[derive(Debug, Clone)]
pub(crate) enum Cause {
    /// Somebody asks for it.
    Asked(Asked),
    /// To go on with the one before.
    Abandoned(Abandoned),
}

/// A try that nobody carries out any more, as it was last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Abandoned {
    pub(crate) attempt: AttemptId,
    pub(crate) renewed_at: DateTime<Utc>,
}

impl Store {
    /// Takes `step` into a new try at bringing the workspace up, and gives what that is asked for: what an abandoned one
    /// was that it takes the place of. `None` when the row is no longer at its start, or somebody carries that one out after
    /// all.
    pub(crate) async fn begin_attempt(
        &self,
        id: WorkspaceId,
        step: Transition,
        attempt: AttemptId,
        cause: &Cause,
        event: &Event,
    ) -> Result<Option<Asked>> {
        let (asked, abandoned) = match cause {
            Cause::Asked(asked) => (Some(asked), None),
            Cause::Abandoned(abandoned) => (None, Some(abandoned)),
        };
        let begun: Option<Asked> = in_transaction!(self.writer(), |tx| {
            let begun = sqlx::query_as(BEGIN_ATTEMPT)
                .bind(id)
                .bind(step.from())
                .bind(step.to())
                .bind(attempt)
                .bind(event.created_at)
                .bind(abandoned.map(|abandoned| abandoned.attempt))
                .bind(abandoned.map(|abandoned| abandoned.renewed_at))
                .bind(asked.is_some())
                .bind(asked.and_then(|asked| asked.provision_config.as_deref()))
                .bind(asked.is_some_and(|asked| asked.provision_reset))
                .fetch_optional(&mut *tx)
                .await?;
            if begun.is_some() {
                insert_event!(tx, event)?;
            }
            Ok(begun)
        })?;
        self.changed_if(id, begun.is_some());
        Ok(begun)
    }

    /// Says that `attempt` is still carried out. False once the backend has answered, or the try is over.
    pub(crate) async fn renew_attempt(&self, id: WorkspaceId, attempt: AttemptId, now: DateTime<Utc>) -> Result<bool> {
        self.note_of_attempt(RENEW_ATTEMPT, id, attempt, now).await
    }

    /// Notes that the backend is asked now for what `attempt` brings up: all that this needs is there. False when it is not
    /// the current one or has ended already.
    pub(crate) async fn begin_start(&self, id: WorkspaceId, attempt: AttemptId, now: DateTime<Utc>) -> Result<bool> {
        self.note_of_attempt(BEGIN_START, id, attempt, now).await
    }

    async fn note_of_attempt(
        &self,
        statement: &'static str,
        id: WorkspaceId,
        attempt: AttemptId,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let done = on_pool!(self.writer(), |p| sqlx::query(statement)
            .bind(id)
            .bind(Status::Provisioning)
            .bind(attempt)
            .bind(now)
            .execute(p)
            .await
            .map(|done| done.rows_affected()))?;
        Ok(done == 1)
    }

    /// Ends `attempt` as failed for `reason`, and puts `address` in the place of the one that is kept, where there is any to
    /// put there. False when it is not the current one or has ended already.
    pub(crate) async fn fail_attempt(
        &self,
        id: WorkspaceId,
        step: Transition,
        attempt: AttemptId,
        reason: &str,
        address: Option<&str>,
        event: &Event,
    ) -> Result<bool> {
        let taken = in_transaction!(self.writer(), |tx| {
            let done = sqlx::query(FAIL_ATTEMPT)
                .bind(id)
                .bind(step.from())
                .bind(attempt)
                .bind(step.to())
                .bind(reason)
                .bind(event.created_at)
                .bind(address)
                .execute(&mut *tx)
                .await?;
            if done.rows_affected() == 1 {
                insert_event!(tx, event)?;
            }
            Ok(done.rows_affected() == 1)
        })?;
        self.changed_if(id, taken);
        Ok(taken)
    }

    /// Keeps where `attempt` came up. False when it is not the current one or the workspace was removed.
    pub(crate) async fn assign(
        &self,
        id: WorkspaceId,
        attempt: AttemptId,
        url: Option<&str>,
        instance_id: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let done = on_pool!(self.writer(), |p| sqlx::query(ASSIGN)
            .bind(id)
            .bind(attempt)
            .bind(url)
            .bind(instance_id)
            .bind(now)
            .bind(Status::Removed)
            .execute(p)
            .await
            .map(|done| done.rows_affected()))?;
        Ok(done == 1)
    }
}
