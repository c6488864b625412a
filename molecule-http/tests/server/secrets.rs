//! Secrets over the wire, from the request to the environment of the agent.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    process,
    refused::assert_tells_nothing,
    server::{Reply, Server, Setup, until},
    support,
};

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

#[tokio::test]
async fn secrets_are_kept_and_told_to_nobody_else() {
    kept(Setup::none()).await;
}

#[tokio::test]
async fn secrets_are_kept_and_told_to_nobody_else_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        kept(Setup::none().database(Some(database.url()))).await;
    }
}

async fn send(server: &Server, method: Method, path: &str, bearer: &str, body: &Value) -> Reply {
    server.send(method, path, Some(bearer), body.to_string()).await
}

/// The secrets of a list, each with its scope.
fn listed(reply: &Reply) -> Vec<(String, String)> {
    let list = reply.json();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_else(|| panic!("{row}")).to_owned();
    for row in list.as_array().expect("an array") {
        let mut members: Vec<&str> = row.as_object().expect("an object").keys().map(String::as_str).collect();
        members.sort_unstable();
        assert_eq!(members, ["created_at", "has_value", "key", "scope", "updated_at"]);
        assert_eq!(row["has_value"], true);
    }
    list.as_array().expect("an array").iter().map(|row| (text(row, "key"), text(row, "scope"))).collect()
}

fn rows(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(key, scope)| ((*key).to_owned(), (*scope).to_owned())).collect()
}

async fn kept(setup: Setup) {
    let server = setup.env("SECRETS_ENCRYPTION_KEY", KEY).start().await;
    let operator = server.token();
    let (id, token) = server.create_external("one", None).await;
    let (_, other) = server.create_external("two", None).await;
    let own = format!("/workspaces/{id}/secrets");

    assert_eq!(server.get(&own).await.text, "[]");
    assert_eq!(server.get(&format!("{own}/values")).await.text, "{}");
    for (path, scope) in [("/settings/secrets", "global"), ("/admin/secrets", "global"), (&own, "workspace")] {
        let bearer = if scope == "global" { &operator } else { &token };
        let key = if path == "/admin/secrets" { "SHARED" } else { "BOTH" };
        let body = json!({"key": key, "value": format!("hunter2 {scope}")});
        let saved = send(&server, Method::POST, path, bearer, &body).await;
        let expected = match scope {
            "global" => json!({"status": "saved", "key": key, "scope": "global"}),
            _ => json!({"status": "saved", "key": key}),
        };
        assert_eq!((saved.status, saved.json()), (200, expected), "{path}");
    }
    let put = json!({"key": "AGAIN", "value": "hunter2"});
    assert_eq!(send(&server, Method::PUT, &own, &token, &put).await.status, 200);
    assert_eq!(send(&server, Method::PUT, "/settings/secrets", &operator, &put).await.status, 200);
    let list = server.get(&own).await;
    assert_eq!(listed(&list), rows(&[("AGAIN", "workspace"), ("BOTH", "workspace"), ("SHARED", "global")]));
    assert!(!list.text.contains("hunter2"));
    for path in ["/settings/secrets", "/admin/secrets"] {
        let list = server.get(path).await;
        assert_eq!(listed(&list), rows(&[("AGAIN", "global"), ("BOTH", "global"), ("SHARED", "global")]));
    }
    let values = send(&server, Method::GET, &format!("{own}/values"), &token, &Value::Null).await;
    let expected = json!({"AGAIN": "hunter2", "BOTH": "hunter2 workspace", "SHARED": "hunter2 global"});
    assert_eq!((values.status, values.json()), (200, expected));

    let unknown = "/workspaces/00000000-0000-4000-8000-000000000000/secrets";
    let good = json!({"key": "K", "value": "v"});
    let refused = [
        (Method::POST, own.as_str(), &token, json!({"key": "K"}), 400, "invalid request body"),
        (Method::POST, &own, &token, json!({"key": "", "value": "v"}), 400, "invalid request body"),
        (Method::POST, &own, &token, json!({"key": "K", "value": ""}), 400, "invalid request body"),
        (Method::POST, &own, &token, json!({"key": "K", "value": 1}), 400, "invalid request body"),
        (Method::POST, &own, &token, json!([]), 400, "invalid request body"),
        (Method::POST, &own, &token, json!({"key": "A B", "value": "v"}), 400, "invalid secret key"),
        (Method::POST, &own, &token, json!({"key": "WORKSPACE_ID", "value": "v"}), 400, "invalid secret key"),
        (Method::POST, &own, &token, json!({"key": "K", "value": "a\0"}), 400, "invalid secret value"),
        (
            Method::POST,
            &own,
            &token,
            json!({"key": "K", "value": "v".repeat(65_537)}),
            413,
            "the value of K is over the limit of 65536 bytes",
        ),
        (Method::POST, &own, &other, good.clone(), 401, "invalid workspace auth token"),
        (Method::GET, &own, &other, Value::Null, 401, "invalid workspace auth token"),
        (Method::POST, "/settings/secrets", &token, good.clone(), 401, "invalid admin auth token"),
        (Method::GET, "/admin/secrets", &token, Value::Null, 401, "invalid admin auth token"),
        (Method::POST, "/admin/secrets", &operator, json!({"key": "TIER", "value": "4"}), 400, "invalid secret key"),
        (Method::GET, unknown, &operator, Value::Null, 404, "workspace not found"),
        (Method::POST, unknown, &operator, good.clone(), 404, "workspace not found"),
        (Method::GET, "/workspaces/7/secrets", &operator, Value::Null, 400, "invalid workspace ID"),
        (Method::DELETE, &format!("{own}/SHARED"), &token, Value::Null, 404, "secret not found"),
        (Method::DELETE, "/settings/secrets/NONE", &operator, Value::Null, 404, "secret not found"),
    ];
    for (method, path, bearer, body, status, message) in refused {
        let reply = send(&server, method.clone(), path, bearer, &body).await;
        assert_eq!(
            (reply.status, reply.error().as_str()),
            (status, message),
            "{method} {path} {:.80}",
            body.to_string()
        );
        assert_tells_nothing(&server, &reply);
    }
    let values = server.send(Method::GET, &format!("{own}/values"), None, "").await;
    assert_eq!((values.status, values.error().as_str()), (401, "missing workspace auth token"));

    let deleted = send(&server, Method::DELETE, &format!("{own}/BOTH"), &token, &Value::Null).await;
    assert_eq!((deleted.status, deleted.json()), (200, json!({"status": "deleted", "key": "BOTH"})));
    assert_eq!(listed(&server.get(&own).await)[1], ("BOTH".to_owned(), "global".to_owned()));
    let deleted = server.delete("/admin/secrets/SHARED").await;
    assert_eq!(deleted.json(), json!({"status": "deleted", "key": "SHARED", "scope": "global"}));
    assert!(!server.log().contains("hunter2"), "a secret is in the log");
    let database = std::fs::read(server.data().join("molecule.db")).unwrap_or_default();
    assert!(!database.windows(7).any(|window| window == b"hunter2"), "a secret is in the database as it is");
}

#[tokio::test]
async fn model_and_provider_are_chosen_apart() {
    chosen(Setup::none()).await;
}

#[tokio::test]
async fn model_and_provider_are_chosen_apart_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        chosen(Setup::none().database(Some(database.url()))).await;
    }
}

async fn chosen(setup: Setup) {
    let server = setup.start().await;
    let created = server.post("/workspaces", &json!({"name": "a", "external": true, "model": "grok/grok-2"})).await;
    let created = created.json();
    let (id, token) = (created["id"].as_str().unwrap(), created["connection"]["auth_token"].as_str().unwrap());
    let (model, provider) = (format!("/workspaces/{id}/model"), format!("/workspaces/{id}/provider"));
    let get = async |path: &str| send(&server, Method::GET, path, token, &Value::Null).await.json();
    let put = async |path: &str, body: Value| send(&server, Method::PUT, path, token, &body).await;
    assert_eq!(get(&model).await, json!({"model": "grok/grok-2", "source": "workspace_secrets"}));
    assert_eq!(get(&provider).await, json!({"provider": "xai", "source": "workspace_secrets"}));
    let saved = put(&provider, json!({"provider": "custom"})).await;
    assert_eq!((saved.status, saved.json()), (200, json!({"status": "saved", "provider": "custom"})));
    assert_eq!(get(&model).await["model"], "grok/grok-2");
    let saved = put(&model, json!({"model": "sonnet"})).await;
    assert_eq!((saved.status, saved.json()), (200, json!({"status": "saved", "model": "sonnet"})));
    assert_eq!(get(&provider).await["provider"], "custom", "it was chosen");
    assert_eq!(put(&model, json!({"model": ""})).await.json(), json!({"status": "cleared"}));
    assert_eq!(put(&provider, json!({"provider": ""})).await.json(), json!({"status": "cleared"}));
    assert_eq!(get(&model).await, json!({"model": "", "source": "default"}));
    assert_eq!(get(&provider).await, json!({"provider": "", "source": "default"}));
    for (path, body, status, message) in [
        (model.as_str(), json!({}), 400, "invalid request body"),
        (&provider, json!({"model": "x"}), 400, "invalid request body"),
        ("/workspaces/7/model", json!({"model": "x"}), 400, "invalid workspace ID"),
        ("/workspaces/7/provider", json!({"provider": "x"}), 400, "invalid workspace ID"),
    ] {
        let reply = put(path, body).await;
        assert_eq!((reply.status, reply.error().as_str()), (status, message), "{path}");
        assert_tells_nothing(&server, &reply);
    }
    let (_, stranger) = server.create_external("b", None).await;
    assert_eq!(send(&server, Method::GET, &model, &stranger, &Value::Null).await.status, 401);
}

#[tokio::test]
async fn an_agent_finds_its_secrets_in_its_environment_also_after_a_change() {
    let server = Setup::process().env("SECRETS_ENCRYPTION_KEY", KEY).start().await;
    let body = json!({"name": "a", "model": "minimax/M2", "secrets": {"API_KEY": "one"}});
    let id = server.post("/workspaces", &body).await.json()["id"].as_str().expect("it has an id").to_owned();
    server.until_status(&id, "online").await;
    let environment = || {
        let pid = server.pid(&id)?;
        let environ = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        Some(String::from_utf8_lossy(&environ).split('\0').map(str::to_owned).collect::<Vec<_>>())
    };
    let before = environment().expect("it runs");
    for expected in ["API_KEY=one", "MODEL=minimax/M2", "MODEL_PROVIDER=minimax/M2", "LLM_PROVIDER=minimax"] {
        assert!(before.iter().any(|variable| variable == expected), "no {expected} in {before:?}");
    }
    assert!(!before.iter().any(|variable| variable.contains(KEY)), "the key is the server's alone");
    let saved = server.post(&format!("/workspaces/{id}/secrets"), &json!({"key": "API_KEY", "value": "two"})).await;
    assert_eq!(saved.status, 200, "{saved:?}");
    until("the agent was brought up anew", async || {
        environment()?.iter().any(|variable| variable == "API_KEY=two").then_some(())
    })
    .await;
    server.until_status(&id, "online").await;
}

#[tokio::test]
async fn production_does_not_start_without_a_key_and_nothing_starts_with_a_bad_one() {
    for (key, environment, said) in [
        (None, "production", "so SECRETS_ENCRYPTION_KEY must be set"),
        (None, "PROD", "so SECRETS_ENCRYPTION_KEY must be set"),
        (Some("short"), "", "a key for secrets must be 32 bytes"),
        (Some("short"), "production", "a key for secrets must be 32 bytes"),
    ] {
        let home = tempfile::tempdir().expect("a folder can be made");
        let mut command = process::molecule(home.path());
        command.args(["serve", "--provisioner", "none", "--listen", "127.0.0.1:0"]).env("MOLECULE_ENV", environment);
        if let Some(key) = key {
            command.env("SECRETS_ENCRYPTION_KEY", key);
        }
        let outcome = tokio::task::spawn_blocking(move || process::run(command)).await.expect("it ends");
        assert!(outcome.code != Some(0) && outcome.stderr.contains(said), "{key:?} {environment}: {outcome:?}");
    }
}
