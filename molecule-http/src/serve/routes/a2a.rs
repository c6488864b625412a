//! Calls to agents.

use std::time::Duration;

use axum::{
    Json,
    body::Body as ResponseBody,
    extract::State,
    http::{HeaderMap, Response, header::CONTENT_TYPE},
};
use chrono::{DateTime, Utc};
use molecule_core::{
    Error, ErrorKind,
    a2a::{Call, PROTOCOL, QueueItem, Reply},
    id::QueueId,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{Body, Claimed, Id, Operator, Own, Params, Presented},
    named::Named,
    state::AppState,
};

/// Says how long the call may take, in seconds; 0 is for ever.
const TIMEOUT: &str = "x-timeout";

/// The longest version of the protocol that is passed on, in characters.
const LONGEST_VERSION: usize = 32;

/// What an answer is that comes bit by bit.
const EVENTS: &str = "text/event-stream";

/// Calls the agent of a workspace by JSON-RPC and gives back its answer: events as they come, anything else as a whole.
#[utoipa::path(post, path = "/workspaces/{id}/a2a", tag = "a2a", request_body = Value,
    params(("id" = uuid::Uuid, Path), ("X-Workspace-ID" = Option<String>, Header), ("X-Timeout" = Option<u64>, Header),
        ("A2A-Version" = Option<String>, Header)),
    responses((status = 200, body = Value), (status = 202, body = Value), (status = 400, body = ErrorView),
        (status = 401, body = ErrorView), (status = 402, body = ErrorView), (status = 403, body = ErrorView), (status = 404, body = ErrorView), (status = 413, body = ErrorView),
        (status = 500, body = ErrorView), (status = 502, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn call(
    State(app): State<AppState>,
    Id(target): Id,
    presented: Presented,
    Claimed(claimed): Claimed,
    headers: HeaderMap,
    Body(body): Body,
) -> ApiResult<Response<ResponseBody>> {
    let Presented { credential, exposure } = presented;
    let caller = app.control_plane.admit_caller(credential, claimed.as_deref(), target, exposure).await?;
    let protocol = protocol(&headers);
    let call = Call { target, sender: caller.into(), body, protocol, deadline: deadline(&headers) };
    let (status, kind, body) = match app.control_plane.call_live(call).await? {
        Reply::Whole(answer) => {
            let kind = if answer.is_events { EVENTS } else { "application/json" };
            (answer.status, kind, answer.body.into())
        }
        Reply::Live { status, bits } => (status, EVENTS, ResponseBody::from_stream(bits)),
    };
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, kind)
        .body(body)
        .map_err(|error| Error::new(ErrorKind::Upstream, "the agent's answer is no HTTP").caused_by(error).into())
}

/// Which version of the protocol the request is of, where the caller says so. What is no version is ignored.
fn protocol(headers: &HeaderMap) -> Option<String> {
    let version = headers.get(PROTOCOL)?.to_str().ok()?.trim();
    let is_version =
        (1..=LONGEST_VERSION).contains(&version.len()) && version.bytes().all(|byte| byte.is_ascii_graphic());
    is_version.then(|| version.to_owned())
}

/// How long the call may take, where the caller says so. What is no number is ignored.
fn deadline(headers: &HeaderMap) -> Option<Option<Duration>> {
    let seconds: u64 = headers.get(TIMEOUT)?.to_str().ok()?.trim().parse().ok()?;
    Some((seconds > 0).then(|| Duration::from_secs(seconds)))
}

/// A message that is kept for an agent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QueueItemView {
    queue_id: Uuid,
    workspace_id: Uuid,
    /// `queued`, `dispatched`, `completed`, `dropped` or `failed`.
    status: &'static str,
    priority: i32,
    /// How often it was tried.
    attempts: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    enqueued_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dispatched_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<DateTime<Utc>>,
    /// What the agent answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_body: Option<Value>,
}

impl From<QueueItem> for QueueItemView {
    fn from(item: QueueItem) -> Self {
        Self {
            queue_id: item.id.as_uuid(),
            workspace_id: item.workspace_id.as_uuid(),
            status: item.status.as_str(),
            priority: item.priority,
            attempts: item.attempts,
            last_error: item.last_error,
            enqueued_at: item.enqueued_at,
            dispatched_at: item.dispatched_at,
            completed_at: item.completed_at,
            expires_at: item.expires_at,
            response_body: item.response_body,
        }
    }
}

/// Which messages to drop.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
pub(crate) struct DropStaleParams {
    /// Those that have waited for longer than so many minutes; 60 otherwise.
    #[param(value_type = u64)]
    max_age_minutes: String,
    /// Those for this workspace alone.
    #[param(value_type = Uuid)]
    workspace_id: String,
}

/// How many messages were dropped.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DroppedView {
    dropped: u64,
}

/// What a workspace used today, as its answers say.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsageView {
    input_tokens: i64,
    output_tokens: i64,
    total_calls: i64,
    /// In US dollars, with six decimals.
    estimated_cost_usd: String,
    period_start: DateTime<Utc>,
    period_end: DateTime<Utc>,
}

/// Shows what became of a message that is kept for an agent, to its sender, its receiver and the operator.
#[utoipa::path(get, path = "/workspaces/{id}/a2a/queue/{queue_id}", tag = "a2a",
    params(("id" = Uuid, Path), ("queue_id" = Uuid, Path)),
    responses((status = 200, body = QueueItemView), (status = 400, body = ErrorView), (status = 404, body = ErrorView),
        (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn queue_item(
    State(app): State<AppState>,
    Id(workspace): Id,
    Named(item): Named<QueueId>,
    presented: Presented,
) -> ApiResult<Json<QueueItemView>> {
    let Presented { credential, exposure, .. } = presented;
    let item = app.control_plane.queue_item(workspace, item, credential, exposure).await?;
    Ok(Json(item.into()))
}

/// Drops messages that have waited for too long.
#[utoipa::path(post, path = "/admin/a2a-queue/drop-stale", tag = "a2a", params(DropStaleParams),
    responses((status = 200, body = DroppedView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn drop_stale(
    State(app): State<AppState>,
    _: Operator,
    Params(params): Params<DropStaleParams>,
) -> ApiResult<Json<DroppedView>> {
    let minutes = match params.max_age_minutes.trim() {
        "" => 60,
        text => text
            .parse()
            .ok()
            .filter(|minutes: &u64| *minutes > 0)
            .ok_or_else(|| Error::invalid("max_age_minutes must be a positive integer"))?,
    };
    let of = Some(params.workspace_id.trim()).filter(|id| !id.is_empty()).map(str::parse).transpose()?;
    let age = Duration::from_secs(minutes.saturating_mul(60));
    Ok(Json(DroppedView { dropped: app.control_plane.drop_stale_messages(age, of).await? }))
}

/// Shows what a workspace used today.
#[utoipa::path(get, path = "/workspaces/{id}/metrics", tag = "a2a", params(("id" = Uuid, Path)),
    responses((status = 200, body = UsageView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn usage(State(app): State<AppState>, Own(id): Own) -> ApiResult<Json<UsageView>> {
    let usage = app.control_plane.usage_today(id).await?;
    let cost = usage.estimated_cost_micro_usd();
    Ok(Json(UsageView {
        input_tokens: usage.input_tokens,
        output_tokens: usage.output_tokens,
        total_calls: usage.total_calls,
        estimated_cost_usd: format!("{}.{:06}", cost / 1_000_000, cost % 1_000_000),
        period_start: usage.period_start,
        period_end: usage.period_end,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_may_set_a_deadline() {
        let rows = [
            ("5", Some(Some(Duration::from_secs(5)))),
            (" 5 ", Some(Some(Duration::from_secs(5)))),
            ("0", Some(None)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ];
        for (value, expected) in rows {
            let headers = HeaderMap::from_iter([(TIMEOUT.parse().unwrap(), value.parse().unwrap())]);
            assert_eq!(deadline(&headers), expected, "{value:?}");
        }
        assert_eq!(deadline(&HeaderMap::new()), None);
    }

    #[test]
    fn the_caller_may_say_which_protocol_it_speaks() {
        let long = "1".repeat(33);
        for (value, expected) in
            [("1.0", Some("1.0")), (" 0.3 ", Some("0.3")), ("", None), ("1 0", None), (&long, None)]
        {
            let headers = HeaderMap::from_iter([(PROTOCOL.parse().unwrap(), value.parse().unwrap())]);
            assert_eq!(protocol(&headers).as_deref(), expected, "{value:?}");
        }
        assert_eq!(protocol(&HeaderMap::new()), None);
    }
}
