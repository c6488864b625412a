//! What agents ask leave for.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{
    Store, clean,
    events::insert_event,
    pool::{in_transaction, on_pool, row, statements},
};
use crate::{
    error::Result,
    events::Event,
    id::{ApprovalId, WorkspaceId},
    records::ApprovalStatus,
    workspace::Status,
};

statements! {
    INSERT = "INSERT INTO approval_requests (id, workspace_id, task_id, action, reason, context, status, created_at) \
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    LIST = "SELECT id, workspace_id, task_id, action, reason, status, decided_by, decided_at, created_at \
            FROM approval_requests WHERE workspace_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2";
    PENDING = "SELECT a.id, a.workspace_id, a.task_id, a.action, a.reason, a.status, a.decided_by, a.decided_at, \
                   a.created_at, w.name AS workspace_name \
               FROM approval_requests a JOIN workspaces w ON w.id = a.workspace_id \
               WHERE a.status = $1 AND w.status <> $2 ORDER BY a.created_at DESC, a.id DESC LIMIT $3";
    LATE = "SELECT id, workspace_id FROM approval_requests WHERE status = $1 AND created_at <= $2 \
            ORDER BY created_at LIMIT $3";
    DECIDE = "UPDATE approval_requests SET status = $4, decided_by = $5, decided_at = $6 \
              WHERE id = $1 AND workspace_id = $2 AND status = $3 AND created_at > $7";
    EXPIRE = "UPDATE approval_requests SET status = $4, decided_by = $5, decided_at = $6 \
              WHERE id = $1 AND workspace_id = $2 AND status = $3";
}

row! {
    /// What an agent asks leave for.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Approval {
        /// Its id.
        pub id: ApprovalId,
        /// Whose agent asks.
        pub workspace_id: WorkspaceId,
        /// The task it belongs to, as the agent calls it.
        pub task_id: Option<String>,
        /// What the agent wants to do.
        pub action: String,
        /// Why.
        pub reason: Option<String>,
        /// What became of it.
        pub status: ApprovalStatus,
        /// Who decided.
        pub decided_by: Option<String>,
        /// When.
        pub decided_at: Option<DateTime<Utc>>,
        /// When it was asked.
        pub created_at: DateTime<Utc>,
    }
}

row! {
    /// What waits for the operator, with the name of the workspace that asks.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct PendingApproval {
        /// Its id.
        pub id: ApprovalId,
        /// Whose agent asks.
        pub workspace_id: WorkspaceId,
        /// What people call it.
        pub workspace_name: String,
        /// The task it belongs to, as the agent calls it.
        pub task_id: Option<String>,
        /// What the agent wants to do.
        pub action: String,
        /// Why.
        pub reason: Option<String>,
        /// What became of it: nothing yet.
        pub status: ApprovalStatus,
        /// When it was asked.
        pub created_at: DateTime<Utc>,
    }
}

row! {
    pub(crate) struct Late {
        pub(crate) id: ApprovalId,
        pub(crate) workspace_id: WorkspaceId,
    }
}

/// A verdict on what an agent asks leave for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verdict<'a> {
    pub(crate) id: ApprovalId,
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) status: ApprovalStatus,
    pub(crate) decided_by: &'a str,
    pub(crate) at: DateTime<Utc>,
}

impl Store {
    /// Keeps a request with the events that tell of it.
    pub(crate) async fn insert_approval(
        &self,
        approval: &Approval,
        context: Option<&Value>,
        events: &[Event],
    ) -> Result<()> {
        in_transaction!(self.writer(), |tx| {
            sqlx::query(INSERT)
                .bind(approval.id)
                .bind(approval.workspace_id)
                .bind(approval.task_id.as_deref().map(clean::text))
                .bind(clean::text(&approval.action))
                .bind(approval.reason.as_deref().map(clean::text))
                .bind(context.map(clean::json))
                .bind(approval.status)
                .bind(approval.created_at)
                .execute(&mut *tx)
                .await?;
            for event in events {
                insert_event!(tx, event)?;
            }
            Ok(())
        })
    }

    /// The newest requests of `id`.
    pub(crate) async fn approvals(&self, id: WorkspaceId, limit: i64) -> Result<Vec<Approval>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(LIST).bind(id).bind(limit).fetch_all(p).await)?)
    }

    /// The newest requests of the fleet that wait.
    pub(crate) async fn pending_approvals(&self, limit: i64) -> Result<Vec<PendingApproval>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(PENDING)
            .bind(ApprovalStatus::Pending)
            .bind(Status::Removed)
            .bind(limit)
            .fetch_all(p)
            .await)?)
    }

    /// The oldest requests that wait since `before` or longer.
    pub(crate) async fn late_approvals(&self, before: DateTime<Utc>, limit: i64) -> Result<Vec<Late>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(LATE)
            .bind(ApprovalStatus::Pending)
            .bind(before)
            .bind(limit)
            .fetch_all(p)
            .await)?)
    }

    /// Decides a request that waits, and was made after `asked_after` where that is given. The event is recorded only
    /// with it. Of several verdicts one is taken.
    pub(crate) async fn decide_approval(
        &self,
        verdict: &Verdict<'_>,
        asked_after: Option<DateTime<Utc>>,
        event: &Event,
    ) -> Result<bool> {
        in_transaction!(self.writer(), |tx| {
            let query = sqlx::query(if asked_after.is_some() { DECIDE } else { EXPIRE })
                .bind(verdict.id)
                .bind(verdict.workspace_id)
                .bind(ApprovalStatus::Pending)
                .bind(verdict.status)
                .bind(verdict.decided_by)
                .bind(verdict.at);
            let query = match asked_after {
                Some(after) => query.bind(after),
                None => query,
            };
            if query.execute(&mut *tx).await?.rows_affected() == 0 {
                return Ok(false);
            }
            insert_event!(tx, event)?;
            Ok(true)
        })
    }
}
