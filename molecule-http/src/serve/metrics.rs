//! What `/metrics` shows, and the layer that counts requests.

use axum::{
    extract::{MatchedPath, Request, State},
    http::{Method, StatusCode},
    middleware::Next,
    response::Response,
};
use molecule_core::{ControlPlane, Error, ErrorKind};
use prometheus::{CounterVec, Encoder, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};
use tokio::time::Instant;

use super::state::AppState;

/// Handles to every metric of this server.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: CounterVec,
    pub(crate) websockets: IntGauge,
    activity_lost: IntCounter,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, Error> {
        let failed = |error| Error::new(ErrorKind::Unexpected, "the metrics cannot be set up").caused_by(error);
        let labels = ["method", "path", "status"];
        let metrics = Self {
            registry: Registry::new(),
            requests: IntCounterVec::new(
                Opts::new("molecule_http_requests_total", "Requests by method, route and status."),
                &labels,
            )
            .map_err(failed)?,
            seconds: CounterVec::new(
                Opts::new("molecule_http_request_duration_seconds_total", "Seconds spent on requests."),
                &labels,
            )
            .map_err(failed)?,
            websockets: IntGauge::new("molecule_websocket_connections_active", "Open WebSocket connections.")
                .map_err(failed)?,
            activity_lost: IntCounter::new(
                "molecule_activity_lost_total",
                "Rows of the activity log that could not be written.",
            )
            .map_err(failed)?,
        };
        metrics.registry.register(Box::new(metrics.requests.clone())).map_err(failed)?;
        metrics.registry.register(Box::new(metrics.seconds.clone())).map_err(failed)?;
        metrics.registry.register(Box::new(metrics.websockets.clone())).map_err(failed)?;
        metrics.registry.register(Box::new(metrics.activity_lost.clone())).map_err(failed)?;
        Ok(metrics)
    }

    /// Counts a request to a route that was answered just now.
    pub(crate) fn answered(&self, method: &str, path: &str, status: StatusCode, began: Instant) {
        let labels = [method, path, status.as_str()];
        self.requests.with_label_values(&labels).inc();
        self.seconds.with_label_values(&labels).inc_by(began.elapsed().as_secs_f64());
    }

    /// Everything as text in the Prometheus exposition format 0.0.4, with what `control_plane` counted.
    pub(crate) fn render(&self, control_plane: &ControlPlane) -> Result<Vec<u8>, Error> {
        self.activity_lost.reset();
        self.activity_lost.inc_by(control_plane.activity_lost());
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .map_err(|error| Error::new(ErrorKind::Unexpected, "the metrics cannot be shown").caused_by(error))?;
        Ok(text)
    }
}

/// Counts a request under its route's pattern, so that ids never become labels.
pub(crate) async fn count(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let method = known_method(request.method());
    let path = request.extensions().get::<MatchedPath>().map_or_else(|| "unmatched".to_owned(), colon_style);
    let began = Instant::now();
    let response = next.run(request).await;
    state.metrics.answered(method, &path, response.status(), began);
    response
}

/// An invented method must not become a label of its own.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn colon_style(path: &MatchedPath) -> String {
    path.as_str().replace('{', ":").replace('}', "")
}
