//! What the sweeps ask and change, apart from what others ask as well.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::{
    Store,
    pool::{on_pool, row, statements},
};
use crate::{
    error::Result,
    id::WorkspaceId,
    workspace::{EXTERNAL_RUNTIME, Status},
};

statements! {
    STANDING = "SELECT status, updated_at FROM workspaces WHERE id = $1";
    IN_STATUS = "SELECT id FROM workspaces WHERE status = $1 ORDER BY id";
    /// An agent that was never heard is not idle.
    IDLE = "SELECT w.id, w.hibernation_idle_minutes, w.last_busy_at, w.last_outbound_at, w.provision_started_at, \
            c.newest AS newest_activity, w.created_at FROM workspaces w \
            LEFT JOIN activity_clocks c ON c.workspace_id = w.id \
            WHERE w.hibernation_idle_minutes > 0 AND w.status IN ($1, $2) AND w.active_tasks = 0 \
            AND w.runtime IS DISTINCT FROM $3 AND w.last_heartbeat_at IS NOT NULL ORDER BY w.id";
    WITH_STALE_TOKENS = "SELECT w.id FROM workspaces w WHERE w.status IN ($1, $2, $3, $4) \
                         AND w.runtime IS DISTINCT FROM $5 AND EXISTS (SELECT 1 FROM workspace_auth_tokens t \
                         WHERE t.workspace_id = w.id AND t.revoked_at IS NULL \
                         AND COALESCE(t.last_used_at, t.created_at) < $6) ORDER BY w.id";
    /// Asks all of it again: since it was asked the workspace may have come back, or its token been used.
    REVOKE_STALE = "UPDATE workspace_auth_tokens SET revoked_at = $7 WHERE workspace_id = $8 AND revoked_at IS NULL \
                    AND COALESCE(last_used_at, created_at) < $6 AND EXISTS (SELECT 1 FROM workspaces w \
                    WHERE w.id = workspace_auth_tokens.workspace_id AND w.status IN ($1, $2, $3, $4) \
                    AND w.runtime IS DISTINCT FROM $5)";
}

/// About how many workspaces one statement asks. A removed one is in the inventory for as long as its work is kept.
const STANDINGS_AT_ONCE: usize = 500;

/// Where a workspace may be whose tokens grow stale. One that is stopped, or waited for, has a right to its token.
const WITHOUT_EXCUSE: [Status; 4] = [Status::Online, Status::Degraded, Status::Offline, Status::Failed];

row! {
    /// Whether a workspace stands, and since when it is what it is.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Standing {
        pub(crate) status: Status,
        pub(crate) updated_at: DateTime<Utc>,
    }
}

row! {
    /// A workspace that is to hibernate when it is idle, and what it did last.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Idle {
        pub(crate) id: WorkspaceId,
        pub(crate) hibernation_idle_minutes: i32,
        pub(crate) last_busy_at: Option<DateTime<Utc>>,
        pub(crate) last_outbound_at: Option<DateTime<Utc>>,
        pub(crate) provision_started_at: Option<DateTime<Utc>>,
        /// When it was last called, or noted anything, in microseconds.
        pub(crate) newest_activity: Option<i64>,
        pub(crate) created_at: DateTime<Utc>,
    }
}

row! {
    struct IdRow {
        id: WorkspaceId,
    }
}

impl Store {
    /// Where the workspace stands; `None` where no row knows it.
    pub(crate) async fn standing(&self, id: WorkspaceId) -> Result<Option<Standing>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(STANDING).bind(id).fetch_optional(p).await)?)
    }

    /// Where each of `ids` stands that a row knows.
    pub(crate) async fn standings(&self, ids: &[WorkspaceId]) -> Result<HashMap<WorkspaceId, Standing>> {
        let mut standings = HashMap::with_capacity(ids.len());
        for ids in ids.chunks(STANDINGS_AT_ONCE) {
            let rows: Vec<(WorkspaceId, Status, DateTime<Utc>)> = on_pool!(self.reader(), |p| {
                let mut query = sqlx::QueryBuilder::new("SELECT id, status, updated_at FROM workspaces WHERE id IN (");
                let mut list = query.separated(", ");
                for id in ids {
                    list.push_bind(*id);
                }
                query.push(")").build_query_as().fetch_all(p).await
            })?;
            standings.extend(rows.into_iter().map(|(id, status, updated_at)| (id, Standing { status, updated_at })));
        }
        Ok(standings)
    }

    /// Every workspace of one status.
    pub(crate) async fn in_status(&self, status: Status) -> Result<Vec<WorkspaceId>> {
        let rows: Vec<IdRow> = on_pool!(self.reader(), |p| sqlx::query_as(IN_STATUS).bind(status).fetch_all(p).await)?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// The workspaces that are to hibernate when they are idle, whose agents are there and work on nothing; never
    /// external ones.
    pub(crate) async fn idle(&self) -> Result<Vec<Idle>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(IDLE)
            .bind(Status::Online)
            .bind(Status::Degraded)
            .bind(EXTERNAL_RUNTIME)
            .fetch_all(p)
            .await)?)
    }

    /// The workspaces that should be running and have a live token that was not used since `before`; never external
    /// ones.
    pub(crate) async fn with_stale_tokens(&self, before: DateTime<Utc>) -> Result<Vec<WorkspaceId>> {
        let [a, b, c, d] = WITHOUT_EXCUSE;
        let rows: Vec<IdRow> = on_pool!(self.reader(), |p| sqlx::query_as(WITH_STALE_TOKENS)
            .bind(a)
            .bind(b)
            .bind(c)
            .bind(d)
            .bind(EXTERNAL_RUNTIME)
            .bind(before)
            .fetch_all(p)
            .await)?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// Revokes the tokens of `id` that were not used since `before`, unless the workspace is none of
    /// [`Store::with_stale_tokens`] any more. How many it were.
    pub(crate) async fn revoke_stale_tokens(
        &self,
        id: WorkspaceId,
        before: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<u64> {
        let [a, b, c, d] = WITHOUT_EXCUSE;
        let revoked = on_pool!(self.writer(), |p| sqlx::query(REVOKE_STALE)
            .bind(a)
            .bind(b)
            .bind(c)
            .bind(d)
            .bind(EXTERNAL_RUNTIME)
            .bind(before)
            .bind(now)
            .bind(id)
            .execute(p)
            .await
            .map(|done| done.rows_affected()))?;
        if revoked > 0 {
            self.memory.changed(id);
        }
        Ok(revoked)
    }
}
