//! What monitors ask.

use axum::{Json, extract::State, http::header::CONTENT_TYPE, response::IntoResponse};
use serde::Serialize;
use utoipa::ToSchema;

use crate::serve::{error::ApiResult, state::AppState};

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
