//! What is answered where the store fails: at one statement, or at whatever a gate has to know.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

use crate::{
    server::{Reply, Server, Setup},
    support::{self, TestDatabase},
};

/// A server and a way into its database beside it.
struct Bench {
    server: Server,
    database: Option<TestDatabase>,
    id: String,
    token: String,
}

impl Bench {
    async fn on_sqlite() -> Self {
        Self::over(None).await
    }

    async fn on_postgres() -> Option<Self> {
        Some(Self::over(Some(support::postgres_database().await?)).await)
    }

    async fn over(database: Option<TestDatabase>) -> Self {
        let url = database.as_ref().map(TestDatabase::url);
        let server = Setup::none().env("MOLECULE_ENABLE_TEST_TOKENS", "1").database(url).start().await;
        let (id, token) = server.create_external("one", None).await;
        Self { server, database, id, token }
    }

    async fn execute(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.database {
            Some(database) => {
                let mut beside = PgConnection::connect(database.url()).await.expect("the database answers");
                sqlx::query(sql).execute(&mut beside).await.expect("it can be changed");
            }
            None => {
                let file = format!("sqlite:{}", self.server.data().join("molecule.db").display());
                let mut beside = SqliteConnection::connect(&file).await.expect("the database answers");
                sqlx::query(sql).execute(&mut beside).await.expect("it can be changed");
            }
        }
    }

    /// Takes a table away; nobody finds it.
    async fn without(&self, table: &str) {
        self.execute(&format!("ALTER TABLE {table} RENAME TO {table}_away")).await;
    }

    async fn again(&self, table: &str) {
        self.execute(&format!("ALTER TABLE {table}_away RENAME TO {table}")).await;
    }

    async fn as_operator(&self, method: Method, path: &str, body: &str) -> Reply {
        self.server.send(method, path, Some(&self.server.token()), body.to_owned()).await
    }

    async fn as_agent(&self, path: &str, body: Value) -> Reply {
        self.server.send(Method::POST, path, Some(&self.token), body.to_string()).await
    }

    fn register(&self) -> Value {
        json!({"id": self.id, "url": "", "delivery_mode": "poll", "agent_card": {}})
    }
}

fn only_says(reply: &Reply, error: &str) {
    assert_eq!((reply.status, reply.json()), (500, json!({"error": error})), "{reply:?}");
}

#[tokio::test]
async fn a_statement_that_fails_is_named_and_nothing_more_on_sqlite() {
    names_what_failed(Bench::on_sqlite().await).await;
}

#[tokio::test]
async fn a_statement_that_fails_is_named_and_nothing_more_on_postgres() {
    if let Some(bench) = Bench::on_postgres().await {
        names_what_failed(bench).await;
    }
}

async fn names_what_failed(bench: Bench) {
    let (id, nothing) = (bench.id.clone(), "00000000-0000-4000-8000-000000000000");
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    // So that it is known by heart.
    assert_eq!(bench.server.beat(&id, &bench.token).await.status, 200);
    let of_one = |rest: &str| format!("/workspaces/{id}{rest}");
    let rows = [
        ("workspace_auth_tokens", &get, of_one("/tokens"), "failed to list tokens"),
        ("workspace_auth_tokens", &post, of_one("/tokens"), "failed to create token"),
        ("workspace_auth_tokens", &delete, of_one(&format!("/tokens/{nothing}")), "failed to revoke token"),
        ("workspace_auth_tokens", &get, format!("/admin/workspaces/{id}/test-token"), "token issue failed"),
        ("org_api_tokens", &get, "/org/tokens".to_owned(), "failed to list tokens"),
        ("org_api_tokens", &post, "/org/tokens".to_owned(), "failed to mint token"),
        ("org_api_tokens", &delete, format!("/org/tokens/{nothing}"), "failed to revoke"),
        ("structure_events", &get, "/events".to_owned(), "query failed"),
        ("structure_events", &get, format!("/events/{id}"), "query failed"),
        ("workspaces", &get, format!("/registry/{id}/peers"), "lookup failed"),
        ("workspaces", &post, of_one("/a2a"), "lookup failed"),
        ("workspaces", &get, of_one("/events/stream"), "failed to verify workspace"),
    ];
    for (table, method, path, error) in rows {
        bench.without(table).await;
        let reply = bench.as_operator(method.clone(), &path, "").await;
        bench.again(table).await;
        only_says(&reply, error);
    }
    what_agents_do_is_named(&bench).await;

    // What agents say is kept together with the word of it, or not at all.
    bench.without("structure_events").await;
    let failed = [
        (bench.as_agent("/registry/register", bench.register()).await, "registration failed"),
        (
            bench.as_agent("/registry/heartbeat", json!({"workspace_id": id, "error_rate": 1.0})).await,
            "failed to update",
        ),
        (
            bench.as_agent("/registry/update-card", json!({"workspace_id": id, "agent_card": {"a": 1}})).await,
            "failed to update card",
        ),
    ];
    for (reply, error) in &failed {
        only_says(reply, error);
    }
    bench.again("structure_events").await;
    let seen = bench.server.get(&format!("/workspaces/{id}")).await.json();
    assert_eq!((&seen["status"], &seen["agent_card"]), (&json!("online"), &Value::Null));
}

/// The same of what agents log, remember, ask for and keep.
async fn what_agents_do_is_named(bench: &Bench) {
    let (id, nothing) = (bench.id.clone(), "00000000-0000-4000-8000-000000000000");
    let (get, post, patch, delete) = (Method::GET, Method::POST, Method::PATCH, Method::DELETE);
    let record = json!({"target_id": nothing, "task": "x", "delegation_id": "d"});
    let step = json!({"session_id": "s", "operation": "task_end"});
    let memory = json!({"content": "x", "scope": "LOCAL"});
    let schedule = json!({"cron_expr": "0 0 1 1 *", "prompt": "x"});
    // The table that is away, what is asked below the workspace, and what is answered.
    let rows = [
        ("activity_logs", &get, "activity", Value::Null, "query failed"),
        ("activity_logs", &get, &format!("activity?since_id={nothing}"), Value::Null, "cursor lookup failed"),
        ("activity_logs", &get, "session-search", Value::Null, "session search failed"),
        ("agent_memories", &get, "session-search", Value::Null, "session search failed"),
        ("activity_logs", &post, "delegations/record", record, "failed to record delegation"),
        ("a2a_queue", &get, &format!("a2a/queue/{nothing}"), Value::Null, "lookup failed"),
        ("workspace_memory", &get, "memory", Value::Null, "query failed"),
        ("workspace_memory", &get, "memory/k", Value::Null, "query failed"),
        ("workspace_memory", &post, "memory", json!({"key": "k", "value": 1}), "failed to set memory"),
        ("workspace_memory", &delete, "memory/k", Value::Null, "failed to delete"),
        ("agent_memories", &get, "memories", Value::Null, "search failed"),
        ("agent_memories", &post, "memories", memory, "failed to store memory"),
        ("agent_memories", &delete, &format!("memories/{nothing}"), Value::Null, "failed to delete memory"),
        ("approval_requests", &get, "approvals", Value::Null, "query failed"),
        ("approval_requests", &post, "approvals", json!({"action": "a"}), "failed to create approval"),
        ("workspace_config", &get, "config", Value::Null, "query failed"),
        ("workspace_config", &patch, "config", json!({"a": 1}), "failed to update config"),
        (
            "workflow_checkpoints",
            &post,
            "checkpoints",
            json!({"workflow_id": "w", "step_name": "s", "step_index": 0}),
            "failed to upsert checkpoint",
        ),
        ("workflow_checkpoints", &get, "checkpoints/latest", Value::Null, "failed to fetch latest checkpoint"),
        ("workflow_checkpoints", &get, "checkpoints/w", Value::Null, "failed to list checkpoints"),
        ("workflow_checkpoints", &delete, "checkpoints/w", Value::Null, "failed to delete checkpoints"),
        ("workspace_schedules", &get, "schedules", Value::Null, "query failed"),
        ("workspace_schedules", &post, "schedules", schedule, "failed to create schedule"),
        ("audit_events", &get, "audit", Value::Null, "query failed"),
        ("audit_events", &post, "audit", step, "failed to record audit event"),
        ("instructions", &get, "instructions", Value::Null, "query failed"),
    ];
    for (table, method, path, body, error) in rows {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        bench.without(table).await;
        let reply = bench.as_operator(method.clone(), &format!("/workspaces/{id}/{path}"), &body).await;
        bench.again(table).await;
        assert_eq!((reply.status, reply.error().as_str()), (500, error), "{method} {path} without {table}");
    }
    for (table, method, path, error) in [
        ("agent_memories", &get, "/admin/memories/export", "export query failed"),
        ("a2a_queue", &post, "/admin/a2a-queue/drop-stale", "failed to drop stale items"),
        ("instructions", &get, "/instructions", "query failed"),
        ("approval_requests", &get, "/approvals/pending", "query failed"),
        ("workspace_schedules", &get, "/admin/schedules/health", "query failed"),
    ] {
        bench.without(table).await;
        let reply = bench.as_operator(method.clone(), path, "").await;
        bench.again(table).await;
        only_says(&reply, error);
    }

    // What is only logged beside something else does not stop that; what is lost is counted.
    let of_one = |rest: &str| format!("/workspaces/{id}/{rest}");
    let report = json!({"activity_type": "agent_log", "summary": "lost"});
    let global = json!({"content": "for all", "scope": "GLOBAL"});
    bench.without("activity_logs").await;
    let replies = [
        bench.as_agent(&of_one("activity"), report).await,
        bench.as_agent(&of_one("notify"), json!({"message": "hello"})).await,
        bench.as_agent(&of_one("memories"), global.clone()).await,
    ];
    bench.again("activity_logs").await;
    let statuses = replies.each_ref().map(|reply| reply.status);
    assert_eq!(statuses, [200, 200, 201], "{replies:?}");
    assert_eq!(replies[0].text, r#"{"status":"logged"}"#);
    let metrics = bench.server.get("/metrics").await.text;
    assert!(metrics.contains("molecule_activity_lost_total 3"), "{metrics}");
    // Whether it may write for all is not known: it may not.
    bench.without("workspaces").await;
    let reply = bench.as_agent(&of_one("memories"), global).await;
    bench.again("workspaces").await;
    assert!(reply.status >= 500, "{reply:?}");
    let kept = bench.server.get(&of_one("memories")).await.json();
    assert_eq!(kept.as_array().map(Vec::len), Some(1), "{kept}");
}

#[tokio::test]
async fn a_secret_that_cannot_be_told_stops_nobody_on_sqlite() {
    tells_no_secret(Bench::on_sqlite().await).await;
}

#[tokio::test]
async fn a_secret_that_cannot_be_told_stops_nobody_on_postgres() {
    if let Some(bench) = Bench::on_postgres().await {
        tells_no_secret(bench).await;
    }
}

async fn tells_no_secret(bench: Bench) {
    let rename = |from: &str, to: &str| format!("ALTER TABLE workspaces RENAME COLUMN {from} TO {to}");
    bench.execute(&rename("platform_inbound_secret", "away")).await;
    let beat = json!({"workspace_id": bench.id});
    let told = async |path: &str, body: Value| {
        let reply = bench.as_agent(path, body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json().get("platform_inbound_secret").cloned()
    };
    for _ in 0..2 {
        assert_eq!(told("/registry/heartbeat", beat.clone()).await, None);
        assert_eq!(told("/registry/register", bench.register()).await, None);
    }
    bench.execute(&rename("away", "platform_inbound_secret")).await;
    let secret = told("/registry/heartbeat", beat).await;
    assert!(secret.is_some() && secret == told("/registry/register", bench.register()).await);
}

#[tokio::test]
async fn a_gate_that_cannot_ask_says_so_and_blames_nobody_on_sqlite() {
    blames_nobody(Bench::on_sqlite().await).await;
}

#[tokio::test]
async fn a_gate_that_cannot_ask_says_so_and_blames_nobody_on_postgres() {
    if let Some(bench) = Bench::on_postgres().await {
        blames_nobody(bench).await;
    }
}

async fn blames_nobody(bench: Bench) {
    let (id, server) = (bench.id.clone(), &bench.server);
    let unknown = "x".repeat(43);
    bench.without("workspace_auth_tokens").await;
    bench.without("org_api_tokens").await;
    let away = |reply: &Reply| {
        let error = "platform datastore unavailable — retry shortly";
        let expected = json!({"error": error, "code": "platform_unavailable"});
        assert_eq!((reply.status, reply.json()), (503, expected), "{reply:?}");
    };
    let beat = json!({"workspace_id": id});
    let card = json!({"workspace_id": id, "agent_card": {}});
    for (path, body) in
        [("/registry/register", bench.register()), ("/registry/heartbeat", beat), ("/registry/update-card", card)]
    {
        for bearer in [None, Some(unknown.as_str())] {
            away(&server.send(Method::POST, path, bearer, body.to_string()).await);
        }
    }
    let asked = [
        "/workspaces".to_owned(),
        format!("/workspaces/{id}/tokens"),
        format!("/workspaces/{id}/events/stream"),
        format!("/registry/{id}/peers"),
        "/ws".to_owned(),
    ];
    for path in &asked {
        away(&server.send(Method::GET, path, Some(&unknown), "").await);
    }
    // Whether this is a fresh install is not known either.
    for path in ["/workspaces", "/ws"] {
        away(&server.send(Method::GET, path, None, "").await);
    }
    // An agent that calls another proves who it is, or cannot yet.
    let call = format!("/workspaces/{id}/a2a");
    let body = json!({"method": "tasks/get"}).to_string();
    away(&server.send(Method::POST, &call, Some(&unknown), body.clone()).await);
    let (caller, bearer) = ("11111111-1111-4111-8111-111111111111", format!("Bearer {unknown}"));
    let claimed = [("x-workspace-id", caller), ("authorization", bearer.as_str())];
    away(&server.ask(Method::POST, &call, &claimed, &body).await);
    let agent = [("x-workspace-id", id.as_str()), ("authorization", &format!("Bearer {unknown}"))];
    away(&server.ask(Method::GET, "/ws", &agent, "").await);
    away(&server.ask(Method::GET, &format!("/registry/discover/{id}"), &agent, "").await);
    bench.again("workspace_auth_tokens").await;
    bench.again("org_api_tokens").await;
    assert_eq!(server.beat(&id, &bench.token).await.status, 200);
}
