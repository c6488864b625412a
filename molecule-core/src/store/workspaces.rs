//! Workspaces: every change of a status is a compare-and-set, and its event is recorded in the same transaction.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{
    Store, clean,
    events::insert_event,
    memory::Condition,
    pool::{in_transaction, on_pool, row, statements},
    secrets::{NewSecret, set_workspace_secret},
    tokens::{self, insert_first_token},
};
use crate::{
    error::{ErrorKind, Result},
    events::Event,
    id::{AttemptId, WorkspaceId},
    identity::NewToken,
    registry::Runtime,
    workspace::{Access, DeliveryMode, EXTERNAL_RUNTIME, Position, Status, Transition, Workspace},
};

/// What is read of a workspace's own row. No column of its layout has one of these names.
macro_rules! workspace_columns {
    () => {
        "id, name, role, tier, status, agent_card, COALESCE(url, '') AS url, parent_id, \
         last_heartbeat_at, last_error_rate, last_sample_error, active_tasks, max_concurrent_tasks, \
         uptime_seconds, current_task, runtime, workspace_dir, workspace_access, hibernation_idle_minutes, \
         budget_limit, monthly_spend, spent_at, last_outbound_at, instance_id, delivery_mode, \
         provision_attempt, provision_started_at, template, native_session, native_scheduler, \
         idle_timeout_seconds, created_at, updated_at"
    };
}

macro_rules! select_workspace {
    ($rest:literal) => {
        concat!(
            "SELECT ",
            workspace_columns!(),
            ", COALESCE(l.x, 0.0) AS x, COALESCE(l.y, 0.0) AS y, COALESCE(l.collapsed, FALSE) AS collapsed \
             FROM workspaces w LEFT JOIN canvas_layouts l ON l.workspace_id = w.id ",
            $rest
        )
    };
}

macro_rules! select_supervised {
    ($rest:literal) => {
        concat!(
            "SELECT id, status, COALESCE(url, '') AS url, runtime, last_heartbeat_at, updated_at, provision_attempt, \
             provision_started_at, provision_asked_at, provision_renewed_at, instance_id FROM workspaces ",
            $rest
        )
    };
}

/// How often the rows of a workspace are tried to be deleted.
const PURGE_TRIES: u32 = 3;

statements! {
    /// Gives the row as it will be read, so that it need not be.
    INSERT = concat!(
        "INSERT INTO workspaces (id, name, role, tier, status, url, parent_id, awareness_namespace, runtime, \
         workspace_dir, workspace_access, budget_limit, max_concurrent_tasks, delivery_mode, \
         provision_attempt, provision_started_at, provision_renewed_at, created_at, updated_at, \
         hibernation_idle_minutes, template) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $16, $17, $17, $18, $19) \
         RETURNING ",
        workspace_columns!(),
        ", CAST($20 AS DOUBLE PRECISION) AS x, CAST($21 AS DOUBLE PRECISION) AS y, FALSE AS collapsed"
    );
    INSERT_LAYOUT = "INSERT INTO canvas_layouts (workspace_id, x, y) VALUES ($1, $2, $3)";
    BY_ID = select_workspace!("WHERE w.id = $1");
    LIST = select_workspace!("WHERE w.status <> $1 ORDER BY w.created_at, w.id");
    SIBLINGS = select_workspace!(
        "WHERE w.parent_id IS NOT DISTINCT FROM $1 AND w.id <> $2 AND w.status <> $3 ORDER BY w.created_at, w.id"
    );
    CHILDREN = select_workspace!("WHERE w.parent_id = $1 AND w.status <> $2 ORDER BY w.created_at, w.id");
    /// The workspace and everything below it. `UNION` and not `UNION ALL`: a cycle must end.
    SUBTREE = "WITH RECURSIVE tree (id) AS ( \
                   SELECT id FROM workspaces WHERE id = $1 \
                   UNION \
                   SELECT w.id FROM workspaces w JOIN tree t ON w.parent_id = t.id \
               ) SELECT id FROM tree";
    /// Both workspaces and their ancestors, each with whose ancestor it is and how far up.
    KIN = "WITH RECURSIVE up (start, id, parent_id, depth) AS ( \
               SELECT id, id, parent_id, 0 FROM workspaces WHERE id IN ($1, $2) AND status <> $3 \
               UNION \
               SELECT u.start, w.id, w.parent_id, u.depth + 1 FROM workspaces w JOIN up u ON w.id = u.parent_id \
               WHERE u.depth < 32 \
           ) SELECT start, id, parent_id, depth FROM up ORDER BY depth";
    /// As KIN, where the second may be removed.
    KIN_OF_REMOVED = "WITH RECURSIVE up (start, id, parent_id, depth) AS ( \
               SELECT id, id, parent_id, 0 FROM workspaces WHERE (id = $1 AND status <> $3) OR id = $2 \
               UNION \
               SELECT u.start, w.id, w.parent_id, u.depth + 1 FROM workspaces w JOIN up u ON w.id = u.parent_id \
               WHERE u.depth < 32 \
           ) SELECT start, id, parent_id, depth FROM up ORDER BY depth";
    PARENTS = "SELECT id, parent_id FROM workspaces WHERE status <> $1";
    PROVISIONING = select_supervised!("WHERE status = $1 ORDER BY id");
    /// Those being brought up or to be brought up, and those that were not heard between `$5` and `$6`. Each part is a
    /// range of an index: those who were heard are not read.
    UNHEARD = select_supervised!(
        "WHERE status IN ($1, $2) \
         OR (status IN ($3, $4) AND COALESCE(last_heartbeat_at, updated_at) < $5) \
         OR (status IN ($3, $4) AND COALESCE(last_heartbeat_at, updated_at) > $6) ORDER BY id"
    );
    /// As UNHEARD, and every one that has a workload to look at.
    WATCHED = select_supervised!(
        "WHERE status IN ($1, $2) OR (status IN ($3, $4) AND (runtime IS DISTINCT FROM $7 \
         OR COALESCE(last_heartbeat_at, updated_at) NOT BETWEEN $5 AND $6)) ORDER BY id"
    );
    STEP = "UPDATE workspaces SET status = $3, updated_at = $4 WHERE id = $1 AND status = $2";
    /// As STEP, unless the agent was heard since the decision was made.
    LOSE = "UPDATE workspaces SET status = $3, updated_at = $4 \
            WHERE id = $1 AND status = $2 AND last_heartbeat_at IS NOT DISTINCT FROM $5";
    REGISTER = "UPDATE workspaces SET status = $3, url = COALESCE($4, url), agent_card = $5, delivery_mode = $6, \
                last_heartbeat_at = $7, updated_at = CASE WHEN status = $8 THEN updated_at ELSE $7 END \
                WHERE id = $1 AND status = $2";
    /// How long a workspace is hibernating already is told by `updated_at`, whoever beats meanwhile; and why it failed by
    /// `last_sample_error`.
    HEARTBEAT = "UPDATE workspaces SET last_heartbeat_at = $3, last_error_rate = $4, \
                 last_sample_error = CASE WHEN status = $11 THEN last_sample_error ELSE $5 END, \
                 active_tasks = $6, uptime_seconds = $7, current_task = $8, \
                 monthly_spend = COALESCE($9, monthly_spend), \
                 spent_at = CASE WHEN $9 IS NULL THEN spent_at ELSE $3 END, \
                 updated_at = CASE WHEN status = $10 THEN updated_at ELSE $3 END, \
                 last_busy_at = CASE WHEN $6 > 0 THEN $3 ELSE last_busy_at END WHERE id = $1 AND status <> $2";
    UPDATE_CARD = "UPDATE workspaces SET agent_card = $3, \
                   updated_at = CASE WHEN status = $5 THEN updated_at ELSE $4 END WHERE id = $1 AND status <> $2";
    KEEP_RUNTIME = "UPDATE workspaces SET native_session = $2, idle_timeout_seconds = $3, native_scheduler = $4 \
                    WHERE id = $1";
    TOUCH_OUTBOUND = "UPDATE workspaces SET last_outbound_at = $2 WHERE id = $1";
    DELETE_LAYOUT = "DELETE FROM canvas_layouts WHERE workspace_id = $1";
    PURGE = "DELETE FROM workspaces WHERE id = $1 AND status = $2";
}

/// A row as it is inserted.
#[derive(Debug)]
pub(crate) struct NewWorkspace {
    pub(crate) id: WorkspaceId,
    pub(crate) name: String,
    pub(crate) role: Option<String>,
    pub(crate) tier: i32,
    pub(crate) status: Status,
    pub(crate) url: Option<String>,
    pub(crate) parent_id: Option<WorkspaceId>,
    pub(crate) runtime: String,
    pub(crate) workspace_dir: Option<String>,
    pub(crate) workspace_access: Access,
    pub(crate) hibernation_idle_minutes: Option<i32>,
    pub(crate) budget_limit: Option<i64>,
    pub(crate) max_concurrent_tasks: i32,
    pub(crate) delivery_mode: DeliveryMode,
    pub(crate) provision_attempt: Option<AttemptId>,
    /// The template that it is configured from; empty for a configuration that is made.
    pub(crate) template: Option<String>,
    pub(crate) canvas: Option<Position>,
    /// What it is given from the start.
    pub(crate) secrets: Vec<NewSecret>,
    pub(crate) created_at: DateTime<Utc>,
}

/// What a register call changes.
#[derive(Debug)]
pub(crate) struct Registration<'a> {
    pub(crate) id: WorkspaceId,
    pub(crate) from: Status,
    pub(crate) to: Status,
    /// The address to keep; `None` leaves it alone.
    pub(crate) url: Option<&'a str>,
    pub(crate) agent_card: &'a Value,
    pub(crate) delivery_mode: DeliveryMode,
    pub(crate) at: DateTime<Utc>,
}

row! {
    /// What the sweeps look at.
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) struct Supervised {
        pub(crate) id: WorkspaceId,
        pub(crate) status: Status,
        pub(crate) url: String,
        pub(crate) runtime: String,
        pub(crate) last_heartbeat_at: Option<DateTime<Utc>>,
        pub(crate) updated_at: DateTime<Utc>,
        pub(crate) provision_attempt: Option<AttemptId>,
        pub(crate) provision_started_at: Option<DateTime<Utc>>,
        /// When the backend was asked for what the try brings up; none while what that needs is being fetched.
        pub(crate) provision_asked_at: Option<DateTime<Utc>>,
        /// When the server that carries the try out said so last; none once the backend has answered.
        pub(crate) provision_renewed_at: Option<DateTime<Utc>>,
        pub(crate) instance_id: Option<String>,
    }
}

row! {
    /// One step of the way from a workspace to its root.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Kin {
        pub(crate) start: WorkspaceId,
        pub(crate) id: WorkspaceId,
        pub(crate) parent_id: Option<WorkspaceId>,
        pub(crate) depth: i32,
    }
}

row! {
    struct IdRow {
        id: WorkspaceId,
    }
}

impl Store {
    /// Inserts a workspace, with its secrets, a token if it has one from the start, and records its events.
    pub(crate) async fn insert_workspace(
        &self,
        new: &NewWorkspace,
        token: Option<&NewToken>,
        events: &[Event],
    ) -> Result<Workspace> {
        let (x, y) = new.canvas.map_or((0.0, 0.0), |Position { x, y }| (x, y));
        in_transaction!(self.writer(), |tx| {
            let row: Workspace = sqlx::query_as(INSERT)
                .bind(new.id)
                .bind(&new.name)
                .bind(&new.role)
                .bind(new.tier)
                .bind(new.status)
                .bind(&new.url)
                .bind(new.parent_id)
                .bind(format!("workspace:{}", new.id))
                .bind(&new.runtime)
                .bind(&new.workspace_dir)
                .bind(new.workspace_access)
                .bind(new.budget_limit)
                .bind(new.max_concurrent_tasks)
                .bind(new.delivery_mode)
                .bind(new.provision_attempt)
                .bind(new.provision_attempt.map(|_| new.created_at))
                .bind(new.created_at)
                .bind(new.hibernation_idle_minutes)
                .bind(&new.template)
                .bind(x)
                .bind(y)
                .fetch_one(&mut *tx)
                .await?;
            if new.canvas.is_some() {
                sqlx::query(INSERT_LAYOUT).bind(new.id).bind(x).bind(y).execute(&mut *tx).await?;
            }
            for secret in &new.secrets {
                set_workspace_secret!(&mut *tx, new.id, secret, new.created_at)?;
            }
            if let Some(token) = token {
                insert_first_token!(tx, token)?;
            }
            for event in events {
                insert_event!(tx, event)?;
            }
            Ok(row)
        })
    }

    /// The workspace with `id`, removed ones included.
    pub(crate) async fn workspace(&self, id: WorkspaceId) -> Result<Option<Workspace>> {
        let mut row: Option<Workspace> =
            on_pool!(self.reader(), |p| sqlx::query_as(BY_ID).bind(id).fetch_optional(p).await)?;
        row.iter_mut().for_each(|row| self.memory.refresh(row));
        Ok(row)
    }

    /// Every workspace that is not removed, oldest first.
    pub(crate) async fn workspaces(&self) -> Result<Vec<Workspace>> {
        let mut rows: Vec<Workspace> =
            on_pool!(self.reader(), |p| sqlx::query_as(LIST).bind(Status::Removed).fetch_all(p).await)?;
        rows.iter_mut().for_each(|row| self.memory.refresh(row));
        Ok(rows)
    }

    /// The workspaces beside `own` that are not removed, oldest first; other roots beside a root.
    pub(crate) async fn siblings(&self, own: &Workspace) -> Result<Vec<Workspace>> {
        let mut rows: Vec<Workspace> = on_pool!(self.reader(), |p| sqlx::query_as(SIBLINGS)
            .bind(own.parent_id)
            .bind(own.id)
            .bind(Status::Removed)
            .fetch_all(p)
            .await)?;
        rows.iter_mut().for_each(|row| self.memory.refresh(row));
        Ok(rows)
    }

    /// The workspaces directly below `id` that are not removed, oldest first.
    pub(crate) async fn children(&self, id: WorkspaceId) -> Result<Vec<Workspace>> {
        let mut rows: Vec<Workspace> =
            on_pool!(self.reader(), |p| sqlx::query_as(CHILDREN).bind(id).bind(Status::Removed).fetch_all(p).await)?;
        rows.iter_mut().for_each(|row| self.memory.refresh(row));
        Ok(rows)
    }

    /// As [`Store::kin`], where `removed` may be so.
    pub(crate) async fn kin_of_removed(&self, one: WorkspaceId, removed: WorkspaceId) -> Result<Vec<Kin>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(KIN_OF_REMOVED)
            .bind(one)
            .bind(removed)
            .bind(Status::Removed)
            .fetch_all(p)
            .await)?)
    }

    /// Every workspace that is not removed, with its parent.
    pub(crate) async fn parents(&self) -> Result<Vec<(WorkspaceId, Option<WorkspaceId>)>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(PARENTS).bind(Status::Removed).fetch_all(p).await)?)
    }

    /// Both workspaces and their ancestors; a removed or unknown one has no entry that starts with it.
    pub(crate) async fn kin(&self, one: WorkspaceId, other: WorkspaceId) -> Result<Vec<Kin>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(KIN)
            .bind(one)
            .bind(other)
            .bind(Status::Removed)
            .fetch_all(p)
            .await)?)
    }

    /// Every workspace that is being brought up.
    pub(crate) async fn provisioning(&self) -> Result<Vec<Supervised>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(PROVISIONING).bind(Status::Provisioning).fetch_all(p).await)?)
    }

    /// Every workspace that should be reporting in and was not heard between `from` and `to`, or whose workload is to be
    /// looked at: that of every managed one where `looks`.
    ///
    /// The rows may be late by what is still in memory, so that some may be heard all the same.
    pub(crate) async fn doubtful(
        &self,
        looks: bool,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Vec<Supervised>> {
        Ok(on_pool!(self.reader(), |p| {
            let unheard = sqlx::query_as(if looks { WATCHED } else { UNHEARD })
                .bind(Status::Provisioning)
                .bind(Status::Offline)
                .bind(Status::Online)
                .bind(Status::Degraded)
                .bind(from)
                .bind(to);
            if looks { unheard.bind(EXTERNAL_RUNTIME) } else { unheard }.fetch_all(p).await
        })?)
    }

    /// Takes `step` and records `event`. False, and nothing recorded, when the row is no longer at its start.
    pub(crate) async fn step(&self, id: WorkspaceId, step: Transition, event: &Event) -> Result<bool> {
        let taken = in_transaction!(self.writer(), |tx| {
            let done = sqlx::query(STEP)
                .bind(id)
                .bind(step.from())
                .bind(step.to())
                .bind(event.created_at)
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

    /// As [`Store::step`], unless the agent was heard after `last_heard`.
    pub(crate) async fn lose(
        &self,
        id: WorkspaceId,
        step: Transition,
        last_heard: Option<DateTime<Utc>>,
        event: &Event,
    ) -> Result<bool> {
        let taken = in_transaction!(self.writer(), |tx| {
            let done = sqlx::query(LOSE)
                .bind(id)
                .bind(step.from())
                .bind(step.to())
                .bind(event.created_at)
                .bind(last_heard)
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

    /// Keeps what a register call said, and `first_token` if the workspace has no live one.
    ///
    /// `None` when the row is no longer at the status the call was judged by; otherwise whether the token was kept.
    pub(crate) async fn register(
        &self,
        registration: &Registration<'_>,
        first_token: Option<&NewToken>,
        event: &Event,
    ) -> Result<Option<bool>> {
        let kept: Option<bool> = in_transaction!(self.writer(), |tx| {
            let done = sqlx::query(REGISTER)
                .bind(registration.id)
                .bind(registration.from)
                .bind(registration.to)
                .bind(registration.url)
                .bind(clean::json(registration.agent_card))
                .bind(registration.delivery_mode)
                .bind(registration.at)
                .bind(Status::Hibernating)
                .execute(&mut *tx)
                .await?;
            if done.rows_affected() == 0 {
                return Ok(None);
            }
            let kept = match first_token {
                Some(token) => insert_first_token!(tx, token)?,
                None => false,
            };
            insert_event!(tx, event)?;
            Ok(Some(kept))
        })?;
        self.changed_if(registration.id, kept.is_some());
        Ok(kept)
    }

    /// Keeps what a heartbeat said, at once. False for an unknown or removed workspace.
    pub(crate) async fn heartbeat(&self, id: WorkspaceId, condition: &Condition) -> Result<bool> {
        let done = on_pool!(self.writer(), |p| sqlx::query(HEARTBEAT)
            .bind(id)
            .bind(Status::Removed)
            .bind(condition.at)
            .bind(condition.error_rate)
            .bind(condition.sample_error.as_ref())
            .bind(condition.active_tasks)
            .bind(condition.uptime_seconds)
            .bind(condition.current_task.as_ref())
            .bind(condition.monthly_spend)
            .bind(Status::Hibernating)
            .bind(Status::Failed)
            .execute(p)
            .await
            .map(|done| done.rows_affected()))?;
        Ok(done == 1)
    }

    /// Keeps a new agent card. False for an unknown or removed workspace.
    pub(crate) async fn update_card(&self, id: WorkspaceId, card: &Value, event: &Event) -> Result<bool> {
        in_transaction!(self.writer(), |tx| {
            let done = sqlx::query(UPDATE_CARD)
                .bind(id)
                .bind(Status::Removed)
                .bind(clean::json(card))
                .bind(event.created_at)
                .bind(Status::Hibernating)
                .execute(&mut *tx)
                .await?;
            if done.rows_affected() == 1 {
                insert_event!(tx, event)?;
            }
            Ok(done.rows_affected() == 1)
        })
    }

    /// Keeps what the runtime of an agent does by itself.
    pub(crate) async fn keep_runtime(&self, id: WorkspaceId, runtime: Runtime) -> Result<()> {
        on_pool!(self.writer(), |p| sqlx::query(KEEP_RUNTIME)
            .bind(id)
            .bind(runtime.native_session)
            .bind(runtime.idle_timeout_seconds)
            .bind(runtime.native_scheduler)
            .execute(p)
            .await
            .map(drop))?;
        Ok(())
    }

    /// Notes that `id` called another agent with success.
    pub(crate) async fn touch_outbound(&self, id: WorkspaceId, now: DateTime<Utc>) -> Result<()> {
        on_pool!(self.writer(), |p| sqlx::query(TOUCH_OUTBOUND).bind(id).bind(now).execute(p).await.map(drop))?;
        Ok(())
    }

    /// The workspace and all below it, removed ones included.
    pub(crate) async fn subtree(&self, id: WorkspaceId) -> Result<Vec<WorkspaceId>> {
        let rows: Vec<IdRow> = on_pool!(self.reader(), |p| sqlx::query_as(SUBTREE).bind(id).fetch_all(p).await)?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// Removes workspaces: all of `steps` at once, revoking their tokens and recording their events, and what they come to.
    ///
    /// False, with nothing changed, when any row is no longer at its start.
    pub(crate) async fn remove(
        &self,
        steps: &[(WorkspaceId, Transition, Event)],
        together: Option<&Event>,
    ) -> Result<bool> {
        // An error is what rolls the transaction back.
        let moved = std::sync::atomic::AtomicBool::new(false);
        let result: Result<()> = in_transaction!(self.writer(), |tx| {
            for (id, step, event) in steps {
                let done = sqlx::query(STEP)
                    .bind(*id)
                    .bind(step.from())
                    .bind(step.to())
                    .bind(event.created_at)
                    .execute(&mut *tx)
                    .await?;
                if done.rows_affected() == 0 {
                    moved.store(true, std::sync::atomic::Ordering::Relaxed);
                    return Err(sqlx::Error::RowNotFound.into());
                }
                sqlx::query(DELETE_LAYOUT).bind(*id).execute(&mut *tx).await?;
                sqlx::query(tokens::REVOKE_ALL).bind(*id).bind(event.created_at).execute(&mut *tx).await?;
                insert_event!(tx, event)?;
            }
            if let Some(event) = together {
                insert_event!(tx, event)?;
            }
            Ok(())
        });
        steps.iter().for_each(|(id, ..)| self.memory.changed(*id));
        match result {
            Err(_) if moved.into_inner() => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Deletes the rows of removed workspaces, and all that hangs on them.
    pub(crate) async fn purge(&self, ids: &[WorkspaceId]) -> Result<()> {
        // Each in a transaction of its own: what agents still write about one must not wait for the next, nor it for them.
        for id in ids {
            let mut tries = 1;
            while let Err(error) = self.purge_one(*id).await {
                // Postgres ends one of two that wait for each other; by then the other is through.
                if tries == PURGE_TRIES || error.kind() == ErrorKind::Unavailable {
                    return Err(error);
                }
                tries += 1;
            }
            self.memory.changed(*id);
        }
        Ok(())
    }

    async fn purge_one(&self, id: WorkspaceId) -> Result<()> {
        on_pool!(self.writer(), |p| sqlx::query(PURGE).bind(id).bind(Status::Removed).execute(p).await.map(drop))?;
        Ok(())
    }

    /// What is remembered of a row that changed is out of date.
    pub(super) fn changed_if(&self, id: WorkspaceId, changed: bool) {
        if changed {
            self.memory.changed(id);
        }
    }
}
