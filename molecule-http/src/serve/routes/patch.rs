//! Changes what a workspace is.

use axum::{Json, extract::State};
use molecule_core::{
    Error,
    id::WorkspaceId,
    workspace::{Patch, Position},
};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{Body, Own, Presented},
    state::AppState,
};

const BAD_BODY: &str = "invalid request body";

/// What changes; members that are left out stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct PatchRequest {
    name: Option<String>,
    role: Option<String>,
    /// 1 to 4. For the operator.
    tier: Option<i32>,
    /// A UUID, or `null` for a root. For the operator.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Uuid>)]
    parent_id: Option<Option<String>>,
    /// For the operator.
    runtime: Option<String>,
    /// `null` for storage of its own. For the operator.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    workspace_dir: Option<Option<String>>,
    /// 0 or `null` for never. For the operator.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i32>)]
    hibernation_idle_minutes: Option<Option<i32>>,
    /// Ignored without `y`.
    x: Option<f64>,
    /// Ignored without `x`.
    y: Option<f64>,
    collapsed: Option<bool>,
}

/// Tells a member that is `null` from one that is not there.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl TryFrom<PatchRequest> for Patch {
    type Error = Error;

    fn try_from(request: PatchRequest) -> Result<Self, Error> {
        let parent = |id: String| {
            let no_uuid = |_| Error::invalid(BAD_BODY).with_member("detail", "parent_id must be a UUID or null");
            if id.is_empty() { Ok(None) } else { id.parse::<WorkspaceId>().map(Some).map_err(no_uuid) }
        };
        Ok(Self {
            name: request.name,
            role: request.role,
            tier: request.tier,
            parent_id: request.parent_id.map(|id| id.map_or(Ok(None), parent)).transpose()?,
            runtime: request.runtime,
            workspace_dir: request.workspace_dir,
            hibernation_idle_minutes: request.hibernation_idle_minutes,
            position: request.x.zip(request.y).map(|(x, y)| Position { x, y }),
            collapsed: request.collapsed,
        })
    }
}

/// What a change came to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PatchedView {
    /// `updated`.
    status: &'static str,
    /// The change holds from the next restart on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    needs_restart: bool,
}

/// Changes what a workspace is.
#[utoipa::path(patch, path = "/workspaces/{id}", tag = "workspaces", params(("id" = Uuid, Path)),
    request_body = PatchRequest,
    responses((status = 200, body = PatchedView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 403, body = ErrorView), (status = 404, body = ErrorView), (status = 409, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn patch(
    State(app): State<AppState>,
    Own(id): Own,
    presented: Presented,
    body: Body,
) -> ApiResult<Json<PatchedView>> {
    let request: PatchRequest = body.parse(BAD_BODY)?;
    let Presented { credential, exposure } = presented;
    let outcome = app.control_plane.patch(id, request.try_into()?, credential, exposure).await?;
    Ok(Json(PatchedView { status: "updated", needs_restart: outcome.needs_restart }))
}
