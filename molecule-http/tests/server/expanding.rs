//! The team of a workspace, when it hibernates, and the images that workspaces are made of.

use std::fs;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    server::{Server, Setup},
    support,
};

const LEAD: &str = "name: Lead
sub_workspaces:
  - {config: worker, name: First, role: writes}
  - {config: none, name: Second, role: ''}
";

async fn server(setup: Setup, lead: &str) -> (Server, tempfile::TempDir) {
    let templates = tempfile::tempdir().unwrap();
    for (folder, config) in [
        ("lead", lead),
        ("worker", "name: Worker\nruntime: hermes\nmodel: minimax/m\n"),
        ("broken", "name: ["),
        ("alone", "name: Alone\n"),
    ] {
        fs::create_dir(templates.path().join(folder)).unwrap();
        fs::write(templates.path().join(folder).join("config.yaml"), config).unwrap();
    }
    let server = setup.env("CONFIGS_DIR", templates.path().to_str().unwrap()).start().await;
    (server, templates)
}

#[tokio::test]
async fn a_team_is_made_as_the_template_names_it_on_sqlite() {
    a_team_is_made(Setup::process()).await;
}

#[tokio::test]
async fn a_team_is_made_as_the_template_names_it_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        a_team_is_made(Setup::process().database(Some(database.url()))).await;
    }
}

async fn a_team_is_made(setup: Setup) {
    let (server, _templates) = server(setup, LEAD).await;
    let created = server.post("/workspaces", &json!({"name": "Lead", "tier": 1})).await.json();
    let lead = created["id"].as_str().unwrap().to_owned();
    server.until_status(&lead, "online").await;
    let expanded = server.post(&format!("/workspaces/{lead}/expand"), &json!({})).await;
    assert_eq!(expanded.status, 200, "{expanded:?}");
    let expanded = expanded.json();
    assert_eq!(expanded["status"], "expanded");
    let children = expanded["children"].as_array().unwrap();
    let told: Vec<_> = children.iter().map(|child| (child["name"].clone(), child["role"].clone())).collect();
    assert_eq!(told, [(json!("First"), json!("writes")), (json!("Second"), Value::Null)]);
    for (child, runtime) in children.iter().zip(["hermes", "claude-code"]) {
        let id = child["id"].as_str().unwrap();
        // Through the one pipeline: with a token, an environment and a start of its own.
        let row = server.until_status(id, "online").await;
        assert_eq!((&row["parent_id"], &row["tier"]), (&json!(lead), &json!(1)));
        assert_eq!((&row["x"], &row["y"], &row["runtime"]), (&json!(0.0), &json!(0.0), &json!(runtime)));
        assert!(server.folder(id).join("configs/.auth_token").exists());
    }
    let first = children[0]["id"].as_str().unwrap();
    let model = server.get(&format!("/workspaces/{first}/model")).await.json();
    assert_eq!(model["model"], "minimax/m");
    let events = server.events(&lead).await;
    let (kind, payload) = events.last().unwrap();
    assert_eq!((kind.as_str(), &payload["children"]), ("WORKSPACE_EXPANDED", &expanded["children"]));

    let collapsed = server.post(&format!("/workspaces/{lead}/collapse"), &json!({})).await;
    assert_eq!(collapsed.json(), json!({"status": "collapsed", "removed": ["First", "Second"]}));
    assert_eq!(server.agents().len(), 1);

    server.post(&format!("/workspaces/{lead}/pause"), &json!({})).await;
    let paused = server.post(&format!("/workspaces/{lead}/expand"), &json!({})).await;
    assert_eq!(
        (paused.status, paused.error().as_str()),
        (409, "parent workspace \"Lead\" is paused — resume it first")
    );
}

#[tokio::test]
async fn a_team_is_made_whole_or_not_at_all() {
    let bad = "name: Lead\nsub_workspaces: [{name: Fine}, {name: 'a|b'}]\n";
    let (server, templates) = server(Setup::none(), bad).await;
    let id_of = async |name: &str| {
        server.post("/workspaces", &json!({"name": name})).await.json()["id"].as_str().unwrap().to_owned()
    };
    for (name, status, error) in [
        ("Lead", 400, "invalid workspace fields"),
        ("Nobody", 400, "no config found for workspace"),
        ("Alone", 400, "workspace has no sub_workspaces defined in config"),
        ("broken", 500, "failed to parse config"),
    ] {
        let id = id_of(name).await;
        let before = server.fleet().await.len();
        let refused = server.post(&format!("/workspaces/{id}/expand"), &json!({})).await;
        assert_eq!((refused.status, refused.error().as_str()), (status, error), "{name}");
        assert_eq!(server.fleet().await.len(), before, "{name}");
    }
    fs::write(templates.path().join("lead/config.yaml"), "name: Lead\nsub_workspaces: [{name: X, config: ../..}]")
        .unwrap();
    let id = id_of("Lead").await;
    let refused = server.post(&format!("/workspaces/{id}/expand"), &json!({})).await;
    assert_eq!((refused.status, refused.error().as_str()), (400, "invalid template"));
    let unknown = server.post("/workspaces/00000000-0000-4000-8000-000000000000/expand", &json!({})).await;
    assert_eq!((unknown.status, unknown.error().as_str()), (404, "workspace not found"));
}

#[tokio::test]
async fn the_operator_says_after_how_long_a_workspace_hibernates() {
    let server = Setup::none().start().await;
    let created =
        server.post("/workspaces", &json!({"name": "a", "external": true, "hibernation_idle_minutes": 30})).await;
    let created = created.json();
    let (id, token) = (created["id"].as_str().unwrap(), created["connection"]["auth_token"].as_str().unwrap());
    let shown = async || server.fleet().await[id]["hibernation_idle_minutes"].clone();
    assert_eq!(shown().await, 30);
    let path = format!("/workspaces/{id}");
    let patch = async |bearer: &str, value: Value| {
        let body = json!({"hibernation_idle_minutes": value}).to_string();
        server.send(Method::PATCH, &path, Some(bearer), body).await.status
    };
    let operator = server.token();
    assert_eq!(patch(token, json!(5)).await, 403);
    assert_eq!(patch(&operator, json!(-1)).await, 400);
    assert_eq!(patch(&operator, json!("5")).await, 400);
    assert_eq!(patch(&operator, json!(5)).await, 200);
    assert_eq!(shown().await, 5);
    assert_eq!(patch(&operator, Value::Null).await, 200);
    assert_eq!(shown().await, Value::Null);
    for minutes in [json!(-1), json!(525_601), json!("1")] {
        let body = json!({"name": "b", "external": true, "hibernation_idle_minutes": minutes});
        assert_eq!(server.post("/workspaces", &body).await.status, 400, "{minutes}");
    }
}

#[tokio::test]
async fn images_are_refreshed_where_workspaces_are_made_of_them() {
    let server = Setup::process().start().await;
    let refused = server.post("/admin/workspace-images/refresh?runtime=cobol", &json!({})).await;
    assert_eq!((refused.status, refused.error().as_str()), (400, "unknown runtime"));
    assert_eq!(refused.json()["known_runtimes"], json!(["claude-code", "codex", "hermes", "openclaw"]));
    let none = server.post("/admin/workspace-images/refresh", &json!({})).await;
    assert_eq!(none.status, 501, "{none:?}");
    let (_, token) = server.create_external("a", None).await;
    let agent = server.send(Method::POST, "/admin/workspace-images/refresh", Some(&token), "").await;
    assert_eq!(agent.status, 401);
}
