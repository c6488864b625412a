//! What agents ask leave for, keep, and are asked for at set times, over the wire.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    refused::assert_tells_nothing,
    server::{Reply, Server, Setup},
    support,
};

#[tokio::test]
async fn records_are_kept() {
    records(Setup::none()).await;
}

#[tokio::test]
async fn records_are_kept_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        records(Setup::none().database(Some(database.url()))).await;
    }
}

/// An agent, as which requests are made.
struct Agent<'a> {
    server: &'a Server,
    id: String,
    token: String,
}

impl Agent<'_> {
    async fn call(&self, method: Method, path: &str, body: &Value) -> Reply {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.server.send(method, &format!("/workspaces/{}/{path}", self.id), Some(&self.token), body).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, &Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> Reply {
        self.call(Method::POST, path, &body).await
    }

    async fn refused(&self, method: Method, path: &str, body: Value, status: u16, error: &str) {
        let reply = self.call(method, path, &body).await;
        assert_eq!((reply.status, reply.error().as_str()), (status, error), "{path} {body}");
        assert_tells_nothing(self.server, &reply);
    }
}

async fn agent<'a>(server: &'a Server, name: &str, parent: Option<&str>) -> Agent<'a> {
    let (id, token) = server.create_external(name, parent).await;
    Agent { server, id, token }
}

async fn records(setup: Setup) {
    let server = setup.start().await;
    let parent = agent(&server, "parent", None).await;
    let own = agent(&server, "own", Some(&parent.id)).await;
    approvals(&server, &own, &parent).await;
    configuration(&own).await;
    checkpoints(&own).await;
    schedules(&server, &own, &parent).await;
}

async fn approvals(server: &Server, own: &Agent<'_>, parent: &Agent<'_>) {
    assert_eq!(own.get("approvals").await.text, "[]");
    assert_eq!(server.get("/approvals/pending").await.text, "[]");
    let asked = own.post("approvals", json!({"action": "deploy", "task_id": "t", "context": [1]})).await;
    assert_eq!((asked.status, &asked.json()["status"]), (201, &json!("pending")));
    let id = asked.json()["approval_id"].as_str().expect("an id").to_owned();
    own.refused(Method::POST, "approvals", json!({}), 400, "invalid request body").await;
    own.refused(Method::POST, "approvals", json!({"action": ""}), 400, "invalid request body").await;
    let pending = server.get("/approvals/pending").await.json();
    assert_eq!((&pending[0]["id"], &pending[0]["workspace_name"]), (&json!(id), &json!("own")));
    let events = server.events(&parent.id).await;
    assert_eq!(events.last().map(|(kind, _)| kind.as_str()), Some("APPROVAL_ESCALATED"));

    let path = format!("approvals/{id}/decide");
    let verdict = json!({"decision": "approved", "decided_by": "the agent itself"});
    own.refused(Method::POST, &path, verdict.clone(), 403, "an agent may not decide approvals").await;
    let decide = async |of: &Agent<'_>, body: Value| server.post(&format!("/workspaces/{}/{path}", of.id), &body).await;
    let odd = decide(own, json!({"decision": "maybe"})).await;
    assert_eq!((odd.status, odd.error().as_str()), (400, "decision must be 'approved' or 'denied'"));
    let elsewhere = decide(parent, verdict.clone()).await;
    assert_eq!((elsewhere.status, elsewhere.error().as_str()), (404, "approval not found or already decided"));
    let decided = decide(own, verdict.clone()).await;
    assert_eq!((decided.status, decided.json()), (200, json!({"status": "approved", "approval_id": id})));
    assert_eq!(decide(own, verdict).await.status, 404);
    let listed = own.get("approvals").await.json();
    assert_eq!((&listed[0]["status"], &listed[0]["decided_by"]), (&json!("approved"), &json!("human")));
    assert_eq!(server.send(Method::GET, "/approvals/pending", Some(&own.token), "").await.status, 401);
}

async fn configuration(own: &Agent<'_>) {
    let patch = async |body: Value| own.call(Method::PATCH, "config", &body).await;
    assert_eq!(own.get("config").await.json(), json!({"data": {}}));
    assert_eq!(patch(json!({"a": {"x": 1}, "b": null})).await.json(), json!({"status": "updated"}));
    assert_eq!(patch(json!({"a": {"y": 2}, "c\0": "\0"})).await.status, 200);
    let expected = json!({"data": {"a": {"y": 2}, "b": null, "c\u{fffd}": "\u{fffd}"}});
    assert_eq!(own.get("config").await.json(), expected);
    let at_once = (0..8).map(|n| patch(json!({ format!("n{n}"): n })));
    assert!(futures_util::future::join_all(at_once).await.iter().all(|reply| reply.status == 200));
    let data = own.get("config").await.json();
    assert!((0..8).all(|n| data["data"][format!("n{n}")] == n), "none is lost: {data}");
    for odd in [json!([]), json!("x"), json!(7)] {
        own.refused(Method::PATCH, "config", odd, 400, "invalid JSON").await;
    }
    let huge = json!({"k": "x".repeat(256 * 1024)});
    own.refused(Method::PATCH, "config", huge, 413, "body too large or unreadable").await;
}

async fn checkpoints(own: &Agent<'_>) {
    let keep = async |workflow: &str, step: &str, index: i32, payload: Value| {
        let body = json!({"workflow_id": workflow, "step_name": step, "step_index": index, "payload": payload});
        let kept = own.post("checkpoints", body).await;
        assert_eq!((kept.status, &kept.json()["step_name"]), (201, &json!(step)));
        kept.json()["id"].clone()
    };
    own.refused(Method::GET, "checkpoints/latest", Value::Null, 404, "no checkpoints found for workspace").await;
    let first = keep("w/1", "a", 1, json!({"n": 1})).await;
    keep("w/1", "b", 2, Value::Null).await;
    assert_eq!(keep("w/1", "a", 3, json!({"n": 2})).await, first, "the same step");
    let latest = own.get("checkpoints/latest").await.json();
    assert_eq!((&latest["id"], &latest["payload"], &latest["step_index"]), (&first, &json!({"n": 2}), &json!(3)));
    let listed = own.get("checkpoints/w%2F1").await.json();
    assert_eq!((&listed[0]["step_name"], &listed[1]["step_name"]), (&json!("a"), &json!("b")));
    assert_eq!(listed[1].get("payload"), Some(&Value::Null), "kept as null");
    let none = "no checkpoints found for workflow";
    own.refused(Method::GET, "checkpoints/w", Value::Null, 404, none).await;
    own.refused(Method::POST, "checkpoints", json!({"workflow_id": "w"}), 400, "invalid request body").await;
    let deleted = own.call(Method::DELETE, "checkpoints/w%2F1", &Value::Null).await;
    assert_eq!((deleted.status, deleted.json()), (200, json!({"deleted": 2, "workflow_id": "w/1"})));
    own.refused(Method::DELETE, "checkpoints/w%2F1", Value::Null, 404, none).await;
}

async fn schedules(server: &Server, own: &Agent<'_>, parent: &Agent<'_>) {
    assert_eq!(own.get("schedules").await.text, "[]");
    let made = own.post("schedules", json!({"name": "n", "cron_expr": "0 0 1 1 *", "prompt": "a\r\nb"})).await;
    assert_eq!((made.status, &made.json()["status"]), (201, &json!("created")));
    assert!(made.json()["next_run_at"].is_string());
    let id = made.json()["id"].as_str().expect("an id").to_owned();
    let listed = own.get("schedules").await.json();
    let expected = json!({"timezone": "UTC", "prompt": "a\nb", "enabled": true, "run_count": 0, "source": "runtime"});
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&listed[0][name], value, "{name}");
    }
    for (body, status, error) in [
        (json!({"prompt": "x"}), 400, "cron_expr and prompt are required"),
        (json!({"cron_expr": "0 0 1 1 *", "prompt": " "}), 400, "cron_expr and prompt are required"),
        (json!({"cron_expr": "0 0 1 1 *", "prompt": "x", "timezone": "Mars"}), 400, "invalid timezone: Mars"),
        (json!({"cron_expr": 7}), 400, "invalid request body"),
        (json!({"name": "n", "cron_expr": "0 0 1 1 *", "prompt": "x"}), 409, "a schedule named \"n\" exists already"),
    ] {
        own.refused(Method::POST, "schedules", body, status, error).await;
    }
    let one = format!("schedules/{id}");
    assert_eq!(own.call(Method::PATCH, &one, &json!({"enabled": false})).await.json(), json!({"status": "updated"}));
    parent.refused(Method::PATCH, &one, json!({}), 404, "schedule not found").await;
    parent.refused(Method::DELETE, &one, Value::Null, 404, "schedule not found").await;
    own.refused(Method::DELETE, "schedules/7", Value::Null, 400, "invalid id").await;
    let fired = own.post(&format!("{one}/run"), Value::Null).await.json();
    assert_eq!(fired, json!({"status": "fired", "workspace_id": own.id, "prompt": "a\nb"}));
    assert_eq!(own.get(&format!("{one}/history")).await.text, "[]");

    let health = format!("{}/workspaces/{}/schedules/health", server.url(), own.id);
    let look = async |claimed: Option<&str>, token: Option<&str>| {
        let mut request = server.client().get(&health);
        if let Some(claimed) = claimed {
            request = request.header("x-workspace-id", claimed);
        }
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.expect("the server answers");
        (answer.status().as_u16(), answer.json::<Value>().await.expect("it is JSON"))
    };
    let (status, seen) = look(Some(&parent.id), Some(&parent.token)).await;
    assert_eq!(
        (status, &seen[0]["name"], seen[0].get("prompt"), seen[0].get("cron_expr")),
        (200, &json!("n"), None, None)
    );
    let stranger = agent(server, "stranger", Some(&own.id)).await;
    let far = agent(server, "far", Some(&parent.id)).await;
    let below = agent(server, "below", Some(&far.id)).await;
    for (claimed, token, status, error) in [
        (None, Some(&parent.token), 401, "X-Workspace-ID header required"),
        (Some(own.id.as_str()), None, 401, "missing workspace auth token"),
        (Some(own.id.as_str()), Some(&parent.token), 401, "invalid workspace auth token"),
        (Some("system:scheduler"), Some(&own.token), 403, "access denied"),
        (Some(below.id.as_str()), Some(&below.token), 403, "access denied"),
    ] {
        assert_eq!(look(claimed, token.map(String::as_str)).await, (status, json!({"error": error})), "{claimed:?}");
    }
    assert_eq!(look(Some(&stranger.id), Some(&stranger.token)).await.0, 200);
    let all = server.get("/admin/schedules/health").await.json();
    assert_eq!((&all[0]["schedule_name"], &all[0]["status"]), (&json!("n"), &json!("never_run")));
    assert_eq!(server.send(Method::GET, "/admin/schedules/health", Some(&own.token), "").await.status, 401);
    assert_eq!(own.call(Method::DELETE, &one, &Value::Null).await.json(), json!({"status": "deleted"}));
    own.refused(Method::DELETE, &one, Value::Null, 404, "schedule not found").await;
}
