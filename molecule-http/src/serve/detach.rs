//! Lets what a request began come to its end when the client hangs up.

use std::panic::resume_unwind;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{Method, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::state::AppState;

/// What waits for an agent for as long as its caller does, and what sees to it by itself because it has to be fast.
const ATTACHED: [&str; 2] = ["/workspaces/{id}/a2a", "/registry/heartbeat"];

/// Runs what may change something in a task of its own: between a change and the word of it a client that hangs up would
/// otherwise leave everybody else ignorant.
pub(crate) async fn detach(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !changes || path.is_none_or(|path| ATTACHED.contains(&path)) {
        return next.run(request).await;
    }
    match app.sockets.spawn(next.run(request)).await {
        Ok(response) => response,
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        // The runtime is on its way down.
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
