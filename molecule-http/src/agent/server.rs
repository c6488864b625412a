//! What the reference agent serves: its card, its health and its JSON-RPC.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Request, State, rejection::BytesRejection},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use molecule_core::{
    agent::{AgentCard, Beat, CardCapabilities, PROTOCOL_VERSION, RuntimeMetadata, Skill, files::Files},
    clock::{Entropy, random_uuid},
};
use serde_json::json;

use super::{files, rpc, transcript::Transcript};

/// The longest message that is read.
const BODY_LIMIT: usize = 1024 * 1024;

/// Every ability a platform asks about. Beating is the one this agent has.
const CAPABILITIES: [(&str, bool); 7] = [
    ("heartbeat", true),
    ("scheduler", false),
    ("session", false),
    ("status_mgmt", false),
    ("retry", false),
    ("activity_decoration", false),
    ("channel_dispatch", false),
];

/// The agent behind the routes; a clone is a handle on it.
#[derive(Debug, Clone)]
pub(super) struct Agent {
    card: Arc<AgentCard>,
    /// How many messages are being answered.
    active: Arc<AtomicU32>,
    transcript: Transcript,
    entropy: Arc<dyn Entropy>,
}

impl Agent {
    pub(super) fn new(card: AgentCard, entropy: Arc<dyn Entropy>) -> Self {
        Self { card: Arc::new(card), active: Arc::default(), transcript: Transcript::default(), entropy }
    }

    pub(super) fn card(&self) -> &AgentCard {
        &self.card
    }

    /// What to say in a heartbeat after `uptime`.
    pub(super) fn beat(&self, uptime: Duration) -> Beat {
        let active_tasks = self.active.load(Ordering::Relaxed);
        Beat {
            active_tasks,
            uptime_seconds: uptime.as_secs(),
            current_task: Some(if active_tasks == 0 { "" } else { "answering a message" }.to_owned()),
            runtime_metadata: Some(RuntimeMetadata {
                capabilities: CAPABILITIES.map(|(name, able)| (name.to_owned(), able)).into(),
                idle_timeout_seconds: None,
            }),
            ..Beat::default()
        }
    }
}

/// The card of an agent called `name` that answers at `url`.
pub(super) fn card(name: String, url: String) -> AgentCard {
    let text = || vec!["text/plain".to_owned()];
    AgentCard {
        name,
        description: "Answers every message by repeating it".to_owned(),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        url: Some(url),
        skills: vec![Skill {
            id: "echo".to_owned(),
            name: "Echo".to_owned(),
            description: "Repeats the text of a message".to_owned(),
            tags: vec!["test".to_owned()],
        }],
        capabilities: Some(CardCapabilities::default()),
        protocol_version: Some(PROTOCOL_VERSION.to_owned()),
        default_input_modes: text(),
        default_output_modes: text(),
    }
}

/// The routes of `agent`, whose workspace has `files`.
pub(super) fn router(agent: Agent, files: Files) -> Router {
    Router::new()
        .route("/", post(message).layer(middleware::from_fn_with_state(agent.clone(), count)))
        .route("/.well-known/agent-card.json", get(show_card))
        .route("/.well-known/agent.json", get(show_card))
        .route("/health", get(health))
        .merge(files::router(files, agent.transcript.clone()))
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(agent)
}

async fn message(State(agent): State<Agent>, body: Result<Bytes, BytesRejection>) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return error(rejection.status(), &rejection.body_text()),
    };
    let answer = rpc::answer(&body, || random_uuid(agent.entropy.as_ref()).to_string());
    if let Some(said) = answer.as_ref().and_then(|answer| answer.pointer("/result/parts/0/text")?.as_str()) {
        agent.transcript.add(said);
    }
    tracing::info!(bytes = body.len(), error.code = answer.as_ref().and_then(code), "answered a message");
    match answer {
        Some(answer) => Json(answer).into_response(),
        None => StatusCode::ACCEPTED.into_response(),
    }
}

async fn show_card(State(agent): State<Agent>) -> Json<Arc<AgentCard>> {
    Json(agent.card)
}

async fn health() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

async fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "not found")
}

/// Counts a message from its first byte to its answer, also when the caller goes away in between.
async fn count(State(agent): State<Agent>, request: Request, next: Next) -> Response {
    let _counted = Counted::new(agent.active);
    next.run(request).await
}

struct Counted(Arc<AtomicU32>);

impl Counted {
    fn new(active: Arc<AtomicU32>) -> Self {
        active.fetch_add(1, Ordering::Relaxed);
        Self(active)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn code(answer: &serde_json::Value) -> Option<i64> {
    answer.get("error")?.get("code")?.as_i64()
}

fn error(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"error": message}))).into_response()
}
