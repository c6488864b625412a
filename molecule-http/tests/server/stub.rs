//! An external agent that answers when it is told to.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Json, Router, body::Bytes, extract::State, routing::post};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

/// Answers one call for each permit; gone with the value.
#[derive(Debug)]
pub(crate) struct Stub {
    address: SocketAddr,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    seen: Mutex<Vec<Value>>,
    may_answer: Semaphore,
}

impl Stub {
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared { seen: Mutex::default(), may_answer: Semaphore::new(0) });
        let router = Router::new().route("/", post(answer)).with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { address, shared, _server: server }
    }

    /// Where a server on this host may call it.
    pub(crate) fn url(&self) -> String {
        format!("http://localhost:{}", self.address.port())
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Value> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Lets one call have its answer.
    pub(crate) fn answer_one(&self) {
        self.shared.may_answer.add_permits(1);
    }
}

async fn answer(State(shared): State<Arc<Shared>>, body: Bytes) -> Json<Value> {
    let request: Value = serde_json::from_slice(&body).expect("servers send JSON");
    shared.seen.lock().unwrap().push(request.clone());
    shared.may_answer.acquire().await.expect("it is never closed").forget();
    Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": {"late": true}}))
}
