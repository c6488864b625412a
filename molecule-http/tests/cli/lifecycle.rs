//! Commands that wait for a workspace.

use serde_json::{Value, json};

use crate::{
    binary::Binary,
    stub::{Raw, Stub, id},
};

/// A server on which a create makes `alpha`, which then takes these statuses.
fn making_alpha(statuses: &[&'static str]) -> (Stub, Binary) {
    let stub = Stub::start();
    stub.add(1, "alpha", "provisioning");
    stub.world().statuses.insert(id(1), statuses.iter().copied().collect());
    let created =
        json!({"id": id(1), "status": "provisioning", "awareness_namespace": "w", "workspace_access": "none"});
    stub.world().created = created;
    stub.world().restarted = json!({"status": "provisioning", "config_dir": "existing-volume", "reset_session": false});
    let binary = Binary::talking_to(&stub.url);
    (stub, binary)
}

/// Takes out how long it took.
fn without_time(text: &str) -> String {
    let mut words = text.split(' ').collect::<Vec<_>>();
    if let Some(at) = words.iter().position(|word| *word == "after") {
        let rest = words[at + 1].trim_start_matches(|c: char| c.is_ascii_digit());
        let rest = format!("N{rest}");
        words[at + 1] = &rest;
        return words.join(" ");
    }
    text.to_owned()
}

#[test]
fn create_waits_until_the_workspace_is_online() {
    let (stub, binary) = making_alpha(&["provisioning", "provisioning", "online"]);
    let outcome = binary.run(&["create", "alpha"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    insta::assert_snapshot!(without_time(&outcome.stdout), @r#"
    alpha is online after Ns
    id:   00000000-0000-4000-8000-000000000001
    next: molecule ask alpha "hello"
    "#);
    assert_eq!(outcome.stderr, "alpha is provisioning\n");
    assert_eq!(stub.seen()[0].body, json!({"name": "alpha"}));
}

#[test]
fn create_takes_secrets_from_variables_and_names_the_missing_one() {
    let (stub, binary) = making_alpha(&["provisioning", "online"]);
    let binary = binary.env("API_KEY", "hunter2");
    let outcome = binary.run(&["create", "alpha", "--template", "hermes", "--model", "grok/x", "--secret", "API_KEY"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let expected = json!({"name": "alpha", "template": "hermes", "model": "grok/x", "secrets": {"API_KEY": "hunter2"}});
    assert_eq!(stub.seen()[0].body, expected);
    assert!(!(outcome.stdout + &outcome.stderr).contains("hunter2"));
    let expected = "error: --secret OTHER: no variable of that name is set";
    assert_eq!(binary.fails(&["create", "alpha", "--secret", "OTHER"]), (2, expected.to_owned()));
}

#[test]
fn create_in_json_prints_the_workspace_and_nothing_else() {
    let (_stub, binary) = making_alpha(&["provisioning", "online"]);
    let outcome = binary.run(&["create", "alpha", "--json"]);
    let printed: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&printed["id"], &printed["status"]), (&json!(id(1)), &json!("online")));
    assert_eq!(outcome.stderr, "");
}

#[test]
fn create_fails_with_the_reason_when_the_workspace_does() {
    let (stub, binary) = making_alpha(&["provisioning", "failed"]);
    stub.set(&id(1), "last_sample_error", "no backend:\nstart docker");
    let expected = "error: alpha failed to start: no backend: start docker; see: molecule logs alpha";
    assert_eq!(binary.fails(&["create", "alpha"]), (1, expected.to_owned()));

    let outcome = binary.run(&["create", "alpha", "--json"]);
    let printed: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((outcome.code, &printed["status"]), (Some(1), &json!("failed")));

    stub.set(&id(1), "status", "paused");
    let expected = "error: alpha is paused, not online; see: molecule show alpha";
    assert_eq!(binary.fails(&["create", "alpha"]), (1, expected.to_owned()));
}

#[test]
fn create_gives_up_when_the_time_of_the_workspace_is_over() {
    let (stub, binary) = making_alpha(&[]);
    stub.set(&id(1), "provision_timeout_ms", 1);
    let expected = "error: alpha is still provisioning after 0s; see: molecule show alpha";
    assert_eq!(binary.fails(&["create", "alpha"]), (1, expected.to_owned()));
}

#[test]
fn a_server_that_is_away_for_a_moment_does_not_end_the_wait() {
    let (stub, binary) = making_alpha(&["provisioning", "online"]);
    let created = Raw::new(201, "application/json", stub.world().created.to_string());
    let away = Raw::new(503, "application/json", r#"{"error":"platform datastore unavailable"}"#);
    stub.world().first.extend([created, away.clone(), away]);
    let outcome = binary.run(&["create", "alpha"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("trying again: platform datastore unavailable"), "{outcome:?}");
}

#[test]
fn create_sends_what_was_asked_for() {
    let (stub, binary) = making_alpha(&[]);
    let lead = stub.add(2, "lead", "online");
    let args = "create alpha --role writer --tier 2 --runtime hermes --model m1 --parent lead --dir /srv/w \
                --access read_only --no-wait";
    let printed = binary.ok(&args.split_whitespace().collect::<Vec<_>>());
    let next = format!("created alpha, which is provisioning\nid:   {0}\nnext: molecule show {0}\n", id(1));
    assert_eq!(printed, next);
    let expected = json!({
        "name": "alpha", "role": "writer", "tier": 2, "runtime": "hermes", "model": "m1", "parent_id": lead,
        "workspace_dir": "/srv/w", "workspace_access": "read_only",
    });
    assert_eq!(stub.last().body, expected);
    let outcome: Value = serde_json::from_str(&binary.ok(&["create", "alpha", "--no-wait", "--json"])).unwrap();
    assert_eq!(outcome, stub.world().created);
}

#[test]
fn bad_input_is_refused_with_exit_code_2() {
    let (stub, binary) = making_alpha(&[]);
    for args in [
        &["create"][..],
        &["create", "a", "--tier", "5"],
        &["create", "a", "--url", "http://x"],
        &["create", "a", "--access", "some"],
        &["create", "a", "--dir", "here"],
        &["logs", "a", "--lines", "0"],
        &["nonsense"],
    ] {
        let outcome = binary.run(args);
        assert_eq!(outcome.code, Some(2), "{args:?} {outcome:?}");
        assert!(outcome.stderr.starts_with("error: "), "{outcome:?}");
    }
    assert_eq!(stub.seen().len(), 0, "none of it reaches the server");
    let refused = json!({"error": "invalid workspace fields", "detail": "name contains invalid characters"});
    stub.world().always = Some(Raw::new(400, "application/json", refused.to_string()));
    let expected = "error: invalid workspace fields: name contains invalid characters";
    assert_eq!(binary.fails(&["create", "a{b"]), (2, expected.to_owned()));
}

#[test]
fn an_external_workspace_comes_with_what_its_agent_needs() {
    let (stub, binary) = making_alpha(&[]);
    let created = json!({"id": id(1), "external": true, "status": "awaiting_agent", "connection": {
        "workspace_id": id(1), "platform_url": "http://p", "auth_token": "tok-1",
        "registry_endpoint": "http://p/registry/register", "heartbeat_endpoint": "http://p/registry/heartbeat",
        "curl_register_template": "curl -X POST \\\n  http://p/registry/register", "python_snippet": "import x",
    }});
    stub.world().created = created.clone();
    insta::assert_snapshot!(binary.ok(&["create", "alpha", "--external"]), @r"
    created alpha, which is awaiting_agent
    id:   00000000-0000-4000-8000-000000000001

    Connect its agent with:
    workspace_id        00000000-0000-4000-8000-000000000001
    platform_url        http://p
    registry_endpoint   http://p/registry/register
    heartbeat_endpoint  http://p/registry/heartbeat
    auth_token          tok-1

    The token is shown this once: keep it now.

    For example:

    curl -X POST \
      http://p/registry/register
    ");
    assert_eq!(stub.last().body, json!({"name": "alpha", "external": true}));
    let printed: Value = serde_json::from_str(&binary.ok(&["create", "alpha", "--external", "--json"])).unwrap();
    assert_eq!(printed, created);

    stub.world().created = json!({"id": id(1), "external": true, "status": "online"});
    let printed = binary.ok(&["create", "alpha", "--external", "--url", "http://agent"]);
    assert_eq!(printed, format!("created alpha, which is online\nid:   {0}\nnext: molecule show {0}\n", id(1)));
    assert_eq!(stub.last().body["url"], "http://agent");
}

#[test]
fn restart_waits_as_create_does() {
    let (stub, binary) = making_alpha(&["provisioning", "online"]);
    let printed = binary.ok(&["restart", "alpha"]);
    assert!(printed.starts_with("alpha is online after ") && printed.contains("molecule ask alpha"), "{printed}");
    let posts: Vec<_> = stub.seen().into_iter().map(|seen| seen.line).filter(|line| line.starts_with("POST")).collect();
    assert_eq!(posts, [format!("POST /workspaces/{}/restart", id(1))]);
    let printed = binary.ok(&["restart", "alpha", "--no-wait"]);
    assert_eq!(printed, format!("alpha restarts; see: molecule show {}\n", id(1)));

    stub.world().restarted = json!({"status": "noop", "runtime": "external", "message": "restart its agent yourself"});
    assert_eq!(binary.ok(&["restart", "alpha"]), "alpha: restart its agent yourself\n");
}

#[test]
fn pause_resume_and_hibernate_say_what_they_did() {
    let (stub, binary) = making_alpha(&["provisioning", "online"]);
    stub.world().halted = json!({"status": "paused", "paused_count": 3});
    assert_eq!(binary.ok(&["pause", "alpha"]), "paused alpha and 2 workspaces below it\n");
    assert_eq!(stub.last().line, format!("POST /workspaces/{}/pause", id(1)));

    stub.world().halted = json!({"status": "hibernated"});
    assert_eq!(binary.ok(&["hibernate", "alpha"]), "alpha hibernates; a message wakes it\n");
    assert_eq!(stub.last().line, format!("POST /workspaces/{}/hibernate", id(1)));
    assert_eq!(binary.ok(&["hibernate", "alpha", "--force", "--json"]), "{\n  \"status\": \"hibernated\"\n}\n");
    assert_eq!(stub.last().line, format!("POST /workspaces/{}/hibernate?force=true", id(1)));

    stub.world().halted = json!({"status": "awaiting_agent", "resumed_count": 1});
    assert_eq!(binary.ok(&["resume", "alpha"]), format!("resumed alpha; see: molecule show {}\n", id(1)));
    stub.world().halted = json!({"status": "provisioning", "resumed_count": 2});
    let printed = binary.ok(&["resume", "alpha", "--no-wait"]);
    assert_eq!(printed, format!("resumed alpha and 1 workspace below it; see: molecule show {}\n", id(1)));
    assert!(binary.ok(&["resume", "alpha"]).starts_with("alpha is online after "));
}
