//! The least that a server of this kind can do: read a heartbeat as JSON, and acknowledge it as JSON.

use axum::{Json, Router, routing::post};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::Outcome;

#[derive(Debug, Deserialize)]
struct Beat {
    workspace_id: String,
}

#[derive(Debug, Serialize)]
struct Acknowledged {
    status: &'static str,
}

async fn acknowledge(Json(beat): Json<Beat>) -> Json<Acknowledged> {
    Json(Acknowledged { status: if beat.workspace_id.is_empty() { "none" } else { "ok" } })
}

/// Serves until it is killed.
pub(crate) async fn serve(address: &str) -> Outcome<()> {
    let router = Router::new().route("/registry/heartbeat", post(acknowledge));
    axum::serve(TcpListener::bind(address).await?, router).await?;
    Ok(())
}
