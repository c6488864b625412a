//! Workspaces that do not come up.

use std::path::Path;

use serde_json::json;

use crate::server::Setup;

fn agent(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/agents").join(name).display().to_string()
}

#[tokio::test]
async fn an_agent_that_ends_at_once_fails_its_workspace() {
    let server = Setup::process().env("MOLECULE_AGENT_COMMAND", &agent("ends")).start().await;
    let outcome = server.run(&["create", "broken"]).await;
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let fleet = server.fleet().await;
    let (id, row) = fleet.first_key_value().expect("it is there");
    assert_eq!(row["status"], "failed");
    let reason = row["last_sample_error"].as_str().expect("it has a reason");
    assert!(reason.contains("exit code 3"), "{reason}");
    assert!(outcome.stderr.contains(reason), "{outcome:?}");
    let events = server.events(id).await;
    let kinds: Vec<&str> = events.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["WORKSPACE_PROVISIONING", "WORKSPACE_PROVISION_FAILED"]);
    assert_eq!(events[1].1, json!({"error": reason}));
    // What it wrote tells why.
    assert!(server.ok(&["logs", "broken"]).await.contains("it broke"));
    server.ok(&["delete", "broken"]).await;
    assert!(!server.folder(id).exists());
}

#[tokio::test]
async fn an_agent_that_never_registers_fails_its_workspace_in_time() {
    let setup = Setup::process().env("MOLECULE_AGENT_COMMAND", &agent("silent")).env("PROVISION_TIMEOUT_SECONDS", "1");
    let server = setup.start().await;
    let id = server.create("silent").await;
    let row = server.until_status(&id, "failed").await;
    let reason = row["last_sample_error"].as_str().expect("it has a reason");
    assert!(reason.contains("never called /registry/register"), "{reason}");
    let events = server.events(&id).await;
    let failures: Vec<_> = events.iter().filter(|(kind, _)| kind == "WORKSPACE_PROVISION_FAILED").collect();
    assert_eq!(failures.len(), 1, "{events:?}");
    let expected =
        json!({"error": reason, "timeout_secs": 1, "runtime": "claude-code", "source": "provision_timeout_sweep"});
    assert_eq!(failures[0].1, expected);
    server.ok(&["delete", "silent"]).await;
    assert_eq!(server.agents(), Vec::<i32>::new());
}

#[tokio::test]
async fn a_program_that_is_not_there_fails_the_workspace() {
    let server = Setup::process().env("MOLECULE_AGENT_COMMAND", "/nonexistent/agent").start().await;
    let id = server.create("missing").await;
    let row = server.until_status(&id, "failed").await;
    let reason = row["last_sample_error"].as_str().expect("it has a reason");
    assert!(reason.starts_with("workspace start failed"), "{reason}");
}

#[tokio::test]
async fn without_a_backend_only_external_agents_come_up() {
    let server = Setup::none().start().await;
    let id = server.create("nowhere").await;
    let row = server.until_status(&id, "failed").await;
    assert!(row["last_sample_error"].as_str().is_some_and(|reason| !reason.is_empty()), "{row}");
    let restarted = server.post(&format!("/workspaces/{id}/restart"), &json!({})).await;
    assert_eq!((restarted.status, restarted.error().as_str()), (503, "provisioner not available"));
    let called = server.post(&format!("/workspaces/{id}/a2a"), &json!({"method": "tasks/get"})).await;
    assert_eq!((called.status, called.json()), (503, json!({"error": "workspace has no URL", "status": "failed"})));
    let (external, token) = server.create_external("outside", None).await;
    assert_eq!(server.beat(&external, &token).await.status, 200);
    server.until_status(&external, "online").await;
}
