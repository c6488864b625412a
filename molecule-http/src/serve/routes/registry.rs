//! What agents say: register, heartbeat, update-card.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use molecule_core::{
    Error,
    id::WorkspaceId,
    identity::Credential,
    registry::{Heartbeat, Register, RuntimeMetadata},
    workspace::DeliveryMode,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{Body, Presented},
    state::AppState,
};

const BAD_BODY: &str = "invalid request body";

/// What an agent says about itself.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct RegisterRequest {
    /// The id of its workspace.
    id: String,
    /// Where it is called; may be empty where messages are polled for.
    #[serde(default)]
    url: String,
    /// What it can do, kept verbatim.
    agent_card: Value,
    /// `push` or `poll`; empty keeps what is set.
    #[serde(default)]
    delivery_mode: String,
}

/// What an agent is told when it registered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RegisteredView {
    /// Always `registered`.
    status: &'static str,
    /// `push` or `poll`.
    delivery_mode: &'static str,
    /// Its token, shown only when this call issued it.
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<String>,
    /// What calls of the platform into the workspace present as their bearer.
    #[serde(skip_serializing_if = "Option::is_none")]
    platform_inbound_secret: Option<String>,
}

/// What an agent says about its condition.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct HeartbeatRequest {
    /// The id of its workspace.
    workspace_id: String,
    /// The share of its calls that failed lately, 0 to 1.
    #[serde(default)]
    error_rate: f64,
    #[serde(default)]
    sample_error: String,
    #[serde(default)]
    active_tasks: i32,
    /// Fractions are cut off.
    #[serde(default)]
    uptime_seconds: f64,
    #[serde(default)]
    current_task: String,
    /// US cents this month; 0 says nothing.
    #[serde(default)]
    monthly_spend: i64,
    /// `wedged`, or anything else for well.
    #[serde(default)]
    runtime_state: String,
    #[serde(default)]
    runtime_metadata: Option<RuntimeMetadataRequest>,
}

/// What an agent's runtime does by itself.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct RuntimeMetadataRequest {
    #[serde(default)]
    capabilities: BTreeMap<String, bool>,
    /// How long it may show no sign of life during a call.
    #[serde(default)]
    idle_timeout_seconds: Option<i64>,
}

/// What an agent is told in answer to a heartbeat.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HeartbeatView {
    /// Always `ok`.
    status: &'static str,
    /// What calls of the platform into the workspace present as their bearer.
    #[serde(skip_serializing_if = "Option::is_none")]
    platform_inbound_secret: Option<String>,
}

/// That a call was taken.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TakenView {
    status: &'static str,
}

/// A new card.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct UpdateCardRequest {
    /// The id of the workspace.
    workspace_id: String,
    /// The card, kept verbatim.
    agent_card: Value,
}

fn workspace_id(text: &str) -> Result<WorkspaceId, Error> {
    text.parse().map_err(|error: Error| Error::invalid(BAD_BODY).with_member("detail", error.message().to_owned()))
}

fn exposed(secret: SecretString) -> String {
    secret.expose_secret().to_owned()
}

/// Takes an agent's word on where it is and what it can do, and brings its workspace online.
#[utoipa::path(post, path = "/registry/register", tag = "registry", request_body = RegisterRequest,
    responses((status = 200, body = RegisteredView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 413, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn register(
    State(app): State<AppState>,
    presented: Presented,
    body: Body,
) -> ApiResult<Json<RegisteredView>> {
    let request: RegisterRequest = body.parse(BAD_BODY)?;
    let delivery_mode = match request.delivery_mode.as_str() {
        "" => None,
        mode => {
            Some(mode.parse::<DeliveryMode>().map_err(|_| Error::invalid("delivery_mode must be 'push' or 'poll'"))?)
        }
    };
    let register =
        Register { id: workspace_id(&request.id)?, url: request.url, agent_card: request.agent_card, delivery_mode };
    let registered = app.control_plane.register(&register, presented.credential).await?;
    Ok(Json(RegisteredView {
        status: "registered",
        delivery_mode: registered.delivery_mode.as_str(),
        auth_token: registered.auth_token.map(exposed),
        platform_inbound_secret: registered.inbound_secret.map(exposed),
    }))
}

/// Takes an agent's word on its condition.
#[utoipa::path(post, path = "/registry/heartbeat", tag = "registry", request_body = HeartbeatRequest,
    responses((status = 200, body = HeartbeatView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 413, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn heartbeat(
    State(app): State<AppState>,
    presented: Presented,
    body: Body,
) -> ApiResult<Json<HeartbeatView>> {
    beat(&app, presented.credential, &body).await
}

/// As the route, for what was admitted already.
pub(crate) async fn beat(app: &AppState, credential: Credential, body: &Body) -> ApiResult<Json<HeartbeatView>> {
    let request: HeartbeatRequest = body.parse(BAD_BODY)?;
    let id = workspace_id(&request.workspace_id)?;
    let beat = Heartbeat {
        error_rate: request.error_rate,
        sample_error: request.sample_error,
        active_tasks: request.active_tasks,
        // A float that does not fit becomes the nearest number that does.
        uptime_seconds: request.uptime_seconds as i64,
        current_task: request.current_task,
        monthly_spend: request.monthly_spend,
        runtime_state: request.runtime_state,
        runtime_metadata: request.runtime_metadata.map(|metadata| RuntimeMetadata {
            capabilities: metadata.capabilities,
            idle_timeout_seconds: metadata.idle_timeout_seconds,
        }),
    };
    let reply = app.control_plane.heartbeat(id, &beat, credential).await?;
    Ok(Json(HeartbeatView { status: "ok", platform_inbound_secret: reply.inbound_secret.map(exposed) }))
}

/// Replaces an agent's card.
#[utoipa::path(post, path = "/registry/update-card", tag = "registry", request_body = UpdateCardRequest,
    responses((status = 200, body = TakenView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 413, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn update_card(
    State(app): State<AppState>,
    presented: Presented,
    body: Body,
) -> ApiResult<Json<TakenView>> {
    let request: UpdateCardRequest = body.parse(BAD_BODY)?;
    let id = workspace_id(&request.workspace_id)?;
    app.control_plane.update_card(id, &request.agent_card, presented.credential).await?;
    Ok(Json(TakenView { status: "updated" }))
}
