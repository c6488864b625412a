//! Who is let in without a credential, and with which.

use std::{fs, os::unix::fs::PermissionsExt};

use reqwest::Method;

use crate::server::{Server, Setup};

async fn status(server: &Server, bearer: Option<&str>) -> u16 {
    server.send(Method::GET, "/workspaces", bearer, "").await.status
}

#[tokio::test]
async fn a_fresh_install_is_open_until_there_is_a_token_to_lose() {
    let mut server = Setup::none().start().await;
    assert_eq!(status(&server, None).await, 200);
    assert_eq!(status(&server, Some("wrong")).await, 401, "a wrong bearer is never taken for none");
    let (id, token) = server.create_external("one", None).await;
    assert_eq!(status(&server, None).await, 401);
    assert_eq!(status(&server, Some(&token)).await, 401, "an agent is no operator");
    assert_eq!(status(&server, Some(&server.token())).await, 200);

    let file = server.data().join("operator-token");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(server.data()).unwrap().permissions().mode() & 0o7777, 0o700);
    let kept = server.token();
    assert_eq!(kept.len(), 43);
    server.kill9();
    server.start_again().await;
    assert_eq!(server.token(), kept);
    assert_eq!(status(&server, Some(&kept)).await, 200);
    assert_eq!(status(&server, None).await, 401);
    assert!(!server.log().contains(&kept) && !server.log().contains(&token), "a token is in the log");

    // The token of a removed workspace is worth nothing, so there is none to lose.
    assert_eq!(server.delete(&format!("/workspaces/{id}")).await.status, 200);
    assert_eq!(status(&server, None).await, 200);
}

#[tokio::test]
async fn an_admin_token_closes_the_door() {
    let server = Setup::none().env("ADMIN_TOKEN", "break-glass").env("MOLECULE_ENV", "development").start().await;
    assert_eq!(status(&server, None).await, 401);
    assert_eq!(status(&server, Some("wrong")).await, 401);
    assert_eq!(status(&server, Some("break-glass")).await, 200);
    assert_eq!(status(&server, Some(&server.token())).await, 200);
    let (_, token) = server.create_external("one", None).await;
    assert_eq!(status(&server, Some(&token)).await, 401);
    assert!(!server.log().contains("break-glass"), "a token is in the log");
}

#[tokio::test]
async fn development_opens_the_door_of_this_host() {
    let server = Setup::none().env("MOLECULE_ENV", " Development ").start().await;
    let (id, token) = server.create_external("one", None).await;
    assert_eq!(status(&server, None).await, 200);
    assert_eq!(status(&server, Some(&token)).await, 200, "the reference's own scripts rely on it");
    assert_eq!(status(&server, Some("wrong")).await, 401);
    let restart = format!("/workspaces/{id}/restart");
    assert_eq!(server.send(Method::POST, &restart, None, "").await.status, 200);
    assert_eq!(server.send(Method::POST, &restart, Some("wrong"), "").await.status, 401);
    // So are those where a workspace finds others.
    let (other, _) = server.create_external("two", None).await;
    let asks = [("x-workspace-id", id.as_str())];
    let found = server.ask(Method::GET, &format!("/registry/discover/{other}"), &asks, "").await;
    assert_eq!((found.status, found.error().as_str()), (503, "workspace not available"), "{found:?}");
    let peers = server.send(Method::GET, &format!("/registry/{id}/peers"), None, "").await;
    assert_eq!(peers.status, 200, "{peers:?}");
    let question = serde_json::json!({"caller_id": id, "target_id": other}).to_string();
    let talk = server.send(Method::POST, "/registry/check-access", None, question.clone()).await;
    assert_eq!(talk.text, r#"{"allowed":true}"#);
    assert_eq!(server.send(Method::POST, "/registry/check-access", Some("wrong"), question).await.status, 401);
    // An agent's own gates stay closed.
    let beat = serde_json::json!({"workspace_id": id}).to_string();
    assert_eq!(server.send(Method::POST, "/registry/heartbeat", None, beat).await.status, 401);
}
