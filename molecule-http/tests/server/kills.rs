//! The server is killed under load, again and again: what it acknowledged is kept, and nobody is falsely lost.
//!
//! `MOLECULE_TEST_KILLS` says how often; `make soak` asks for 100.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use molecule_core::http_client::{self, Timeouts};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    agent::{Act, Agent},
    process::PATIENCE,
    server::{Server, Setup, until},
    support,
};

const KILLS: usize = 3;

/// Agents that only beat, and agents whose tokens and status change as well.
const STEADY: usize = 20;
const BUSY: usize = 8;

/// How many calls of the latter are acknowledged before the next kill, at least and at most.
const BETWEEN_KILLS: std::ops::Range<usize> = 50..400;

/// How long an agent may be silent: much longer than a server takes to come back, and much shorter than the test.
const SILENCE: &str = "15";

#[tokio::test]
async fn kills_under_load_lose_nothing_on_sqlite() {
    survives_kills(Setup::none()).await;
}

#[tokio::test]
async fn kills_under_load_lose_nothing_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        survives_kills(Setup::none().database(Some(database.url()))).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "whoever runs the test says how long it may take")]
fn kills() -> usize {
    std::env::var("MOLECULE_TEST_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(KILLS)
}

async fn survives_kills(setup: Setup) {
    let setup = setup.env("REMOTE_LIVENESS_STALE_AFTER", SILENCE).env("MOLECULE_HEALTH_TICK_MS", "100");
    let mut server = setup.start().await;
    // It takes every call and says nothing: what is sent to it is kept.
    let occupied = Agent::start([], Act::Close).await;
    let url = occupied.url().replace("127.0.0.1", "localhost");
    let created = server.post("/workspaces", &json!({"name": "occupied", "external": true, "url": url})).await;
    let occupied_id = created.json()["id"].as_str().expect("it has an id").to_owned();
    let mut members = Vec::new();
    for n in 0..STEADY + BUSY {
        let (id, token) = server.create_external(&format!("m{n}"), None).await;
        // Whatever it says, the first beat brings it online.
        assert_eq!(server.beat(&id, &token).await.status, 200);
        members.push(Member::new(&server, id, token, n >= STEADY, &occupied_id));
    }
    let mut kept = 0;
    for kill in 0..kills() {
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let mut at_work = JoinSet::new();
        for mut member in members.drain(..) {
            let acknowledged = Arc::clone(&acknowledged);
            at_work.spawn(async move {
                member.work(&acknowledged).await;
                member
            });
        }
        // Another moment each time, and the same ones in each run.
        let enough = BETWEEN_KILLS.start + (kill * 7919) % BETWEEN_KILLS.len();
        until("enough is acknowledged", async || (acknowledged.load(Ordering::Relaxed) >= enough).then_some(())).await;
        server.kill9();
        while let Some(member) = at_work.join_next().await {
            members.push(member.expect("its work ends with the server"));
        }
        server.start_again().await;
        let fleet = server.fleet().await;
        for member in &mut members {
            kept += member.check(&fleet[&member.id]["status"]).await;
        }
    }
    for member in &members {
        let lost = server.events(&member.id).await.into_iter().any(|(kind, _)| kind == "WORKSPACE_OFFLINE");
        assert!(!lost, "{} was falsely lost", member.id);
    }
    assert!(kept >= kills() * (STEADY + BUSY), "nothing was looked at");
    let left: usize = members.iter().map(|member| member.left.len()).sum();
    assert!(left >= kills(), "nothing was left behind");
}

/// The agent of a workspace, and what the server acknowledged to it.
#[derive(Debug)]
struct Member {
    id: String,
    /// Never revoked.
    token: String,
    /// By which the server proves to the agent who it is: told with each beat, and never another.
    secret: Option<Value>,
    url: String,
    http: Client,
    busy: bool,
    /// The tokens that were issued and not revoked, each with its id.
    live: Vec<(String, String)>,
    revoked: Vec<String>,
    /// An agent that has no time.
    occupied: String,
    /// What it left with the server: the name of each thing that was acknowledged whole, with the message that waits.
    left: Vec<(String, String)>,
    /// How often it began to leave something.
    turn: usize,
    /// What it said last of its condition. It is not known what became of what was not acknowledged.
    wedged: bool,
    status: Option<&'static str>,
}

impl Member {
    fn new(server: &Server, id: String, token: String, busy: bool, occupied: &str) -> Self {
        let timeouts = Timeouts { connect: PATIENCE, total: Some(PATIENCE) };
        let http = http_client::build(timeouts).expect("a client can be made");
        let (live, revoked, left) = (Vec::new(), Vec::new(), Vec::new());
        let occupied = occupied.to_owned();
        let url = server.url();
        Self {
            id,
            token,
            secret: None,
            url,
            http,
            busy,
            live,
            revoked,
            occupied,
            left,
            turn: 0,
            wedged: false,
            status: None,
        }
    }

    /// Works until the server is gone.
    async fn work(&mut self, acknowledged: &AtomicUsize) {
        while let Some(calls) = if self.busy { self.change().await } else { self.beat(&self.token).await.map(|_| 1) } {
            if self.busy {
                acknowledged.fetch_add(calls, Ordering::Relaxed);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if !self.busy {
            self.status = Some("online");
        }
    }

    /// Changes its status and its tokens. How many calls were acknowledged; none once the server is gone.
    async fn change(&mut self) -> Option<usize> {
        self.wedged = !self.wedged;
        self.status = None;
        assert_eq!(self.beat(&self.token).await?.0, 200);
        self.status = Some(if self.wedged { "degraded" } else { "online" });

        let path = format!("/workspaces/{}/tokens", self.id);
        let (status, issued) = self.call(Method::POST, &path, &self.token, None).await?;
        assert_eq!(status, 201, "{issued}");
        let text = issued["auth_token"].as_str().expect("it is text").to_owned();
        let (_, listed) = self.call(Method::GET, &path, &self.token, None).await?;
        let listed = listed["tokens"].as_array().expect("a list").iter();
        let id = listed.filter(|row| row["prefix"] == text[..8]).find_map(|row| row["id"].as_str());
        self.live.push((id.expect("what was issued is listed").to_owned(), text));

        if self.live.len() > 3 {
            // Whether it is good is not known until its end was acknowledged.
            let (id, text) = self.live.remove(0);
            let (status, answer) = self.call(Method::DELETE, &format!("{path}/{id}"), &self.token, None).await?;
            assert_eq!(status, 200, "{answer}");
            self.revoked.push(text);
        }
        Some(4 + self.leave().await?)
    }

    /// Leaves one of each with the server: a report, a value, a memory, a request for leave, a step of a workflow, a step in
    /// the ledger, a message to itself, for which it asks, and one to an agent without time.
    async fn leave(&mut self) -> Option<usize> {
        self.turn += 1;
        let name = format!("left {} {}", self.id, self.turn);
        let message = json!({"method": "message/send", "params": {"message": {
            "role": "user", "messageId": name, "parts": [{"kind": "text", "text": name}]}}});
        let calls = [
            ("activity", json!({"activity_type": "agent_log", "summary": name}), 200),
            ("memory", json!({"key": name, "value": self.turn}), 200),
            ("memories", json!({"content": name, "scope": "LOCAL"}), 201),
            ("approvals", json!({"action": name}), 201),
            ("checkpoints", json!({"workflow_id": "w", "step_name": name, "step_index": self.turn}), 201),
            ("audit", json!({"session_id": name, "operation": "task_end"}), 201),
            ("a2a", message.clone(), 200),
        ];
        let count = calls.len() + 1;
        for (rest, body, expected) in calls {
            let path = format!("/workspaces/{}/{rest}", self.id);
            let (status, answer) = self.call(Method::POST, &path, &self.token, Some(body)).await?;
            assert_eq!(status, expected, "{rest}: {answer}");
        }
        let path = format!("/workspaces/{}/a2a", self.occupied);
        let (status, answer) = self.call(Method::POST, &path, &self.token, Some(message)).await?;
        assert_eq!(status, 202, "{answer}");
        self.left.push((name, answer["queue_id"].as_str().expect("it has an id").to_owned()));
        Some(count)
    }

    /// Holds the server to what it left last. How many things that were.
    async fn check_left(&self) -> usize {
        const LAST: usize = 20;
        let lists = [
            ("activity?type=agent_log&limit=500", "/summary"),
            ("activity?type=a2a_receive&limit=500", "/request_body/params/message/messageId"),
            ("memory", "/key"),
            ("memories", "/content"),
            ("approvals", "/action"),
            ("checkpoints/w", "/step_name"),
            ("audit?limit=500", "/session_id"),
        ];
        let last: Vec<_> = self.left.iter().rev().take(LAST).collect();
        if last.is_empty() {
            return 0;
        }
        for (rest, place) in lists {
            let path = format!("/workspaces/{}/{rest}", self.id);
            let (status, listed) = self.call(Method::GET, &path, &self.token, None).await.expect("the server is back");
            assert_eq!(status, 200, "{listed}");
            let rows = listed["events"].as_array().or(listed.as_array()).expect("a list");
            for (name, _) in &last {
                let count = rows.iter().filter(|row| row.pointer(place) == Some(&json!(name))).count();
                assert_eq!(count, 1, "{name} was acknowledged: {rest}");
            }
        }
        for (name, id) in &last {
            let path = format!("/workspaces/{}/a2a/queue/{id}", self.id);
            let (_, item) = self.call(Method::GET, &path, &self.token, None).await.expect("the server is back");
            assert_eq!(item["status"], "queued", "{name} was acknowledged: {item}");
        }
        last.len() * (lists.len() + 1)
    }

    /// Holds the server, which is another process by now, to all that was acknowledged. How many things that were.
    async fn check(&mut self, status: &Value) -> usize {
        if let Some(expected) = self.status {
            assert_eq!(status, expected, "the status of {} was acknowledged", self.id);
        }
        let good = std::iter::once(&self.token).chain(self.live.iter().map(|(_, text)| text));
        let mut looked_at = 1;
        for (text, expected) in
            good.map(|text| (text, 200)).chain(self.revoked.iter().rev().take(5).map(|text| (text, 401)))
        {
            let answer = self.beat(text).await.expect("the server is back");
            assert_eq!(answer.0, expected, "a token of {}: {}", self.id, answer.1);
            if expected == 200 {
                let told = &answer.1["platform_inbound_secret"];
                assert!(told.is_string(), "{}", answer.1);
                assert_eq!(self.secret.get_or_insert_with(|| told.clone()), told, "the secret of {} was told", self.id);
            }
            looked_at += 1;
        }
        // Tokens that were issued and never acknowledged count as well.
        self.tidy().await;
        looked_at + self.check_left().await
    }

    /// Revokes all tokens but those it knows, so that they never become too many.
    async fn tidy(&self) {
        let path = format!("/workspaces/{}/tokens", self.id);
        let (_, listed) = self.call(Method::GET, &path, &self.token, None).await.expect("the server is back");
        for row in listed["tokens"].as_array().expect("a list") {
            let known = |text: &str| row["prefix"] == text[..8];
            if !known(&self.token) && !self.live.iter().any(|(_, text)| known(text)) {
                let id = row["id"].as_str().expect("it has an id");
                self.call(Method::DELETE, &format!("{path}/{id}"), &self.token, None)
                    .await
                    .expect("the server is back");
            }
        }
    }

    /// Says how it is, with one of its tokens.
    async fn beat(&self, token: &str) -> Option<(u16, Value)> {
        let state = if self.wedged { "wedged" } else { "" };
        let body = json!({"workspace_id": self.id, "runtime_state": state});
        self.call(Method::POST, "/registry/heartbeat", token, Some(body)).await
    }

    /// `None` where no whole answer came: the server is gone.
    async fn call(&self, method: Method, path: &str, token: &str, body: Option<Value>) -> Option<(u16, Value)> {
        let mut request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        let text = answer.text().await.ok()?;
        Some((status, serde_json::from_str(&text).expect("every answer is JSON")))
    }
}
