//! Where the server listens, and what it lets in there.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use crate::{engine::Engine, server::Server};

#[test]
fn auto_takes_the_engine_and_says_why() {
    let Some(engine) = Engine::of_the_tests() else { return };
    let mut server = Server::start_with(&engine, &["--provisioner", "auto"], &[]);
    assert!(server.log().contains("workspaces run in Docker containers: a daemon answered"), "{}", server.log());
    let id = server.online("alpha");
    assert_eq!(engine.inspect(&id)["State"]["Running"], true);
}

#[test]
fn what_is_open_on_loopback_is_closed_to_containers() {
    let Some(engine) = Engine::of_the_tests() else { return };
    let server = Server::start_with(&engine, &["--provisioner", "docker"], &[("MOLECULE_ENV", "development")]);
    assert_eq!(status("127.0.0.1", server.port, "/workspaces"), 200);
    let gateway = engine.gateway();
    assert_eq!(status(&gateway, server.port, "/health"), 200);
    for path in ["/workspaces", "/events"] {
        assert_eq!(status(&gateway, server.port, path), 401, "{path}");
    }
}

/// The status of a request without any credential.
fn status(host: &str, port: u16, path: &str) -> u16 {
    let mut stream = TcpStream::connect((host, port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}
