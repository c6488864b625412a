//! The tools of the server, over the wire.

use molecule_core::http_client::{self, Timeouts};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    process::PATIENCE,
    server::{Reply, Server, Setup, until},
    support,
};

#[tokio::test]
async fn a_token_uses_tools_so_often_and_no_more_on_sqlite() {
    limits(Setup::none()).await;
}

#[tokio::test]
async fn a_token_uses_tools_so_often_and_no_more_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        limits(Setup::none().database(Some(database.url()))).await;
    }
}

#[tokio::test]
async fn users_are_told_where_that_is_allowed_on_sqlite() {
    tells_users(Setup::none()).await;
}

#[tokio::test]
async fn users_are_told_where_that_is_allowed_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        tells_users(Setup::none().database(Some(database.url()))).await;
    }
}

async fn post(server: &Server, id: &str, token: &str, body: &Value) -> Reply {
    server.send(Method::POST, &format!("/workspaces/{id}/mcp"), Some(token), body.to_string()).await
}

async fn call(server: &Server, id: &str, token: &str, tool: &str, arguments: Value) -> Value {
    let params = json!({"name": tool, "arguments": arguments});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    post(server, id, token, &body).await.json()
}

fn ping() -> Value {
    json!({"jsonrpc": "2.0", "id": "p", "method": "ping"})
}

async fn limits(setup: Setup) {
    let server = setup.start().await;
    let (id, token) = server.create_external("one", None).await;
    let (other, other_token) = server.create_external("two", None).await;
    let stream = format!("/workspaces/{id}/mcp/stream");

    let first = post(&server, &id, &token, &ping()).await;
    assert_eq!((first.status, first.json()), (200, json!({"jsonrpc": "2.0", "id": "p", "result": {}})));
    assert_eq!(first.headers["x-ratelimit-limit"], "120");
    assert_eq!(first.headers["x-ratelimit-remaining"], "119");
    for _ in 0..118 {
        assert_eq!(post(&server, &id, &token, &ping()).await.status, 200);
    }
    let http = http_client::build(Timeouts { connect: PATIENCE, total: None }).unwrap();
    // Both routes share the count.
    let mut open = http.get(format!("{}{stream}", server.url())).bearer_auth(&token).send().await.unwrap();
    assert_eq!(open.status(), 200);
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache"),
        ("x-accel-buffering", "no"),
        ("x-ratelimit-remaining", "0"),
    ] {
        assert_eq!(open.headers()[name], value);
    }
    let begin = timeout(PATIENCE, open.chunk()).await.unwrap().unwrap().unwrap();
    assert_eq!(begin, format!("event: endpoint\ndata: /workspaces/{id}/mcp\n\n"));

    for (method, path) in [(Method::POST, format!("/workspaces/{id}/mcp")), (Method::GET, stream)] {
        let refused = server.send(method, &path, Some(&token), ping().to_string()).await;
        let reset = refused.headers["x-ratelimit-reset"].to_str().unwrap().to_owned();
        let seconds: u64 = reset.parse().unwrap();
        assert_eq!(refused.status, 429);
        assert_eq!(refused.json(), json!({"error": "MCP rate limit exceeded", "retry_after": seconds}));
        assert_eq!(refused.headers["retry-after"], reset);
        assert_eq!(refused.headers["x-ratelimit-remaining"], "0");
    }
    assert_eq!(post(&server, &other, &other_token, &ping()).await.status, 200, "others have a count of their own");
    assert_eq!(server.beat(&id, &token).await.status, 200, "what is no tool goes on");

    // Its workspace is gone, and so is the stream.
    assert_eq!(server.delete(&format!("/workspaces/{id}?confirm=true")).await.status, 200);
    until("the stream ends", async || {
        let chunk = open.chunk().await;
        (!matches!(chunk, Ok(Some(_)))).then_some(())
    })
    .await;
}

async fn tells_users(setup: Setup) {
    let server = setup.env("MOLECULE_MCP_ALLOW_SEND_MESSAGE", "true").start().await;
    let (id, token) = server.create_external("one", None).await;
    let listed = post(&server, &id, &token, &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})).await.json();
    let tools = listed["result"]["tools"].as_array().unwrap();
    let tool = tools.iter().find(|tool| tool["name"] == "send_message_to_user").unwrap();
    assert_eq!(tool["inputSchema"]["required"], json!(["message"]));
    assert!(tool["inputSchema"]["properties"].get("attachments").is_none(), "it has no files to send");
    let said = call(&server, &id, &token, "send_message_to_user", json!({"message": "Good morning"})).await;
    assert_eq!(said["result"]["content"], json!([{"type": "text", "text": "Message sent to user"}]));
    let empty = call(&server, &id, &token, "send_message_to_user", json!({})).await;
    assert_eq!(empty["error"], json!({"code": -32000, "message": "message is required"}));
    let rows = server.get(&format!("/workspaces/{id}/activity")).await.json();
    assert_eq!((&rows[0]["method"], &rows[0]["response_body"]["result"]), (&json!("notify"), &json!("Good morning")));

    let server = Setup::none().start().await;
    let (id, token) = server.create_external("one", None).await;
    let said = call(&server, &id, &token, "send_message_to_user", json!({"message": "Good morning"})).await;
    assert_eq!(said["error"], json!({"code": -32000, "message": "unknown tool: send_message_to_user"}));
}

#[tokio::test]
async fn what_is_too_long_is_refused_in_either_dialect() {
    let server = Setup::none().start().await;
    let (id, token) = server.create_external("one", None).await;
    let path = format!("/workspaces/{id}/mcp");
    let long = json!({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": "x".repeat(1024 * 1024)}});
    let bearer = format!("Bearer {token}");
    for accept in ["*/*", "application/json, text/event-stream"] {
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json"), ("accept", accept)];
        assert_eq!(server.ask(Method::POST, &path, &headers, &long.to_string()).await.status, 413, "{accept}");
    }
}

#[tokio::test]
async fn where_gates_are_open_tools_still_ask_for_a_bearer() {
    let server = Setup::none().env("MOLECULE_ENV", "development").start().await;
    let (id, _) = server.create_external("one", None).await;
    let reply = server.ask(Method::POST, &format!("/workspaces/{id}/mcp"), &[], &ping().to_string()).await;
    assert_eq!((reply.status, reply.error()), (401, "missing bearer token".to_owned()));
}

#[tokio::test]
async fn a_stream_is_kept_alive_and_takes_a_place_for_listeners() {
    let server = Setup::none().env("MOLECULE_LISTENER_PING_MS", "300").start().await;
    let (id, token) = server.create_external("one", None).await;
    let url = format!("{}/workspaces/{id}/mcp/stream", server.url());
    let http = http_client::build(Timeouts { connect: PATIENCE, total: None }).unwrap();
    let open = async || http.get(&url).bearer_auth(&token).send().await.unwrap();

    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(open().await);
    }
    let full = open().await;
    assert_eq!(full.status(), 429);
    assert_eq!(full.json::<Value>().await.unwrap()["error"], "too many listeners for this workspace");
    let mut first = streams.remove(0);
    drop(streams);
    let mut heard = String::new();
    while !heard.ends_with(": ping\n\n: ping\n\n") {
        let chunk = timeout(PATIENCE, first.chunk()).await.unwrap().unwrap().expect("it goes on");
        heard.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert_eq!(heard, format!("event: endpoint\ndata: /workspaces/{id}/mcp\n\n: ping\n\n: ping\n\n"));
}
