//! Delegations: rows of the activity log, of which each has one request and at most one outcome.

use super::{
    Store,
    activity::{insert_activity, no_workspace},
    clean,
    events::insert_event,
    pool::{in_transaction, on_pool, statements},
};
use crate::{
    activity::{Activity, NewActivity},
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

/// A lost race for a key is told by the database.
fn is_taken(error: &Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(sqlx::Error::Database(cause)) = cause.downcast_ref::<sqlx::Error>() {
            return cause.is_unique_violation();
        }
        source = cause.source();
    }
    false
}

impl Store {
    /// Keeps a delegation with its event, unless one with the same key is there that did not fail.
    pub(crate) async fn begin_delegation(&self, row: &NewActivity, event: &Event) -> Result<Begun> {
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
            if done.rows_affected() == 0 {
                return Ok(false);
            }
            sqlx::query(CLEAR_QUEUED).bind(row.workspace_id).bind(&id).bind("queued").execute(&mut *tx).await?;
            insert_activity!(tx, row).map_err(no_workspace)?;
            insert_event!(tx, event)?;
            Ok(true)
        })
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
