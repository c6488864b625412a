//! What monitors ask.

use std::collections::BTreeMap;

use axum::{Json, extract::State, http::header::CONTENT_TYPE, response::IntoResponse};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::ErrorView;
use crate::serve::{error::ApiResult, guard::Operator, state::AppState};

/// The revision this was built from; `dev` where the build was not told, so that a fleet check never passes by chance.
const GIT_SHA: &str = match option_env!("GIT_SHA") {
    Some(sha) if !sha.is_empty() => sha,
    _ => "dev",
};

/// That the server answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HealthView {
    /// Always `ok`.
    status: &'static str,
}

/// What was built.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BuildInfoView {
    /// The revision, or `dev`.
    git_sha: &'static str,
}

/// When each loop of the server came round last.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LivenessView {
    /// By the name of the loop. One that never came round is absent.
    subsystems: BTreeMap<&'static str, TickView>,
}

/// When a loop came round last.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TickView {
    last_tick_at: DateTime<Utc>,
    /// Many times the period of the loop: it hangs.
    seconds_ago: u64,
}

/// Says that the server answers; looks at nothing else.
#[utoipa::path(get, path = "/health", tag = "operations", responses((status = 200, body = HealthView)))]
pub(crate) async fn health() -> Json<HealthView> {
    Json(HealthView { status: "ok" })
}

/// Says which revision runs.
#[utoipa::path(get, path = "/buildinfo", tag = "operations", responses((status = 200, body = BuildInfoView)))]
pub(crate) async fn buildinfo() -> Json<BuildInfoView> {
    Json(BuildInfoView { git_sha: GIT_SHA })
}

/// Shows counters and gauges in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", tag = "operations",
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn metrics(State(app): State<AppState>) -> ApiResult<impl IntoResponse> {
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.render(&app.control_plane)?))
}

/// Says when each loop came round last. Always 200: what is too long ago is for the monitor to say.
#[utoipa::path(get, path = "/admin/liveness", tag = "operations",
    responses((status = 200, body = LivenessView), (status = 401, body = ErrorView)))]
pub(crate) async fn liveness(State(app): State<AppState>, _: Operator) -> Json<LivenessView> {
    let view = |(name, tick): (_, molecule_core::sweep::Tick)| {
        (name, TickView { last_tick_at: tick.at, seconds_ago: tick.age.as_secs() })
    };
    Json(LivenessView { subsystems: app.control_plane.liveness().into_iter().map(view).collect() })
}
