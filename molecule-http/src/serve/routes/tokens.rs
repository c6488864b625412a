//! The tokens of a workspace: list, issue, revoke.

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use molecule_core::{id::TokenId, store::Token};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{Own, Params},
    named::Named,
    state::AppState,
};

/// How many tokens a page holds where nobody says.
const PAGE: u32 = 50;

/// How many tokens a page may hold.
const PAGE_LIMIT: u32 = 200;

/// Which tokens to show. What is no number in its range counts as left out.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct TokensQuery {
    /// How many, 1 to 200; 50 otherwise.
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
    /// How many of the newest to leave out; none otherwise.
    #[param(value_type = Option<u32>)]
    offset: Option<String>,
}

/// A live token, without its text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenView {
    id: Uuid,
    /// Its first 8 characters.
    prefix: String,
    created_at: DateTime<Utc>,
    /// When it was presented last, within the minute.
    last_used_at: Option<DateTime<Utc>>,
}

impl From<Token> for TokenView {
    fn from(token: Token) -> Self {
        Self {
            id: token.id.as_uuid(),
            prefix: token.prefix,
            created_at: token.created_at,
            last_used_at: token.last_used_at,
        }
    }
}

/// A page of tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokensView {
    tokens: Vec<TokenView>,
    /// How many this page holds.
    count: usize,
}

/// A token that was just issued.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IssuedTokenView {
    /// Its text, told this once.
    auth_token: String,
    workspace_id: Uuid,
    message: &'static str,
}

/// What became of a token.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RevokedView {
    /// `revoked`.
    status: &'static str,
}

/// Lists the live tokens of a workspace, newest first.
#[utoipa::path(get, path = "/workspaces/{id}/tokens", tag = "tokens", params(TokensQuery, ("id" = Uuid, Path)),
    responses((status = 200, body = TokensView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn list(
    State(app): State<AppState>,
    Own(id): Own,
    Params(query): Params<TokensQuery>,
) -> ApiResult<Json<TokensView>> {
    let number = |text: Option<String>| text.and_then(|text| text.parse::<u32>().ok());
    let limit = number(query.limit).filter(|limit| (1..=PAGE_LIMIT).contains(limit)).unwrap_or(PAGE);
    let tokens = app.control_plane.tokens(id, limit, number(query.offset).unwrap_or(0)).await?;
    let tokens: Vec<_> = tokens.into_iter().map(TokenView::from).collect();
    Ok(Json(TokensView { count: tokens.len(), tokens }))
}

/// Issues one more token for a workspace.
#[utoipa::path(post, path = "/workspaces/{id}/tokens", tag = "tokens", params(("id" = Uuid, Path)),
    responses((status = 201, body = IssuedTokenView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 429, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn issue(State(app): State<AppState>, Own(id): Own) -> ApiResult<(StatusCode, Json<IssuedTokenView>)> {
    let issued = app.control_plane.issue_token(id).await?;
    let view = IssuedTokenView {
        auth_token: issued.token.expose_secret().to_owned(),
        workspace_id: issued.workspace_id.as_uuid(),
        message: "keep this token now: it is not shown again",
    };
    Ok((StatusCode::CREATED, Json(view)))
}

/// Revokes a token of a workspace.
#[utoipa::path(delete, path = "/workspaces/{id}/tokens/{token_id}", tag = "tokens",
    params(("id" = Uuid, Path), ("token_id" = Uuid, Path)),
    responses((status = 200, body = RevokedView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn revoke(
    State(app): State<AppState>,
    Own(id): Own,
    Named(token): Named<TokenId>,
) -> ApiResult<Json<RevokedView>> {
    app.control_plane.revoke_token(id, token).await?;
    Ok(Json(RevokedView { status: "revoked" }))
}
