//! What agents are asked for at set times.

mod outcome;
mod runs;
pub(crate) mod timetable;

use std::collections::HashMap;

use chrono::{DateTime, Utc};

pub use self::outcome::RunStatus;
pub(crate) use self::runs::RUNS_AT_ONCE;
use self::timetable::Timetable;
pub use crate::store::Schedule;
use crate::{
    activity::Activity,
    clock::random_uuid,
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    id::{ScheduleId, WorkspaceId},
    identity::{Credential, Exposure},
    store::{ScheduleChange, ScheduleWritten, pool::text_enum},
    workspace::lifecycle::{gone_is_not_found, said},
};

/// The type of the rows that runs leave in the activity log.
pub(crate) const ACTIVITY_TYPE: &str = "cron_run";

/// How many runs a history holds.
const HISTORY: i64 = 20;

/// How often a change is made anew that another one came before.
const TRIES: usize = 5;

/// The longest name, in bytes: what an index of both databases takes.
const NAME_LIMIT: usize = 1024;

text_enum! {
    /// Who made a schedule.
    pub enum ScheduleSource {
        /// It came with the template of its workspace.
        Template = "template",
        /// Somebody, since.
        Runtime = "runtime",
    }
}

/// What a new schedule is like.
#[derive(Debug, Clone)]
pub struct NewSchedule {
    /// What people call it; the start of its prompt where it is empty.
    pub name: String,
    /// When, as five fields of cron.
    pub cron_expr: String,
    /// By the clocks of which place, as the IANA database names it.
    pub timezone: String,
    /// What the agent is asked for.
    pub prompt: String,
    /// Whether it is.
    pub enabled: bool,
}

/// What is to change about a schedule.
#[derive(Debug, Clone, Default)]
pub struct SchedulePatch {
    /// Its name.
    pub name: Option<String>,
    /// Its times.
    pub cron_expr: Option<String>,
    /// Its place.
    pub timezone: Option<String>,
    /// What it asks for.
    pub prompt: Option<String>,
    /// Whether it does.
    pub enabled: Option<bool>,
}

/// How a schedule of the fleet does.
#[derive(Debug, Clone)]
pub struct ScheduleHealth {
    /// The schedule.
    pub schedule: Schedule,
    /// The name of its workspace.
    pub workspace_name: String,
    /// `ok`, `stale`, or `never_run`.
    pub status: &'static str,
    /// After how many seconds without a run it is stale; 0 where its times cannot be told.
    pub stale_threshold_seconds: i64,
}

impl ControlPlane {
    /// The schedules of a workspace, oldest first.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace.
    pub async fn schedules(&self, id: WorkspaceId) -> Result<Vec<Schedule>> {
        self.existing(id).await.map_err(gone_is_not_found)?;
        self.inner.store.schedules(id).await
    }

    /// Makes a schedule.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a broken rule; [`ErrorKind::Conflict`] where the workspace has one of this name;
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace.
    pub async fn create_schedule(&self, id: WorkspaceId, new: NewSchedule) -> Result<Schedule> {
        if new.cron_expr.trim().is_empty() || new.prompt.trim().is_empty() {
            return Err(Error::invalid("cron_expr and prompt are required"));
        }
        let timetable = Timetable::parse(&new.cron_expr, &new.timezone)?;
        self.existing(id).await.map_err(gone_is_not_found)?;
        let now = self.now();
        let schedule_id = ScheduleId::from_uuid(random_uuid(&*self.inner.entropy));
        let schedule = Schedule {
            id: schedule_id,
            workspace_id: id,
            name: name_of(new.name, schedule_id)?,
            cron_expr: new.cron_expr,
            timezone: new.timezone,
            prompt: new.prompt.replace('\r', ""),
            enabled: new.enabled,
            last_run_at: None,
            next_run_at: timetable.next_after(now),
            run_count: 0,
            last_status: None,
            last_error: None,
            consecutive_empty_runs: 0,
            source: ScheduleSource::Runtime,
            created_at: now,
            updated_at: now,
        };
        let kept = self.inner.store.insert_schedule(&schedule).await;
        if kept.map_err(|error| said(error, "failed to create schedule"))? {
            Ok(schedule)
        } else {
            Err(taken(&schedule))
        }
    }

    /// Changes a schedule of a workspace. Its next time is reckoned anew, but not where nothing of its times changed.
    ///
    /// # Errors
    /// As for making one; [`ErrorKind::NotFound`] where the workspace has none by that id.
    pub async fn patch_schedule(&self, workspace: WorkspaceId, id: ScheduleId, patch: SchedulePatch) -> Result<()> {
        for _ in 0..TRIES {
            let before = self.schedule(workspace, id).await?;
            let change = patched(&before, patch.clone(), self.now())?;
            let kept = self.inner.store.update_schedule(&before, &change).await;
            match kept.map_err(|error| said(error, "failed to update schedule"))? {
                ScheduleWritten::Done => return Ok(()),
                ScheduleWritten::NameTaken => return Err(taken(&change.schedule)),
                // Another change came before: this one is made of what that left.
                ScheduleWritten::Overtaken => {}
            }
        }
        Err(Error::new(ErrorKind::Conflict, "the schedule was changed meanwhile").context("schedule.id", id))
    }

    /// Deletes a schedule of a workspace.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the workspace has none by that id, so also on repeat.
    pub async fn delete_schedule(&self, workspace: WorkspaceId, id: ScheduleId) -> Result<()> {
        let deleted = self.inner.store.delete_schedule(workspace, id).await;
        if deleted.map_err(|error| said(error, "failed to delete schedule"))? {
            Ok(())
        } else {
            Err(absent(workspace, id))
        }
    }

    /// A schedule of a workspace.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the workspace has none by that id.
    pub async fn schedule(&self, workspace: WorkspaceId, id: ScheduleId) -> Result<Schedule> {
        self.inner.store.schedule(workspace, id).await?.ok_or_else(|| absent(workspace, id))
    }

    /// The last runs of a schedule, newest first, as far as the activity log holds them.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the workspace has none by that id.
    pub async fn schedule_history(&self, workspace: WorkspaceId, id: ScheduleId) -> Result<Vec<Activity>> {
        self.schedule(workspace, id).await?;
        self.inner.store.cron_runs(workspace, id, HISTORY).await
    }

    /// Lets a workspace look at how the schedules of another do: `claimed` is who the caller says it is, and its bearer
    /// must prove it, also where it looks at itself.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`] without a name or its token; [`ErrorKind::PermissionDenied`] where the two may not
    /// talk, and to names that are none of a workspace.
    pub async fn admit_watcher(
        &self,
        credential: Credential,
        claimed: Option<&str>,
        target: WorkspaceId,
        exposure: Exposure,
    ) -> Result<()> {
        let Some(claimed) = claimed.filter(|claimed| !claimed.is_empty()) else {
            return Err(Error::new(ErrorKind::Unauthenticated, "X-Workspace-ID header required"));
        };
        let denied = || Error::new(ErrorKind::PermissionDenied, "access denied");
        let caller: WorkspaceId = claimed.parse().map_err(|_| denied())?;
        self.admit_to_workspace(credential, caller, exposure)?;
        if self.can_communicate(caller, target).await? { Ok(()) } else { Err(denied()) }
    }

    /// How every schedule of the fleet does, by the name of its workspace.
    pub async fn schedules_health(&self) -> Result<Vec<ScheduleHealth>> {
        let now = self.now();
        let rows = self.inner.store.workspaces().await?;
        let names: HashMap<WorkspaceId, String> = rows.into_iter().map(|row| (row.id, row.name)).collect();
        let all = self.inner.store.all_schedules().await?;
        let health = |schedule: Schedule| {
            let workspace_name = names.get(&schedule.workspace_id)?.clone();
            let timetable = Timetable::parse(&schedule.cron_expr, &schedule.timezone).ok();
            let interval = timetable.and_then(|timetable| timetable.interval(now));
            let stale_threshold_seconds = interval.map_or(0, |interval| interval.num_seconds().saturating_mul(2));
            let status = match schedule.last_run_at {
                None => "never_run",
                Some(_) if stale_threshold_seconds == 0 => "ok",
                Some(last) if (now - last).num_seconds() > stale_threshold_seconds => "stale",
                Some(_) => "ok",
            };
            Some(ScheduleHealth { schedule, workspace_name, status, stale_threshold_seconds })
        };
        Ok(all.into_iter().filter_map(health).collect())
    }
}

/// What a schedule becomes by `patch`.
fn patched(before: &Schedule, patch: SchedulePatch, now: DateTime<Utc>) -> Result<ScheduleChange> {
    let mut schedule = before.clone();
    let retimed = patch.cron_expr.is_some() || patch.timezone.is_some() || patch.enabled == Some(true);
    if let Some(name) = patch.name {
        schedule.name = name_of(name, schedule.id)?;
    }
    schedule.cron_expr = patch.cron_expr.unwrap_or(schedule.cron_expr);
    schedule.timezone = match patch.timezone {
        Some(timezone) if timezone.is_empty() => "UTC".to_owned(),
        timezone => timezone.unwrap_or(schedule.timezone),
    };
    schedule.prompt = patch.prompt.map_or(schedule.prompt, |prompt| prompt.replace('\r', ""));
    schedule.enabled = patch.enabled.unwrap_or(schedule.enabled);
    if schedule.cron_expr.trim().is_empty() || schedule.prompt.trim().is_empty() {
        return Err(Error::invalid("cron_expr and prompt are required"));
    }
    schedule.updated_at = now;
    if retimed {
        let timetable = Timetable::parse(&schedule.cron_expr, &schedule.timezone)?;
        schedule.next_run_at = timetable.next_after(now);
    }
    Ok(ScheduleChange { schedule, retimed })
}

/// The name of a schedule; one that its id gives where nobody says.
fn name_of(name: String, id: ScheduleId) -> Result<String> {
    match name.trim() {
        "" => Ok(format!("schedule-{}", &id.to_string()[..8])),
        name if name.len() > NAME_LIMIT => Err(Error::invalid(format!("name must be <= {NAME_LIMIT} bytes"))),
        name => Ok(name.to_owned()),
    }
}

fn taken(schedule: &Schedule) -> Error {
    let text = format!("a schedule named {:?} exists already", schedule.name);
    Error::new(ErrorKind::Conflict, text).context("workspace.id", schedule.workspace_id)
}

fn absent(workspace: WorkspaceId, id: ScheduleId) -> Error {
    Error::not_found("schedule not found").context("workspace.id", workspace).context("schedule.id", id)
}
