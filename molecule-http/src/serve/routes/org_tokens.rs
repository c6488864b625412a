//! The tokens of the organisation: list, mint, revoke. And those that tests are given.

use axum::{Extension, Json, extract::State};
use chrono::{DateTime, Utc};
use molecule_core::{id::TokenId, store::OrgToken};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::ErrorView;
use crate::serve::{
    edge::Sender,
    error::{ApiError, ApiResult},
    guard::{Body, Id, Operator, Presented},
    named::Named,
    state::AppState,
};

/// A live token of the organisation, without its text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrgTokenView {
    id: Uuid,
    /// Its first 8 characters.
    prefix: String,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The topmost workspace of the organisation it is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    org_id: Option<Uuid>,
    /// By what it was minted: `org-token:PREFIX`, `session` or `admin-token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<String>,
    created_at: DateTime<Utc>,
    /// When it was presented last, within the minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<DateTime<Utc>>,
}

impl From<OrgToken> for OrgTokenView {
    fn from(token: OrgToken) -> Self {
        Self {
            id: token.id.as_uuid(),
            prefix: token.prefix,
            name: token.name,
            org_id: token.org_id.map(|id| id.as_uuid()),
            created_by: token.created_by,
            created_at: token.created_at,
            last_used_at: token.last_used_at,
        }
    }
}

/// The tokens of the organisation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrgTokensView {
    tokens: Vec<OrgTokenView>,
    count: usize,
}

/// What a new token is for.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct MintRequest {
    /// At most 100 characters.
    name: Option<String>,
}

/// A token that was just minted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MintedView {
    id: Uuid,
    prefix: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Its text, told this once.
    auth_token: String,
    warning: &'static str,
}

/// Which token was revoked.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RevokedOrgTokenView {
    revoked: Uuid,
}

/// A token for tests.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TestTokenView {
    auth_token: String,
    workspace_id: Uuid,
}

/// Lists the live tokens of the organisation, newest first, at most 500.
#[utoipa::path(get, path = "/org/tokens", tag = "tokens",
    responses((status = 200, body = OrgTokensView), (status = 401, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn list(State(app): State<AppState>, _: Operator) -> ApiResult<Json<OrgTokensView>> {
    let tokens = app.control_plane.org_tokens().await?;
    let tokens: Vec<_> = tokens.into_iter().map(OrgTokenView::from).collect();
    Ok(Json(OrgTokensView { count: tokens.len(), tokens }))
}

/// Mints a token of the organisation, worth what the operator's is. A body that says nothing is none.
#[utoipa::path(post, path = "/org/tokens", tag = "tokens", request_body = MintRequest,
    responses((status = 200, body = MintedView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 413, body = ErrorView), (status = 429, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn mint(
    State(app): State<AppState>,
    _: Operator,
    presented: Presented,
    Extension(sender): Extension<Sender>,
    body: Body,
) -> ApiResult<Json<MintedView>> {
    app.edge.count_mint(sender)?;
    let request: MintRequest = body.parse("").unwrap_or_default();
    let minted = app.control_plane.mint_org_token(presented.credential, request.name.as_deref()).await?;
    Ok(Json(MintedView {
        id: minted.id.as_uuid(),
        prefix: minted.prefix,
        name: minted.name,
        auth_token: minted.token.expose_secret().to_owned(),
        warning: "keep this token now: it is not shown again, and it may do all that the operator may",
    }))
}

/// Revokes a token of the organisation.
#[utoipa::path(delete, path = "/org/tokens/{token_id}", tag = "tokens", params(("token_id" = Uuid, Path)),
    responses((status = 200, body = RevokedOrgTokenView), (status = 400, body = ErrorView),
        (status = 401, body = ErrorView), (status = 404, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn revoke(
    State(app): State<AppState>,
    _: Operator,
    Named(token): Named<TokenId>,
) -> ApiResult<Json<RevokedOrgTokenView>> {
    app.control_plane.revoke_org_token(token).await?;
    Ok(Json(RevokedOrgTokenView { revoked: token.as_uuid() }))
}

/// Issues a token of a workspace to a test, where that is enabled; otherwise there is no such route.
#[utoipa::path(get, path = "/admin/workspaces/{id}/test-token", tag = "tokens", params(("id" = Uuid, Path)),
    responses((status = 200, body = TestTokenView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 429, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn test_token(
    State(app): State<AppState>,
    presented: Presented,
    id: Result<Id, ApiError>,
) -> ApiResult<Json<TestTokenView>> {
    app.control_plane.admit_to_test_tokens(presented.credential, presented.exposure)?;
    let issued = app.control_plane.issue_test_token(id?.0).await?;
    let view = TestTokenView {
        auth_token: issued.token.expose_secret().to_owned(),
        workspace_id: issued.workspace_id.as_uuid(),
    };
    Ok(Json(view))
}
