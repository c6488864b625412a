//! What a workspace may spend.

use axum::{Json, extract::State};
use molecule_core::{Error, workspace::Budget};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{Body, Id, Operator, Own},
    state::AppState,
};

/// What a workspace may spend a month and has spent, in US cents.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BudgetView {
    /// `null` is as much as it likes.
    budget_limit: Option<i64>,
    monthly_spend: i64,
    /// Below zero where more was spent.
    budget_remaining: Option<i64>,
}

/// What a workspace may spend from now on.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct BudgetRequest {
    /// An integer of at least 0, or `null`.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i64>)]
    budget_limit: Option<Value>,
}

/// Tells a member that is `null` from one that is not there.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl From<Budget> for BudgetView {
    fn from(budget: Budget) -> Self {
        Self { budget_limit: budget.limit, monthly_spend: budget.spent, budget_remaining: budget.remaining() }
    }
}

/// Shows what a workspace may spend and has spent.
#[utoipa::path(get, path = "/workspaces/{id}/budget", tag = "budget", params(("id" = Uuid, Path)),
    responses((status = 200, body = BudgetView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn read(State(app): State<AppState>, Own(id): Own) -> ApiResult<Json<BudgetView>> {
    Ok(Json(app.control_plane.budget(id).await?.into()))
}

/// Sets what a workspace may spend.
#[utoipa::path(patch, path = "/workspaces/{id}/budget", tag = "budget", params(("id" = Uuid, Path)),
    request_body = BudgetRequest,
    responses((status = 200, body = BudgetView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn set(
    State(app): State<AppState>,
    _: Operator,
    Id(id): Id,
    body: Body,
) -> ApiResult<Json<BudgetView>> {
    let request: BudgetRequest = body.parse("invalid request body")?;
    let limit = match request.budget_limit {
        None => return Err(Error::invalid("budget_limit field is required").into()),
        Some(Value::Null) => None,
        Some(limit) => {
            Some(limit.as_i64().ok_or_else(|| Error::invalid("budget_limit must be an integer (USD cents) or null"))?)
        }
    };
    Ok(Json(app.control_plane.set_budget(id, limit).await?.into()))
}
