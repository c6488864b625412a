//! Agents and servers that are killed, and an image that is nowhere.

use crate::{
    engine::{Engine, WithoutImages, container},
    server::Server,
};

#[test]
fn a_killed_agent_is_brought_back() {
    let Some(engine) = Engine::of_the_tests() else { return };
    let mut server = Server::start(&engine);
    let id = server.online("alpha");
    let before = engine.inspect(&id)["Id"].clone();
    engine.docker(&["kill", &container(&id)]);
    server.until("another container", || {
        let running = engine.traces(&id).contains(&container(&id));
        running && server.json(&["show", &id])["status"] == "online" && engine.inspect(&id)["Id"] != before
    });
    assert!(server.ok(&["ask", "alpha", "Back again?"]).contains("Back again?"));
}

#[test]
fn containers_outlive_a_killed_server_and_are_found_again() {
    let Some(engine) = Engine::of_the_tests() else { return };
    let mut server = Server::start(&engine);
    let ids = [server.online("alpha"), server.online("beta")];
    let look = || ids.each_ref().map(|id| engine.inspect(id)["Id"].clone());
    let before = look();
    server.kill();
    server.start_again();
    for id in &ids {
        server.comes_to(id, "online");
        assert!(server.ok(&["ask", id, "Hello again"]).contains("Hello again"));
    }
    assert_eq!(look(), before);
}

#[test]
fn a_missing_image_fails_the_workspace_with_the_reason() {
    let Some(engine) = Engine::of_the_tests() else { return };
    let without = WithoutImages::before(&engine);
    let mut server =
        Server::start_with(&engine, &["--provisioner", "docker"], &[("DOCKER_HOST", without.host.as_str())]);
    let id = server.create("alpha");
    server.comes_to(&id, "failed");
    let reason = "workspace start failed: the image of runtime claude-code is not on this Docker engine and could not \
                  be pulled — build it with make image, or check the registry";
    let row = server.json(&["list"]).as_array().unwrap().iter().find(|row| row["id"] == id.as_str()).cloned().unwrap();
    assert_eq!(row["last_sample_error"], reason);
    let events = server.events(&id);
    let failures: Vec<_> = events.iter().filter(|(kind, _)| kind == "WORKSPACE_PROVISION_FAILED").collect();
    assert_eq!(failures.len(), 1, "{events:?}");
    assert_eq!(failures[0].1["error"], reason);
    assert!(server.log().contains("workspace-template-claude-code"), "the log names the image");
    assert!(engine.traces(&id).iter().all(|name| *name != container(&id)));
}
