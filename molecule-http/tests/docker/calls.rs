//! Calls that no client command makes.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::{Value, json};

use crate::{engine::Engine, server::Server};

/// The status and the body of a request of the operator.
fn call(server: &Server<'_>, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let mut entries = fs::read_dir(server.data_dir()).unwrap().map(|entry| entry.unwrap().path());
    let token = entries.find(|path| path.to_string_lossy().contains("token")).unwrap();
    let token = fs::read_to_string(token).unwrap();
    let body = body.to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        token.trim(),
        body.len(),
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

#[test]
fn a_purge_leaves_nothing_on_the_engine_and_no_row() {
    let Some(engine) = Engine::of_the_tests() else { return };
    let mut server = Server::start(&engine);
    let id = server.online("alpha");
    assert!(engine.traces(&id).len() > 2, "a container and its volumes: {:?}", engine.traces(&id));
    server.ok(&["delete", "alpha"]);
    assert_eq!(engine.traces(&id), [format!("ws-{id}-workspace")], "what its agent worked on stays");
    let (status, purged) = call(&server, "DELETE", &format!("/workspaces/{id}?purge=true"), &json!({}));
    assert_eq!((status, &purged["status"]), (200, &json!("purged")), "{purged}");
    assert_eq!(engine.traces(&id), [""; 0], "the answer waits for it");
    let (status, gone) = call(&server, "GET", &format!("/workspaces/{id}?include_removed=true"), &json!({}));
    assert_eq!((status, &gone["error"]), (404, &json!("workspace not found")));
}

#[test]
fn a_folder_of_the_host_is_mounted_as_far_as_it_was_given() {
    let Some(engine) = Engine::of_the_tests() else { return };
    let root = tempfile::tempdir().unwrap();
    let real = fs::canonicalize(root.path()).unwrap().join("real");
    fs::create_dir(&real).unwrap();
    let link = root.path().join("link");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let roots = [("MOLECULE_WORKSPACE_ROOTS", root.path().to_str().unwrap())];
    let server = Server::start_with(&engine, &["--provisioner", "docker"], &roots);
    for (access, writable) in [("read_write", true), ("read_only", false)] {
        let wish = json!({"name": access, "workspace_dir": link, "workspace_access": access});
        let (status, created) = call(&server, "POST", "/workspaces", &wish);
        assert_eq!(status, 201, "{created}");
        let id = created["id"].as_str().unwrap();
        server.comes_to(id, "online");
        let found = engine.inspect(id);
        let mounts = found["Mounts"].as_array().unwrap();
        let mount = mounts.iter().find(|mount| mount["Destination"] == "/workspace").unwrap();
        assert_eq!((&mount["Source"], &mount["RW"]), (&json!(real), &json!(writable)), "{mount}");
        let (status, purged) = call(&server, "DELETE", &format!("/workspaces/{id}?purge=true"), &json!({}));
        assert_eq!(status, 200, "{purged}");
    }
    assert!(real.is_dir(), "it is the host's");
    for outside in ["/", "/etc"] {
        let wish = json!({"name": "outside", "workspace_dir": outside, "workspace_access": "read_only"});
        let (status, refused) = call(&server, "POST", "/workspaces", &wish);
        assert_eq!((status, &refused["error"]), (400, &json!("invalid workspace directory")));
    }
}
