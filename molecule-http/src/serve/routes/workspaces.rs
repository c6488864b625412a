//! Workspaces: create, list, read, delete, restart, logs.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE, header::HOST},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use molecule_core::{
    Error,
    config::Config,
    id::WorkspaceId,
    memory::NewMemory,
    workspace::{
        Access, CreateWorkspace, Created, Deleted, DeliveryMode, Position, Restart, Restarted, Snippets, Status,
        Workspace,
    },
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{ErrorView, status_schema};
use crate::serve::{
    error::ApiResult,
    guard::{Body, Claimed, Id, Operator, Own, Params, Presented},
    state::AppState,
};

const BAD_PAYLOAD: &str = "invalid workspace payload";

/// What the holder of a removed workspace's credentials can do.
const REMOVED_HINT: &str = "Regenerate workspace + token from the canvas → Tokens tab";

/// How many lines of a log are shown unless the caller asks for another number.
const DEFAULT_LINES: usize = 200;
const HIGHEST_LINES: usize = 10_000;

/// What a new workspace is made from.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CreateRequest {
    name: String,
    role: Option<String>,
    /// 1 to 4; 0 stands for 3.
    tier: Option<i32>,
    model: Option<String>,
    runtime: Option<String>,
    /// The agent runs somewhere else and only reports in.
    external: Option<bool>,
    /// Where an external agent is called.
    url: Option<String>,
    workspace_dir: Option<String>,
    /// `none`, `read_only` or `read_write`.
    workspace_access: Option<String>,
    parent_id: Option<String>,
    /// US cents a month.
    budget_limit: Option<i64>,
    max_concurrent_tasks: Option<i32>,
    canvas: Option<CanvasRequest>,
    /// `push` or `poll`.
    delivery_mode: Option<String>,
    /// What it is given from the start, by name.
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    secrets: Option<BTreeMap<String, SecretString>>,
    /// What it remembers from the start. What is no memory is left out.
    #[schema(value_type = Option<Vec<InitialMemory>>)]
    initial_memories: Option<Vec<Value>>,
    /// After how many minutes without work it hibernates; never where that is 0 or left out.
    hibernation_idle_minutes: Option<i32>,
    /// The folder of a template, as `GET /templates` names it.
    template: Option<String>,
}

/// Something that a workspace remembers from the start.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct InitialMemory {
    content: String,
    /// `LOCAL`, `TEAM` or `GLOBAL`, in whatever case; `LOCAL` where it is left out.
    scope: String,
}

fn first(memory: Value) -> Option<NewMemory> {
    let InitialMemory { content, scope } = serde_json::from_value(memory).ok()?;
    Some(NewMemory { content, scope, ..NewMemory::default() })
}

/// A place on the canvas.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CanvasRequest {
    #[serde(default)]
    x: f64,
    #[serde(default)]
    y: f64,
}

impl TryFrom<CreateRequest> for CreateWorkspace {
    type Error = Error;

    fn try_from(request: CreateRequest) -> Result<Self, Error> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let invalid_access = |_| Error::invalid("invalid workspace access");
        let invalid_mode = |_| Error::invalid("delivery_mode must be 'push' or 'poll'");
        let invalid_parent = |_| Error::invalid(BAD_PAYLOAD).with_member("detail", "parent_id must be a UUID");
        Ok(Self {
            name: request.name,
            role: request.role,
            tier: request.tier.unwrap_or_default(),
            template: request.template,
            model: request.model,
            runtime: request.runtime,
            external: request.external.unwrap_or_default(),
            url: request.url,
            workspace_dir: request.workspace_dir,
            workspace_access: given(request.workspace_access)
                .map(|access| access.parse::<Access>())
                .transpose()
                .map_err(invalid_access)?,
            parent_id: given(request.parent_id)
                .map(|id| id.parse::<WorkspaceId>())
                .transpose()
                .map_err(invalid_parent)?,
            budget_limit: request.budget_limit,
            max_concurrent_tasks: request.max_concurrent_tasks.unwrap_or_default(),
            canvas: request.canvas.map(|canvas| Position { x: canvas.x, y: canvas.y }),
            delivery_mode: given(request.delivery_mode)
                .map(|mode| mode.parse::<DeliveryMode>())
                .transpose()
                .map_err(invalid_mode)?,
            secrets: request.secrets.unwrap_or_default(),
            initial_memories: request.initial_memories.unwrap_or_default().into_iter().filter_map(first).collect(),
            hibernation_idle_minutes: request.hibernation_idle_minutes,
        })
    }
}

/// A workspace that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreatedView {
    id: Uuid,
    /// `provisioning`; `online` or `awaiting_agent` for an external one.
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    awareness_namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace_access: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<ConnectionView>,
}

/// How an external agent joins: shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConnectionView {
    workspace_id: Uuid,
    platform_url: String,
    auth_token: String,
    registry_endpoint: String,
    heartbeat_endpoint: String,
    /// Registers once, from a shell.
    curl_register_template: String,
    /// A whole agent in Python.
    python_snippet: String,
    /// A session of Claude Code that hears and answers messages.
    claude_code_channel_snippet: String,
    /// The tools of the fleet for any agent that speaks MCP.
    universal_mcp_snippet: String,
}

/// A workspace, as anyone may see it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WorkspaceView {
    id: Uuid,
    name: String,
    role: Option<String>,
    tier: i32,
    #[schema(schema_with = status_schema)]
    status: &'static str,
    /// Empty while the agent has no address.
    url: String,
    parent_id: Option<Uuid>,
    agent_card: Option<Value>,
    active_tasks: i32,
    max_concurrent_tasks: i32,
    last_error_rate: f64,
    uptime_seconds: i64,
    runtime: String,
    x: f64,
    y: f64,
    collapsed: bool,
    /// How long bringing it up may take, where a template of its runtime says.
    #[serde(skip_serializing_if = "Option::is_none")]
    provision_timeout_ms: Option<u64>,
    last_heartbeat_at: Option<DateTime<Utc>>,
    last_outbound_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

/// A workspace, as its operator sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ListedView {
    #[serde(flatten)]
    workspace: WorkspaceView,
    /// Empty while there is nothing to say.
    last_sample_error: String,
    /// Empty while there is nothing to say.
    current_task: String,
    workspace_dir: Option<String>,
    monthly_spend: i64,
    budget_limit: Option<i64>,
    hibernation_idle_minutes: Option<i32>,
}

impl WorkspaceView {
    fn new(workspace: Workspace, config: &Config) -> Self {
        let timed = config.templates.provision_timeout_for(&workspace.runtime).is_some();
        let timeout = timed.then(|| config.provision_timeout_for(&workspace.runtime).as_millis());
        Self {
            id: workspace.id.as_uuid(),
            name: workspace.name,
            role: workspace.role,
            tier: workspace.tier,
            status: workspace.status.as_str(),
            url: workspace.url,
            parent_id: workspace.parent_id.map(|id| id.as_uuid()),
            agent_card: workspace.agent_card,
            active_tasks: workspace.active_tasks,
            max_concurrent_tasks: workspace.max_concurrent_tasks,
            last_error_rate: workspace.last_error_rate,
            uptime_seconds: workspace.uptime_seconds,
            runtime: workspace.runtime,
            x: workspace.x,
            y: workspace.y,
            collapsed: workspace.collapsed,
            provision_timeout_ms: timeout.and_then(|timeout| timeout.try_into().ok()),
            last_heartbeat_at: workspace.last_heartbeat_at,
            last_outbound_at: workspace.last_outbound_at,
            created_at: workspace.created_at,
        }
    }
}

impl ListedView {
    fn new(workspace: Workspace, config: &Config) -> Self {
        Self {
            last_sample_error: workspace.last_sample_error.clone().unwrap_or_default(),
            current_task: workspace.current_task.clone().unwrap_or_default(),
            workspace_dir: workspace.workspace_dir.clone(),
            monthly_spend: workspace.monthly_spend,
            budget_limit: workspace.budget_limit,
            hibernation_idle_minutes: workspace.hibernation_idle_minutes,
            workspace: WorkspaceView::new(workspace, config),
        }
    }
}

/// Which form of a removed workspace to show.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct ReadQuery {
    /// `true` shows a removed workspace like any other.
    include_removed: Option<String>,
}

/// What a delete may do.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct DeleteQuery {
    /// `true`: those below it may go as well.
    confirm: Option<String>,
    /// `true`: its rows go as well.
    purge: Option<String>,
}

/// How a workspace is brought up anew. Nothing is required.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct RestartRequest {
    /// Forget the agent's conversation.
    #[serde(default)]
    reset: bool,
    #[serde(default)]
    template: String,
    #[serde(default)]
    apply_template: bool,
    #[serde(default)]
    rebuild_config: bool,
}

/// What a restart may do besides.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct RestartQuery {
    /// `true`: forget the agent's conversation.
    reset: Option<String>,
}

/// How much of a log to show.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct LogsQuery {
    /// The last so many lines, at most 10000; 200 otherwise.
    lines: Option<usize>,
}

fn is_true(value: Option<&str>) -> bool {
    value == Some("true")
}

/// Makes a workspace and begins to bring it up.
#[utoipa::path(post, path = "/workspaces", tag = "workspaces", request_body = CreateRequest,
    responses((status = 201, body = CreatedView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 413, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn create(
    State(app): State<AppState>,
    _: Operator,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<(StatusCode, Json<CreatedView>)> {
    let request: CreateRequest = body.parse(BAD_PAYLOAD)?;
    let created = app.control_plane.create(request.try_into()?).await?;
    Ok((StatusCode::CREATED, Json(created_view(&app, &headers, created))))
}

fn created_view(app: &AppState, headers: &HeaderMap, created: Created) -> CreatedView {
    let Created { workspace, auth_token } = created;
    let external = workspace.is_external();
    let id = workspace.id.as_uuid();
    CreatedView {
        id,
        status: workspace.status.to_string(),
        awareness_namespace: (!external).then(|| format!("workspace:{id}")),
        workspace_access: (!external).then(|| workspace.workspace_access.as_str()),
        external: external.then_some(true),
        connection: auth_token.map(|token| {
            let platform_url = app.external_url.clone().unwrap_or_else(|| url_of_this_request(headers));
            let snippets = Snippets::new(&platform_url, workspace.id);
            ConnectionView {
                workspace_id: id,
                registry_endpoint: format!("{platform_url}/registry/register"),
                heartbeat_endpoint: format!("{platform_url}/registry/heartbeat"),
                platform_url,
                auth_token: token.expose_secret().to_owned(),
                curl_register_template: snippets.curl,
                python_snippet: snippets.python,
                claude_code_channel_snippet: snippets.claude_code_channel,
                universal_mcp_snippet: snippets.universal_mcp,
            }
        }),
    }
}

/// Where the caller reached this server, as far as the request tells.
fn url_of_this_request(headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty());
    let scheme = text("x-forwarded-proto").unwrap_or("http");
    let host = text("x-forwarded-host").or_else(|| text(HOST.as_str())).unwrap_or("localhost");
    format!("{scheme}://{}", host.trim_end_matches('/'))
}

/// Lists every workspace that is not removed, oldest first.
#[utoipa::path(get, path = "/workspaces", tag = "workspaces",
    responses((status = 200, body = [ListedView]), (status = 401, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn list(State(app): State<AppState>, _: Operator) -> ApiResult<Json<Vec<ListedView>>> {
    let workspaces = app.control_plane.workspaces().await?;
    Ok(Json(workspaces.into_iter().map(|workspace| ListedView::new(workspace, app.control_plane.config())).collect()))
}

/// Shows one workspace; 410 for one that was removed.
#[utoipa::path(get, path = "/workspaces/{id}", tag = "workspaces", params(ReadQuery, ("id" = Uuid, Path)),
    responses((status = 200, body = WorkspaceView), (status = 400, body = ErrorView), (status = 404, body = ErrorView),
        (status = 410, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn read(
    State(app): State<AppState>,
    Id(id): Id,
    Params(query): Params<ReadQuery>,
) -> ApiResult<Response> {
    let workspace = app.control_plane.workspace(id).await?.ok_or_else(|| Error::not_found("workspace not found"))?;
    if workspace.status == Status::Removed && !is_true(query.include_removed.as_deref()) {
        let body = json!({
            "error": "workspace removed",
            "id": id,
            "removed_at": workspace.updated_at,
            "hint": REMOVED_HINT,
        });
        return Ok((StatusCode::GONE, Json(body)).into_response());
    }
    Ok(Json(WorkspaceView::new(workspace, app.control_plane.config())).into_response())
}

/// Removes a workspace and, when confirmed, all below it.
#[utoipa::path(delete, path = "/workspaces/{id}", tag = "workspaces", params(DeleteQuery, ("id" = Uuid, Path)),
    responses((status = 200, body = Value), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 409, body = Value), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn delete(
    State(app): State<AppState>,
    _: Operator,
    Id(id): Id,
    Params(query): Params<DeleteQuery>,
) -> ApiResult<Response> {
    let confirmed = is_true(query.confirm.as_deref());
    let purge = is_true(query.purge.as_deref());
    let (status, body) = match app.control_plane.delete(id, confirmed, purge).await? {
        Deleted::Removed { cascade_deleted } => {
            (StatusCode::OK, json!({"status": "removed", "cascade_deleted": cascade_deleted}))
        }
        Deleted::Purged { cascade_deleted } => {
            (StatusCode::OK, json!({"status": "purged", "cascade_deleted": cascade_deleted}))
        }
        Deleted::ConfirmationRequired { children } => {
            let named: Vec<Value> = children.iter().map(|child| json!({"id": child.id, "name": child.name})).collect();
            let body = json!({
                "status": "confirmation_required",
                "message": "this workspace leads others; repeat with ?confirm=true to remove them as well",
                "children_count": named.len(),
                "children": named,
            });
            (StatusCode::CONFLICT, body)
        }
    };
    Ok((status, Json(body)).into_response())
}

/// Brings a workspace up anew; answers before that is done.
#[utoipa::path(post, path = "/workspaces/{id}/restart", tag = "workspaces", params(RestartQuery, ("id" = Uuid, Path)),
    request_body = Option<RestartRequest>,
    responses((status = 200, body = Value), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 409, body = ErrorView), (status = 413, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn restart(
    State(app): State<AppState>,
    Own(id): Own,
    Params(query): Params<RestartQuery>,
    body: Body,
) -> ApiResult<Json<Value>> {
    let request: RestartRequest =
        if body.0.trim_ascii().is_empty() { RestartRequest::default() } else { body.parse("invalid JSON body")? };
    let reset = request.reset || is_true(query.reset.as_deref());
    let restart = Restart {
        reset_session: reset,
        template: request.template,
        apply_template: request.apply_template,
        rebuild_config: request.rebuild_config,
    };
    let (restarted, config_dir) = app.control_plane.restart_from(id, &restart).await?;
    Ok(Json(match restarted {
        Restarted::Provisioning => {
            json!({"status": "provisioning", "config_dir": config_dir, "reset_session": reset})
        }
        Restarted::External => json!({
            "status": "noop",
            "runtime": "external",
            "message": "this agent runs outside of this control plane; restart it where it runs",
        }),
    }))
}

/// Shows the end of what the workload wrote.
#[utoipa::path(get, path = "/workspaces/{id}/logs", tag = "workspaces", params(LogsQuery, ("id" = Uuid, Path),
        ("X-Workspace-ID" = Option<String>, Header)),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 400, body = ErrorView),
        (status = 401, body = ErrorView), (status = 403, body = ErrorView), (status = 404, body = ErrorView), (status = 410, body = ErrorView),
        (status = 501, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn logs(
    State(app): State<AppState>,
    presented: Presented,
    Own(id): Own,
    Claimed(claimed): Claimed,
    Params(query): Params<LogsQuery>,
) -> ApiResult<impl IntoResponse> {
    let refusal = "not authorized to read this workspace's logs";
    app.control_plane.guard_inside(presented.credential, claimed.as_deref(), id, refusal).await?;
    let lines = query.lines.unwrap_or(DEFAULT_LINES).min(HIGHEST_LINES);
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], app.control_plane.logs(id, lines).await?))
}
