//! The files that a workspace keeps, over the wire.

use std::{fs, os::unix::fs::PermissionsExt};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    refused::assert_tells_nothing,
    server::{Reply, Server, Setup},
    support,
};

async fn put(server: &Server, path: &str, body: &Value) -> Reply {
    server.send(Method::PUT, path, Some(&server.token()), body.to_string()).await
}

/// Below the root: size, and whether it is a folder, by path.
async fn listed(server: &Server, id: &str, query: &str) -> Vec<String> {
    let reply = server.get(&format!("/workspaces/{id}/files{query}")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let entries = reply.json();
    let entries = entries.as_array().unwrap().iter();
    entries.map(|entry| format!("{} {} {}", entry["path"].as_str().unwrap(), entry["size"], entry["dir"])).collect()
}

#[tokio::test]
async fn files_are_written_read_and_deleted_on_sqlite() {
    written_read_and_deleted(Setup::process()).await;
}

#[tokio::test]
async fn files_are_written_read_and_deleted_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        written_read_and_deleted(Setup::process().database(Some(database.url()))).await;
    }
}

async fn written_read_and_deleted(setup: Setup) {
    let server = setup.start().await;
    let id = server.create("files").await;
    server.until_status(&id, "online").await;
    let files = format!("/workspaces/{id}/files");
    for running in [true, false] {
        if !running {
            assert_eq!(server.post(&format!("/workspaces/{id}/pause"), &json!({})).await.status, 200);
        }
        let saved = put(&server, &format!("{files}/skills/a..b/S%20K.md"), &json!({"content": " é\r\n"})).await;
        assert_eq!((saved.status, saved.json()), (200, json!({"status": "saved", "path": "skills/a..b/S K.md"})));
        let read = server.get(&format!("{files}/skills/a..b/S%20K.md")).await;
        assert_eq!(
            (read.status, read.json()),
            (200, json!({"path": "skills/a..b/S K.md", "content": " é\r\n", "size": 5}))
        );
        let on_disk = server.folder(&id).join("configs/skills/a..b/S K.md");
        assert_eq!(fs::metadata(&on_disk).unwrap().permissions().mode() & 0o7777, 0o644);
        assert_eq!(listed(&server, &id, "?path=skills&depth=2").await, ["a..b 0 true", "a..b/S K.md 5 false"]);

        let source = if running { "container" } else { "volume" };
        let body = json!({"files": {"notes/one.md": "1", "two.md": "22"}});
        let replaced = put(&server, &files, &body).await;
        let expected = json!({"status": "replaced", "workspace": "files", "files": 2, "source": source});
        assert_eq!((replaced.status, replaced.json()), (200, expected));
        let root = listed(&server, &id, "?root=/configs").await;
        assert!(root.contains(&"two.md 2 false".to_owned()) && root.contains(&"notes 0 true".to_owned()), "{root:?}");

        for _ in 0..2 {
            let deleted = server.delete(&format!("{files}/two.md")).await;
            assert_eq!((deleted.status, deleted.json()), (200, json!({"status": "deleted", "path": "two.md"})));
        }
        let gone = server.get(&format!("{files}/two.md")).await;
        assert_eq!((gone.status, gone.error().as_str()), (404, "file not found"));
    }
    // What is no text comes as it is, in another form.
    fs::write(server.folder(&id).join("configs/blob"), b"\xff\x00").unwrap();
    let blob = server.get(&format!("{files}/blob")).await.json();
    assert_eq!(blob, json!({"path": "blob", "content": "/wA=", "size": 2, "encoding": "base64"}));

    assert_eq!(server.delete(&format!("/workspaces/{id}")).await.status, 200);
    for reply in [server.get(&files).await, put(&server, &files, &json!({"files": {"a": "b"}})).await] {
        assert_eq!((reply.status, reply.error().as_str()), (404, "workspace not found"));
    }
    assert!(!server.folder(&id).exists());
}

#[tokio::test]
async fn what_leads_elsewhere_is_refused() {
    let server = Setup::process().start().await;
    let id = server.create("files").await;
    server.until_status(&id, "online").await;
    let configs = server.folder(&id).join("configs");
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(outside.path(), configs.join("link")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), configs.join("file-link")).unwrap();
    let files = format!("/workspaces/{id}/files");

    let invalid =
        ["%2e%2e%2fx", "a/%2e%2e%2f%2e%2e%2fx", "%2fetc/passwd", "/etc/passwd", "a%00b", "link/secret", "file-link"];
    for path in invalid {
        let reply = server.get(&format!("{files}/{path}")).await;
        assert_eq!((reply.status, reply.error().as_str()), (400, "invalid path"), "{path}");
        assert_tells_nothing(&server, &reply);
    }
    for path in ["link/secret", ".auth_token", ".%2f.platform_inbound_secret"] {
        let written = put(&server, &format!("{files}/{path}"), &json!({"content": "x"})).await;
        assert_eq!(written.status, 400, "{path}: {written:?}");
        let deleted = server.delete(&format!("{files}/{path}")).await;
        assert_eq!((deleted.status, deleted.error().as_str()), (400, "invalid path"), "{path}");
    }
    // One bad path, and nothing is written.
    let half = put(&server, &files, &json!({"files": {"a-good": "x", "../bad": "x"}})).await;
    assert_eq!((half.status, half.error().as_str()), (400, "invalid path"));
    assert!(!configs.join("a-good").exists());
    assert_eq!(fs::read_to_string(outside.path().join("secret")).unwrap(), "secret");

    // The token of the agent, and the secret of the platform, are for the two of them.
    assert_eq!(server.get(&format!("{files}/.auth_token")).await.status, 404);
    let root = listed(&server, &id, "?depth=5").await;
    assert!(root.iter().all(|entry| !entry.starts_with(".auth") && !entry.contains("link")), "{root:?}");

    for (query, message) in [
        ("?depth=0", "depth must be 1-5"),
        ("?depth=6", "depth must be 1-5"),
        ("?depth=x", "depth must be 1-5"),
        ("?path=../x", "invalid path"),
        ("?path=%27;id;%27/..", "invalid path"),
        ("?root=/etc", "root must be one of: /configs, /workspace, /home, /plugins"),
        ("?root=/configs-evil", "root must be one of: /configs, /workspace, /home, /plugins"),
    ] {
        let reply = server.get(&format!("{files}{query}")).await;
        assert_eq!((reply.status, reply.error().as_str()), (400, message), "{query}");
    }
    for (root, message) in [
        ("/etc", "root must be one of: /configs, /workspace, /home, /plugins"),
        ("/workspace", "only files below /configs can be changed"),
    ] {
        let one = put(&server, &format!("{files}/a?root={root}"), &json!({"content": ""})).await;
        let many = put(&server, &format!("{files}?root={root}"), &json!({"files": {"a": ""}})).await;
        let deleted = server.delete(&format!("{files}/a?root={root}")).await;
        for reply in [one, many, deleted] {
            assert_eq!((reply.status, reply.error().as_str()), (400, message));
        }
    }
    let many: serde_json::Map<String, Value> = (0..201).map(|n| (format!("{n}.md"), json!(""))).collect();
    let too_many = put(&server, &files, &json!({"files": many})).await;
    assert_eq!((too_many.status, too_many.error().as_str()), (400, "too many files (201), max 200"));
    for body in [json!({}), json!({"files": {}}), json!({"files": {"a": 1}}), json!({"files": []})] {
        let reply = put(&server, &files, &body).await;
        assert_eq!((reply.status, reply.error().as_str()), (400, "invalid request body"), "{body}");
    }
    let large = put(&server, &format!("{files}/large"), &json!({"content": "x".repeat(5 * 1024 * 1024 + 1)})).await;
    assert_eq!(large.status, 413);
    assert!(!configs.join("large").exists());
    assert_eq!(listed(&server, &id, "?root=/home").await, [""; 0], "a child process has no such folder");
    let folder = server.delete(&format!("{files}/link")).await;
    assert_eq!(folder.status, 200, "a link goes, and not what it leads to");
    assert!(outside.path().join("secret").exists());
}

#[tokio::test]
async fn only_the_workspace_and_the_operator_reach_its_files() {
    let server = Setup::process().start().await;
    let id = server.create("files").await;
    server.until_status(&id, "online").await;
    let token = fs::read_to_string(server.folder(&id).join("configs/.auth_token")).unwrap().trim().to_owned();
    let (_, other) = server.create_external("other", None).await;
    let body = json!({"content": "x", "files": {"a": "b"}}).to_string();
    for (method, path) in [
        (Method::GET, "files"),
        (Method::PUT, "files"),
        (Method::GET, "files/config.yaml"),
        (Method::PUT, "files/a"),
        (Method::DELETE, "files/a"),
        (Method::GET, "shared-context"),
    ] {
        let path = format!("/workspaces/{id}/{path}");
        let own = server.send(method.clone(), &path, Some(&token), body.clone()).await;
        assert_eq!(own.status, 200, "{method} {path}: {own:?}");
        for wrong in [Some(other.as_str()), Some("wrong"), None] {
            let reply = server.send(method.clone(), &path, wrong, body.clone()).await;
            assert_eq!(reply.status, 401, "{method} {path} with {wrong:?}");
        }
    }
}

#[tokio::test]
async fn a_missing_configuration_is_made_and_templates_are_never_written() {
    let templates = tempfile::tempdir().unwrap();
    let template = templates.path().join("my-agent");
    fs::create_dir(&template).unwrap();
    fs::write(template.join("config.yaml"), "name: My Agent\nshared_context: [a.md]\n").unwrap();
    fs::write(template.join("a.md"), "from the template").unwrap();
    let setup = Setup::process().env("CONFIGS_DIR", templates.path().to_str().unwrap());
    let server = setup.env("MOLECULE_AGENT_COMMAND", "/bin/false").start().await;
    // Its agent never comes, and nothing is kept of it once it is cleared by hand.
    let id = server.post("/workspaces", &json!({"name": "My Agent", "model": "minimax/m"})).await.json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    server.until_status(&id, "failed").await;
    fs::remove_dir_all(server.folder(&id)).unwrap();
    let files = format!("/workspaces/{id}/files");
    assert_eq!(listed(&server, &id, "").await, ["a.md 17 false", "config.yaml 38 false"]);
    assert_eq!(server.get(&format!("{files}/a.md")).await.json()["content"], "from the template");
    let shared = server.get(&format!("/workspaces/{id}/shared-context")).await;
    assert_eq!(shared.json(), json!([{"path": "a.md", "content": "from the template"}]));
    let none = server.get(&format!("{files}/b.md")).await;
    assert_eq!((none.status, none.error().as_str()), (404, "file not found"));

    let replaced = put(&server, &files, &json!({"files": {"a.md": "own"}})).await;
    assert_eq!((replaced.status, &replaced.json()["source"]), (200, &json!("volume")), "{replaced:?}");
    let config = server.get(&format!("{files}/config.yaml")).await.json();
    let config = config["content"].as_str().unwrap().to_owned();
    assert!(config.contains("name: \"My Agent\"") && config.contains("model: \"minimax/m\""), "{config}");
    assert_eq!(server.get(&format!("{files}/a.md")).await.json()["content"], "own");
    assert_eq!(fs::read_to_string(template.join("a.md")).unwrap(), "from the template");
}

#[tokio::test]
async fn what_is_shared_is_read_and_the_rest_passed_over() {
    let server = Setup::process().start().await;
    let id = server.create("files").await;
    server.until_status(&id, "online").await;
    let shared = format!("/workspaces/{id}/shared-context");
    assert_eq!(server.get(&shared).await.text, "[]");
    let config = "shared_context: [docs/a.md, none.md, ../../../etc/passwd, .auth_token, 7, blob, docs, b.md]\n";
    let body = json!({"files": {"config.yaml": config, "docs/a.md": "A\r\n", "b.md": ""}});
    assert_eq!(put(&server, &format!("/workspaces/{id}/files"), &body).await.status, 200);
    fs::write(server.folder(&id).join("configs/blob"), b"\xff").unwrap();
    let expected = json!([{"path": "docs/a.md", "content": "A\r\n"}, {"path": "b.md", "content": ""}]);
    assert_eq!(server.get(&shared).await.json(), expected);
    for config in ["shared_context: nothing", "a: [", ""] {
        let body = json!({"content": config});
        assert_eq!(put(&server, &format!("/workspaces/{id}/files/config.yaml"), &body).await.status, 200);
        assert_eq!(server.get(&shared).await.text, "[]", "{config:?}");
    }
}

#[tokio::test]
async fn files_of_agents_elsewhere_are_not_here() {
    let server = Setup::none().start().await;
    let (id, token) = server.create_external("far", None).await;
    for path in ["files", "files/a", "shared-context"] {
        let reply = server.send(Method::GET, &format!("/workspaces/{id}/{path}"), Some(&token), "").await;
        assert_eq!(reply.status, 501, "{path}: {reply:?}");
    }
    let unknown = "/workspaces/00000000-0000-4000-8000-000000000000/files";
    assert_eq!(server.get(unknown).await.status, 404);
}
