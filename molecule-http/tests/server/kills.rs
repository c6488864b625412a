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
    process::PATIENCE,
    server::{Server, Setup, until},
    support,
};

const KILLS: usize = 3;

/// Agents that only beat, and agents whose tokens and status change as well.
const STEADY: usize = 20;
const BUSY: usize = 8;

/// How many calls are acknowledged before the next kill, at least and at most.
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
    let mut members = Vec::new();
    for n in 0..STEADY + BUSY {
        let (id, token) = server.create_external(&format!("m{n}"), None).await;
        // Whatever it says, the first beat brings it online.
        assert_eq!(server.beat(&id, &token).await.status, 200);
        members.push(Member::new(&server, id, token, n >= STEADY));
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
}

/// The agent of a workspace, and what the server acknowledged to it.
#[derive(Debug)]
struct Member {
    id: String,
    /// Never revoked.
    token: String,
    url: String,
    http: Client,
    busy: bool,
    /// The tokens that were issued and not revoked, each with its id.
    live: Vec<(String, String)>,
    revoked: Vec<String>,
    /// What it said last of its condition. It is not known what became of what was not acknowledged.
    wedged: bool,
    status: Option<&'static str>,
}

impl Member {
    fn new(server: &Server, id: String, token: String, busy: bool) -> Self {
        let timeouts = Timeouts { connect: PATIENCE, total: Some(PATIENCE) };
        let http = http_client::build(timeouts).expect("a client can be made");
        let (live, revoked) = (Vec::new(), Vec::new());
        Self { id, token, url: server.url(), http, busy, live, revoked, wedged: false, status: None }
    }

    /// Works until the server is gone.
    async fn work(&mut self, acknowledged: &AtomicUsize) {
        while let Some(calls) = if self.busy { self.change().await } else { self.beat(&self.token).await.map(|_| 1) } {
            acknowledged.fetch_add(calls, Ordering::Relaxed);
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
        Some(4)
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
            looked_at += 1;
        }
        // Tokens that were issued and never acknowledged count as well.
        self.tidy().await;
        looked_at
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
