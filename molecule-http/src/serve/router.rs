//! Every route, feeding the server and its OpenAPI document alike.

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderName, HeaderValue, StatusCode},
    middleware,
    response::{IntoResponse, Response},
};
use serde_json::json;
use tower_http::{catch_panic::CatchPanicLayer, set_header::SetResponseHeaderLayer, trace::TraceLayer};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{guard::BODY_LIMIT, metrics, routes, state::AppState};

/// What the document says about the API as a whole.
#[derive(Debug, OpenApi)]
#[openapi(info(
    title = "Molecule",
    description = "A control plane for fleets of AI-agent workspaces.",
    license(name = "MIT OR Apache-2.0")
))]
struct Document;

fn api() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(routes::operations::health))
        .routes(routes!(routes::operations::buildinfo))
        .routes(routes!(routes::operations::metrics))
        .routes(routes!(routes::workspaces::create, routes::workspaces::list))
        .routes(routes!(routes::workspaces::read, routes::workspaces::delete))
        .routes(routes!(routes::workspaces::restart))
        .routes(routes!(routes::workspaces::logs))
        .routes(routes!(routes::a2a::call))
        .routes(routes!(routes::registry::register))
        .routes(routes!(routes::registry::heartbeat))
        .routes(routes!(routes::registry::update_card))
        .routes(routes!(routes::directory::discover))
        .routes(routes!(routes::directory::peers))
        .routes(routes!(routes::directory::check_access))
        .routes(routes!(routes::events::list))
        .routes(routes!(routes::events::list_of))
        .routes(routes!(routes::socket::connect))
}

/// The OpenAPI document of every route, as JSON.
pub(crate) fn openapi() -> String {
    let (_, document) = api().split_for_parts();
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// The server's answers to everything.
pub(crate) fn router(state: AppState) -> Router {
    let (routes, _) = api().split_for_parts();
    let mut router = routes
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn_with_state(state.clone(), metrics::count));
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("strict-transport-security", "max-age=31536000; includeSubDomains"),
        ("referrer-policy", "strict-origin-when-cross-origin"),
        ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
        ("content-security-policy", "default-src 'self'"),
    ] {
        router = router.layer(SetResponseHeaderLayer::if_not_present(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        ));
    }
    // The request's path only: a query may hold what must not be logged.
    let trace = TraceLayer::new_for_http().make_span_with(|request: &Request| {
        tracing::debug_span!("request", http.method = %request.method(), http.path = request.uri().path())
    });
    router.layer(CatchPanicLayer::new()).layer(trace).with_state(state)
}

async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, Json(json!({"error": "not found"}))).into_response()
}

async fn method_not_allowed() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, Json(json!({"error": "method not allowed"}))).into_response()
}
