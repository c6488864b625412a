//! A server that answers as the real one does, from a world that each test sets up.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{
        Request, State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket},
    },
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

/// What the server knows, and what it was asked.
#[derive(Default)]
pub(crate) struct World {
    /// The token that must be shown, if any.
    pub(crate) token: Option<String>,
    pub(crate) workspaces: Vec<Value>,
    /// The statuses that a workspace takes from one look to the next, by id.
    pub(crate) statuses: HashMap<String, VecDeque<&'static str>>,
    /// The answer to a create.
    pub(crate) created: Value,
    /// The answer to a restart.
    pub(crate) restarted: Value,
    /// The answer to a pause, a resume and a hibernation.
    pub(crate) halted: Value,
    /// The answer to a delete without and with confirmation.
    pub(crate) deleted: [(u16, Value); 2],
    /// The answer to a message.
    pub(crate) a2a: (u16, Value),
    pub(crate) logs: String,
    pub(crate) events: Vec<Value>,
    /// What one connection after the other is told, and how it ends.
    pub(crate) sockets: VecDeque<(Vec<String>, SocketEnd)>,
    /// Answers given before any of the above, in order.
    pub(crate) first: VecDeque<Raw>,
    /// The same answer to everything.
    pub(crate) always: Option<Raw>,
    pub(crate) seen: Vec<Seen>,
}

/// How the server ends a WebSocket.
#[derive(Clone, Copy)]
pub(crate) enum SocketEnd {
    Close(u16),
    Drop,
    Stay,
}

/// An answer that needs not be a sensible one.
#[derive(Clone)]
pub(crate) struct Raw {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
    /// How many times the body is sent.
    pub(crate) times: usize,
}

impl Raw {
    pub(crate) fn new(status: u16, content_type: &'static str, body: impl Into<String>) -> Self {
        Self { status, content_type, body: body.into(), times: 1 }
    }

    fn respond(self) -> Response {
        let chunk = axum::body::Bytes::from(self.body);
        let chunks = (0..self.times).map(move |_| Ok::<_, std::io::Error>(chunk.clone()));
        let status = StatusCode::from_u16(self.status).unwrap();
        let location = (header::LOCATION, "http://127.0.0.1:9/elsewhere");
        let body = Body::from_stream(futures_util::stream::iter(chunks));
        (status, [(header::CONTENT_TYPE, self.content_type), location], body).into_response()
    }
}

/// A request that came in.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) bearer: Option<String>,
    pub(crate) body: Value,
}

/// The running server; stops when dropped.
pub(crate) struct Stub {
    pub(crate) url: String,
    world: Arc<Mutex<World>>,
    stop: watch::Sender<bool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Stub {
    pub(crate) fn start() -> Self {
        let world = Arc::new(Mutex::new(World::default()));
        let (stop, mut stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router =
            Router::new().route("/ws", any(socket)).fallback(answer).with_state((Arc::clone(&world), stopped.clone()));
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    served = axum::serve(listener, router) => served.unwrap(),
                    _ = stopped.changed() => {}
                }
            });
        });
        Self { url, world, stop, thread: Some(thread) }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Adds a workspace of that name; its id is derived from `number`.
    pub(crate) fn add(&self, number: u8, name: &str, status: &str) -> String {
        let id = id(number);
        self.world().workspaces.push(workspace(&id, name, status));
        id
    }

    /// Changes a member of the workspace `id`.
    pub(crate) fn set(&self, id: &str, member: &str, value: impl Into<Value>) {
        let mut world = self.world();
        let workspace = world.workspaces.iter_mut().find(|workspace| workspace["id"] == id).unwrap();
        workspace[member] = value.into();
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.world().seen.clone()
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().expect("the server was asked")
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        let joined = self.thread.take().map(thread::JoinHandle::join);
        if !thread::panicking() {
            joined.unwrap().unwrap();
        }
    }
}

pub(crate) fn id(number: u8) -> String {
    format!("00000000-0000-4000-8000-0000000000{number:02x}")
}

fn workspace(id: &str, name: &str, status: &str) -> Value {
    json!({
        "id": id, "name": name, "role": null, "tier": 3, "status": status, "url": "", "parent_id": null,
        "agent_card": null, "active_tasks": 0, "max_concurrent_tasks": 1, "last_error_rate": 0.0,
        "last_sample_error": "", "uptime_seconds": 0, "current_task": "", "runtime": "claude-code",
        "workspace_dir": null, "monthly_spend": 0, "budget_limit": null, "x": 0.0, "y": 0.0, "collapsed": false,
    })
}

type Shared = (Arc<Mutex<World>>, watch::Receiver<bool>);

fn bearer(headers: &HeaderMap) -> Option<String> {
    Some(headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?.to_owned())
}

fn reply(status: u16, body: &Value) -> Response {
    Raw::new(status, "application/json", body.to_string()).respond()
}

/// What stands before every route: the record, scripted answers and the token.
fn guard(world: &mut World, seen: Seen) -> Option<Response> {
    let bearer = seen.bearer.clone();
    world.seen.push(seen);
    if let Some(raw) = world.first.pop_front().or_else(|| world.always.clone()) {
        return Some(raw.respond());
    }
    match &world.token {
        Some(token) if bearer.as_ref() != Some(token) => Some(reply(401, &json!({"error": "admin auth required"}))),
        _ => None,
    }
}

async fn answer(State((world, _)): State<Shared>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let mut world = world.lock().unwrap();
    let seen = Seen {
        line: format!("{} {}", head.method, head.uri),
        bearer: bearer(&head.headers),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    if let Some(response) = guard(&mut world, seen) {
        return response;
    }
    let path: Vec<&str> = head.uri.path().trim_start_matches('/').split('/').collect();
    match (head.method.as_str(), path.as_slice()) {
        ("GET", ["workspaces"]) => reply(200, &Value::Array(world.workspaces.clone())),
        ("POST", ["workspaces"]) => reply(201, &world.created),
        ("GET", ["workspaces", id]) => show(&mut world, id),
        ("POST", ["workspaces", _, "restart"]) => reply(200, &world.restarted),
        ("POST", ["workspaces", _, "pause" | "resume" | "hibernate"]) => reply(200, &world.halted),
        ("POST", ["workspaces", _, "a2a"]) => reply(world.a2a.0, &world.a2a.1),
        ("GET", ["workspaces", _, "logs"]) => Raw::new(200, "text/plain; charset=utf-8", &world.logs).respond(),
        ("DELETE", ["workspaces", _]) => {
            let (status, body) = &world.deleted[usize::from(head.uri.query() == Some("confirm=true"))];
            reply(*status, body)
        }
        ("GET", ["events"]) => reply(200, &Value::Array(world.events.clone())),
        ("GET", ["events", id]) => {
            reply(200, &world.events.iter().filter(|event| event["workspace_id"] == *id).cloned().collect())
        }
        _ => reply(404, &json!({"error": "not found"})),
    }
}

fn show(world: &mut World, id: &str) -> Response {
    let Some(workspace) = world.workspaces.iter_mut().find(|workspace| workspace["id"] == id) else {
        return reply(404, &json!({"error": "workspace not found"}));
    };
    if let Some(status) = world.statuses.get_mut(id).and_then(VecDeque::pop_front) {
        workspace["status"] = status.into();
    }
    let mut view = workspace.clone();
    for private in ["budget_limit", "monthly_spend", "current_task", "last_sample_error", "workspace_dir"] {
        view.as_object_mut().unwrap().remove(private);
    }
    reply(200, &view)
}

async fn socket(State((world, stopped)): State<Shared>, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    let mut world = world.lock().unwrap();
    let seen = Seen { line: "GET /ws".to_owned(), bearer: bearer(&headers), body: Value::Null };
    if let Some(response) = guard(&mut world, seen) {
        return response;
    }
    let (frames, end) = world.sockets.pop_front().unwrap_or((Vec::new(), SocketEnd::Stay));
    upgrade.on_upgrade(move |socket| play(socket, frames, end, stopped))
}

async fn play(mut socket: WebSocket, frames: Vec<String>, end: SocketEnd, mut stopped: watch::Receiver<bool>) {
    for frame in frames {
        let _ = socket.send(Message::Text(frame.into())).await;
    }
    match end {
        SocketEnd::Drop => {}
        SocketEnd::Close(code) => {
            let _ = socket.send(Message::Close(Some(CloseFrame { code, reason: "".into() }))).await;
        }
        SocketEnd::Stay => loop {
            tokio::select! {
                frame = socket.recv() => if !matches!(frame, Some(Ok(_))) { return },
                _ = stopped.changed() => return,
            }
        },
    }
}
