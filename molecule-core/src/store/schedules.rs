//! What agents are asked for at set times.

use chrono::{DateTime, Utc};

use super::{
    Store, clean,
    events::insert_event,
    pool::{in_transaction, is_taken, on_pool, row, statements},
};
use crate::{
    activity::Activity,
    error::Result,
    events::Event,
    id::{ScheduleId, WorkspaceId},
    schedules::{ACTIVITY_TYPE, RunStatus, ScheduleSource},
    workspace::{EXTERNAL_RUNTIME, Status},
};

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT s.id, s.workspace_id, s.name, s.cron_expr, s.timezone, s.prompt, s.enabled, s.last_run_at, \
             s.next_run_at, s.run_count, s.last_status, s.last_error, s.consecutive_empty_runs, s.source, s.created_at, \
             s.updated_at FROM workspace_schedules s ",
            $rest
        )
    };
}

statements! {
    INSERT = "INSERT INTO workspace_schedules (id, workspace_id, name, cron_expr, timezone, prompt, enabled, \
                  next_run_at, source, created_at, updated_at) \
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10) ON CONFLICT (workspace_id, name) DO NOTHING";
    LIST = select!("WHERE s.workspace_id = $1 ORDER BY s.created_at, s.id");
    ONE = select!("WHERE s.id = $1 AND s.workspace_id = $2");
    ALL = select!("JOIN workspaces w ON w.id = s.workspace_id WHERE w.status <> $1 ORDER BY w.name, s.created_at, s.id");
    UPDATE = "UPDATE workspace_schedules SET name = $3, cron_expr = $4, timezone = $5, prompt = $6, enabled = $7, \
                  next_run_at = CASE WHEN $10 THEN $8 ELSE next_run_at END, updated_at = $9 \
              WHERE id = $1 AND workspace_id = $2 AND updated_at = $11";
    RUNS = "SELECT id, workspace_id, activity_type, source_id, target_id, method, summary, request_body, response_body, \
            tool_trace, duration_ms, status, error_detail, delegation_id, created_at FROM activity_logs \
            WHERE workspace_id = $1 AND activity_type = $2 AND request_body ->> 'schedule_id' = $3 \
            ORDER BY created_at DESC, id DESC LIMIT $4";
    TAKEN = "SELECT EXISTS (SELECT 1 FROM workspace_schedules WHERE workspace_id = $1 AND name = $2 AND id <> $3)";
    DELETE = "DELETE FROM workspace_schedules WHERE id = $1 AND workspace_id = $2";
    DUE = select!("JOIN workspaces w ON w.id = s.workspace_id WHERE s.enabled AND w.status <> $1 \
                   AND (s.next_run_at IS NULL OR s.next_run_at <= $2) \
                   AND ($4 OR w.runtime = $5 OR w.instance_id IS NOT NULL) ORDER BY s.next_run_at LIMIT $3");
    /// Of replicas that find it due, one finds it as it was.
    CLAIM = "UPDATE workspace_schedules SET last_run_at = CASE WHEN $5 THEN $3 ELSE last_run_at END, next_run_at = $4 \
             WHERE id = $1 AND enabled AND next_run_at = $2";
    PLAN = "UPDATE workspace_schedules SET next_run_at = $2 WHERE id = $1 AND next_run_at IS NULL";
    FINISH = "UPDATE workspace_schedules SET run_count = run_count + 1, last_status = $2, last_error = $3, \
                  consecutive_empty_runs = $4 WHERE id = $1";
    DISABLE = "UPDATE workspace_schedules SET enabled = FALSE, last_status = $2, last_error = $3 WHERE id = $1";
}

row! {
    /// What an agent is asked for at set times.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Schedule {
        /// Its id.
        pub id: ScheduleId,
        /// Whose agent is asked.
        pub workspace_id: WorkspaceId,
        /// What people call it; no two of a workspace are called the same.
        pub name: String,
        /// When, as five fields of cron.
        pub cron_expr: String,
        /// By the clocks of which place.
        pub timezone: String,
        /// What the agent is asked for.
        pub prompt: String,
        /// Whether it is.
        pub enabled: bool,
        /// When it was due last.
        pub last_run_at: Option<DateTime<Utc>>,
        /// When it is due next.
        pub next_run_at: Option<DateTime<Utc>>,
        /// How often it ran.
        pub run_count: i64,
        /// How the last run ended.
        pub last_status: Option<RunStatus>,
        /// Why it failed.
        pub last_error: Option<String>,
        /// How many runs in a row were answered with nothing.
        pub consecutive_empty_runs: i32,
        /// Who made it.
        pub source: ScheduleSource,
        /// When it was made.
        pub created_at: DateTime<Utc>,
        /// When it was changed last.
        pub updated_at: DateTime<Utc>,
    }
}

/// A change of a schedule.
#[derive(Debug, Clone)]
pub(crate) struct ScheduleChange {
    /// What it is like afterwards.
    pub(crate) schedule: Schedule,
    /// Its next time is one of them.
    pub(crate) retimed: bool,
}

/// What became of a change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ScheduleWritten {
    /// It is made.
    Done,
    /// Another schedule of the workspace has the name.
    NameTaken,
    /// The schedule is another by now, or gone.
    Overtaken,
}

impl Store {
    /// Keeps a schedule. False where the workspace has one of this name.
    pub(crate) async fn insert_schedule(&self, schedule: &Schedule) -> Result<bool> {
        Ok(on_pool!(self.writer(), |p| sqlx::query(INSERT)
            .bind(schedule.id)
            .bind(schedule.workspace_id)
            .bind(clean::text(&schedule.name))
            .bind(&schedule.cron_expr)
            .bind(&schedule.timezone)
            .bind(clean::text(&schedule.prompt))
            .bind(schedule.enabled)
            .bind(schedule.next_run_at)
            .bind(schedule.source)
            .bind(schedule.created_at)
            .execute(p)
            .await
            .map(|done| done.rows_affected() == 1))?)
    }

    /// The schedules of `id`, oldest first.
    pub(crate) async fn schedules(&self, id: WorkspaceId) -> Result<Vec<Schedule>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(LIST).bind(id).fetch_all(p).await)?)
    }

    /// A schedule of `workspace`.
    pub(crate) async fn schedule(&self, workspace: WorkspaceId, id: ScheduleId) -> Result<Option<Schedule>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(ONE).bind(id).bind(workspace).fetch_optional(p).await)?)
    }

    /// The schedules of every workspace that is not removed, by its name.
    pub(crate) async fn all_schedules(&self) -> Result<Vec<Schedule>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(ALL).bind(Status::Removed).fetch_all(p).await)?)
    }

    /// Writes what `before` becomes. Its next time is left as it is where nothing of its times changed: a run may be taken
    /// meanwhile.
    pub(crate) async fn update_schedule(&self, before: &Schedule, change: &ScheduleChange) -> Result<ScheduleWritten> {
        let ScheduleChange { schedule, retimed } = change;
        let name = clean::text(&schedule.name);
        let written = in_transaction!(self.writer(), |tx| {
            let taken = sqlx::query_scalar(TAKEN).bind(schedule.workspace_id).bind(&*name).bind(schedule.id);
            if taken.fetch_one(&mut *tx).await? {
                return Ok(ScheduleWritten::NameTaken);
            }
            let done = sqlx::query(UPDATE)
                .bind(schedule.id)
                .bind(schedule.workspace_id)
                .bind(&*name)
                .bind(&schedule.cron_expr)
                .bind(&schedule.timezone)
                .bind(clean::text(&schedule.prompt))
                .bind(schedule.enabled)
                .bind(schedule.next_run_at)
                .bind(schedule.updated_at)
                .bind(*retimed)
                .bind(before.updated_at)
                .execute(&mut *tx)
                .await?;
            Ok(if done.rows_affected() == 1 { ScheduleWritten::Done } else { ScheduleWritten::Overtaken })
        });
        match written {
            // Another took the name between the two statements.
            Err(error) if is_taken(&error) => Ok(ScheduleWritten::NameTaken),
            written => written,
        }
    }

    /// The last runs of a schedule, newest first.
    pub(crate) async fn cron_runs(&self, of: WorkspaceId, id: ScheduleId, limit: i64) -> Result<Vec<Activity>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(RUNS)
            .bind(of)
            .bind(ACTIVITY_TYPE)
            .bind(id.to_string())
            .bind(limit)
            .fetch_all(p)
            .await)?)
    }

    /// Deletes a schedule of `workspace`. False where it has none by that id.
    pub(crate) async fn delete_schedule(&self, workspace: WorkspaceId, id: ScheduleId) -> Result<bool> {
        Ok(on_pool!(self.writer(), |p| sqlx::query(DELETE)
            .bind(id)
            .bind(workspace)
            .execute(p)
            .await
            .map(|done| done.rows_affected() == 1))?)
    }

    /// Schedules that are due at `now`, and those whose next time is not known; the longest due first.
    ///
    /// Without `managed` those of external workspaces and of machines of another control plane.
    pub(crate) async fn due_schedules(&self, now: DateTime<Utc>, limit: i64, managed: bool) -> Result<Vec<Schedule>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(DUE)
            .bind(Status::Removed)
            .bind(now)
            .bind(limit)
            .bind(managed)
            .bind(EXTERNAL_RUNTIME)
            .fetch_all(p)
            .await)?)
    }

    /// Takes a run that is due: of all who try, one does. Without `runs` it is let go by.
    pub(crate) async fn claim_run(
        &self,
        id: ScheduleId,
        due: DateTime<Utc>,
        now: DateTime<Utc>,
        next: Option<DateTime<Utc>>,
        runs: bool,
    ) -> Result<bool> {
        Ok(on_pool!(self.writer(), |p| sqlx::query(CLAIM)
            .bind(id)
            .bind(due)
            .bind(now)
            .bind(next)
            .bind(runs)
            .execute(p)
            .await
            .map(|done| done.rows_affected() == 1))?)
    }

    /// Says when a schedule is due whose next time is not known.
    pub(crate) async fn plan_run(&self, id: ScheduleId, next: DateTime<Utc>) -> Result<()> {
        on_pool!(self.writer(), |p| sqlx::query(PLAN).bind(id).bind(next).execute(p).await.map(drop))?;
        Ok(())
    }

    /// Keeps what a run came to, with its event.
    pub(crate) async fn finish_run(
        &self,
        id: ScheduleId,
        status: RunStatus,
        error: Option<&str>,
        empty_runs: i32,
        event: &Event,
    ) -> Result<()> {
        in_transaction!(self.writer(), |tx| {
            let finish = sqlx::query(FINISH).bind(id).bind(status).bind(error.map(clean::text)).bind(empty_runs);
            finish.execute(&mut *tx).await?;
            insert_event!(tx, event)?;
            Ok(())
        })
    }

    /// Ends a schedule whose times cannot be told.
    pub(crate) async fn disable_schedule(&self, id: ScheduleId, error: &str) -> Result<()> {
        on_pool!(self.writer(), |p| sqlx::query(DISABLE)
            .bind(id)
            .bind(RunStatus::Error)
            .bind(error)
            .execute(p)
            .await
            .map(drop))?;
        Ok(())
    }
}
