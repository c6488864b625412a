//! The control-plane backend against a control plane that answers in every wrong way there is.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use molecule_core::{
    error::{Error, ErrorKind, Result, Retry},
    id::WorkspaceId,
    provisioner::{
        ControlPlaneProvisioner, StartSpec,
        remote::{RemoteConfig, RemoteProvisioner},
    },
    testing::Logged,
    workspace::Access,
};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const ID: &str = "6f9619ff-8b86-d011-b42d-00cf4fc964ff";

/// What the stub does with every request.
#[derive(Debug, Clone)]
enum Answer {
    /// Sends this and closes.
    Send(String),
    /// Sends this a byte at a time.
    Drip(String),
    /// Says nothing, for as long as the caller waits.
    Silence,
    /// Breaks the connection off as a crash would.
    Reset,
}

fn answer(status: u16, body: &str) -> Answer {
    Answer::Send(response(status, body))
}

fn response(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// A control plane that answers one thing to everything.
struct Stub {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl Stub {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let notes = Arc::clone(&requests);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut calls = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                calls.spawn(serve(stream, answer.clone(), Arc::clone(&notes)));
            }
        });
        Self { url, requests, _serving: serving }
    }

    /// The one request so far.
    fn request(&self) -> String {
        let requests = self.requests.lock().unwrap();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests[0].clone()
    }
}

async fn serve(mut stream: TcpStream, answer: Answer, notes: Arc<Mutex<Vec<String>>>) {
    let mut request = Vec::new();
    while !whole(&request) {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await.unwrap_or(0);
        if read == 0 {
            return;
        }
        request.extend_from_slice(&chunk[..read]);
    }
    notes.lock().unwrap().push(String::from_utf8(request).unwrap());
    // A caller that has heard enough hangs up, which is no failure of this side.
    match answer {
        Answer::Send(text) => drop(stream.write_all(text.as_bytes()).await),
        Answer::Drip(text) => {
            for byte in text.bytes() {
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        }
        Answer::Silence => std::future::pending().await,
        Answer::Reset => stream.set_zero_linger().unwrap(),
    }
}

/// Whether the headers, and as much body as they say, have arrived.
fn whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

fn config(url: &str) -> RemoteConfig {
    RemoteConfig {
        base_url: url.to_owned(),
        org_id: "org-1".to_owned(),
        shared_secret: Some(SecretString::from("shared")),
        admin_api_token: Some(SecretString::from("api")),
        admin_token: Some(SecretString::from("admin")),
        timeout: Duration::from_secs(30),
    }
}

fn id() -> WorkspaceId {
    ID.parse().unwrap()
}

fn spec() -> StartSpec {
    StartSpec {
        workspace_id: id(),
        name: "coder".to_owned(),
        runtime: "hermes".to_owned(),
        tier: 3,
        env: [("MODEL".to_owned(), "opus".to_owned())].into(),
        files: Vec::new(),
        workspace_dir: None,
        access: Access::None,
        platform_url: "https://fleet.example".to_owned(),
        reset_session: false,
        command: Default::default(),
    }
}

/// The four calls, each with whether it asks for success alone and no content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Start,
    Stop,
    Status,
    Console,
}

const OPERATIONS: [Operation; 4] = [Operation::Start, Operation::Stop, Operation::Status, Operation::Console];

async fn call(operation: Operation, config: RemoteConfig) -> Result<String> {
    let provisioner = RemoteProvisioner::new(config).unwrap();
    match operation {
        Operation::Start => provisioner.start(&spec()).await.map(|instance| instance.instance_id),
        Operation::Stop => provisioner.stop(id(), "i-1").await.map(|()| "stopped".to_owned()),
        Operation::Status => provisioner.is_running(id(), "i-1").await.map(|running| running.to_string()),
        Operation::Console => provisioner.console_output(id()).await,
    }
}

async fn outcome(operation: Operation, answer: Answer) -> Result<String> {
    let stub = Stub::start(answer).await;
    call(operation, config(&stub.url)).await
}

fn failure(outcome: Result<String>) -> Error {
    outcome.expect_err("the answer is wrong")
}

#[tokio::test]
async fn each_call_asks_for_what_the_api_says_with_the_credentials_it_says() {
    let rows = [
        (Operation::Start, "POST /cp/workspaces/provision", "shared", answer(201, r#"{"instance_id":"i-7"}"#), "i-7"),
        (Operation::Stop, &format!("DELETE /cp/workspaces/{ID}?instance_id=i-1"), "shared", answer(204, ""), "stopped"),
        (
            Operation::Status,
            &format!("GET /cp/workspaces/{ID}/status?instance_id=i-1"),
            "shared",
            answer(200, r#"{"state":"running"}"#),
            "true",
        ),
        (
            Operation::Console,
            &format!("GET /cp/admin/workspaces/{ID}/console"),
            "api",
            answer(200, r#"{"output":"booting"}"#),
            "booting",
        ),
    ];
    for (operation, line, bearer, answer, expected) in rows {
        let stub = Stub::start(answer).await;
        assert_eq!(call(operation, config(&stub.url)).await.unwrap(), expected);
        let request = stub.request();
        assert!(request.starts_with(&format!("{line} HTTP/1.1\r\n")), "{request}");
        assert!(request.contains(&format!("\r\nauthorization: Bearer {bearer}\r\n")), "{request}");
        assert!(request.contains("\r\nx-molecule-admin-token: admin\r\n"), "{request}");
        if operation == Operation::Start {
            let body: Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
            let expected = json!({
                "org_id": "org-1", "workspace_id": ID, "runtime": "hermes", "tier": 3,
                "platform_url": "https://fleet.example", "env": {"MODEL": "opus"},
            });
            assert_eq!(body, expected);
        }
    }
}

#[tokio::test]
async fn a_credential_that_is_missing_or_empty_sends_no_header_and_the_console_falls_back() {
    for (shared, api, console_bearer) in [
        (None, None, None),
        (Some(""), Some(" "), None),
        (Some("shared"), None, Some("shared")),
        (None, Some("api"), Some("api")),
    ] {
        let stub = Stub::start(answer(200, r#"{"output":""}"#)).await;
        let config = RemoteConfig {
            shared_secret: shared.map(SecretString::from),
            admin_api_token: api.map(SecretString::from),
            admin_token: None,
            ..config(&stub.url)
        };
        call(Operation::Console, config).await.unwrap();
        let request = stub.request();
        let bearer = request.lines().find_map(|line| line.strip_prefix("authorization: Bearer "));
        assert_eq!(bearer, console_bearer, "{request}");
        assert!(!request.contains("x-molecule-admin-token"), "{request}");
    }
}

#[tokio::test]
async fn a_stop_succeeds_with_any_answer_of_success_and_needs_none_without_an_instance() {
    for status in [200, 202, 204] {
        assert_eq!(outcome(Operation::Stop, answer(status, "")).await.unwrap(), "stopped");
    }
    // Nobody listens there: it would fail if it called.
    let provisioner = RemoteProvisioner::new(config("http://127.0.0.1:9")).unwrap();
    provisioner.stop(id(), "").await.unwrap();
    assert!(!provisioner.is_running(id(), "").await.unwrap());
}

#[tokio::test]
async fn a_start_succeeds_with_201_and_an_instance_alone() {
    let started = r#"{"instance_id":"i-7"}"#;
    for (answer, why) in [
        (answer(200, started), "unexpected 200: <unstructured body, 21 bytes>"),
        (answer(202, started), "unexpected 202: <unstructured body, 21 bytes>"),
        (answer(204, ""), "unexpected 204: <unstructured body, 0 bytes>"),
        (answer(201, "{}"), "the answer names no instance"),
        (answer(201, r#"{"instance_id":""}"#), "the answer names no instance"),
        (answer(201, r#"{"instance_id":7}"#), "the answer of 17 bytes cannot be understood"),
        (answer(201, "<html>"), "the answer of 6 bytes cannot be understood"),
        (answer(201, ""), "the answer of 0 bytes cannot be understood"),
    ] {
        let (logged, _guard) = Logged::here();
        let error = failure(outcome(Operation::Start, answer).await);
        assert_eq!(error.message(), format!("cp provisioner: start {ID}: {why}"));
        assert_eq!(error.kind(), ErrorKind::Upstream);
        let suspected = logged.with(&format!("LEAK-SUSPECT cpProv.Start workspace_id={ID} last_err="));
        assert_eq!(suspected.len(), usize::from(why.starts_with("the answer")), "{why}: {suspected:?}");
    }
}

#[tokio::test]
async fn a_start_whose_answer_is_unknown_may_have_made_a_machine() {
    let silent = Stub::start(Answer::Silence).await;
    for (url, suspect) in [(&*silent.url, true), ("http://127.0.0.1:9", false)] {
        let (logged, _guard) = Logged::here();
        let config = RemoteConfig { timeout: Duration::from_millis(200), ..config(url) };
        failure(call(Operation::Start, config).await);
        assert_eq!(logged.with("LEAK-SUSPECT cpProv.Start").len(), usize::from(suspect), "{url}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_success_is_an_error_that_names_workspace_and_status() {
    for (status, retry) in [
        (300, Retry::Never),
        (302, Retry::Never),
        (400, Retry::Never),
        (401, Retry::Never),
        (403, Retry::Never),
        (404, Retry::Never),
        (408, Retry::Maybe),
        (409, Retry::Never),
        (429, Retry::Maybe),
        (500, Retry::Maybe),
        (502, Retry::Maybe),
        (503, Retry::Maybe),
    ] {
        for operation in OPERATIONS {
            let error = failure(outcome(operation, answer(status, r#"{"error":"no capacity"}"#)).await);
            let what = format!("{operation:?} {status}: {error:?}");
            assert!(error.message().contains(&format!(" {ID}: unexpected {status}: ")), "{what}");
            assert_eq!(error.retry(), retry, "{what}");
            assert_eq!(error.kind(), ErrorKind::Upstream, "{what}");
            let told = error.message().contains("no capacity");
            assert_eq!(told, matches!(operation, Operation::Start | Operation::Stop), "{what}");
        }
    }
}

#[tokio::test]
async fn a_failed_stop_repeats_at_most_512_bytes() {
    for (body, expected) in [
        ("x".repeat(100_000), "x".repeat(512)),
        (format!("  no such machine \n{}", " ".repeat(600)), "no such machine".to_owned()),
        (format!("{}ü", "x".repeat(511)), "x".repeat(511)),
        (String::new(), String::new()),
    ] {
        let error = failure(outcome(Operation::Stop, answer(500, &body)).await);
        assert_eq!(error.message(), format!("cp provisioner: stop {ID}: unexpected 500: {expected}"));
    }
}

#[tokio::test]
async fn a_body_that_is_wrong_is_an_error_that_does_not_repeat_it() {
    for operation in [Operation::Start, Operation::Status, Operation::Console] {
        let status = if operation == Operation::Start { 201 } else { 200 };
        let long = format!(r#"{{"output":"{}"}}"#, "secret".repeat(60_000));
        for answer in [
            answer(status, "secret, but no JSON"),
            answer(status, r#"["secret"]"#),
            answer(status, r#"{"instance_id":["secret"],"state":["secret"],"output":["secret"]}"#),
            answer(status, &long),
            Answer::Send(response(status, r#"{"secret":1}"#).replace("Length: 1", "Length: 9")),
            Answer::Send("secret\r\n\r\n".to_owned()),
        ] {
            let what = format!("{operation:?} {:.60?}", format!("{answer:?}"));
            let error = failure(outcome(operation, answer).await);
            assert!(error.message().contains(ID) && !error.detail().contains("secret"), "{what}: {}", error.detail());
        }
    }
}

#[tokio::test]
async fn a_control_plane_that_says_nothing_fails_the_call_in_time() {
    for operation in OPERATIONS {
        let stub = Stub::start(Answer::Silence).await;
        let config = RemoteConfig { timeout: Duration::from_millis(200), ..config(&stub.url) };
        let error = failure(call(operation, config).await);
        assert!(error.message().ends_with(&format!("{ID}: it did not answer in time")), "{error}");
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Maybe));
    }
}

#[tokio::test]
async fn a_control_plane_that_is_away_is_worth_another_try() {
    for operation in OPERATIONS {
        // Bound and dropped: nobody listens there.
        let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let gone = failure(call(operation, config(&format!("http://{nowhere}"))).await);
        let reset = failure(outcome(operation, Answer::Reset).await);
        for error in [gone, reset] {
            assert!(error.message().ends_with(&format!("{ID}: it cannot be reached")), "{error}");
            assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Maybe));
            assert!(!error.detail().contains("127.0.0.1"), "the URL is not for everyone: {}", error.detail());
        }
    }
}

#[tokio::test]
async fn a_slow_answer_is_an_answer() {
    let slow = Answer::Drip(response(200, r#"{"state":"pending"}"#));
    assert_eq!(outcome(Operation::Status, slow).await.unwrap(), "false");
    let slow = Answer::Drip(response(201, r#"{"instance_id":"i-9"}"#));
    assert_eq!(outcome(Operation::Start, slow).await.unwrap(), "i-9");
}
