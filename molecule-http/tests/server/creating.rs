//! What a create call answers, and what an agent is told that was restarted.

use std::fs;

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Server, Setup, until};

/// The `connection` of an external workspace that is made by a call with these headers.
async fn connection(server: &Server, headers: &[(&str, &str)]) -> Value {
    let token = format!("Bearer {}", server.token());
    let all: Vec<(&str, &str)> = [("authorization", token.as_str()), ("content-type", "application/json")]
        .iter()
        .chain(headers)
        .copied()
        .collect();
    let body = json!({"name": "external", "external": true}).to_string();
    let created = server.ask(Method::POST, "/workspaces", &all, &body).await;
    assert_eq!(created.status, 201, "{created:?}");
    created.json()["connection"].take()
}

#[tokio::test]
async fn an_external_agent_is_told_where_its_operator_reached_the_server() {
    let server = Setup::none().start().await;
    let forwarded = [("x-forwarded-proto", "https"), ("x-forwarded-host", "fleet.example/")];
    for (headers, expected) in [(&[][..], server.url()), (&forwarded[..], "https://fleet.example".to_owned())] {
        let told = connection(&server, headers).await;
        assert_eq!(told["platform_url"], expected.as_str());
        assert_eq!(told["registry_endpoint"], format!("{expected}/registry/register"));
        assert_eq!(told["heartbeat_endpoint"], format!("{expected}/registry/heartbeat"));
    }
    let named = Setup::none().env("EXTERNAL_PLATFORM_URL", "https://named.example/").start().await;
    let told = connection(&named, &forwarded).await;
    assert_eq!(told["platform_url"], "https://named.example");
    let snippet = told["curl_register_template"].as_str().expect("it is text");
    assert!(snippet.contains("https://named.example/registry/register"), "{snippet}");
}

#[tokio::test]
async fn an_agent_is_told_of_a_restart_once_and_of_its_first_start_never() {
    let server = Setup::process().start().await;
    let id = server.create("coder").await;
    server.until_status(&id, "online").await;
    let answered = || {
        let log = fs::read_to_string(server.folder(&id).join("agent.log")).unwrap_or_default();
        log.matches("answered a message").count()
    };
    // Each message is said and answered before it is counted, so that one that came unasked was counted as well.
    let said = async |n: usize| {
        let message = json!({"message": {"messageId": format!("m{n}"), "parts": [{"text": "hello"}]}});
        let reply =
            server.post(&format!("/workspaces/{id}/a2a"), &json!({"method": "message/send", "params": message})).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    };
    said(0).await;
    assert_eq!(answered(), 1, "of its first start it is not told");
    for told in [1, 2] {
        let restarted = server.post(&format!("/workspaces/{id}/restart"), &json!({})).await;
        assert_eq!(restarted.status, 200, "{restarted:?}");
        until("the agent is told", async || (answered() >= 2 * told).then_some(())).await;
        said(told).await;
        assert_eq!(answered(), 2 * told + 1, "once");
    }
}
