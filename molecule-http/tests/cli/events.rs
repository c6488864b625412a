//! Recorded events and those that are followed.

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    binary::{Binary, DEADLINE, lines, wait},
    stub::{Raw, SocketEnd, Stub, id},
};

fn recorded(number: u8, kind: &str, workspace: &str, payload: Value) -> Value {
    let time = format!("2026-01-02T03:04:{number:02}Z");
    json!({"id": id(number), "event_type": kind, "workspace_id": workspace, "payload": payload, "created_at": time})
}

fn frame(kind: &str, workspace: &str, payload: &Value) -> String {
    json!({"event": kind, "workspace_id": workspace, "timestamp": "2026-01-02T03:04:05Z", "payload": payload})
        .to_string()
}

#[test]
fn events_are_printed_oldest_first_with_names() {
    let stub = Stub::start();
    let alpha = stub.add(1, "alpha", "online");
    stub.world().events = vec![
        recorded(3, "WORKSPACE_REMOVED", &id(2), json!(null)),
        recorded(2, "WORKSPACE_ONLINE", &alpha, json!({})),
        recorded(1, "WORKSPACE_PROVISIONING", &alpha, json!({"name": "alpha", "tier": 3})),
    ];
    let binary = Binary::talking_to(&stub.url);
    insta::assert_snapshot!(binary.ok(&["events"]), @r#"
    2026-01-02T03:04:01Z  WORKSPACE_PROVISIONING      alpha  {"name":"alpha","tier":3}
    2026-01-02T03:04:02Z  WORKSPACE_ONLINE            alpha
    2026-01-02T03:04:03Z  WORKSPACE_REMOVED           00000000-0000-4000-8000-000000000002
    "#);
    let printed: Value = serde_json::from_str(&binary.ok(&["events", "--json"])).unwrap();
    assert_eq!(printed, Value::Array(stub.world().events.clone()), "as the server has it");
    let of_alpha = binary.ok(&["events", "alpha"]);
    assert_eq!(of_alpha.lines().count(), 2, "{of_alpha}");
    stub.world().events.clear();
    assert_eq!(binary.ok(&["events"]), "no events yet\n");
}

#[test]
fn following_survives_the_loss_of_the_server_and_ends_with_ctrl_c() {
    let stub = Stub::start();
    stub.world().token = Some("t".to_owned());
    let (alpha, beta) = (stub.add(1, "alpha", "online"), stub.add(2, "beta", "online"));
    stub.world().sockets.extend([
        (vec![frame("ONE", &alpha, &json!({})), frame("OF_BETA", &beta, &json!({}))], SocketEnd::Close(1013)),
        (vec!["no event".to_owned(), frame("TWO", &alpha, &json!({"a": 1}))], SocketEnd::Drop),
        (vec![frame("THREE", &alpha, &json!({}))], SocketEnd::Stay),
    ]);
    let binary = Binary::talking_to(&stub.url).env("MOLECULE_TOKEN", "t");
    let mut child = binary.spawn(&["events", "alpha", "--follow"]);
    let (stdout, stderr) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
    for expected in [
        "2026-01-02T03:04:05Z  ONE                         alpha",
        "2026-01-02T03:04:05Z  TWO                         alpha  {\"a\":1}",
        "2026-01-02T03:04:05Z  THREE                       alpha",
    ] {
        assert_eq!(stdout.recv_timeout(DEADLINE).unwrap(), expected);
    }
    interrupt(child.id());
    assert_eq!(wait(&mut child), Some(0));
    let said: Vec<String> = stderr.iter().collect();
    assert_eq!(said.len(), 5, "{said:?}");
    assert_eq!(said[1], "fell behind; connecting again, some events are missing here");
    assert!(said[3].starts_with("lost the server ("), "{said:?}");
    assert_eq!(stdout.iter().next(), None);
}

#[test]
fn following_in_json_prints_one_event_a_line() {
    let stub = Stub::start();
    let pretty = "{\n  \"event\": \"ONE\",\n  \"workspace_id\": \"\",\n  \"timestamp\": \"t\", \"payload\": {}\n}";
    stub.world().sockets.push_back((vec![pretty.to_owned()], SocketEnd::Stay));
    let mut child = Binary::talking_to(&stub.url).spawn(&["events", "--follow", "--json"]);
    let stdout = lines(child.stdout.take().unwrap());
    let line = stdout.recv_timeout(DEADLINE).unwrap();
    assert_eq!(line, r#"{"event":"ONE","workspace_id":"","timestamp":"t","payload":{}}"#);
    interrupt(child.id());
    assert_eq!(wait(&mut child), Some(0));
}

#[test]
fn following_fails_where_trying_again_cannot_help() {
    let stub = Stub::start();
    stub.world().token = Some("t".to_owned());
    let (code, error) = Binary::talking_to(&stub.url).fails(&["events", "--follow"]);
    assert_eq!(code, 1);
    assert!(error.starts_with("error: the server asks for a token (admin auth required)"), "{error}");

    let binary = Binary::talking_to(&stub.url).env("MOLECULE_TOKEN", "t");
    stub.world().first.push_back(Raw::new(200, "text/html", "<html>"));
    assert_eq!(binary.fails(&["events", "--follow"]).0, 1);

    // The token stops being good while events are followed.
    stub.world().sockets.push_back((vec![frame("ONE", &id(1), &json!({}))], SocketEnd::Close(1008)));
    let mut child = binary.spawn(&["events", "--follow"]);
    let stdout = lines(child.stdout.take().unwrap());
    stdout.recv_timeout(DEADLINE).unwrap();
    stub.world().token = Some("other".to_owned());
    assert_eq!(wait(&mut child), Some(1));
}

fn interrupt(pid: u32) {
    assert!(Command::new("kill").args(["-INT", &pid.to_string()]).status().unwrap().success());
}
