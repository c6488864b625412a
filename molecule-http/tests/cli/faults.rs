//! Servers that are away, that refuse, and that are not what they should be.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
};

use serde_json::json;

use crate::{
    binary::{Binary, wait},
    stub::{Raw, Stub, id},
};

#[test]
fn a_server_that_is_away_is_named_with_what_to_do() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, error) = Binary::talking_to(&format!("http://{free}")).fails(&["list"]);
    let expected =
        format!("error: cannot reach http://{free} (connection refused); is it running? start it with: molecule serve");
    assert_eq!((code, error), (1, expected));
}

#[test]
fn a_refused_token_is_named_by_its_source_and_not_shown() {
    let stub = Stub::start();
    stub.world().token = Some("right".to_owned());
    let binary = Binary::talking_to(&stub.url);
    let login = format!("molecule login {} --token-stdin", stub.url);
    let (code, error) = binary.fails(&["list"]);
    let expected = format!(
        "error: the server asks for a token (admin auth required); give it with --token or MOLECULE_TOKEN, or save it \
         with: {login}"
    );
    assert_eq!((code, error), (1, expected));
    let (_, error) = binary.env("MOLECULE_TOKEN", "s3cret").fails(&["list"]);
    assert!(error.contains("refused the token from MOLECULE_TOKEN (admin auth required)"), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
}

#[test]
fn what_the_server_says_is_passed_on() {
    let stub = Stub::start();
    let binary = Binary::talking_to(&stub.url);
    let removed = json!({"error": "workspace removed", "id": id(1), "removed_at": "2026-01-02T03:04:05Z", "hint": "h"});
    for (status, body, code, expected) in [
        (410, removed.to_string(), 1, "error: workspace removed at 2026-01-02T03:04:05Z"),
        (410, r#"{"error":"workspace removed","removed_at":null}"#.to_owned(), 1, "error: workspace removed"),
        (404, r#"{"error":"workspace not found"}"#.to_owned(), 1, "error: workspace not found; see: molecule list"),
        (
            409,
            r#"{"error":"parent is paused","hint":"resume it"}"#.to_owned(),
            1,
            "error: parent is paused (resume it)",
        ),
        (429, r#"{"error":"too many requests"}"#.to_owned(), 1, "error: too many requests"),
        (400, r#"{"error":"line\nbreak \u001b[31m"}"#.to_owned(), 2, "error: line break ␛[31m"),
    ] {
        stub.world().always = Some(Raw::new(status, "application/json", body));
        assert_eq!(binary.fails(&["show", &id(1)]), (code, expected.to_owned()));
    }
}

#[test]
fn answers_that_are_not_of_such_a_server_are_told_apart() {
    let stub = Stub::start();
    let binary = Binary::talking_to(&stub.url);
    for (raw, expected) in [
        (Raw::new(200, "text/html", "<html>hello</html>"), "answered 200 OK with text/html, unlike a Molecule server"),
        (Raw::new(502, "text/html", "<html>bad"), "answered 502 Bad Gateway with text/html, unlike a Molecule server"),
        (Raw::new(307, "text/html", "moved"), "answered 307 Temporary Redirect with text/html"),
        (Raw::new(500, "text/plain", ""), "answered 500 Internal Server Error without saying why"),
        (Raw::new(200, "application/json", r#"{"workspaces":[]}"#), "the server's answer is not what was asked for"),
        (Raw::new(200, "application/json", r#"[{"id":1}]"#), "the server's answer is not what was asked for"),
        (Raw { times: 200, ..Raw::new(200, "application/json", " ".repeat(1 << 20)) }, "is larger than 128 MiB"),
    ] {
        stub.world().always = Some(raw);
        let (code, error) = binary.fails(&["list"]);
        assert_eq!(code, 1);
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert!(stub.seen().iter().all(|seen| seen.line == "GET /workspaces"), "no redirect is followed");
    stub.world().always = Some(Raw::new(200, "text/html", "<html>"));
    assert!(binary.fails(&["logs", &id(1)]).1.contains("unlike a Molecule server"));
}

#[test]
fn nothing_a_server_says_reaches_the_terminal_as_a_command() {
    const EVIL: &str = "a\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}\rz";
    let stub = Stub::start();
    let alpha = stub.add(1, EVIL, "online");
    for member in ["role", "runtime", "url", "status", "last_sample_error", "current_task"] {
        stub.set(&alpha, member, EVIL);
    }
    let event =
        json!({"id": id(2), "event_type": EVIL, "workspace_id": alpha, "payload": {"x": EVIL}, "created_at": EVIL});
    {
        let mut world = stub.world();
        world.logs = EVIL.to_owned();
        world.a2a = (200, json!({"result": {"parts": [{"kind": "text", "text": EVIL}]}}));
        world.events = vec![event];
        world.deleted[0] = (500, json!({"error": EVIL, "stop_failures": 1}));
        world.restarted = json!({"status": EVIL, "message": EVIL});
        world.created = json!({"id": EVIL, "status": EVIL, "external": true, "connection": {
            "auth_token": EVIL, "platform_url": EVIL, "curl_register_template": EVIL,
        }});
    }
    let binary = Binary::talking_to(&stub.url);
    for args in [
        &["list"][..],
        &["show", &alpha],
        &["ask", &alpha, "x"],
        &["logs", &alpha],
        &["events"],
        &["delete", &alpha],
        &["restart", &alpha],
        &["create", "x", "--external"],
    ] {
        for extra in [None, Some("--json")] {
            let outcome = binary.run(&args.iter().copied().chain(extra).collect::<Vec<_>>());
            let said = outcome.stdout + &outcome.stderr;
            assert!(said.contains("owned"), "{args:?}: {said:?}");
            let harmful = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!said.contains(harmful), "{args:?}: {said:?}");
        }
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let stub = Stub::start();
    for _ in 0..5_000 {
        stub.add(1, "alpha", "online");
    }
    let mut child = Binary::talking_to(&stub.url).spawn(&["list"]);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();
    assert!(first.starts_with("NAME"), "{first}");
    drop(stdout);
    assert_eq!(wait(&mut child), Some(0));
    let mut stderr = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut stderr).unwrap();
    assert_eq!(stderr, "");
}
