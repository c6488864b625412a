//! Templates over the wire, from the list to the configuration folder of the agent.

use std::{fs, path::Path};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    refused::assert_tells_nothing,
    server::{Server, Setup, until},
    support,
};

/// The templates that come with the sources.
const OURS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/templates");

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder can be made");
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("it is below the folder")).expect("a folder can be made");
        fs::write(path, text).expect("a file can be written");
    }
    dir
}

fn over(setup: Setup, templates: &Path) -> Setup {
    setup.env("CONFIGS_DIR", templates.to_str().expect("it is text"))
}

async fn template(server: &Server, id: &str) -> Value {
    let list = server.get("/templates").await;
    assert_eq!(list.status, 200, "{list:?}");
    let list = list.json();
    list.as_array().expect("an array").iter().find(|row| row["id"] == id).cloned().unwrap_or_else(|| panic!("{list}"))
}

#[tokio::test]
async fn the_four_runtimes_have_a_working_template() {
    let server = over(Setup::none(), Path::new(OURS)).start().await;
    let list = server.get("/templates").await.json();
    let ids: Vec<&str> = list.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["claude-code-default", "codex", "hermes", "openclaw"]);
    let claude = template(&server, "claude-code-default").await;
    assert_eq!(
        (&claude["runtime"], &claude["model"], &claude["tier"]),
        (&json!("claude-code"), &json!("sonnet"), &json!(2))
    );
    assert_eq!(claude["providers"], json!(["anthropic-oauth", "anthropic-api", "minimax"]));
    assert_eq!(
        claude["provider_registry"],
        json!([
            {"name": "anthropic-oauth", "auth_mode": "oauth", "model_aliases": ["sonnet", "opus", "haiku"],
             "auth_env": ["CLAUDE_CODE_OAUTH_TOKEN"]},
            {"name": "anthropic-api", "auth_mode": "api_key", "model_prefixes": ["claude-"],
             "auth_env": ["ANTHROPIC_API_KEY"]},
        ])
    );
    assert_eq!(claude["provision_timeout_seconds"], 1200);
    assert_eq!((&claude["skills"], &claude["skill_count"]), (&json!([]), &json!(0)));
    let codex = template(&server, "codex").await;
    for absent in ["providers", "provider_registry", "provision_timeout_seconds"] {
        assert!(codex.get(absent).is_none(), "{absent} in {codex}");
    }
    let openclaw = template(&server, "openclaw").await;
    assert_eq!(
        (&openclaw["models"][0]["id"], &openclaw["required_env"]),
        (&json!("openai:gpt-4.1-mini"), &json!(["OPENAI_API_KEY"]))
    );
    let (id, _) = server.create_external("a", None).await;
    assert_eq!(server.send(Method::GET, "/templates", Some("wrong"), "").await.status, 401, "{id}");
}

#[tokio::test]
async fn a_malformed_template_is_skipped_and_named_in_the_log() {
    let dir = folder(&[
        ("good/config.yaml", "name: Good\n"),
        ("bad/config.yaml", "name: [\n"),
        ("shape/config.yaml", "providers: [a, b]\n"),
    ]);
    let server = over(Setup::none(), dir.path()).start().await;
    let expected = json!([{"id": "good", "name": "Good", "description": "", "tier": 0, "runtime": "", "model": "",
        "skills": [], "skill_count": 0}]);
    assert_eq!(server.get("/templates").await.json(), expected);
    server.get("/templates").await;
    let log = server.log();
    for id in ["bad", "shape"] {
        assert_eq!(log.matches(&format!("templates list: skip {id}: yaml.Unmarshal: ")).count(), 1, "{id}: {log}");
    }
}

#[tokio::test]
async fn templates_are_imported_whole_or_not_at_all() {
    imported(Setup::none()).await;
}

#[tokio::test]
async fn templates_are_imported_whole_or_not_at_all_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        imported(Setup::none().database(Some(database.url()))).await;
    }
}

async fn imported(setup: Setup) {
    let server = setup.start().await;
    assert_eq!(server.get("/templates").await.text, "[]", "the folder is not there yet");
    let body = json!({"name": "My Agent", "files": {"system-prompt.md": "p", "skills/one/SKILL.md": "s"}});
    let kept = server.post("/templates/import", &body).await;
    assert_eq!((kept.status, kept.json()), (201, json!({"status": "imported", "id": "my-agent", "name": "My Agent"})));
    let row = template(&server, "my-agent").await;
    assert_eq!((&row["name"], &row["runtime"], &row["tier"]), (&json!("My Agent"), &json!("claude-code"), &json!(3)));
    assert_eq!((&row["skills"], &row["skill_count"]), (&json!(["one"]), &json!(1)));
    let again = server.post("/templates/import", &body).await;
    assert_eq!((again.status, again.json()), (409, json!({"error": "template already exists", "id": "my-agent"})));
    let many: serde_json::Map<String, Value> = (0..201).map(|n| (format!("{n}.md"), json!(""))).collect();
    for (body, message) in [
        (json!({"name": "x"}), "invalid request body"),
        (json!({"files": {"a.md": ""}}), "invalid request body"),
        (json!({"name": "", "files": {"a.md": ""}}), "invalid request body"),
        (json!({"name": "x", "files": {}}), "invalid request body"),
        (json!({"name": "x", "files": {"a.md": 1}}), "invalid request body"),
        (json!({"name": "x", "files": many}), "too many files (201), max 200"),
        (json!({"name": "x", "files": {"a.md": "", "../b": ""}}), "invalid path"),
        (json!({"name": "x", "files": {"config.yaml": "a: ["}}), "invalid config.yaml"),
    ] {
        let reply = server.post("/templates/import", &body).await;
        assert_eq!((reply.status, reply.error().as_str()), (400, message), "{:.80}", body.to_string());
        assert_tells_nothing(&server, &reply);
    }
    assert_eq!(server.get("/templates").await.json().as_array().map(Vec::len), Some(1));
    // What an import says of time counts at once, for clients as for the sweep.
    let config = "runtime: codex\nruntime_config: {provision_timeout_seconds: 77}";
    server.post("/templates/import", &json!({"name": "slow", "files": {"config.yaml": config}})).await;
    let created = server.post("/workspaces", &json!({"name": "a", "runtime": "codex"})).await.json();
    let id = created["id"].as_str().unwrap().to_owned();
    assert_eq!(server.fleet().await[&id]["provision_timeout_ms"], 77_000);
    assert_eq!(server.get(&format!("/workspaces/{id}")).await.json()["provision_timeout_ms"], 77_000);
    let other = server.create("b").await;
    assert!(server.fleet().await[&other].get("provision_timeout_ms").is_none(), "its runtime's template says nothing");
}

#[tokio::test]
async fn a_template_makes_the_workspace_and_what_it_requires_is_asked_for() {
    let dir = folder(&[
        (
            "needs/config.yaml",
            "name: Needs\nruntime: hermes\nruntime_config:\n  model: minimax/M2\n  required_env: [ONE, TWO]\n",
        ),
        ("needs/start.sh", "#!/bin/sh\r\n"),
        ("broken/config.yaml", "a: ["),
        ("claude-code-default/config.yaml", "name: vanilla\nruntime: claude-code\n"),
        ("org-templates/b/config.yaml", "name: of the role\n"),
    ]);
    let server = over(Setup::process(), dir.path()).start().await;
    let create = async |body: Value| {
        let created = server.post("/workspaces", &body).await;
        assert_eq!(created.status, 201, "{created:?}");
        created.json()["id"].as_str().unwrap().to_owned()
    };
    for name in ["../x", "/etc", "broken"] {
        let reply = server.post("/workspaces", &json!({"name": "a", "template": name})).await;
        assert_eq!((reply.status, reply.error().as_str()), (400, "invalid template"), "{name}");
    }
    assert!(server.fleet().await.is_empty());

    let id = create(json!({"name": "a", "template": "needs"})).await;
    let row = server.until_status(&id, "failed").await;
    assert_eq!(row["runtime"], "hermes");
    let text = "missing required env vars ONE, TWO — add them under Config → Env Vars (or as Global secrets) and retry";
    assert_eq!(row["last_sample_error"], text);
    let (kind, payload) = server.events(&id).await.pop().unwrap();
    assert_eq!((kind.as_str(), &payload["missing"]), ("WORKSPACE_PROVISION_FAILED", &json!(["ONE", "TWO"])));
    assert_eq!(payload["error"], text);

    let secrets = json!({"ONE": "1", "TWO": "2"});
    let id = create(json!({"name": "b", "template": "needs", "secrets": secrets})).await;
    server.until_status(&id, "online").await;
    let configs = server.folder(&id).join("configs");
    let file = |name: &str| fs::read_to_string(configs.join(name)).unwrap_or_default();
    assert_eq!(file("start.sh"), "#!/bin/sh\n");
    assert!(file("config.yaml").starts_with("name: Needs\n"));
    let model = server.get(&format!("/workspaces/{id}/model")).await.json();
    assert_eq!(model["model"], "minimax/M2", "the template's model is kept");

    // What its user made of the configuration survives, until a template is applied.
    fs::write(configs.join("config.yaml"), "name: mine\n").unwrap();
    let restart = async |body: Value| server.post(&format!("/workspaces/{id}/restart"), &body).await.json();
    let online = async || {
        until("it is online again", async || (server.fleet().await[&id]["status"] == "online").then_some(())).await;
    };
    assert_eq!(restart(json!({})).await["config_dir"], "existing-volume");
    online().await;
    assert_eq!(file("config.yaml"), "name: mine\n");
    assert_eq!(restart(json!({"template": "../x"})).await["config_dir"], "existing-volume", "it is passed over");
    online().await;
    assert_eq!(restart(json!({"template": "claude-code-default"})).await["config_dir"], "claude-code-default");
    online().await;
    assert!(file("config.yaml").starts_with("name: vanilla\n"));

    assert_eq!(restart(json!({"rebuild_config": true})).await["config_dir"], "org-templates/b");
    online().await;
    assert!(file("config.yaml").starts_with("name: of the role\n"));

    let id = create(json!({"name": "c", "template": "gone"})).await;
    server.until_status(&id, "online").await;
    let config = fs::read_to_string(server.folder(&id).join("configs/config.yaml")).unwrap();
    assert!(config.starts_with("name: vanilla\n"), "what fits the runtime replaces it: {config}");
}

#[tokio::test]
async fn the_manifest_says_which_runtimes_there_are() {
    let dir =
        folder(&[("m.json", r#"{"workspace_templates": [{"name": "own-default", "repo": "r", "ref": "main"}]}"#)]);
    let manifest = dir.path().join("m.json");
    let server = Setup::none().env("WORKSPACE_MANIFEST_PATH", manifest.to_str().unwrap()).start().await;
    for (asked, runtime) in [("own", "own"), ("hermes", "claude-code"), ("", "claude-code")] {
        let created = server.post("/workspaces", &json!({"name": "a", "runtime": asked})).await.json();
        let id = created["id"].as_str().unwrap().to_owned();
        assert_eq!(server.fleet().await[&id]["runtime"], runtime, "{asked:?}");
    }
    assert!(server.log().contains("unknown runtime"), "{}", server.log());
}
