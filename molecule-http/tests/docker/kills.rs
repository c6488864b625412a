//! A server that is killed at the worst moments: the row tells one thing, and the engine another.

use tokio::runtime::Runtime;

use crate::{
    engine::{Engine, container},
    proxy::Proxy,
    server::Server,
};

const DOCKER: [&str; 2] = ["--provisioner", "docker"];

fn containers(engine: &Engine, id: &str) -> usize {
    engine.traces(id).iter().filter(|name| **name == container(id)).count()
}

#[test]
fn a_server_that_dies_with_its_row_written_and_its_container_not_started_begins_anew() {
    let Some(engine) = Engine::of_the_tests() else { return };
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    // The container is made by then, and waits for its files.
    let step = "PUT /containers/";
    let proxy = Proxy::to(&engine.host, Some(step));
    let mut server = Server::start_with(&engine, &DOCKER, &[("DOCKER_HOST", proxy.host.as_str())]);
    let id = server.create("alpha");
    server.until("the engine to be asked", || proxy.asked(step) > 0);
    assert_eq!(server.json(&["show", &id])["status"], "provisioning");
    server.kill();
    assert_eq!(containers(&engine, &id), 1);
    let unstarted = engine.inspect(&id);
    assert_eq!(unstarted["State"]["Status"], "created");

    proxy.release();
    server.start_again();
    server.comes_to(&id, "online");
    assert_eq!(containers(&engine, &id), 1);
    assert_ne!(engine.inspect(&id)["Id"], unstarted["Id"]);
    assert!(server.ok(&["ask", "alpha", "Up at last?"]).contains("Up at last?"));
    server.ok(&["delete", "alpha", "--purge"]);
    server.until("nothing to be left of it", || engine.traces(&id).is_empty());
}

#[test]
fn a_server_that_dies_with_its_container_stopped_and_its_row_not_written_wakes_it_all_the_same() {
    let Some(engine) = Engine::of_the_tests() else { return };
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    let proxy = Proxy::to(&engine.host, None);
    let mut server = Server::start_with(&engine, &DOCKER, &[("DOCKER_HOST", proxy.host.as_str())]);
    let id = server.online("alpha");
    // The container goes, and the server does not hear of it.
    proxy.lose(Some("DELETE /containers/"));
    assert_eq!(server.tries(&["hibernate", "alpha"]), None);
    assert_eq!(server.json(&["show", &id])["status"], "hibernating");
    server.kill();
    assert_eq!(containers(&engine, &id), 0);

    proxy.lose(None);
    server.start_again();
    assert_eq!(server.json(&["show", &id])["status"], "hibernating", "nobody takes it for lost");
    server.until("the agent to answer again", || {
        server.tries(&["ask", "alpha", "Awake?"]).is_some_and(|answer| answer.contains("Awake?"))
    });
    assert_eq!(containers(&engine, &id), 1);
}
