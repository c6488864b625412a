//! What agents are asked for at set times: list, make, change, delete, and how they do.

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use molecule_core::{
    id::ScheduleId,
    schedules::{NewSchedule, Schedule, ScheduleHealth, SchedulePatch},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{ErrorView, configuration::UpdatedView, values::DeletedView};
use crate::serve::{
    error::ApiResult,
    guard::{Body, Claimed, Id, Operator, Own, Presented},
    named::Named,
    state::AppState,
};

const BAD_BODY: &str = "invalid request body";

/// What an agent is asked for at set times.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ScheduleView {
    id: Uuid,
    workspace_id: Uuid,
    name: String,
    /// Five fields of cron.
    cron_expr: String,
    /// A name of the IANA database.
    timezone: String,
    prompt: String,
    enabled: bool,
    last_run_at: Option<DateTime<Utc>>,
    next_run_at: Option<DateTime<Utc>>,
    run_count: i64,
    /// `ok`, `error`, `stale` or `skipped`; empty where it has not run.
    last_status: &'static str,
    last_error: String,
    /// `template` or `runtime`.
    source: &'static str,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Schedule> for ScheduleView {
    fn from(schedule: Schedule) -> Self {
        Self {
            id: schedule.id.as_uuid(),
            workspace_id: schedule.workspace_id.as_uuid(),
            name: schedule.name,
            cron_expr: schedule.cron_expr,
            timezone: schedule.timezone,
            prompt: schedule.prompt,
            enabled: schedule.enabled,
            last_run_at: schedule.last_run_at,
            next_run_at: schedule.next_run_at,
            run_count: schedule.run_count,
            last_status: schedule.last_status.map(|status| status.as_str()).unwrap_or_default(),
            last_error: schedule.last_error.unwrap_or_default(),
            source: schedule.source.as_str(),
            created_at: schedule.created_at,
            updated_at: schedule.updated_at,
        }
    }
}

/// A schedule to be made.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewScheduleRequest {
    /// Made up where it is left out.
    #[serde(default)]
    name: String,
    #[serde(default)]
    cron_expr: String,
    /// `UTC` otherwise.
    timezone: Option<String>,
    #[serde(default)]
    prompt: String,
    /// True otherwise.
    enabled: Option<bool>,
}

/// A schedule that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NewScheduleView {
    id: Uuid,
    /// `created`.
    status: &'static str,
    next_run_at: Option<DateTime<Utc>>,
}

/// What is to change.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct PatchScheduleRequest {
    name: Option<String>,
    cron_expr: Option<String>,
    timezone: Option<String>,
    prompt: Option<String>,
    enabled: Option<bool>,
}

/// What the caller is to send to the agent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FiredView {
    /// `fired`.
    status: &'static str,
    workspace_id: Uuid,
    prompt: String,
}

/// A run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunView {
    timestamp: DateTime<Utc>,
    duration_ms: Option<i32>,
    status: String,
    error_detail: Option<String>,
    request: Option<Value>,
}

/// How a schedule does, without what it asks for and when.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PeerScheduleView {
    id: Uuid,
    name: String,
    enabled: bool,
    last_run_at: Option<DateTime<Utc>>,
    next_run_at: Option<DateTime<Utc>>,
    run_count: i64,
    last_status: &'static str,
    last_error: String,
}

impl From<Schedule> for PeerScheduleView {
    fn from(schedule: Schedule) -> Self {
        Self {
            id: schedule.id.as_uuid(),
            name: schedule.name,
            enabled: schedule.enabled,
            last_run_at: schedule.last_run_at,
            next_run_at: schedule.next_run_at,
            run_count: schedule.run_count,
            last_status: schedule.last_status.map(|status| status.as_str()).unwrap_or_default(),
            last_error: schedule.last_error.unwrap_or_default(),
        }
    }
}

/// How a schedule of the fleet does.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ScheduleHealthView {
    workspace_id: Uuid,
    workspace_name: String,
    schedule_id: Uuid,
    schedule_name: String,
    cron_expr: String,
    last_run_at: Option<DateTime<Utc>>,
    expected_next_run: Option<DateTime<Utc>>,
    /// `ok`, `stale` or `never_run`.
    status: &'static str,
    /// After so many seconds without a run it is stale.
    stale_threshold_seconds: i64,
}

impl From<ScheduleHealth> for ScheduleHealthView {
    fn from(health: ScheduleHealth) -> Self {
        Self {
            workspace_id: health.schedule.workspace_id.as_uuid(),
            workspace_name: health.workspace_name,
            schedule_id: health.schedule.id.as_uuid(),
            schedule_name: health.schedule.name,
            cron_expr: health.schedule.cron_expr,
            last_run_at: health.schedule.last_run_at,
            expected_next_run: health.schedule.next_run_at,
            status: health.status,
            stale_threshold_seconds: health.stale_threshold_seconds,
        }
    }
}

/// Lists the schedules of a workspace, oldest first.
#[utoipa::path(get, path = "/workspaces/{id}/schedules", tag = "schedules", operation_id = "list_schedules",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = [ScheduleView]), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn list(State(app): State<AppState>, Own(id): Own) -> ApiResult<Json<Vec<ScheduleView>>> {
    let schedules = app.control_plane.schedules(id).await?;
    Ok(Json(schedules.into_iter().map(ScheduleView::from).collect()))
}

/// Makes a schedule.
#[utoipa::path(post, path = "/workspaces/{id}/schedules", tag = "schedules", operation_id = "create_schedule",
    params(("id" = Uuid, Path)), request_body = NewScheduleRequest,
    responses((status = 201, body = NewScheduleView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 409, body = ErrorView), (status = 413, body = ErrorView),
        (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn create(
    State(app): State<AppState>,
    Own(id): Own,
    body: Body,
) -> ApiResult<(StatusCode, Json<NewScheduleView>)> {
    let request: NewScheduleRequest = body.parse(BAD_BODY)?;
    let new = NewSchedule {
        name: request.name,
        cron_expr: request.cron_expr,
        timezone: request.timezone.filter(|zone| !zone.is_empty()).unwrap_or_else(|| "UTC".to_owned()),
        prompt: request.prompt,
        enabled: request.enabled.unwrap_or(true),
    };
    let made = app.control_plane.create_schedule(id, new).await?;
    let view = NewScheduleView { id: made.id.as_uuid(), status: "created", next_run_at: made.next_run_at };
    Ok((StatusCode::CREATED, Json(view)))
}

/// Changes a schedule.
#[utoipa::path(patch, path = "/workspaces/{id}/schedules/{schedule_id}", tag = "schedules",
    operation_id = "patch_schedule", params(("id" = Uuid, Path), ("schedule_id" = Uuid, Path)),
    request_body = PatchScheduleRequest,
    responses((status = 200, body = UpdatedView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 409, body = ErrorView), (status = 413, body = ErrorView),
        (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn patch(
    State(app): State<AppState>,
    Own(id): Own,
    Named(schedule): Named<ScheduleId>,
    body: Body,
) -> ApiResult<Json<UpdatedView>> {
    let PatchScheduleRequest { name, cron_expr, timezone, prompt, enabled } = body.parse(BAD_BODY)?;
    let patch = SchedulePatch { name, cron_expr, timezone, prompt, enabled };
    app.control_plane.patch_schedule(id, schedule, patch).await?;
    Ok(Json(UpdatedView { status: "updated" }))
}

/// Deletes a schedule.
#[utoipa::path(delete, path = "/workspaces/{id}/schedules/{schedule_id}", tag = "schedules",
    operation_id = "delete_schedule", params(("id" = Uuid, Path), ("schedule_id" = Uuid, Path)),
    responses((status = 200, body = DeletedView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn delete(
    State(app): State<AppState>,
    Own(id): Own,
    Named(schedule): Named<ScheduleId>,
) -> ApiResult<Json<DeletedView>> {
    app.control_plane.delete_schedule(id, schedule).await?;
    Ok(Json(DeletedView { status: "deleted" }))
}

/// Gives what the caller is to send to the agent; nothing is sent by this call.
#[utoipa::path(post, path = "/workspaces/{id}/schedules/{schedule_id}/run", tag = "schedules",
    operation_id = "run_schedule", params(("id" = Uuid, Path), ("schedule_id" = Uuid, Path)),
    responses((status = 200, body = FiredView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn run(
    State(app): State<AppState>,
    Own(id): Own,
    Named(schedule): Named<ScheduleId>,
) -> ApiResult<Json<FiredView>> {
    let schedule = app.control_plane.schedule(id, schedule).await?;
    Ok(Json(FiredView { status: "fired", workspace_id: id.as_uuid(), prompt: schedule.prompt }))
}

/// Lists the last 20 runs of a schedule, newest first.
#[utoipa::path(get, path = "/workspaces/{id}/schedules/{schedule_id}/history", tag = "schedules",
    operation_id = "schedule_history", params(("id" = Uuid, Path), ("schedule_id" = Uuid, Path)),
    responses((status = 200, body = [RunView]), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn history(
    State(app): State<AppState>,
    Own(id): Own,
    Named(schedule): Named<ScheduleId>,
) -> ApiResult<Json<Vec<RunView>>> {
    let runs = app.control_plane.schedule_history(id, schedule).await?;
    let view = |run: molecule_core::activity::Activity| RunView {
        timestamp: run.created_at,
        duration_ms: run.duration_ms,
        status: run.status,
        error_detail: run.error_detail,
        request: run.request_body,
    };
    Ok(Json(runs.into_iter().map(view).collect()))
}

/// Says how the schedules of a workspace do, to those that may talk with it.
#[utoipa::path(get, path = "/workspaces/{id}/schedules/health", tag = "schedules", operation_id = "peer_schedules",
    params(("id" = Uuid, Path), ("X-Workspace-ID" = Uuid, Header)),
    responses((status = 200, body = [PeerScheduleView]), (status = 400, body = ErrorView),
        (status = 401, body = ErrorView), (status = 403, body = ErrorView), (status = 404, body = ErrorView),
        (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn peer_health(
    State(app): State<AppState>,
    Id(target): Id,
    presented: Presented,
    Claimed(claimed): Claimed,
) -> ApiResult<Json<Vec<PeerScheduleView>>> {
    let Presented { credential, exposure } = presented;
    app.control_plane.admit_watcher(credential, claimed.as_deref(), target, exposure).await?;
    let schedules = app.control_plane.schedules(target).await?;
    Ok(Json(schedules.into_iter().map(PeerScheduleView::from).collect()))
}

/// Says how every schedule of the fleet does, by the name of its workspace.
#[utoipa::path(get, path = "/admin/schedules/health", tag = "schedules", operation_id = "schedules_health",
    responses((status = 200, body = [ScheduleHealthView]), (status = 401, body = ErrorView),
        (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn health(State(app): State<AppState>, _: Operator) -> ApiResult<Json<Vec<ScheduleHealthView>>> {
    let all = app.control_plane.schedules_health().await?;
    Ok(Json(all.into_iter().map(ScheduleHealthView::from).collect()))
}
