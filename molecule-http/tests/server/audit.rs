//! What agents answer for and what they are told, over the wire.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    server::{Reply, Server, Setup},
    support,
};

#[tokio::test]
async fn a_ledger_is_signed() {
    let server = Setup::none().env("AUDIT_LEDGER_SALT", "Grüße, salt").start().await;
    ledger(&server, &server).await;
}

#[tokio::test]
async fn a_ledger_is_signed_by_two_servers_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        let setup = || Setup::none().env("AUDIT_LEDGER_SALT", "Grüße, salt").database(Some(database.url()));
        let one = setup().start().await;
        let two = setup().start().await;
        ledger(&one, &two).await;
    }
}

async fn append(server: &Server, id: &str, token: &str, body: Value) -> Reply {
    server.send(Method::POST, &format!("/workspaces/{id}/audit"), Some(token), body.to_string()).await
}

async fn read(server: &Server, id: &str, token: &str, query: &str) -> Value {
    let reply = server.send(Method::GET, &format!("/workspaces/{id}/audit{query}"), Some(token), "").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()
}

async fn ledger(one: &Server, two: &Server) {
    let (id, token) = one.create_external("audited", None).await;
    assert_eq!(read(one, &id, &token, "").await, json!({"events": [], "total": 0, "chain_valid": true}));
    let wrote = futures_util::future::join_all((0..12).map(|n: usize| {
        let server = if n.is_multiple_of(2) { one } else { two };
        let body = json!({"session_id": format!("s{}", n % 3), "operation": "tool_call", "model_used": "modèle 🦀"});
        append(server, &id, &token, body)
    }));
    for reply in wrote.await {
        assert_eq!(reply.status, 201, "{}", reply.text);
    }
    let all = read(two, &id, &token, "").await;
    assert_eq!((&all["total"], &all["chain_valid"]), (&json!(12), &json!(true)));
    let events = all["events"].as_array().expect("a list");
    assert!(events[0]["prev_hmac"].is_null());
    for pair in events.windows(2) {
        assert_eq!(pair[1]["prev_hmac"], pair[0]["hmac"], "one behind the other");
    }
    let session = read(one, &id, &token, "?session_id=s1").await;
    assert_eq!((&session["total"], &session["chain_valid"]), (&json!(4), &json!(true)));
    let behind = read(one, &id, &token, "?offset=1").await;
    assert_eq!((&behind["total"], &behind["chain_valid"]), (&json!(12), &Value::Null));
    let odd = append(one, &id, &token, json!({"session_id": "s", "operation": "' OR 1=1"})).await;
    assert_eq!(odd.status, 400);
    assert!(!one.log().contains("Grüße"), "the key is not told");
}

#[tokio::test]
async fn without_a_key_nothing_is_signed() {
    let server = Setup::none().start().await;
    let (id, token) = server.create_external("unsigned", None).await;
    let kept = append(&server, &id, &token, json!({"session_id": "s", "operation": "task_start"})).await.json();
    assert!(kept["hmac"].is_null() && kept["prev_hmac"].is_null());
    assert_eq!(kept["agent_id"], json!(id));
    let all = read(&server, &id, &token, "").await;
    assert_eq!((&all["total"], &all["chain_valid"]), (&json!(1), &Value::Null));
}

#[tokio::test]
async fn another_key_finds_a_ledger_changed() {
    let Some(database) = support::postgres_database().await else { return };
    let with = |salt: &str| Setup::none().env("AUDIT_LEDGER_SALT", salt).database(Some(database.url()));
    let (one, other) = (with("one").start().await, with("other").start().await);
    let (id, token) = one.create_external("audited", None).await;
    append(&one, &id, &token, json!({"session_id": "s", "operation": "task_start"})).await;
    assert_eq!(read(&one, &id, &token, "").await["chain_valid"], json!(true));
    assert_eq!(read(&other, &id, &token, "").await["chain_valid"], json!(false));
}

#[tokio::test]
async fn an_instruction_goes_with_its_workspace() {
    let server = Setup::none().start().await;
    let (id, token) = server.create_external("instructed", None).await;
    let body = json!({"scope": "workspace", "workspace_id": id, "content": "be kind\0"});
    let made = server.post("/instructions", &body).await;
    assert_eq!((made.status, &made.json()["content"]), (201, &json!("be kind\0")));
    let told = server.send(Method::GET, &format!("/workspaces/{id}/instructions"), Some(&token), "").await.json();
    assert_eq!(told["text"], "be kind\u{fffd}");
    assert_eq!(server.delete(&format!("/workspaces/{id}?confirm=true&purge=true")).await.status, 200);
    assert_eq!(server.get("/instructions").await.text, "[]");
}
