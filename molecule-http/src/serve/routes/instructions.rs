//! What the operator tells agents: list, make, read, replace, delete; and what an agent is told.

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use molecule_core::{
    id::{InstructionId, WorkspaceId},
    records::{Instruction, NewInstruction, joined},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{ErrorView, values::DeletedView};
use crate::serve::{
    error::ApiResult,
    guard::{Body, Operator, Own},
    named::Named,
    state::AppState,
};

const BAD_BODY: &str = "invalid request body";

/// What an instruction is to be.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct InstructionRequest {
    /// `global` for every agent, or `workspace` for one workspace and all below it.
    scope: Option<String>,
    #[schema(value_type = Option<Uuid>)]
    workspace_id: Option<WorkspaceId>,
    /// Up to 16384 characters.
    content: Option<String>,
    /// The lowest comes first; 0 unless something else is said.
    position: Option<i32>,
}

impl From<InstructionRequest> for NewInstruction {
    fn from(request: InstructionRequest) -> Self {
        Self {
            scope: request.scope.unwrap_or_default(),
            workspace_id: request.workspace_id,
            content: request.content.unwrap_or_default(),
            position: request.position.unwrap_or_default(),
        }
    }
}

/// What the operator tells agents.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InstructionView {
    id: Uuid,
    /// `global` or `workspace`.
    scope: &'static str,
    workspace_id: Option<Uuid>,
    content: String,
    position: i32,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Instruction> for InstructionView {
    fn from(instruction: Instruction) -> Self {
        Self {
            id: instruction.id.as_uuid(),
            scope: instruction.scope().as_str(),
            workspace_id: instruction.workspace_id.map(|id| id.as_uuid()),
            content: instruction.content,
            position: instruction.position,
            created_at: instruction.created_at,
            updated_at: instruction.updated_at,
        }
    }
}

/// What an agent is told.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ToldView {
    /// Those for everyone first, its own workspace's last.
    instructions: Vec<InstructionView>,
    /// All of them as one text.
    text: String,
}

/// Lists all instructions.
#[utoipa::path(get, path = "/instructions", tag = "instructions", operation_id = "list_instructions",
    responses((status = 200, body = [InstructionView]), (status = 401, body = ErrorView),
        (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn list(State(app): State<AppState>, _: Operator) -> ApiResult<Json<Vec<InstructionView>>> {
    let instructions = app.control_plane.instructions().await?;
    Ok(Json(instructions.into_iter().map(InstructionView::from).collect()))
}

/// Tells agents something from now on.
#[utoipa::path(post, path = "/instructions", tag = "instructions", operation_id = "create_instruction",
    request_body = InstructionRequest,
    responses((status = 201, body = InstructionView), (status = 400, body = ErrorView),
        (status = 401, body = ErrorView), (status = 404, body = ErrorView), (status = 413, body = ErrorView),
        (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn create(
    State(app): State<AppState>,
    _: Operator,
    body: Body,
) -> ApiResult<(StatusCode, Json<InstructionView>)> {
    let request: InstructionRequest = body.parse(BAD_BODY)?;
    Ok((StatusCode::CREATED, Json(app.control_plane.instruct(request.into()).await?.into())))
}

/// Shows an instruction.
#[utoipa::path(get, path = "/instructions/{instruction_id}", tag = "instructions", operation_id = "read_instruction",
    params(("instruction_id" = Uuid, Path)),
    responses((status = 200, body = InstructionView), (status = 400, body = ErrorView),
        (status = 401, body = ErrorView), (status = 404, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn read(
    State(app): State<AppState>,
    _: Operator,
    Named(id): Named<InstructionId>,
) -> ApiResult<Json<InstructionView>> {
    Ok(Json(app.control_plane.instruction(id).await?.into()))
}

/// Puts another instruction in the place of one, whole.
#[utoipa::path(put, path = "/instructions/{instruction_id}", tag = "instructions",
    operation_id = "replace_instruction", params(("instruction_id" = Uuid, Path)), request_body = InstructionRequest,
    responses((status = 200, body = InstructionView), (status = 400, body = ErrorView),
        (status = 401, body = ErrorView), (status = 404, body = ErrorView), (status = 413, body = ErrorView),
        (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn replace(
    State(app): State<AppState>,
    _: Operator,
    Named(id): Named<InstructionId>,
    body: Body,
) -> ApiResult<Json<InstructionView>> {
    let request: InstructionRequest = body.parse(BAD_BODY)?;
    Ok(Json(app.control_plane.replace_instruction(id, request.into()).await?.into()))
}

/// Deletes an instruction.
#[utoipa::path(delete, path = "/instructions/{instruction_id}", tag = "instructions",
    operation_id = "delete_instruction", params(("instruction_id" = Uuid, Path)),
    responses((status = 200, body = DeletedView), (status = 400, body = ErrorView),
        (status = 401, body = ErrorView), (status = 404, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn delete(
    State(app): State<AppState>,
    _: Operator,
    Named(id): Named<InstructionId>,
) -> ApiResult<Json<DeletedView>> {
    app.control_plane.delete_instruction(id).await?;
    Ok(Json(DeletedView { status: "deleted" }))
}

/// Shows what the agent of a workspace is told.
#[utoipa::path(get, path = "/workspaces/{id}/instructions", tag = "instructions",
    operation_id = "instructions_of_workspace", params(("id" = Uuid, Path)),
    responses((status = 200, body = ToldView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn told(State(app): State<AppState>, Own(id): Own) -> ApiResult<Json<ToldView>> {
    let instructions = app.control_plane.instructions_for(id).await?;
    let text = joined(&instructions);
    Ok(Json(ToldView { instructions: instructions.into_iter().map(InstructionView::from).collect(), text }))
}
