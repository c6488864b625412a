//! What an operator or an agent changes about a workspace that stays where it is in its life.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::{
    Store,
    pool::{in_transaction, on_pool, row, statements},
};
use crate::{
    error::Result,
    id::WorkspaceId,
    workspace::{Position, Status},
};

statements! {
    PATCH = "UPDATE workspaces SET name = COALESCE($3, name), role = CASE WHEN $4 THEN $5 ELSE role END, \
             tier = COALESCE($6, tier), parent_id = CASE WHEN $7 THEN $8 ELSE parent_id END, \
             runtime = COALESCE($9, runtime), workspace_dir = CASE WHEN $10 THEN $11 ELSE workspace_dir END, \
             hibernation_idle_minutes = CASE WHEN $13 THEN $14 ELSE hibernation_idle_minutes END, \
             updated_at = $12 WHERE id = $1 AND status <> $2";
    PATCH_LAYOUT = "INSERT INTO canvas_layouts (workspace_id, x, y, collapsed) \
                    VALUES ($1, COALESCE(CAST($2 AS DOUBLE PRECISION), 0.0), \
                    COALESCE(CAST($3 AS DOUBLE PRECISION), 0.0), COALESCE(CAST($4 AS BOOLEAN), FALSE)) \
                    ON CONFLICT (workspace_id) DO UPDATE SET \
                    x = COALESCE(CAST($2 AS DOUBLE PRECISION), canvas_layouts.x), \
                    y = COALESCE(CAST($3 AS DOUBLE PRECISION), canvas_layouts.y), \
                    collapsed = COALESCE(CAST($4 AS BOOLEAN), canvas_layouts.collapsed)";
    /// A workspace and all above it. `UNION` and not `UNION ALL`: a cycle must end.
    LINE = "WITH RECURSIVE up (id, parent_id) AS ( \
                SELECT id, parent_id FROM workspaces WHERE id = $1 AND status <> $2 \
                UNION \
                SELECT w.id, w.parent_id FROM workspaces w JOIN up u ON w.id = u.parent_id \
            ) SELECT id FROM up";
    LOCK = "UPDATE workspaces SET updated_at = updated_at WHERE id = $1";
    SET_BUDGET = "UPDATE workspaces SET budget_limit = $3, updated_at = $4 WHERE id = $1 AND status <> $2";
}

row! {
    struct IdRow {
        id: WorkspaceId,
    }
}

/// What changes; `None` leaves it alone.
#[derive(Debug, Default)]
pub(crate) struct RowPatch {
    pub(crate) name: Option<String>,
    pub(crate) role: Option<Option<String>>,
    pub(crate) tier: Option<i32>,
    pub(crate) parent_id: Option<Option<WorkspaceId>>,
    pub(crate) runtime: Option<String>,
    pub(crate) workspace_dir: Option<Option<String>>,
    pub(crate) hibernation_idle_minutes: Option<Option<i32>>,
    pub(crate) position: Option<Position>,
    pub(crate) collapsed: Option<bool>,
}

/// What became of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patched {
    Done,
    NoWorkspace,
    NoParent,
    /// The parent is the workspace itself, or below it.
    Cycle,
    /// The tree changed meanwhile.
    Moved,
}

impl Store {
    /// Changes a workspace that is not removed: all of `patch`, or nothing.
    pub(crate) async fn patch(&self, id: WorkspaceId, patch: &RowPatch, now: DateTime<Utc>) -> Result<Patched> {
        in_transaction!(self.writer(), |tx| {
            if let Some(Some(parent)) = patch.parent_id {
                // Of two that would close a cycle together, each locks what the other moves.
                let mut line = BTreeSet::new();
                for round in 0..2 {
                    let rows: Vec<IdRow> =
                        sqlx::query_as(LINE).bind(parent).bind(Status::Removed).fetch_all(&mut *tx).await?;
                    let above: BTreeSet<WorkspaceId> = rows.into_iter().map(|row| row.id).collect();
                    if above.is_empty() {
                        return Ok(Patched::NoParent);
                    }
                    if above.contains(&id) {
                        return Ok(Patched::Cycle);
                    }
                    if round > 0 {
                        if !above.is_subset(&line) {
                            return Ok(Patched::Moved);
                        }
                        break;
                    }
                    line = above;
                    line.insert(id);
                    for member in &line {
                        sqlx::query(LOCK).bind(*member).execute(&mut *tx).await?;
                    }
                }
            }
            let done = sqlx::query(PATCH)
                .bind(id)
                .bind(Status::Removed)
                .bind(&patch.name)
                .bind(patch.role.is_some())
                .bind(patch.role.clone().flatten())
                .bind(patch.tier)
                .bind(patch.parent_id.is_some())
                .bind(patch.parent_id.flatten())
                .bind(&patch.runtime)
                .bind(patch.workspace_dir.is_some())
                .bind(patch.workspace_dir.clone().flatten())
                .bind(now)
                .bind(patch.hibernation_idle_minutes.is_some())
                .bind(patch.hibernation_idle_minutes.flatten())
                .execute(&mut *tx)
                .await?;
            if done.rows_affected() == 0 {
                return Ok(Patched::NoWorkspace);
            }
            if patch.position.is_some() || patch.collapsed.is_some() {
                sqlx::query(PATCH_LAYOUT)
                    .bind(id)
                    .bind(patch.position.map(|position| position.x))
                    .bind(patch.position.map(|position| position.y))
                    .bind(patch.collapsed)
                    .execute(&mut *tx)
                    .await?;
            }
            Ok(Patched::Done)
        })
    }

    /// Sets what a workspace may spend; `None` is as much as it likes. False for an unknown or removed one.
    pub(crate) async fn set_budget(&self, id: WorkspaceId, limit: Option<i64>, now: DateTime<Utc>) -> Result<bool> {
        let done = on_pool!(self.writer(), |p| sqlx::query(SET_BUDGET)
            .bind(id)
            .bind(Status::Removed)
            .bind(limit)
            .bind(now)
            .execute(p)
            .await
            .map(|done| done.rows_affected()))?;
        Ok(done == 1)
    }
}
