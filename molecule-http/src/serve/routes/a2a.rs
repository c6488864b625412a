//! Calls to agents.

use std::time::Duration;

use axum::{
    body::Body as ResponseBody,
    extract::State,
    http::{HeaderMap, Response, header::CONTENT_TYPE},
};
use molecule_core::{Error, ErrorKind, a2a::Call};

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{Body, Claimed, Id, Presented},
    state::AppState,
};

/// Says how long the call may take, in seconds; 0 is for ever.
const TIMEOUT: &str = "x-timeout";

/// Calls the agent of a workspace by JSON-RPC and gives back its answer.
#[utoipa::path(post, path = "/workspaces/{id}/a2a", tag = "a2a", request_body = Value,
    params(("id" = uuid::Uuid, Path), ("X-Workspace-ID" = Option<String>, Header), ("X-Timeout" = Option<u64>, Header)),
    responses((status = 200, body = Value), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 402, body = ErrorView), (status = 403, body = ErrorView), (status = 404, body = ErrorView), (status = 413, body = ErrorView),
        (status = 500, body = ErrorView), (status = 501, body = ErrorView), (status = 502, body = ErrorView),
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
    let call = Call { target, caller, body, deadline: deadline(&headers) };
    let answer = app.control_plane.call(call).await?;
    Response::builder()
        .status(answer.status)
        .header(CONTENT_TYPE, "application/json")
        .body(answer.body.into())
        .map_err(|error| Error::new(ErrorKind::Upstream, "the agent's answer is no HTTP").caused_by(error).into())
}

/// How long the call may take, where the caller says so. What is no number is ignored.
fn deadline(headers: &HeaderMap) -> Option<Option<Duration>> {
    let seconds: u64 = headers.get(TIMEOUT)?.to_str().ok()?.trim().parse().ok()?;
    Some((seconds > 0).then(|| Duration::from_secs(seconds)))
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
}
