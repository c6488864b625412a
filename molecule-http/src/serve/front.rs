//! Where requests come in. All go to the router, but for heartbeats of agents that are known: each of the router's layers
//! costs as much as all that such a heartbeat needs, and there are more of these than of everything else together.

use std::{net::SocketAddr, panic::AssertUnwindSafe};

use axum::{
    BoxError, Router,
    body::{Body as AxumBody, Bytes, HttpBody},
    extract::{ConnectInfo, Request},
    http::{HeaderMap, Method, header::CONTENT_LENGTH},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use molecule_core::identity::Exposure;
use tokio::time::Instant;
use tower::Service;
use tracing::Instrument;

use super::{
    edge::{self, headers::complete},
    error::ApiError,
    guard::Body,
    router,
    routes::registry,
    state::AppState,
};

const HEARTBEAT: &str = "/registry/heartbeat";

/// What heartbeats hold is less, in bytes.
const SHORT: usize = 64 * 1024;

/// How many headers an answer gets beside its own.
const ADDED: usize = 9;

/// What answers every request.
#[derive(Debug, Clone)]
pub(crate) struct Front {
    app: AppState,
    router: Router,
}

impl Front {
    pub(crate) fn new(app: AppState) -> Self {
        Self { router: router::router(app.clone()), app }
    }

    /// Answers a request that `peer` sent to a listener that is open to as many as `exposure` says.
    pub(crate) async fn answer<B>(mut self, peer: SocketAddr, exposure: Exposure, request: Request<B>) -> Response
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let request = match self.heartbeat(request).await {
            Ok(response) => return response,
            Err(request) => request,
        };
        let mut request = request.map(AxumBody::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(exposure);
        // Outside of what guards handlers nothing should panic; where it does, that is an answer and no broken connection.
        let answered = AssertUnwindSafe(self.router.call(request)).catch_unwind().await;
        answered.map_or_else(
            |panic| {
                let mut response = router::panicked(panic);
                complete(response.headers_mut(), true);
                response
            },
            IntoResponse::into_response,
        )
    }

    /// The answer to a heartbeat with a token that is known: what the layers of the router would do, in their order.
    /// Gives anything else back as it was.
    async fn heartbeat<B>(&self, request: Request<B>) -> Result<Response, Request<B>>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let is_one = request.method() == Method::POST && request.uri().path() == HEARTBEAT;
        if !is_one || !is_short(request.headers()) {
            return Err(request);
        }
        let began = Instant::now();
        let Some((credential, standing)) = self.app.edge.known(&self.app, &request) else { return Err(request) };
        let span = router::span(&request);
        let beat = async {
            if let Some(standing) = standing.filter(|standing| !standing.allowed) {
                return Err(ApiError(edge::too_often(standing)));
            }
            registry::beat(&self.app, credential, &Body::read(request.into_body()).await?).await
        };
        let beat = AssertUnwindSafe(beat.instrument(span)).catch_unwind();
        let mut response = beat.await.map_or_else(router::panicked, IntoResponse::into_response);
        self.app.metrics.answered("POST", HEARTBEAT, response.status(), began);
        let headers = response.headers_mut();
        // Room for all that follows at once.
        headers.reserve(ADDED);
        self.app.edge.tell(headers, standing);
        complete(headers, true);
        Ok(response)
    }
}

/// Whether the request says how long its body is, and that is not much.
fn is_short(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    length.is_some_and(|length| length <= SHORT)
}

#[cfg(test)]
mod tests {
    use axum::http::{Uri, header::AUTHORIZATION};
    use molecule_core::{ControlPlane, store::Store, testing::heard_fleet};
    use secrecy::ExposeSecret;

    use super::*;

    #[tokio::test]
    async fn only_known_agents_take_the_short_way_and_only_for_heartbeats() {
        let control_plane = ControlPlane::builder(Store::connect("sqlite::memory:").await.unwrap()).build().unwrap();
        let (id, token) = heard_fleet(&control_plane, 1).await.remove(0);
        let front = Front::new(AppState::alone(control_plane));
        let body = format!(r#"{{"workspace_id":"{id}"}}"#);
        let ask = async |method: &Method, path: &'static str, token: &str, length: Option<usize>| {
            let mut request = Request::new(AxumBody::from(body.clone()));
            (*request.method_mut(), *request.uri_mut()) = (method.clone(), Uri::from_static(path));
            request.headers_mut().insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
            if let Some(length) = length {
                request.headers_mut().insert(CONTENT_LENGTH, length.into());
            }
            let peer = ([127, 0, 0, 1], 1).into();
            let (short, loopback) = (front.heartbeat(request).await, Exposure::Loopback);
            match short {
                Ok(response) => (true, response.status().as_u16()),
                Err(request) => (false, front.clone().answer(peer, loopback, request).await.status().as_u16()),
            }
        };
        let (token, length) = (token.expose_secret(), Some(body.len()));
        for (method, path, token, length, expected) in [
            (Method::POST, HEARTBEAT, token, length, (true, 200)),
            (Method::POST, "/registry/heartbeat?x=1", token, length, (true, 200)),
            (Method::POST, HEARTBEAT, token, None, (false, 200)),
            (Method::POST, HEARTBEAT, token, Some(SHORT + 1), (false, 200)),
            (Method::POST, HEARTBEAT, "unknown", length, (false, 401)),
            (Method::GET, HEARTBEAT, token, length, (false, 405)),
            (Method::POST, "/registry/heartbeat/", token, length, (false, 404)),
            (Method::POST, "/registry/update-card", token, length, (false, 400)),
        ] {
            assert_eq!(ask(&method, path, token, length).await, expected, "{method} {path} {token} {length:?}");
        }
    }
}
