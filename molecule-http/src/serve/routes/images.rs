//! Images that workspaces are made of.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{Operator, Params},
    state::AppState,
};

/// Which images to bring, and what to do then.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct RefreshQuery {
    /// All of them when left out.
    runtime: Option<String>,
    /// `false` leaves the workspaces that run one as they are.
    recreate: Option<String>,
}

/// What a refresh came to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RefreshedView {
    /// The runtimes whose image is as new as its registry's.
    pulled: Vec<String>,
    /// Those whose image could not be brought.
    failed: Vec<String>,
    /// The containers that are being replaced.
    recreated: Vec<String>,
}

/// Brings the newest images to the engine, and the workspaces that run one up anew, but for those whose agent works.
#[utoipa::path(post, path = "/admin/workspace-images/refresh", tag = "admin", operation_id = "refresh_images",
    params(RefreshQuery),
    responses((status = 200, body = RefreshedView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 500, body = ErrorView), (status = 501, body = ErrorView), (status = 502, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn refresh(
    State(app): State<AppState>,
    _: Operator,
    Params(query): Params<RefreshQuery>,
) -> ApiResult<Json<RefreshedView>> {
    let runtime = query.runtime.as_deref().filter(|runtime| !runtime.is_empty());
    let refreshed = app.control_plane.refresh_images(runtime, query.recreate.as_deref() != Some("false")).await?;
    Ok(Json(RefreshedView {
        pulled: refreshed.pulled,
        failed: refreshed.failed,
        recreated: refreshed.recreated.iter().map(|id| format!("ws-{id}")).collect(),
    }))
}
