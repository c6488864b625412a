//! A server of a test: the real one, on a port and in a folder of its own, gone with the value.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::Child,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Instant,
};

use molecule_core::http_client::{self, Timeouts};
use reqwest::{
    Body, Client, Method,
    header::{CONTENT_TYPE, HeaderMap},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{self, Outcome, PATIENCE, POLL};

/// What a server is to be like.
#[derive(Debug)]
pub(crate) struct Setup {
    provisioner: &'static str,
    env: Vec<(String, String)>,
}

impl Setup {
    /// Runs workspaces as child processes, and looks after them often.
    pub(crate) fn process() -> Self {
        Self { provisioner: "process", env: Vec::new() }
            .env("MOLECULE_HEALTH_TICK_MS", "100")
            .env("MOLECULE_TIMEOUT_TICK_MS", "100")
    }

    /// Runs no workspaces: external agents only.
    pub(crate) fn none() -> Self {
        Self { provisioner: "none", env: Vec::new() }
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Keeps everything in the database at `url`; in a file of its own where there is none.
    pub(crate) fn database(self, url: Option<&str>) -> Self {
        match url {
            Some(url) => self.env("DATABASE_URL", url),
            None => self,
        }
    }

    /// Starts it on a port that nobody uses.
    pub(crate) async fn start(self) -> Server {
        let timeouts = Timeouts { connect: PATIENCE, total: Some(PATIENCE) };
        let mut server = Server {
            home: tempfile::tempdir().expect("a folder can be made"),
            setup: self,
            port: 0,
            child: None,
            log: Arc::default(),
            http: http_client::build(timeouts).expect("a client can be made"),
        };
        loop {
            server.port = next_port();
            if server.try_start().await {
                return server;
            }
        }
    }
}

/// A port below those that the system gives to outgoing connections, so that a server can come back to it.
fn next_port() -> u16 {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 10_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let offset = std::process::id().wrapping_mul(37).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
    u16::try_from(FIRST + offset).expect("the range lies within the ports")
}

/// A running server, with its folder and all that it runs.
#[derive(Debug)]
pub(crate) struct Server {
    home: TempDir,
    setup: Setup,
    port: u16,
    child: Option<Child>,
    log: Arc<Mutex<String>>,
    http: Client,
}

/// An answer whose body was read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The one member that every refusal has.
    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no error in {self:?}")).to_owned()
    }
}

impl Server {
    /// The id of its process.
    pub(crate) fn process_id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// What it is called with.
    pub(crate) fn client(&self) -> &Client {
        &self.http
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The organisation whose server it is, where it serves one alone.
    pub(crate) fn organisation(&self) -> Option<&str> {
        self.setup.env.iter().find(|(name, _)| name == "MOLECULE_ORG_ID").map(|(_, id)| id.as_str())
    }

    /// The folder that it keeps everything in.
    pub(crate) fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// The folder of a workspace.
    pub(crate) fn folder(&self, id: &str) -> PathBuf {
        self.data().join("workspaces").join(id)
    }

    /// The operator's token, from the file that the server left.
    pub(crate) fn token(&self) -> String {
        fs::read_to_string(self.data().join("operator-token")).expect("the server left a token").trim().to_owned()
    }

    /// How much memory it holds, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = format!("/proc/{}/status", self.child.as_ref().expect("it runs").id());
        let status = fs::read_to_string(status).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        line.trim().trim_end_matches(" kB").parse().expect("it is a number")
    }

    /// All that it wrote, of every run.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it as a power cut would; what it runs goes on.
    pub(crate) fn kill9(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// Asks it to go down, as service managers do.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Asks it to go down, as people do.
    pub(crate) fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().expect("it runs"));
        kill_process(pid, signal).expect("it runs");
    }

    /// Waits for its end, and gives the exit code.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("it runs");
        tokio::task::spawn_blocking(move || process::end(&mut child)).await.expect("it ends")
    }

    /// Starts it again on the same port and folder.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.try_start().await, "it does not start again:\n{}", self.log());
    }

    /// False where its port is taken.
    async fn try_start(&mut self) -> bool {
        let began = self.log().len();
        let mut child = process::molecule(self.home.path())
            .args(["serve", "--listen", &format!("127.0.0.1:{}", self.port)])
            .env("MOLECULE_PROVISIONER", self.setup.provisioner)
            // Tests look more often than people do.
            .env("RATE_LIMIT", "1000000")
            .envs(self.setup.env.iter().map(|(name, value)| (name, value)))
            .spawn()
            .expect("the binary starts");
        let stderr = child.stderr.take().expect("its errors are piped");
        // Before anything can fail, so that it is ended with this value.
        self.child = Some(child);
        let log = Arc::clone(&self.log);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&line);
                log.push('\n');
            }
        });
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = self.log();
            let said = &log[began..];
            if said.contains(" listening ") {
                break;
            }
            if said.contains("is in use") {
                self.kill9();
                return false;
            }
            let child = self.child.as_mut().expect("it was just started");
            let ended = child.try_wait().expect("a child can be waited for");
            assert!(ended.is_none() && Instant::now() < deadline, "the server does not start ({ended:?}):\n{said}");
            tokio::time::sleep(POLL).await;
        }
        until("the server answers", async || {
            let answer = self.http.get(format!("{}/health", self.url())).send().await;
            answer.is_ok_and(|answer| answer.status().is_success()).then_some(())
        })
        .await;
        true
    }

    /// Sends one request with this bearer, if any.
    pub(crate) async fn send(&self, method: Method, path: &str, bearer: Option<&str>, body: impl Into<Body>) -> Reply {
        let mut request = self.http.request(method, format!("{}{path}", self.url()));
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer);
        }
        // What the router of an organisation adds.
        if let Some(org_id) = self.organisation() {
            request = request.header("x-molecule-org-id", org_id);
        }
        let answer = request.header(CONTENT_TYPE, "application/json").body(body).send().await;
        let answer = answer.unwrap_or_else(|error| panic!("{path}: {error:?}"));
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Reply { status, headers, text: answer.text().await.expect("the answer is complete") }
    }

    /// Sends one request with exactly these headers.
    pub(crate) async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut request = self.http.request(method, format!("{}{path}", self.url()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.body(body.to_owned()).send().await.unwrap_or_else(|error| panic!("{path}: {error:?}"));
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Reply { status, headers, text: answer.text().await.expect("the answer is complete") }
    }

    /// As the operator.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, Some(&self.token()), "").await
    }

    /// As the operator.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, path, Some(&self.token()), body.to_string()).await
    }

    /// As the operator.
    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, Some(&self.token()), "").await
    }

    /// Makes a workspace that the server runs, and gives its id.
    pub(crate) async fn create(&self, name: &str) -> String {
        let created = self.post("/workspaces", &json!({"name": name})).await;
        assert_eq!(created.status, 201, "{created:?}");
        created.json()["id"].as_str().expect("it has an id").to_owned()
    }

    /// Makes an external workspace that waits for its agent, and gives its id and token.
    pub(crate) async fn create_external(&self, name: &str, parent: Option<&str>) -> (String, String) {
        let body = json!({"name": name, "external": true, "parent_id": parent});
        let created = self.post("/workspaces", &body).await;
        assert_eq!(created.status, 201, "{created:?}");
        let text = |value: &Value| value.as_str().expect("it is text").to_owned();
        let created = created.json();
        (text(&created["id"]), text(&created["connection"]["auth_token"]))
    }

    /// Says that the agent of a workspace lives.
    pub(crate) async fn beat(&self, id: &str, token: &str) -> Reply {
        let body = json!({"workspace_id": id}).to_string();
        self.send(Method::POST, "/registry/heartbeat", Some(token), body).await
    }

    /// The fleet by id, as the operator sees it.
    pub(crate) async fn fleet(&self) -> BTreeMap<String, Value> {
        let list = self.get("/workspaces").await;
        assert_eq!(list.status, 200, "{list:?}");
        let list: Vec<Value> = serde_json::from_str(&list.text).expect("it is a list");
        list.into_iter().map(|row| (row["id"].as_str().expect("it has an id").to_owned(), row)).collect()
    }

    /// Waits until the workspace has this status, and gives its row.
    pub(crate) async fn until_status(&self, id: &str, status: &str) -> Value {
        until(&format!("{id} is {status}"), async || {
            let row = self.fleet().await.remove(id)?;
            (row["status"] == status).then_some(row)
        })
        .await
    }

    /// The events of a workspace, oldest first, each with its kind and payload.
    pub(crate) async fn events(&self, id: &str) -> Vec<(String, Value)> {
        let events: Vec<Value> = serde_json::from_str(&self.get(&format!("/events/{id}")).await.text).expect("a list");
        let kind = |event: &Value| event["event_type"].as_str().expect("it has a kind").to_owned();
        events.iter().rev().map(|event| (kind(event), event["payload"].clone())).collect()
    }

    /// Has the agent of a workspace repeat `text`.
    pub(crate) async fn assert_answers(&self, id: &str, text: &str) {
        let message = json!({"role": "user", "parts": [{"kind": "text", "text": text}]});
        let request = json!({"method": "message/send", "params": {"message": message}});
        let answer = self.post(&format!("/workspaces/{id}/a2a"), &request).await;
        assert!(answer.status == 200 && answer.text.contains(text), "{answer:?}");
    }

    /// The first process of a workspace, as the server remembers it.
    pub(crate) fn pid(&self, id: &str) -> Option<i32> {
        let record = fs::read(self.folder(id).join("process.json")).ok()?;
        let record: Value = serde_json::from_slice(&record).expect("the record is JSON");
        record["process"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok())
    }

    /// Every process of its workspaces.
    pub(crate) fn agents(&self) -> Vec<i32> {
        process::processes_that_mention(&format!("{}/workspaces/", self.data().display()))
    }

    /// Runs a command of the binary against it.
    pub(crate) async fn run(&self, args: &[&str]) -> Outcome {
        let mut command = process::molecule(self.home.path());
        command.env("MOLECULE_SERVER", self.url()).args(args);
        tokio::task::spawn_blocking(move || process::run(command)).await.expect("it runs")
    }

    /// Runs a command to success, and gives what it printed.
    pub(crate) async fn ok(&self, args: &[&str]) -> String {
        let outcome = self.run(args).await;
        assert_eq!(outcome.code, Some(0), "{args:?}: {outcome:?}");
        outcome.stdout
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        process::processes_that_mention(&self.home.path().display().to_string()).into_iter().for_each(process::kill);
        if thread::panicking() {
            let _ = writeln!(std::io::stderr().lock(), "--- the server's log\n{}---", self.log());
        }
    }
}

/// Looks again and again until there is something to see.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < deadline, "it did not happen that {what}");
        tokio::time::sleep(POLL).await;
    }
}
