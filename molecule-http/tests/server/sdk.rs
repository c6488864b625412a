//! Agents on the official SDK behind the server: each protocol they speak, as a whole and bit by bit.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use futures_util::StreamExt;
use reqwest::{Method, header::CONTENT_TYPE};
use serde_json::{Value, json};

use crate::{
    server::{Server, Setup, until},
    support::{self, skip::skip},
};

/// An agent on the SDK, gone with the value.
struct SdkAgent {
    child: Child,
    url: String,
}

impl SdkAgent {
    #[expect(clippy::disallowed_methods, reason = "the Makefile says where the SDK is")]
    fn start() -> Option<Self> {
        let Some(python) = env::var("MOLECULE_TEST_PYTHON").ok().filter(|path| !path.is_empty()) else {
            skip("MOLECULE_TEST_PYTHON names no Python with the SDK; run `make test`");
            return None;
        };
        let mut child = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/a2a-agent/agent.py"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the agent starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("its output is piped"));
        stdout.read_line(&mut line).expect("it says where it is");
        let url = line.trim().strip_prefix("listening on ").expect("it says where it is").to_owned();
        Some(Self { child, url })
    }
}

impl Drop for SdkAgent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn every_shape_of_message_reaches_an_agent_on_the_sdk_on_sqlite() {
    every_shape(None).await;
}

#[tokio::test]
async fn every_shape_of_message_reaches_an_agent_on_the_sdk_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        every_shape(Some(database.url())).await;
    }
}

async fn behind(agent: &SdkAgent, database: Option<&str>) -> (Server, String) {
    let server = Setup::none().database(database).start().await;
    let created = server.post("/workspaces", &json!({"name": "pong", "external": true, "url": agent.url})).await;
    assert_eq!(created.status, 201, "{created:?}");
    let id = created.json()["id"].as_str().expect("it has an id").to_owned();
    (server, id)
}

async fn every_shape(database: Option<&str>) {
    let Some(agent) = SdkAgent::start() else { return };
    let (server, id) = behind(&agent, database).await;
    let path = format!("/workspaces/{id}/a2a");
    let parts = json!([{"kind": "text", "text": "hi"}]);
    let now = json!({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": {
        "role": "ROLE_USER", "messageId": "m0", "parts": [{"text": "hi"}]}}});
    // The version that is said, the request, and where the reply is.
    let rows = [
        (Some("1.0"), now.clone(), "/result/message/parts/0/text"),
        (
            Some("1.0"),
            json!({"method": "SendMessage", "params": {"message": {"role": "ROLE_USER",
            "parts": [{"text": "hi"}]}}}),
            "/result/message/parts/0/text",
        ),
        (
            None,
            json!({"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": {
            "role": "user", "messageId": "m1", "parts": parts}}}),
            "/result/parts/0/text",
        ),
        (
            Some("0.3"),
            json!({"method": "message/send", "params": {"message": {
            "role": "user", "parts": parts}}}),
            "/result/parts/0/text",
        ),
        (
            None,
            json!({"method": "message/send", "params": {"message": {
            "role": "user", "content": "hi"}}}),
            "/result/parts/0/text",
        ),
        (
            None,
            json!({"method": "message/send", "params": {"message": {
            "role": "user", "content": parts}}}),
            "/result/parts/0/text",
        ),
    ];
    let bearer = format!("Bearer {}", server.token());
    for (version, request, place) in rows {
        let mut headers = vec![("authorization", bearer.as_str()), ("content-type", "application/json")];
        headers.extend(version.map(|version| ("a2a-version", version)));
        let answer = server.ask(Method::POST, &path, &headers, &request.to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json().pointer(place), Some(&json!("pong: hi")), "{request} {answer:?}");
    }
    // What the agent refuses comes back as it says it.
    let refused = server.post(&path, &now).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (200, &json!(-32009)), "{refused:?}");
}

#[tokio::test]
async fn an_agent_on_the_sdk_is_heard_while_it_works() {
    let Some(agent) = SdkAgent::start() else { return };
    let (server, id) = behind(&agent, None).await;
    for (version, method, role) in [("0.3", "message/stream", "user"), ("1.0", "SendStreamingMessage", "ROLE_USER")] {
        let flag = server.data().join(format!("go-{version}"));
        let part = if version == "1.0" { json!({}) } else { json!({"kind": "text"}) };
        let mut part = part;
        part["text"] = format!("wait {}", flag.display()).into();
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"message": {
            "role": role, "messageId": version, "parts": [part]}}});
        let answer = server.client().post(format!("{}/workspaces/{id}/a2a", server.url())).bearer_auth(server.token());
        let answer = answer.header("a2a-version", version).json(&request).send().await.expect("it answers");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()[CONTENT_TYPE], "text/event-stream");
        let mut bits = answer.bytes_stream();
        let mut said = String::new();
        while !said.contains("at work") {
            let bit = bits.next().await.expect("it goes on").expect("it does not break off");
            said.push_str(&String::from_utf8_lossy(&bit));
        }
        assert!(!said.contains("here it is"), "it waits: {said}");
        fs::write(&flag, "").expect("it can be written");
        while let Some(bit) = bits.next().await {
            said.push_str(&String::from_utf8_lossy(&bit.expect("it does not break off")));
        }
        assert!(said.contains("here it is") && said.contains("done"), "{said}");
    }
    let log = until("both are in the log", async || {
        let log = server.get(&format!("/workspaces/{id}/activity?type=a2a_receive")).await;
        let log: Vec<Value> = serde_json::from_str(&log.text).expect("it is a list");
        (log.len() == 2).then_some(log)
    });
    for row in log.await {
        assert_eq!(row["response_body"].as_array().map(Vec::len), Some(4), "{row}");
    }
}

/// Three agents on the SDK, one below the other, behind two servers: each hands tasks to each, and calls it in either
/// protocol, all at once.
#[tokio::test]
async fn a_team_on_the_sdk_talks_through_two_servers() {
    const TASKS: usize = 4;
    let Some(database) = support::postgres_database().await else { return };
    let mut agents = Vec::new();
    for _ in 0..3 {
        let Some(agent) = SdkAgent::start() else { return };
        agents.push(agent);
    }
    let setup = || Setup::none().database(Some(database.url())).env("MOLECULE_DEPLOY_MODE", "self-hosted");
    let servers = [setup().start().await, setup().start().await];
    let mut team: Vec<(String, String)> = Vec::new();
    for agent in &agents {
        let parent = team.last().map(|(id, _)| id.clone());
        let body = json!({"name": "pong", "external": true, "url": agent.url, "parent_id": parent});
        let created = servers[0].post("/workspaces", &body).await.json();
        let text = |value: &Value| value.as_str().expect("it is text").to_owned();
        team.push((text(&created["id"]), text(&created["connection"]["auth_token"])));
    }
    for ((id, token), server) in team.iter().zip(servers.iter().cycle()) {
        assert_eq!(server.beat(id, token).await.status, 200);
    }
    let mut work = Vec::new();
    for (source, target) in (0..3).flat_map(|source| (0..3).map(move |target| (source, target))) {
        for n in (0..TASKS).filter(|_| source != target) {
            work.push((source, target, n));
        }
    }
    let team = &team;
    let calls = work.iter().map(async |(source, target, n)| {
        let server = &servers[(source + n) % 2];
        let (id, token) = &team[*source];
        let (to, _) = &team[*target];
        let text = format!("{source} to {target}, {n}");
        // Half of them as tasks, the others as calls of either protocol.
        if n % 2 == 0 {
            let body = json!({"target_id": to, "task": text}).to_string();
            let begun = server.send(Method::POST, &format!("/workspaces/{id}/delegate"), Some(token), body).await;
            assert_eq!(begun.status, 202, "{begun:?}");
            let delegation = begun.json()["delegation_id"].clone();
            let path = format!("/workspaces/{id}/delegations");
            until("the task is done", async || {
                let rows = servers[n % 2].send(Method::GET, &path, Some(token), "").await.json();
                let row = rows
                    .as_array()?
                    .iter()
                    .find(|row| row["delegation_id"] == delegation && row["response_preview"].is_string())?;
                assert_eq!(row["response_preview"], format!("pong: {text}"), "{row}");
                Some(())
            })
            .await;
            return;
        }
        let (version, method, role, place) = if n % 4 == 1 {
            ("1.0", "SendMessage", "ROLE_USER", "/result/message/parts/0/text")
        } else {
            ("0.3", "message/send", "user", "/result/parts/0/text")
        };
        let mut part = json!({"text": text});
        if version == "0.3" {
            part["kind"] = "text".into();
        }
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"message": {
            "role": role, "messageId": text, "parts": [part]}}});
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("x-workspace-id", id.as_str()),
            ("content-type", "application/json"),
            ("a2a-version", version),
        ];
        let answer = server.ask(Method::POST, &format!("/workspaces/{to}/a2a"), &headers, &request.to_string()).await;
        assert_eq!(answer.json().pointer(place), Some(&json!(format!("pong: {text}"))), "{answer:?}");
    });
    futures_util::future::join_all(calls).await;
    // Each was given each message once, and its log, read from either server, says from whom.
    for (n, (id, token)) in team.iter().enumerate() {
        let path = format!("/workspaces/{id}/activity?type=a2a_receive&limit=500");
        let rows = until("all are in the log", async || {
            let rows = servers[n % 2].send(Method::GET, &path, Some(token), "").await.json();
            rows.as_array().filter(|rows| rows.len() == 2 * TASKS).cloned()
        })
        .await;
        let mut texts: Vec<String> =
            rows.iter().map(|row| row["request_body"]["params"]["message"]["parts"][0]["text"].to_string()).collect();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), 2 * TASKS);
        assert!(rows.iter().all(|row| row["status"] == "ok" && row["source_id"].is_string()), "{rows:?}");
    }
}
