//! Who is there, and where: discover, peers, check-access.

use axum::{Json, extract::State};
use molecule_core::{Error, id::WorkspaceId, workspace::Workspace};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{ErrorView, status_schema};
use crate::serve::{
    error::ApiResult,
    guard::{Body, Claimed, Id, Own, Params, Presented},
    state::AppState,
};

/// Where an agent is called.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WhereaboutsView {
    id: Uuid,
    /// Where the asker calls it.
    url: String,
    name: String,
}

/// An agent that another may know of.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PeerView {
    id: Uuid,
    name: String,
    role: Option<String>,
    tier: i32,
    #[schema(schema_with = status_schema)]
    status: &'static str,
    agent_card: Option<Value>,
    /// Empty while the agent has no address.
    url: String,
    parent_id: Option<Uuid>,
    active_tasks: i32,
}

impl From<Workspace> for PeerView {
    fn from(workspace: Workspace) -> Self {
        Self {
            id: workspace.id.as_uuid(),
            name: workspace.name,
            role: workspace.role,
            tier: workspace.tier,
            status: workspace.status.as_str(),
            agent_card: workspace.agent_card,
            url: workspace.url,
            parent_id: workspace.parent_id.map(|id| id.as_uuid()),
            active_tasks: workspace.active_tasks,
        }
    }
}

/// Which peers to show.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct PeersQuery {
    /// Those with this in their name or role, in whatever case.
    q: Option<String>,
}

/// Two workspaces.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CheckAccessRequest {
    caller_id: String,
    target_id: String,
}

/// Whether they may talk.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AccessView {
    allowed: bool,
}

/// Says where the caller reaches the agent of a workspace.
#[utoipa::path(get, path = "/registry/discover/{id}", tag = "registry",
    params(("id" = Uuid, Path), ("X-Workspace-ID" = Uuid, Header)),
    responses((status = 200, body = WhereaboutsView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 403, body = ErrorView), (status = 404, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn discover(
    State(app): State<AppState>,
    Id(target): Id,
    presented: Presented,
    Claimed(claimed): Claimed,
) -> ApiResult<Json<WhereaboutsView>> {
    let claimed = claimed.ok_or_else(|| Error::invalid("X-Workspace-ID header is required"))?;
    let caller: WorkspaceId = claimed.parse().map_err(|_| Error::invalid("invalid workspace ID"))?;
    app.control_plane.admit_to_workspace(presented.credential, caller, presented.exposure)?;
    let found = app.control_plane.discover(caller, target).await?;
    Ok(Json(WhereaboutsView { id: found.id.as_uuid(), url: found.url, name: found.name }))
}

/// Lists the agents around a workspace: those beside it, those it leads, the one that leads it.
#[utoipa::path(get, path = "/registry/{id}/peers", tag = "registry", params(PeersQuery, ("id" = Uuid, Path)),
    responses((status = 200, body = [PeerView]), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn peers(
    State(app): State<AppState>,
    Own(id): Own,
    Params(query): Params<PeersQuery>,
) -> ApiResult<Json<Vec<PeerView>>> {
    let peers = app.control_plane.peers(id, query.q.as_deref()).await?;
    Ok(Json(peers.into_iter().map(PeerView::from).collect()))
}

/// Says whether two workspaces may talk.
#[utoipa::path(post, path = "/registry/check-access", tag = "registry", request_body = CheckAccessRequest,
    responses((status = 200, body = AccessView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 413, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn check_access(
    State(app): State<AppState>,
    presented: Presented,
    body: Body,
) -> ApiResult<Json<AccessView>> {
    const BAD_BODY: &str = "invalid request body";
    let request: CheckAccessRequest = body.parse(BAD_BODY)?;
    let id = |text: &str| text.parse::<WorkspaceId>().ok();
    let (caller, target) = (id(&request.caller_id), id(&request.target_id));
    match caller {
        Some(caller) => drop(app.control_plane.admit_to_workspace(presented.credential, caller, presented.exposure)?),
        None => app.control_plane.admit_operator(presented.credential, presented.exposure).await?,
    }
    // What is no ID names nobody who may talk.
    let allowed = match caller.zip(target) {
        Some((caller, target)) => app.control_plane.can_communicate(caller, target).await?,
        None => false,
    };
    Ok(Json(AccessView { allowed }))
}
