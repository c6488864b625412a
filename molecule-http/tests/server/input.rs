//! Input that is wrong: each is refused in the common form, changes nothing, and tells nothing.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    refused::assert_tells_nothing,
    server::{Reply, Server, Setup},
    support,
};

const LIMIT: usize = 1024 * 1024;
const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";

/// A server with one external workspace that waits for its agent.
struct Bench {
    server: Server,
    id: String,
    token: String,
}

impl Bench {
    async fn new(database: Option<&str>) -> Self {
        let server = Setup::none().database(database).start().await;
        let (id, token) = server.create_external("one", None).await;
        Self { server, id, token }
    }

    /// Every route that takes a body, with the credential for it and a body that is right.
    fn routes(&self) -> [(String, String, Value); 6] {
        let (id, operator) = (&self.id, self.server.token());
        [
            ("/workspaces".to_owned(), operator.clone(), json!({"name": "two", "external": true})),
            (format!("/workspaces/{id}/restart"), operator.clone(), json!({})),
            (format!("/workspaces/{id}/a2a"), operator, json!({"method": "tasks/get"})),
            (
                "/registry/register".to_owned(),
                self.token.clone(),
                json!({"id": id, "url": "", "agent_card": {}, "delivery_mode": "poll"}),
            ),
            ("/registry/heartbeat".to_owned(), self.token.clone(), json!({"workspace_id": id})),
            ("/registry/update-card".to_owned(), self.token.clone(), json!({"workspace_id": id, "agent_card": {}})),
        ]
    }

    async fn post(&self, path: &str, token: &str, body: impl Into<reqwest::Body>) -> Reply {
        self.server.send(Method::POST, path, Some(token), body).await
    }

    /// All that is kept and can be seen.
    async fn kept(&self) -> (String, String) {
        (self.server.get("/workspaces").await.text, self.server.get("/events").await.text)
    }

    async fn assert_refused(&self, path: &str, token: &str, body: Vec<u8>, status: u16) {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let reply = self.post(path, token, body).await;
        assert_eq!(reply.status, status, "{path} with {shown:?}: {reply:?}");
        assert_tells_nothing(&self.server, &reply);
    }
}

fn nested(levels: usize) -> String {
    format!("{}1{}", "[".repeat(levels), "]".repeat(levels))
}

#[tokio::test]
async fn what_is_no_json_object_is_refused() {
    let bench = Bench::new(None).await;
    let before = bench.kept().await;
    for (path, token, _) in bench.routes() {
        let mut bodies: Vec<Vec<u8>> =
            ["{", "[]", "[{}]", "null", "5", "\"x\"", "true", "{} {}", "{\"a\":1,}", "{'a': 1}", "<a/>", "\0", "nul"]
                .map(|text| text.as_bytes().to_vec())
                .into();
        bodies.push(b"{\"name\": \"\xff\xfe\"}".to_vec());
        bodies.push(nested(100_000).into());
        // A restart needs no body.
        if !path.ends_with("/restart") {
            bodies.push(Vec::new());
            bodies.push(b"  ".to_vec());
        }
        for body in bodies {
            bench.assert_refused(&path, &token, body, 400).await;
        }
    }
    assert_eq!(bench.kept().await, before);
}

#[tokio::test]
async fn wrong_types_and_missing_members_are_refused() {
    let bench = Bench::new(None).await;
    let before = bench.kept().await;
    for (path, token, right) in bench.routes() {
        let members: Vec<String> = right.as_object().expect("it is an object").keys().cloned().collect();
        let is_a2a = path.ends_with("/a2a");
        for member in members {
            for wrong in [json!(5), json!(["x"]), json!({"x": 1}), json!(null), json!(-1.5)] {
                // These are right where they stand: a card is any JSON, null is what is left out, and a method that is
                // no text is for the agent to refuse.
                if is_a2a || member == "agent_card" || (wrong.is_null() && member == "external") {
                    continue;
                }
                let mut body = right.clone();
                body[&member] = wrong;
                bench.assert_refused(&path, &token, body.to_string().into_bytes(), 400).await;
            }
            if matches!(member.as_str(), "name" | "id" | "workspace_id" | "agent_card") {
                let mut body = right.clone();
                body.as_object_mut().expect("it is an object").remove(&member);
                bench.assert_refused(&path, &token, body.to_string().into_bytes(), 400).await;
            }
        }
    }
    let operator = bench.server.token();
    let creates = [
        json!({"name": ""}),
        json!({"name": " "}),
        json!({"name": "a\nb"}),
        json!({"name": "a\0b"}),
        json!({"name": "x".repeat(256)}),
        json!({"name": "a", "role": "x\0"}),
        json!({"name": "a", "model": "x\0"}),
        json!({"name": "a", "runtime": "x\0"}),
        json!({"name": "a", "tier": 5}),
        json!({"name": "a", "tier": 99_999_999_999_i64}),
        json!({"name": "a", "budget_limit": -1}),
        json!({"name": "a", "budget_limit": 1.5}),
        json!({"name": "a", "parent_id": "x"}),
        json!({"name": "a", "parent_id": UNKNOWN}),
        json!({"name": "a", "workspace_access": "all"}),
        json!({"name": "a", "workspace_access": "read_only"}),
        json!({"name": "a", "workspace_dir": "/etc"}),
        json!({"name": "a", "workspace_dir": "/nonexistent"}),
        json!({"name": "a", "workspace_dir": "relative"}),
        json!({"name": "a", "workspace_dir": "/tmp/\0"}),
        json!({"name": "a", "delivery_mode": "pigeon"}),
        json!({"name": "a", "canvas": "here"}),
        json!({"name": "a", "template": "../x"}),
        json!({"name": "a", "external": true, "url": "ftp://x"}),
        json!({"name": "a", "external": true, "url": "http://127.0.0.1:1"}),
        json!({"name": "a", "external": true, "url": "http://localhost:1/\0"}),
        json!({"name": "a", "external": true, "url": "http://169.254.169.254/latest"}),
    ];
    for body in creates {
        bench.assert_refused("/workspaces", &operator, body.to_string().into_bytes(), 400).await;
    }
    let agents = [
        ("/registry/heartbeat", json!({"workspace_id": bench.id, "active_tasks": 99_999_999_999_i64})),
        ("/registry/heartbeat", json!({"workspace_id": bench.id, "error_rate": "high"})),
        ("/registry/heartbeat", json!({"workspace_id": bench.id, "runtime_metadata": {"capabilities": {"x": 1}}})),
        ("/registry/register", json!({"id": bench.id, "agent_card": {}, "delivery_mode": "push"})),
        (
            "/registry/register",
            json!({"id": bench.id, "agent_card": {}, "delivery_mode": "push", "url": "http://10.0.0.1"}),
        ),
        ("/registry/register", json!({"id": bench.id, "agent_card": nested_card(100), "delivery_mode": "poll"})),
        ("/registry/update-card", json!({"workspace_id": bench.id, "agent_card": nested_card(100)})),
    ];
    for (path, body) in agents {
        bench.assert_refused(path, &bench.token, body.to_string().into_bytes(), 400).await;
    }
    assert_eq!(bench.kept().await, before);
}

fn nested_card(levels: usize) -> Value {
    serde_json::from_str(&nested(levels)).expect("it is JSON")
}

#[tokio::test]
async fn ids_that_name_nothing_are_refused() {
    let bench = Bench::new(None).await;
    let before = bench.kept().await;
    let operator = bench.server.token();
    for (id, status) in [(UNKNOWN, 404), ("x", 400), ("..%2f..", 400), ("%ff", 400), ("%00", 400), ("1234", 400)] {
        for verb in ["restart", "a2a"] {
            let path = format!("/workspaces/{id}/{verb}");
            bench.assert_refused(&path, &operator, br#"{}"#.to_vec(), status).await;
        }
        for (path, member) in [("/registry/register", "id"), ("/registry/heartbeat", "workspace_id")] {
            let mut body = json!({"agent_card": {}, "delivery_mode": "poll"});
            body[member] = id.into();
            bench
                .assert_refused(
                    path,
                    &bench.token,
                    body.to_string().into_bytes(),
                    if status == 404 { 404 } else { 400 },
                )
                .await;
        }
        let reply = bench.server.get(&format!("/workspaces/{id}")).await;
        assert_eq!(reply.status, status, "{reply:?}");
        assert_tells_nothing(&bench.server, &reply);
    }
    assert_eq!(bench.kept().await, before);
}

#[tokio::test]
async fn names_that_are_sql_or_paths_name_nothing_on_sqlite() {
    name_nothing(None).await;
}

#[tokio::test]
async fn names_that_are_sql_or_paths_name_nothing_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        name_nothing(Some(database.url())).await;
    }
}

/// The names of approvals, steps, schedules, memories, delegations, messages and instructions.
async fn name_nothing(database: Option<&str>) {
    let bench = Bench::new(database).await;
    let of_one = |rest: &str| format!("/workspaces/{}/{rest}", bench.id);
    let keep = async |rest: &str, body: Value| {
        let kept = bench.post(&of_one(rest), &bench.token, body.to_string()).await;
        assert!(matches!(kept.status, 201 | 202), "{kept:?}");
    };
    keep("approvals", json!({"action": "deploy"})).await;
    keep("checkpoints", json!({"workflow_id": "w", "step_name": "s", "step_index": 1})).await;
    keep("memories", json!({"content": "kept", "scope": "LOCAL"})).await;
    keep("delegations/record", json!({"target_id": UNKNOWN, "task": "t", "delegation_id": "d"})).await;
    let seen = async || {
        let mut seen = Vec::new();
        for list in ["approvals", "checkpoints/w", "memories", "delegations", "schedules"] {
            seen.push(bench.server.get(&of_one(list)).await.text);
        }
        seen
    };
    let before = seen().await;
    let odd = [
        "%27%20OR%20%271%27%3D%271",
        "1%3B%20DROP%20TABLE%20approval_requests%3B--",
        "..%2F..%2Fetc",
        "%25",
        "%00",
        "_",
    ];
    for odd in odd {
        let rows = [
            (Method::POST, format!("approvals/{odd}/decide"), json!({"decision": "approved"}), 400),
            (Method::GET, format!("checkpoints/{odd}"), Value::Null, 404),
            (Method::DELETE, format!("checkpoints/{odd}"), Value::Null, 404),
            (Method::DELETE, format!("memories/{odd}"), Value::Null, 400),
            (Method::POST, format!("delegations/{odd}/update"), json!({"status": "failed"}), 404),
            (Method::GET, format!("a2a/queue/{odd}"), Value::Null, 404),
            (Method::PATCH, format!("schedules/{odd}"), json!({"enabled": false}), 400),
            (Method::DELETE, format!("schedules/{odd}"), Value::Null, 400),
            (Method::GET, format!("audit?agent_id={odd}&session_id={odd}"), Value::Null, 200),
            (Method::GET, format!("session-search?q={odd}"), Value::Null, 200),
        ];
        for (method, path, body, status) in rows {
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let reply = bench.server.send(method.clone(), &of_one(&path), Some(&bench.server.token()), body).await;
            assert_eq!(reply.status, status, "{method} {path}: {reply:?}");
            if status != 200 {
                assert_tells_nothing(&bench.server, &reply);
            }
        }
        let path = format!("/instructions/{odd}");
        let reply = bench.server.send(Method::DELETE, &path, Some(&bench.server.token()), "").await;
        assert_eq!(reply.status, 400, "{path}: {reply:?}");
    }
    assert_eq!(seen().await, before);
}

#[tokio::test]
async fn a_list_to_bring_in_may_have_its_limit_and_not_a_byte_more() {
    const IMPORT: usize = 64 * 1024 * 1024;
    let bench = Bench::new(None).await;
    let entry = json!({"content": "kept", "scope": "LOCAL", "workspace_name": "one"}).to_string();
    let padded = |size: usize| format!("[{}{entry}]", " ".repeat(size - entry.len() - 2));
    let (path, operator) = ("/admin/memories/import", bench.server.token());
    bench.assert_refused(path, &operator, padded(IMPORT + 1).into_bytes(), 413).await;
    let taken = bench.post(path, &operator, padded(IMPORT)).await;
    assert_eq!((taken.status, &taken.json()["imported"]), (200, &json!(1)), "{taken:?}");
}

#[tokio::test]
async fn a_body_may_have_its_limit_and_not_a_byte_more() {
    let bench = Bench::new(None).await;
    for (path, token, right) in bench.routes() {
        let padded = |size: usize| {
            let mut body = right.clone();
            body["padding"] = "".into();
            let missing = size - body.to_string().len();
            body["padding"] = "x".repeat(missing).into();
            body.to_string().into_bytes()
        };
        bench.assert_refused(&path, &token, padded(LIMIT + 1), 413).await;
        let reply = bench.post(&path, &token, padded(LIMIT)).await;
        assert!((200..=201).contains(&reply.status), "{path}: {reply:?}");
    }
}

#[tokio::test]
async fn a_wrong_bearer_is_refused_and_so_is_none() {
    let bench = Bench::new(None).await;
    let (other, other_token) = bench.server.create_external("other", None).await;
    let before = bench.kept().await;
    for (path, _, right) in bench.routes() {
        let own = !path.starts_with("/registry") || path.is_empty();
        for bearer in [None, Some("wrong"), Some("x".repeat(43).as_str()), Some(other_token.as_str())] {
            // A sibling may call its sibling, which is no mistake.
            if path.ends_with("/a2a") && bearer == Some(other_token.as_str()) {
                continue;
            }
            let reply = bench.server.send(Method::POST, &path, bearer, right.to_string()).await;
            assert_eq!(reply.status, 401, "{path} with {bearer:?}: {reply:?}");
            assert_tells_nothing(&bench.server, &reply);
        }
        if !own {
            let operator = bench.server.token();
            let reply = bench.server.send(Method::POST, &path, Some(&operator), right.to_string()).await;
            assert_eq!(reply.status, 401, "an operator is no agent: {path}: {reply:?}");
        }
    }
    for path in ["/workspaces", "/events", &format!("/events/{other}")] {
        for bearer in [None, Some("wrong"), Some(other_token.as_str())] {
            let reply = bench.server.send(Method::GET, path, bearer, "").await;
            assert_eq!(reply.status, 401, "{path} with {bearer:?}: {reply:?}");
            assert_tells_nothing(&bench.server, &reply);
        }
    }
    assert_eq!(bench.kept().await, before);
}

#[tokio::test]
async fn a_removed_workspace_takes_nothing_any_more() {
    let bench = Bench::new(None).await;
    let routes = bench.routes();
    assert_eq!(bench.server.delete(&format!("/workspaces/{}", bench.id)).await.status, 200);
    let before = bench.kept().await;
    for (path, token, right) in routes {
        if path == "/workspaces" {
            continue;
        }
        let status = if path.starts_with("/registry") { 401 } else { 404 };
        bench.assert_refused(&path, &token, right.to_string().into_bytes(), status).await;
        let anonymous = bench.server.send(Method::POST, &path, None, right.to_string()).await;
        if status == 401 {
            assert_eq!(anonymous.status, 401, "{anonymous:?}");
        }
    }
    let gone = bench.server.get(&format!("/workspaces/{}", bench.id)).await;
    assert_eq!(gone.status, 410);
    assert_tells_nothing(&bench.server, &gone);
    let mut members: Vec<String> = gone.json().as_object().expect("an object").keys().cloned().collect();
    members.sort();
    assert_eq!(members, ["error", "hint", "id", "removed_at"]);
    let shown = bench.server.get(&format!("/workspaces/{}?include_removed=true", bench.id)).await;
    assert_eq!((shown.status, shown.json()["status"].clone()), (200, "removed".into()));
    assert_eq!(bench.kept().await, before);
}

#[tokio::test]
async fn unknown_members_are_ignored() {
    let bench = Bench::new(None).await;
    for (path, token, mut body) in bench.routes() {
        body["something_new"] = nested_card(100);
        let reply = bench.post(&path, &token, body.to_string()).await;
        assert!((200..=201).contains(&reply.status), "{path}: {reply:?}");
    }
}

#[tokio::test]
async fn agents_may_say_anything_on_sqlite() {
    say_anything(None).await;
}

#[tokio::test]
async fn agents_may_say_anything_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        say_anything(Some(database.url())).await;
    }
}

/// What no database takes as it is must neither fail an agent's call nor hide it, or the fleet, from the operator.
async fn say_anything(database: Option<&str>) {
    let bench = Bench::new(database).await;
    let (id, token) = (&bench.id, &bench.token);
    let card = json!({"name": "a\0b", "deep": nested_card(60), "\0": "\u{10ffff}\u{202e}"});
    let calls = [
        ("/registry/register", json!({"id": id, "agent_card": card, "delivery_mode": "poll", "url": "\0"})),
        ("/registry/update-card", json!({"workspace_id": id, "agent_card": card})),
        (
            "/registry/heartbeat",
            json!({
                "workspace_id": id, "sample_error": "\0", "current_task": "x\0y", "runtime_state": "\0",
                "error_rate": 1e308, "uptime_seconds": 1e300, "active_tasks": i32::MIN, "monthly_spend": i64::MAX,
                "runtime_metadata": {"capabilities": {"\0": true}},
            }),
        ),
        ("/registry/heartbeat", json!({"workspace_id": id, "error_rate": -1e308, "uptime_seconds": -1e300})),
    ];
    for (path, body) in calls {
        let reply = bench.post(path, token, body.to_string()).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
    }
    bench.server.until_status(id, "online").await;
    assert!(bench.server.ok(&["list"]).await.contains("one"));
    assert!(bench.server.ok(&["events"]).await.contains("AGENT_CARD_UPDATED"));
    assert!(bench.server.ok(&["show", "one"]).await.contains(id.as_str()));
}
