//! What the commands print, for people and for scripts, and what they ask of the server.

use serde_json::{Value, json};

use crate::{
    binary::Binary,
    stub::{Stub, id},
};

fn fleet() -> (Stub, Binary) {
    let stub = Stub::start();
    let alpha = stub.add(1, "alpha", "online");
    stub.set(&alpha, "uptime_seconds", 3_700);
    stub.set(&alpha, "active_tasks", 2);
    let beta = stub.add(2, "beta", "failed");
    stub.set(&beta, "last_sample_error", "workspace start failed");
    stub.set(&beta, "parent_id", alpha);
    let binary = Binary::talking_to(&stub.url);
    (stub, binary)
}

fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

#[test]
fn list_prints_a_table_or_what_the_server_said() {
    let (stub, binary) = fleet();
    insta::assert_snapshot!(binary.ok(&["list"]), @r"
    NAME   STATUS  RUNTIME      TIER  TASKS  UP      ID
    alpha  online  claude-code     3      2  1h 01m  00000000-0000-4000-8000-000000000001
    beta   failed  claude-code     3      0       -  00000000-0000-4000-8000-000000000002
    ");
    assert_eq!(parsed(&binary.ok(&["list", "--json"])), Value::Array(stub.world().workspaces.clone()));
    assert_eq!(stub.last().line, "GET /workspaces");

    stub.set(&id(1), "last_heartbeat_at", "2999-01-01T00:00:00Z");
    let table = binary.ok(&["list"]);
    assert!(table.contains("  HEARD  "), "{table}");
    assert!(table.contains("  0s ago  "), "a clock that is ahead does no harm: {table}");

    stub.world().workspaces.clear();
    assert_eq!(binary.ok(&["list"]), "no workspaces yet; create one with: molecule create NAME\n");
    assert_eq!(binary.ok(&["--json", "list"]), "[]\n");
}

#[test]
fn show_tells_why_a_workspace_failed() {
    let (_stub, binary) = fleet();
    insta::assert_snapshot!(binary.ok(&["show", "beta"]), @r"
    name     beta
    id       00000000-0000-4000-8000-000000000002
    status   failed
    reason   workspace start failed
    runtime  claude-code
    tier     3
    tasks    0 of at most 1
    up       -
    parent   00000000-0000-4000-8000-000000000001
    ");
    let shown = parsed(&binary.ok(&["show", "beta", "--json"]));
    assert_eq!((&shown["id"], &shown["status"]), (&json!(id(2)), &json!("failed")));
}

#[test]
fn a_name_or_an_id_names_a_workspace() {
    let (stub, binary) = fleet();
    binary.ok(&["show", &id(2), "--json"]);
    let lines: Vec<_> = stub.seen().into_iter().map(|seen| seen.line).collect();
    assert_eq!(lines, [format!("GET /workspaces/{}", id(2))], "an id needs no look-up");

    let (code, error) = binary.fails(&["show", "gamma"]);
    assert_eq!((code, error.as_str()), (1, "error: no workspace is named \"gamma\"; see: molecule list"));
    let (code, error) = binary.fails(&["show", &id(9)]);
    assert_eq!((code, error.as_str()), (1, "error: workspace not found; see: molecule list"));

    stub.add(3, "alpha", "online");
    let (code, error) = binary.fails(&["ask", "alpha", "hello"]);
    let ids = format!("{}, {}", id(1), id(3));
    let expected = format!("error: 2 workspaces are named \"alpha\"; use the id of one of them: {ids}");
    assert_eq!((code, error), (2, expected));
}

#[test]
fn ask_prints_the_text_of_the_reply() {
    let (stub, binary) = fleet();
    let answer =
        json!({"jsonrpc": "2.0", "id": "1", "result": {"parts": [{"kind": "text", "text": "you said: hello"}]}});
    stub.world().a2a = (200, answer.clone());
    assert_eq!(binary.ok(&["ask", "alpha", "hello"]), "you said: hello\n");
    let seen = stub.last();
    assert_eq!(seen.line, format!("POST /workspaces/{}/a2a", id(1)));
    assert_eq!(seen.body["method"], "message/send");
    let message = &seen.body["params"]["message"];
    assert_eq!(message["role"], "user");
    assert_eq!(message["parts"], json!([{"kind": "text", "text": "hello"}]));
    assert_eq!(message["messageId"].as_str().unwrap().len(), 36);
    assert_eq!(parsed(&binary.ok(&["ask", "alpha", "hello", "--json"])), answer);

    stub.world().a2a = (200, json!({"result": {"status": {"message": {"parts": [{"text": "from a task"}]}}}}));
    assert_eq!(binary.ok(&["ask", "alpha", "hello"]), "from a task\n");
    stub.world().a2a = (200, json!({"result": {"artifacts": [{"parts": [{"kind": "text", "text": "made"}]}]}}));
    assert_eq!(binary.ok(&["ask", "alpha", "hello"]), "made\n");
    stub.world().a2a = (200, json!({"result": {"odd": 1}}));
    assert_eq!(parsed(&binary.ok(&["ask", "alpha", "hello"])), json!({"result": {"odd": 1}}));
}

#[test]
fn ask_takes_the_message_from_standard_input() {
    let (stub, binary) = fleet();
    stub.world().a2a = (200, json!({"result": {"parts": [{"text": "ok"}]}}));
    let binary = binary.stdin("two\nlines\n");
    binary.ok(&["ask", "alpha", "-"]);
    assert_eq!(stub.last().body["params"]["message"]["parts"][0]["text"], "two\nlines\n");
    assert_eq!(binary.fails(&["ask", "alpha", " "]), (2, "error: the message is empty".to_owned()));
    let binary = binary.stdin(&"x".repeat(1024 * 1024 + 1));
    assert_eq!(binary.fails(&["ask", "alpha", "-"]).0, 2);
}

#[test]
fn ask_says_when_the_message_waits() {
    let (stub, binary) = fleet();
    stub.world().a2a = (202, json!({"queued": true, "queue_id": "q", "queue_depth": 3, "message": "busy"}));
    let said = binary.ok(&["ask", "alpha", "hello"]);
    assert_eq!(said, "queued: alpha is busy and gets the message when it can take it (3 waiting)\n");
    stub.world().a2a = (200, json!({"status": "queued", "delivery_mode": "poll", "method": "message/send"}));
    let said = binary.ok(&["ask", "alpha", "hello"]);
    assert_eq!(said, "queued: alpha fetches its messages itself and answers in its own time\n");
}

#[test]
fn ask_fails_when_the_agent_or_the_server_does() {
    let (stub, binary) = fleet();
    stub.world().a2a = (200, json!({"jsonrpc": "2.0", "id": "1", "error": {"code": -32603, "message": "no\nmodel"}}));
    let expected = "error: alpha answered with an error: no model (-32603)";
    assert_eq!(binary.fails(&["ask", "alpha", "hello"]), (1, expected.to_owned()));
    let outcome = binary.run(&["ask", "alpha", "hello", "--json"]);
    assert_eq!((outcome.code, &parsed(&outcome.stdout)["error"]["code"]), (Some(1), &json!(-32603)));

    stub.world().a2a = (503, json!({"error": "workspace has no URL", "status": "failed"}));
    assert_eq!(binary.fails(&["ask", "alpha", "hello"]), (1, "error: workspace has no URL".to_owned()));
}

#[test]
fn logs_prints_lines_as_they_are() {
    let (stub, binary) = fleet();
    stub.world().logs = "one\ntwo".to_owned();
    assert_eq!(binary.ok(&["logs", "alpha"]), "one\ntwo\n");
    assert_eq!(stub.last().line, format!("GET /workspaces/{}/logs?lines=100", id(1)));
    binary.ok(&["logs", "alpha", "--lines", "7"]);
    assert_eq!(stub.last().line, format!("GET /workspaces/{}/logs?lines=7", id(1)));
    let printed = parsed(&binary.ok(&["logs", "alpha", "--json"]));
    assert_eq!(printed, json!({"workspace_id": id(1), "logs": "one\ntwo"}));
    stub.world().logs.clear();
    assert_eq!(binary.ok(&["logs", "alpha"]), "");
}

#[test]
fn delete_asks_before_it_takes_children_along() {
    let (stub, binary) = fleet();
    let children = json!([{"id": id(2), "name": "beta"}]);
    stub.world().deleted = [
        (409, json!({"status": "confirmation_required", "message": "m", "children": children, "children_count": 1})),
        (200, json!({"status": "removed", "cascade_deleted": 1})),
    ];
    let expected = "error: alpha leads other workspaces (beta); to remove them as well, add --yes";
    assert_eq!(binary.fails(&["delete", "alpha"]), (1, expected.to_owned()));
    assert_eq!(stub.last().line, format!("DELETE /workspaces/{}", id(1)));
    assert_eq!(binary.ok(&["delete", "alpha", "--yes"]), "removed alpha and 1 workspace below it\n");
    assert_eq!(stub.last().line, format!("DELETE /workspaces/{}?confirm=true", id(1)));
    let printed = parsed(&binary.ok(&["delete", "alpha", "--confirm", "--json"]));
    assert_eq!(printed, json!({"status": "removed", "cascade_deleted": 1}));

    stub.world().deleted[0] = (200, json!({"status": "removed", "cascade_deleted": 0}));
    assert_eq!(binary.ok(&["delete", "beta"]), "removed beta\n");
    let failed = json!({"error": "1 workload could not be stopped: timeout", "removed_count": 1, "stop_failures": 1});
    stub.world().deleted[0] = (500, failed);
    let (code, error) = binary.fails(&["delete", "beta"]);
    let again = format!("try again with: molecule delete {} --yes", id(2));
    assert_eq!((code, error), (1, format!("error: 1 workload could not be stopped: timeout; {again}")));
}
