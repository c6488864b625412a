//! The reference agent as a process, against a platform that misbehaves.

use std::{
    collections::VecDeque,
    fs::{self, File},
    future::pending,
    io::{Read, Write},
    net::{TcpListener as StdListener, TcpStream},
    os::unix::fs::MetadataExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header::LOCATION},
    response::{Html, IntoResponse, Response},
};
use molecule_core::http_client::{self, Timeouts};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};

const ID: &str = "6f9619ff-8b86-d011-b42d-00cf4fc964ff";

/// How long anything that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
enum Answer {
    Json(u16, Value),
    Page,
    Megabyte,
    Redirect,
    Never,
}

#[derive(Debug, Clone)]
struct Seen {
    path: String,
    authorization: Option<String>,
    origin: Option<String>,
    body: Value,
}

#[derive(Debug, Default)]
struct Script {
    register: VecDeque<Answer>,
    heartbeat: VecDeque<Answer>,
    seen: Vec<Seen>,
}

/// A platform that follows a script and says yes when it is at its end.
struct Platform {
    url: String,
    script: Arc<Mutex<Script>>,
    _server: JoinSet<()>,
}

impl Platform {
    async fn start(register: Vec<Answer>, heartbeat: Vec<Answer>) -> Self {
        let script =
            Arc::new(Mutex::new(Script { register: register.into(), heartbeat: heartbeat.into(), seen: Vec::new() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(follow).with_state(Arc::clone(&script));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, script, _server: server }
    }

    fn seen(&self, path: &str) -> Vec<Seen> {
        self.script.lock().unwrap().seen.iter().filter(|seen| seen.path == path).cloned().collect()
    }

    fn beats(&self) -> Vec<Seen> {
        self.seen("/registry/heartbeat")
    }

    fn registrations(&self) -> Vec<Seen> {
        self.seen("/registry/register")
    }

    async fn beats_reach(&self, count: usize) -> Vec<Seen> {
        eventually(&format!("{count} beats"), || Some(self.beats()).filter(|beats| beats.len() >= count)).await
    }
}

async fn follow(State(script): State<Arc<Mutex<Script>>>, uri: Uri, headers: HeaderMap, body: String) -> Response {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let seen = Seen {
        path: uri.path().to_owned(),
        authorization: header("authorization"),
        origin: header("origin"),
        body: serde_json::from_str(&body).unwrap_or_default(),
    };
    let answer = {
        let mut script = script.lock().unwrap();
        script.seen.push(seen);
        match uri.path() {
            "/registry/register" => script.register.pop_front(),
            "/registry/heartbeat" => script.heartbeat.pop_front(),
            _ => None,
        }
    };
    match answer.unwrap_or(Answer::Json(200, json!({"status": "ok"}))) {
        Answer::Json(status, body) => (StatusCode::from_u16(status).unwrap(), Json(body)).into_response(),
        Answer::Page => Html("<html>Welcome to the hotel</html>").into_response(),
        Answer::Megabyte => "x".repeat(1024 * 1024).into_response(),
        Answer::Redirect => (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, "/elsewhere")]).into_response(),
        Answer::Never => pending().await,
    }
}

/// A running agent, which is gone at the end of its test.
struct Agent {
    child: Child,
    root: tempfile::TempDir,
}

impl Agent {
    fn start(platform: &str, more: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let child = command(&root)
            .args(["--workspace-id", ID, "--platform-url", platform, "--port", "0"])
            .args(["--heartbeat-interval-ms", "50", "--platform-timeout-ms", "1000"])
            .args(more)
            .spawn()
            .unwrap();
        Self { child, root }
    }

    fn log(&self) -> String {
        log(&self.root)
    }

    /// What a file holds, once it is there, and its mode.
    async fn file(&self, name: &str) -> (String, u32) {
        let path = self.root.path().join("state").join(name);
        let content = eventually(name, || fs::read_to_string(&path).ok()).await;
        (content, fs::metadata(&path).unwrap().mode() & 0o777)
    }

    async fn signal(&mut self, signal: Signal) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.exit().await
    }

    async fn exit(&mut self) -> ExitStatus {
        eventually("the agent to end", || self.child.try_wait().unwrap()).await
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended, as most tests want it to.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let _ = std::io::stderr().write_all(self.log().as_bytes());
        }
    }
}

/// `molecule agent` with nothing of this environment, its state and its log below `root`.
fn command(root: &tempfile::TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_molecule"));
    command.env_clear().arg("agent").arg("--configs-dir").arg(root.path().join("state"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(root.path().join("log")).unwrap());
    command
}

fn log(root: &tempfile::TempDir) -> String {
    fs::read_to_string(root.path().join("log")).unwrap()
}

async fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let checked = async {
        loop {
            if let Some(value) = check() {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, checked).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Where the agent says it is, once it has registered.
async fn address(platform: &Platform) -> String {
    let registrations = eventually("a registration", || Some(platform.registrations()).filter(|r| !r.is_empty())).await;
    registrations[0].body["url"].as_str().unwrap().to_owned()
}

fn client() -> reqwest::Client {
    http_client::build(Timeouts { connect: PATIENCE, total: Some(PATIENCE) }).unwrap()
}

async fn post(url: &str, body: impl Into<reqwest::Body>) -> (u16, String) {
    let response = client().post(url).body(body).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

async fn get(url: &str) -> Value {
    client().get(url).send().await.unwrap().error_for_status().unwrap().json().await.unwrap()
}

#[tokio::test]
async fn registers_beats_and_keeps_what_it_is_given() {
    let given = json!({
        "status": "registered",
        "delivery_mode": "push",
        "auth_token": "issued-t0ken",
        "platform_inbound_secret": "first-s3cret",
    });
    let rotated = json!({"status": "ok", "platform_inbound_secret": "second-s3cret"});
    let platform = Platform::start(
        vec![Answer::Json(200, given)],
        vec![Answer::Json(200, json!({"status": "ok"})), Answer::Json(200, rotated)],
    )
    .await;
    let mut agent = Agent::start(&platform.url, &["--name", "tester"]);

    let url = address(&platform).await;
    let registered = platform.registrations().remove(0);
    assert_eq!(registered.authorization, None);
    assert_eq!(registered.origin.as_deref(), Some(platform.url.as_str()));
    assert_eq!(registered.body["id"], ID);
    assert_eq!(registered.body["delivery_mode"], "push");
    assert_eq!(registered.body["agent_card"]["name"], "tester");

    for path in ["agent-card.json", "agent.json"] {
        assert_eq!(get(&format!("{url}/.well-known/{path}")).await, registered.body["agent_card"]);
    }
    assert_eq!(get(&format!("{url}/health")).await, json!({"status": "ok"}));

    let beats = platform.beats_reach(3).await;
    assert_eq!(beats[0].authorization.as_deref(), Some("Bearer issued-t0ken"));
    assert_eq!(beats[0].origin.as_deref(), Some(platform.url.as_str()));
    for (name, expected) in [
        ("workspace_id", json!(ID)),
        ("error_rate", json!(0.0)),
        ("sample_error", json!("")),
        ("active_tasks", json!(0)),
        ("current_task", json!("")),
    ] {
        assert_eq!(beats[0].body[name], expected, "{name}");
    }
    assert!(beats[0].body["uptime_seconds"].is_u64());
    assert_eq!(beats[0].body["runtime_metadata"]["capabilities"]["heartbeat"], true);

    assert_eq!(agent.file(".auth_token").await, ("issued-t0ken".to_owned(), 0o600));
    // The third beat was sent after the answer to the second was worked up.
    assert_eq!(agent.file(".platform_inbound_secret").await, ("second-s3cret".to_owned(), 0o600));
    assert_eq!(agent.signal(Signal::TERM).await.code(), Some(0));
    let log = agent.log();
    assert!(!log.contains("t0ken") && !log.contains("s3cret"), "{log}");
}

#[tokio::test]
async fn answers_messages_and_names_every_mistake() {
    let platform = Platform::start(vec![], vec![]).await;
    let agent = Agent::start(&platform.url, &[]);
    let url = address(&platform).await;

    let message = json!({"role": "user", "parts": [{"kind": "text", "text": "hällo"}], "contextId": "c1"});
    let request = json!({"jsonrpc": "2.0", "id": "r1", "method": "message/send", "params": {"message": message}});
    let (status, body) = post(&url, request.to_string()).await;
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 200);
    assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &json!("r1")));
    let result = &answer["result"];
    assert_eq!(
        (&result["kind"], &result["role"], &result["contextId"]),
        (&"message".into(), &"agent".into(), &"c1".into())
    );
    assert_eq!(result["parts"], json!([{"kind": "text", "text": "hällo"}]));
    assert_eq!(result["messageId"].as_str().unwrap().len(), 36);

    for (body, code) in [
        ("{", -32700),
        ("[]", -32600),
        (r#"{"id":1,"method":"message/send"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get"}"#, -32601),
        (r#"{"jsonrpc":"2.0","id":1,"method":"message/send","params":{}}"#, -32602),
    ] {
        let (status, answer) = post(&url, body).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((status, answer["error"]["code"].as_i64()), (200, Some(code)), "{body}");
    }
    let notification = r#"{"jsonrpc":"2.0","method":"message/send"}"#;
    assert_eq!(post(&url, notification).await, (202, String::new()));
    assert_eq!(post(&url, vec![b' '; 1024 * 1024 + 1]).await.0, 413);
    assert_eq!(post(&format!("{url}/elsewhere"), "{}").await.0, 404);
    assert!(!agent.log().contains("hällo"), "bodies stay out of the log");
}

#[tokio::test]
async fn a_beat_tells_of_messages_in_flight() {
    let platform = Platform::start(vec![], vec![]).await;
    let agent = Agent::start(&platform.url, &[]);
    let url = address(&platform).await;
    let busy = |count: u64| move |seen: &Seen| seen.body["active_tasks"] == count;

    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    write!(stream, "POST / HTTP/1.1\r\nHost: agent\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{").unwrap();
    eventually("a busy beat", || platform.beats().into_iter().find(busy(1))).await;
    stream.write_all(b"}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    eventually("an idle beat", || platform.beats().pop().filter(busy(0))).await;

    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    write!(stream, "POST / HTTP/1.1\r\nHost: agent\r\nContent-Length: 2\r\n\r\n{{").unwrap();
    eventually("a busy beat", || platform.beats().pop().filter(busy(1))).await;
    drop(stream);
    eventually("an idle beat after the caller went away", || platform.beats().pop().filter(busy(0))).await;
    drop(agent);
}

#[tokio::test]
async fn goes_on_beating_whatever_the_platform_answers() {
    let answers = vec![
        Answer::Page,
        Answer::Json(200, json!(["a list"])),
        Answer::Json(200, json!({"platform_inbound_secret": 7})),
        Answer::Megabyte,
        Answer::Never,
        Answer::Redirect,
        Answer::Json(401, json!({"error": "invalid workspace auth token"})),
        Answer::Json(403, json!({})),
        Answer::Json(410, json!({})),
        Answer::Json(404, json!({})),
        Answer::Json(500, json!({})),
        Answer::Json(429, json!({})),
    ];
    let count = answers.len();
    let platform = Platform::start(vec![], answers).await;
    let mut agent = Agent::start(&platform.url, &[]);
    platform.beats_reach(count + 2).await;
    eventually("the recovery in the log", || agent.log().contains("accepted again").then_some(())).await;
    assert!(platform.seen("/elsewhere").is_empty(), "a redirect is not followed");
    let log = agent.log();
    for text in ["(auth failure 1/3)", "3 consecutive heartbeat auth failures (HTTP 410)", "no answer in time"] {
        assert!(log.contains(text), "{text}");
    }
    assert_eq!(agent.signal(Signal::TERM).await.code(), Some(0));
}

#[tokio::test]
async fn goes_on_registering_until_it_is_accepted() {
    let platform = Platform::start(vec![Answer::Page, Answer::Never, Answer::Redirect], vec![]).await;
    let agent = Agent::start(&platform.url, &[]);
    platform.beats_reach(1).await;
    assert_eq!(platform.registrations().len(), 4);
    assert!(platform.seen("/elsewhere").is_empty(), "a redirect is not followed");
    assert_eq!(agent.log().matches("registration failed").count(), 3);
}

#[tokio::test]
async fn takes_the_token_of_the_file_when_its_own_is_rejected() {
    let rejected = Answer::Json(401, json!({"error": "invalid workspace auth token"}));
    let platform = Platform::start(vec![rejected], vec![]).await;
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("state")).unwrap();
    fs::write(root.path().join("state/.auth_token"), "of-the-file\n").unwrap();
    let child = command(&root)
        .args(["--workspace-id", ID, "--platform-url", &platform.url, "--port", "0"])
        .env("MOLECULE_WORKSPACE_TOKEN", "of-the-environment")
        .spawn()
        .unwrap();
    let agent = Agent { child, root };
    platform.beats_reach(1).await;
    let tokens: Vec<_> = platform.registrations().into_iter().map(|seen| seen.authorization.unwrap()).collect();
    assert_eq!(tokens, ["Bearer of-the-environment", "Bearer of-the-file"]);
    assert_eq!(agent.file(".auth_token").await.1, 0o600, "others could read it");
}

#[tokio::test]
async fn ends_well_on_either_signal_even_when_no_platform_answers() {
    // Connections to it stand, and nobody answers on them.
    let silent = StdListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    for signal in [Signal::TERM, Signal::INT] {
        let mut agent = Agent::start(&url, &[]);
        eventually("a failed registration", || agent.log().contains("registration failed").then_some(())).await;
        assert_eq!(agent.signal(signal).await.code(), Some(0), "{signal:?}");
    }
}

#[tokio::test]
async fn a_request_in_flight_is_answered_before_the_end() {
    let platform = Platform::start(vec![], vec![]).await;
    let mut agent = Agent::start(&platform.url, &[]);
    let url = address(&platform).await;
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    write!(stream, "POST / HTTP/1.1\r\nHost: agent\r\nContent-Length: 2\r\n\r\n{{").unwrap();
    eventually("a busy beat", || platform.beats().pop().filter(|seen| seen.body["active_tasks"] == 1)).await;
    kill_process(Pid::from_child(&agent.child), Signal::TERM).unwrap();
    eventually("the end in the log", || agent.log().contains("agent stops").then_some(())).await;
    stream.write_all(b"}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(agent.exit().await.code(), Some(0));
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let taken = StdListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let complete = ["--workspace-id", ID, "--platform-url", "http://127.0.0.1:9"];
    for (arguments, code, text) in [
        (vec![], 2, "missing settings: WORKSPACE_ID (--workspace-id), PLATFORM_URL (--platform-url)"),
        (vec!["--workspace-id", ID], 2, "missing settings: PLATFORM_URL (--platform-url)"),
        ([&complete[..], &["--port", &port]].concat(), 1, "cannot listen on 127.0.0.1:"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let child = command(&root).args(&arguments).spawn().unwrap();
        let mut agent = Agent { child, root };
        assert_eq!(agent.exit().await.code(), Some(code), "{arguments:?}");
        assert!(agent.log().contains(text), "{}", agent.log());
    }
}
