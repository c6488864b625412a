//! The tools of the control plane over HTTP, and the stream that older clients of them begin with.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body as ResponseBody, Bytes},
    extract::{FromRequest, FromRequestParts, Request, State},
    http::{
        HeaderMap,
        header::{ACCEPT, AUTHORIZATION},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use molecule_core::{Error, ErrorKind, id::WorkspaceId, workspace::Workspace};
use tokio::time::{Instant, interval_at};

use super::{ErrorView, stream::event_stream};
use crate::serve::{
    edge::{self, Standing},
    error::ApiError,
    guard::{Body, Own, Presented},
    listeners::{Admission, Wish},
    mcp,
    state::AppState,
};

/// How often the stream says that it is there.
const PING_EVERY: Duration = Duration::from_secs(30);

/// The workspace whose tools are used, by a caller that may act for it and did not ask too often.
#[derive(Debug)]
pub(crate) struct Metered {
    id: WorkspaceId,
    standing: Standing,
}

impl FromRequestParts<AppState> for Metered {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Response> {
        let refused = |error: Error| ApiError(error).into_response();
        let Own(id) = Own::from_request_parts(parts, state).await.map_err(IntoResponse::into_response)?;
        let missing = || refused(Error::new(ErrorKind::Unauthenticated, "missing bearer token"));
        let bearer = bearer(&parts.headers).ok_or_else(missing)?;
        let metered = Self { id, standing: state.edge.count_tools(bearer) };
        if metered.standing.allowed {
            return Ok(metered);
        }
        let error = Error::new(ErrorKind::LimitReached, "MCP rate limit exceeded");
        let answer = refused(error.with_member("retry_after", metered.standing.reset));
        Err(metered.told(answer))
    }
}

impl Metered {
    /// `answer` with where the caller stands.
    fn told(&self, mut answer: Response) -> Response {
        edge::tell(answer.headers_mut(), self.standing);
        answer
    }
}

/// Here alone the scheme may be written in any case.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

/// Answers one JSON-RPC request of the Model Context Protocol. Clients that accept `text/event-stream` are answered as
/// its streamable HTTP says.
#[utoipa::path(post, path = "/workspaces/{id}/mcp", tag = "mcp", operation_id = "mcp", request_body = Value,
    params(("id" = Uuid, Path)),
    responses((status = 200, body = Value), (status = 202), (status = 400, body = Value),
        (status = 401, body = ErrorView), (status = 404, body = ErrorView), (status = 413, body = ErrorView),
        (status = 429, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn call(State(app): State<AppState>, metered: Metered, request: Request) -> Response {
    if takes_streams(request.headers()) {
        return metered.told(app.mcp.answer(metered.id, request).await);
    }
    let body = match Body::from_request(request, &app).await {
        Ok(Body(body)) => body,
        Err(error) => return metered.told(error.into_response()),
    };
    metered.told(mcp::answer(&app.control_plane, metered.id, &body).await)
}

fn takes_streams(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|one| one.trim().starts_with("text/event-stream"))
}

/// Says where requests go, and stays open.
#[utoipa::path(get, path = "/workspaces/{id}/mcp/stream", tag = "mcp", operation_id = "mcp_stream",
    params(("id" = Uuid, Path)),
    responses((status = 200, content_type = "text/event-stream"), (status = 400, body = ErrorView),
        (status = 401, body = ErrorView), (status = 404, body = ErrorView), (status = 429, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn stream(
    State(app): State<AppState>,
    metered: Metered,
    presented: Presented,
    headers: HeaderMap,
) -> Response {
    let told = |answer: Result<Response, ApiError>| metered.told(answer.into_response());
    let Metered { id, .. } = metered;
    let begin = async {
        let _: Workspace = app.control_plane.existing(id).await?;
        Ok(app.listeners.enter(Some(id))?)
    };
    let place = match begin.await {
        Ok(place) => place,
        Err(error) => return told(Err(error)),
    };
    let admission = Admission::new(&headers, presented.exposure, Wish::Workspace(id));
    let every = |period| interval_at(Instant::now() + period, period);
    let recheck = app.listeners.pace.recheck;
    let open = (app, admission, place, every(PING_EVERY), every(recheck));
    let pings = stream::unfold(open, |mut open| async move {
        let (app, admission, _, ping, recheck) = &mut open;
        loop {
            tokio::select! {
                () = app.stop.cancelled() => return None,
                _ = ping.tick() => return Some((": ping\n\n".to_owned(), open)),
                _ = recheck.tick() => if !admission.holds(app).await {
                    return None;
                },
            }
        }
    });
    let first = format!("event: endpoint\ndata: /workspaces/{id}/mcp\n\n");
    let all = stream::once(async { first }).chain(pings).map(|text| Ok::<_, Infallible>(Bytes::from(text)));
    told(Ok(event_stream(ResponseBody::from_stream(all))))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn the_scheme_is_read_in_any_case() {
        for (value, expected) in
            [("Bearer a", Some("a")), ("bearer  a ", Some("a")), ("Basic a", None), ("Bearer ", None), ("a", None)]
        {
            assert_eq!(bearer(&headers(AUTHORIZATION, value)), expected, "{value}");
        }
    }

    #[test]
    fn only_who_says_so_takes_streams() {
        for (value, expected) in [
            ("application/json, text/event-stream", true),
            ("text/event-stream;q=0.5", true),
            ("application/json", false),
            ("*/*", false),
        ] {
            assert_eq!(takes_streams(&headers(ACCEPT, value)), expected, "{value}");
        }
        assert!(!takes_streams(&HeaderMap::new()));
    }
}
