//! Every route, feeding the server and its OpenAPI document alike.

use std::any::Any;

use axum::{
    Json, Router,
    extract::Request,
    http::StatusCode,
    middleware,
    response::{IntoResponse, Response},
};
use serde_json::json;
use tower_http::{catch_panic::CatchPanicLayer, trace::TraceLayer};
use tracing::Span;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{detach, edge, metrics, routes, state::AppState};

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
        .routes(routes!(routes::operations::liveness))
        .routes(routes!(routes::workspaces::create, routes::workspaces::list))
        .routes(routes!(routes::workspaces::read, routes::patch::patch, routes::workspaces::delete))
        .routes(routes!(routes::workspaces::restart))
        .routes(routes!(routes::lifecycle::pause))
        .routes(routes!(routes::lifecycle::resume))
        .routes(routes!(routes::lifecycle::hibernate))
        .routes(routes!(routes::lifecycle::expand))
        .routes(routes!(routes::lifecycle::collapse))
        .routes(routes!(routes::lifecycle::state))
        .routes(routes!(routes::agents::assign, routes::agents::replace, routes::agents::remove))
        .routes(routes!(routes::agents::relocate))
        .routes(routes!(routes::budget::read, routes::budget::set))
        .routes(routes!(routes::machines::bootstrap_failed))
        .routes(routes!(routes::machines::console))
        .routes(routes!(routes::images::refresh))
        .routes(routes!(routes::workspaces::logs))
        .routes(routes!(routes::tokens::list, routes::tokens::issue))
        .routes(routes!(routes::tokens::revoke))
        .routes(routes!(routes::secrets::list, routes::secrets::set))
        .routes(routes!(routes::secrets::values))
        .routes(routes!(routes::secrets::delete))
        .routes(routes!(routes::secrets::list_global, routes::secrets::set_global))
        .routes(routes!(routes::secrets::delete_global))
        .routes(routes!(routes::secrets::list_admin, routes::secrets::set_admin))
        .routes(routes!(routes::secrets::delete_admin))
        .routes(routes!(routes::templates::list))
        .routes(routes!(routes::templates::import))
        .routes(routes!(routes::models::model, routes::models::set_model))
        .routes(routes!(routes::models::provider, routes::models::set_provider))
        .routes(routes!(routes::org_tokens::list, routes::org_tokens::mint))
        .routes(routes!(routes::org_tokens::revoke))
        .routes(routes!(routes::org_tokens::test_token))
        .routes(routes!(routes::a2a::call))
        .routes(routes!(routes::a2a::queue_item))
        .routes(routes!(routes::a2a::drop_stale))
        .routes(routes!(routes::a2a::usage))
        .routes(routes!(routes::delegations::delegate))
        .routes(routes!(routes::delegations::list))
        .routes(routes!(routes::delegations::record))
        .routes(routes!(routes::delegations::update))
        .routes(routes!(routes::activity::list, routes::activity::report))
        .routes(routes!(routes::activity::notify))
        .routes(routes!(routes::activity::search))
        .routes(routes!(routes::registry::register))
        .routes(routes!(routes::registry::heartbeat))
        .routes(routes!(routes::registry::update_card))
        .routes(routes!(routes::directory::discover))
        .routes(routes!(routes::directory::peers))
        .routes(routes!(routes::directory::check_access))
        .routes(routes!(routes::approvals::list, routes::approvals::ask))
        .routes(routes!(routes::approvals::decide))
        .routes(routes!(routes::approvals::pending))
        .routes(routes!(routes::audit::list, routes::audit::append))
        .routes(routes!(routes::instructions::list, routes::instructions::create))
        .routes(routes!(routes::instructions::read, routes::instructions::replace, routes::instructions::delete))
        .routes(routes!(routes::instructions::told))
        .routes(routes!(routes::configuration::read, routes::configuration::patch))
        .routes(routes!(routes::checkpoints::keep))
        .routes(routes!(routes::checkpoints::latest))
        .routes(routes!(routes::checkpoints::list, routes::checkpoints::delete))
        .routes(routes!(routes::schedules::list, routes::schedules::create))
        .routes(routes!(routes::schedules::patch, routes::schedules::delete))
        .routes(routes!(routes::schedules::run))
        .routes(routes!(routes::schedules::history))
        .routes(routes!(routes::schedules::peer_health))
        .routes(routes!(routes::schedules::health))
        .routes(routes!(routes::files::upload))
        .routes(routes!(routes::files::download))
        .routes(routes!(routes::workspace_files::list, routes::workspace_files::replace))
        .routes(routes!(routes::workspace_files::read, routes::workspace_files::write, routes::workspace_files::delete))
        .routes(routes!(routes::workspace_files::shared_context))
        .routes(routes!(routes::values::list, routes::values::write))
        .routes(routes!(routes::values::read, routes::values::delete))
        .routes(routes!(routes::memories::recall, routes::memories::remember))
        .routes(routes!(routes::memories::forget))
        .routes(routes!(routes::memories::export))
        .routes(routes!(routes::memories::import))
        .routes(routes!(routes::events::list))
        .routes(routes!(routes::events::list_of))
        .routes(routes!(routes::stream::stream))
        .routes(routes!(routes::socket::connect))
        .routes(routes!(routes::mcp::call))
        .routes(routes!(routes::mcp::stream))
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
    dressed(routes, &state).with_state(state)
}

/// `routes` with what every answer has, also one to what is no route, or from a handler that panicked.
fn dressed(routes: Router<AppState>, state: &AppState) -> Router<AppState> {
    let router = routes
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(state.clone(), detach::detach))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(state.clone(), edge::guard))
        .layer(middleware::from_fn_with_state(state.clone(), metrics::count))
        .layer(middleware::from_fn(edge::headers::add));
    // What fails is logged once, where it is known why.
    let trace = TraceLayer::new_for_http().make_span_with(span).on_failure(());
    router.layer(trace)
}

/// The request's path only: a query may hold what must not be logged.
pub(super) fn span<B>(request: &Request<B>) -> Span {
    tracing::debug_span!("request", http.method = %request.method(), http.path = request.uri().path())
}

async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, Json(json!({"error": "not found"}))).into_response()
}

async fn method_not_allowed() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, Json(json!({"error": "method not allowed"}))).into_response()
}

/// An empty answer: the panic hook has logged what happened, and callers are told nothing of it.
pub(super) fn panicked(_: Box<dyn Any + Send>) -> Response {
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, routing::get};
    use molecule_core::{ControlPlane, store::Store};
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_handler_that_panics_answers_like_any_other_and_tells_nothing() {
        let store = Store::connect("sqlite::memory:").await.unwrap();
        let state = AppState::alone(ControlPlane::builder(store).build().unwrap());
        let panics = get(async || -> StatusCode { panic!("secret detail") });
        let routes = Router::new().route("/panics/{id}", panics);
        let router: Router = dressed(routes, &state).with_state(state.clone());
        let request = Request::get("/panics/1").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        assert!(axum::body::to_bytes(response.into_body(), 1024).await.unwrap().is_empty());
        let metrics = String::from_utf8(state.metrics.render(&state.control_plane).unwrap()).unwrap();
        assert!(metrics.contains(r#"{method="GET",path="/panics/:id",status="500"} 1"#), "{metrics}");
    }
}
