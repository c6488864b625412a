//! Workspaces that come up, answer, and go.

use std::fs;

use serde_json::json;

use crate::{
    engine::{Engine, container},
    server::Server,
};

#[test]
fn workspaces_come_up_answer_restart_and_go() {
    let Some(engine) = Engine::of_the_tests() else { return };
    let mut server = Server::start(&engine);
    let alpha = server.online("alpha");
    let beta = server.online("beta");
    for (name, id) in [("alpha", &alpha), ("beta", &beta)] {
        assert!(server.ok(&["ask", name, "Good morning"]).contains("Good morning"));
        assert!(!server.ok(&["logs", name]).trim().is_empty());
        assert_eq!(server.json(&["show", id])["status"], "online");
    }

    let before = engine.inspect(&alpha);
    server.ok(&["restart", "alpha"]);
    let after = engine.inspect(&alpha);
    assert_ne!(before["Id"], after["Id"]);
    let volumes = |container: &serde_json::Value| {
        let mounts = container["Mounts"].as_array().unwrap().iter();
        let mut names: Vec<_> = mounts.map(|mount| mount["Name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    assert!(volumes(&before).contains(&format!("ws-{alpha}-configs")));
    assert_eq!(volumes(&before), volumes(&after));
    assert!(server.ok(&["ask", "alpha", "Still there?"]).contains("Still there?"));

    server.ok(&["delete", "alpha", "--purge"]);
    server.until("nothing to be left of alpha", || engine.traces(&alpha).is_empty());
    assert!(server.ok(&["ask", "beta", "And you?"]).contains("And you?"), "the other one is none the worse");
}

/// Seen at the engine: no container while it is stopped, its volumes all the while, and another container afterwards.
#[test]
fn a_workspace_is_paused_hibernated_and_woken() {
    let Some(engine) = Engine::of_the_tests() else { return };
    let mut server = Server::start(&engine);
    let id = server.online("alpha");
    let first = engine.inspect(&id)["Id"].clone();
    let volumes = || {
        let mut traces = engine.traces(&id);
        let name = container(&id);
        let running = traces.contains(&name);
        traces.retain(|trace| *trace != name);
        traces.sort();
        (running, traces)
    };
    let (running, kept) = volumes();
    assert!(running && !kept.is_empty(), "{kept:?}");

    server.ok(&["pause", "alpha"]);
    assert_eq!(volumes(), (false, kept.clone()));
    assert_eq!(server.json(&["show", &id])["status"], "paused");
    server.ok(&["resume", "alpha"]);
    assert_eq!(volumes(), (true, kept.clone()));
    let second = engine.inspect(&id)["Id"].clone();
    assert_ne!(first, second);
    assert!(server.ok(&["ask", "alpha", "Rested?"]).contains("Rested?"));

    server.ok(&["hibernate", "alpha"]);
    assert_eq!(volumes(), (false, kept.clone()));
    assert_eq!(server.json(&["show", &id])["status"], "hibernated");
    // The first message only wakes it.
    server.until("the agent to answer again", || {
        server.tries(&["ask", "alpha", "Awake?"]).is_some_and(|answer| answer.contains("Awake?"))
    });
    assert_eq!(volumes(), (true, kept));
    assert_ne!(engine.inspect(&id)["Id"], second);

    server.ok(&["pause", "alpha"]);
    server.ok(&["delete", "alpha", "--purge"]);
    server.until("nothing to be left of alpha", || engine.traces(&id).is_empty());
}

#[test]
fn a_container_shows_whose_it_is_and_no_secret() {
    let Some(engine) = Engine::of_the_tests() else { return };
    let mut server = Server::start(&engine);
    let id = server.online("alpha");
    let found = engine.inspect(&id);
    let labels = &found["Config"]["Labels"];
    assert_eq!(labels["molecule.platform.managed"], "true");
    assert_eq!(labels["molecule.workspace.id"], json!(id));

    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("token");
    // With its mode: the engine keeps it in the archive that this is unpacked from.
    engine.docker(&["cp", &format!("{}:/configs/.auth_token", container(&id)), copy.to_str().unwrap()]);
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&copy).unwrap()) & 0o7777;
    assert_eq!(mode, 0o600);
    let token = fs::read_to_string(&copy).unwrap();
    assert!(token.trim().len() >= 40, "{} bytes", token.len());
    for secret in [token.trim(), fs::read_to_string(operator_token(&server)).unwrap().trim()] {
        assert!(!found.to_string().contains(secret), "a token can be inspected");
        assert!(!server.log().contains(secret), "a token is in the log");
    }

    let published = found["NetworkSettings"]["Ports"]["8000/tcp"].as_array().unwrap();
    assert_eq!(published.len(), 1);
    assert_eq!(published[0]["HostIp"], "127.0.0.1");
}

#[test]
fn servers_on_one_engine_leave_each_others_workspaces_alone() {
    let Some(engine) = Engine::of_the_tests() else { return };
    let mut one = Server::start(&engine);
    let mut other = Server::start(&engine);
    // Names are not shared, either.
    let (ours, theirs) = (one.online("alpha"), other.online("alpha"));
    let before = engine.inspect(&theirs)["Id"].clone();
    one.start_again();
    one.ok(&["restart", "alpha"]);
    one.ok(&["delete", "alpha", "--purge"]);
    one.until("nothing to be left of ours", || engine.traces(&ours).is_empty());
    assert_eq!(engine.inspect(&theirs)["Id"], before);
    assert!(other.ok(&["ask", "alpha", "Still there?"]).contains("Still there?"));
}

fn operator_token(server: &Server<'_>) -> std::path::PathBuf {
    let entries = fs::read_dir(server.data_dir()).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<_> = entries.filter(|path| path.to_string_lossy().contains("token")).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}
