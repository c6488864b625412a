//! The way of a workspace from its creation to its end.

use std::fs;

use reqwest::Method;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::{
    lives::lived,
    server::{Setup, until},
    support,
};

#[tokio::test]
async fn a_workspace_lives_and_ends_on_sqlite() {
    lives_and_ends(None).await;
}

#[tokio::test]
async fn a_workspace_lives_and_ends_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        lives_and_ends(Some(database.url())).await;
    }
}

async fn lives_and_ends(database: Option<&str>) {
    let server = Setup::process().database(database).start().await;
    server.ok(&["create", "hello"]).await;
    let fleet = server.fleet().await;
    let (id, row) = fleet.first_key_value().expect("it is there");
    assert_eq!((row["name"].as_str(), row["status"].as_str()), (Some("hello"), Some("online")), "{row}");
    assert!(server.ok(&["ask", "hello", "Good morning"]).await.contains("Good morning"));
    assert!(server.ok(&["logs", "hello"]).await.contains("agent listens"));

    let token_file = server.folder(id).join("configs/.auth_token");
    let token = || fs::read_to_string(&token_file).expect("the agent was given a token").trim().to_owned();
    let (first_token, first_pid) = (token(), server.pid(id));
    assert_eq!(server.beat(id, &first_token).await.status, 200);

    server.ok(&["restart", "hello"]).await;
    assert_ne!(server.pid(id), first_pid);
    let second_token = token();
    assert_ne!(first_token, second_token);
    assert_eq!(server.beat(id, &first_token).await.status, 401, "the token of an earlier run is worth nothing");
    assert_eq!(server.beat(id, &second_token).await.status, 200);
    assert_eq!(server.agents().len(), 1);
    assert!(server.ok(&["ask", "hello", "Still there?"]).await.contains("Still there?"));

    server.ok(&["delete", "hello"]).await;
    assert_eq!(server.agents(), Vec::<i32>::new());
    assert!(!server.folder(id).exists());
    assert_eq!(server.fleet().await.len(), 0);
    for token in [&first_token, &second_token] {
        assert_eq!(server.beat(id, token).await.status, 401);
        let body = json!({"id": id, "url": "", "agent_card": {}, "delivery_mode": "poll"}).to_string();
        assert_eq!(server.send(Method::POST, "/registry/register", Some(token), body).await.status, 401);
    }
    assert_eq!(server.get(&format!("/workspaces/{id}")).await.status, 410);
    let again = server.delete(&format!("/workspaces/{id}")).await;
    assert_eq!((again.status, again.json()), (200, json!({"status": "removed", "cascade_deleted": 0})));

    let kinds: Vec<String> = server.events(id).await.into_iter().map(|(kind, _)| kind).collect();
    let expected =
        ["PROVISIONING", "ONLINE", "PROVISIONING", "ONLINE", "REMOVED"].map(|kind| format!("WORKSPACE_{kind}"));
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn a_server_allows_itself_more_files_and_its_agents_what_it_had() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let most = maximum.expect("files are limited");
    // No test needs that one.
    setrlimit(Resource::Nofile, Rlimit { current: Some(most - 1), maximum }).expect("it may be less");
    let server = Setup::process().start().await;
    let limit = |process: String| {
        let limits = fs::read_to_string(format!("/proc/{process}/limits")).expect("it runs");
        let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("files are limited");
        line.split_whitespace().nth(3).expect("a number").to_owned()
    };
    assert_eq!(limit(server.process_id().to_string()), most.to_string());
    let id = server.create("one").await;
    server.until_status(&id, "online").await;
    assert_eq!(limit(server.pid(&id).expect("it runs").to_string()), (most - 1).to_string());
}

#[tokio::test]
async fn a_team_ends_with_its_lead() {
    let server = Setup::process().start().await;
    let lead = server.create("lead").await;
    let created = server.post("/workspaces", &json!({"name": "member", "parent_id": lead})).await;
    let member = created.json()["id"].as_str().expect("it has an id").to_owned();
    server.until_status(&lead, "online").await;
    server.until_status(&member, "online").await;

    let refused = server.delete(&format!("/workspaces/{lead}")).await;
    assert_eq!((refused.status, &refused.json()["children"][0]["id"]), (409, &Value::from(member.clone())));
    assert_eq!(server.agents().len(), 2);
    let removed = server.delete(&format!("/workspaces/{lead}?confirm=true")).await;
    assert_eq!((removed.status, removed.json()), (200, json!({"status": "removed", "cascade_deleted": 1})));
    assert_eq!(server.agents(), Vec::<i32>::new());
    assert!(!server.folder(&member).exists());
}

/// What was created while the last one was still on its way ends as it should as well.
#[tokio::test]
async fn a_workspace_can_be_deleted_while_it_comes_up() {
    let server = Setup::process().start().await;
    for round in 0..5 {
        let id = server.create(&format!("w{round}")).await;
        assert_eq!(server.delete(&format!("/workspaces/{id}")).await.status, 200);
        until("nothing of it is left", async || {
            (server.agents().is_empty() && !server.folder(&id).exists()).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_whole_life_of_child_processes_on_sqlite() {
    let server = Setup::process().start().await;
    lived(&server, || server.agents(), |id| server.folder(id), true).await;
}

#[tokio::test]
async fn a_whole_life_of_child_processes_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        let server = Setup::process().database(Some(database.url())).start().await;
        lived(&server, || server.agents(), |id| server.folder(id), true).await;
    }
}
