//! Messages that are kept for agents, and delegations, over the wire.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use molecule_core::http_client::{Timeouts, build};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
    task::JoinSet,
};

use crate::{
    refused::assert_tells_nothing,
    server::{Server, Setup, until},
    support,
};

/// An agent that takes every call and closes the connection without a word; gone with the value.
async fn busy_agent() -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("http://localhost:{}", listener.local_addr().expect("it listens").port());
    let mut server = JoinSet::new();
    server.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Once something has come, the call may have arrived.
            let _ = stream.read(&mut [0; 1024]).await;
        }
    });
    (url, server)
}

/// An agent that counts its calls, and answers each once it is told to; gone with the value.
async fn slow_agent() -> (String, Arc<AtomicUsize>, Arc<Notify>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("http://localhost:{}", listener.local_addr().expect("it listens").port());
    let (calls, go_on) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (seen, told) = (Arc::clone(&calls), Arc::clone(&go_on));
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut answers = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let (seen, told) = (Arc::clone(&seen), Arc::clone(&told));
            answers.spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                seen.fetch_add(1, Ordering::SeqCst);
                told.notified().await;
                let body = r#"{"jsonrpc":"2.0","id":1,"result":{"parts":[{"kind":"text","text":"done"}]}}"#;
                let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all((head + body).as_bytes()).await;
            });
        }
    });
    (url, calls, go_on, server)
}

#[tokio::test]
async fn callers_leave_or_wait_as_long_as_they_say_and_the_agent_goes_on() {
    let server = Setup::none().start().await;
    let (url, calls, go_on, _agent) = slow_agent().await;
    let (target, _) = called_at(&server, "target", &url).await;
    let client = build(Timeouts { connect: crate::process::PATIENCE, total: None }).expect("a client can be made");
    let call = |id: &str, wait: Option<&str>| {
        let message = json!({"role": "user", "messageId": id, "content": "hi"});
        let request = client
            .post(format!("{}/workspaces/{target}/a2a", server.url()))
            .bearer_auth(server.token())
            .body(json!({"method": "message/send", "params": {"message": message}}).to_string());
        match wait {
            Some(wait) => request.header("x-timeout", wait),
            None => request,
        }
    };
    let mut kept = Vec::new();
    for _ in 0..2 {
        let answer = call("one", Some("1")).send().await.expect("it answers");
        assert_eq!(answer.status(), 202);
        let text = answer.text().await.expect("it has a body");
        kept.push(serde_json::from_str::<Value>(&text).expect("it is JSON")["queue_id"].clone());
    }
    assert_eq!(kept[0], kept[1], "it is the one that the agent works on");
    let path = format!("/workspaces/{target}/a2a/queue/{}", kept[0].as_str().expect("it has an id"));
    assert_eq!(server.get(&path).await.json()["status"], "dispatched");
    go_on.notify_one();
    let done = until("it is answered", async || {
        let item = server.get(&path).await.json();
        (item["status"] == "completed").then_some(item)
    })
    .await;
    assert_eq!(done["response_body"]["result"]["parts"][0]["text"], "done");
    assert_eq!(calls.load(Ordering::SeqCst), 1, "it was asked once");

    // No ceiling, and a caller that hangs up.
    tokio::select! {
        _ = call("two", Some("0")).send() => panic!("nobody answered"),
        () = until("the agent is asked", async || (calls.load(Ordering::SeqCst) == 2).then_some(())) => {}
    }
    go_on.notify_one();
    until("the answer is in the log", async || {
        let log = server.get(&format!("/workspaces/{target}/activity")).await;
        let rows: Vec<Value> = serde_json::from_str(&log.text).expect("a list");
        let is_it = |row: &&Value| row["request_body"]["params"]["message"]["messageId"] == "two";
        let row = rows.iter().find(is_it)?;
        (row["response_body"]["result"]["parts"][0]["text"] == "done").then_some(())
    })
    .await;
}

async fn called_at(server: &Server, name: &str, url: &str) -> (String, String) {
    let created = server.post("/workspaces", &json!({"name": name, "external": true, "url": url})).await;
    assert_eq!(created.status, 201, "{created:?}");
    let created = created.json();
    let text = |value: &Value| value.as_str().expect("it is text").to_owned();
    (text(&created["id"]), text(&created["connection"]["auth_token"]))
}

#[tokio::test]
async fn messages_wait_for_busy_agents_on_sqlite() {
    wait(None).await;
}

#[tokio::test]
async fn messages_wait_for_busy_agents_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        wait(Some(database.url())).await;
    }
}

async fn wait(database: Option<&str>) {
    let server = Setup::none().database(database).start().await;
    let (url, _agent) = busy_agent().await;
    let (target, target_token) = called_at(&server, "target", &url).await;
    let (caller, caller_token) = server.create_external("caller", None).await;
    let (_, other_token) = server.create_external("other", None).await;
    let message = json!({"role": "user", "messageId": "m1", "content": "hi"});
    let request = json!({"method": "message/send", "params": {"message": message}}).to_string();
    let send = async || {
        server.send(Method::POST, &format!("/workspaces/{target}/a2a"), Some(&caller_token), request.clone()).await
    };
    let kept = send().await;
    assert_eq!(kept.status, 202, "{kept:?}");
    let id = kept.json()["queue_id"].as_str().expect("it has an id").to_owned();
    let expected = json!({"queued": true, "queue_id": id, "queue_depth": 1,
        "message": "workspace agent busy — request queued, will dispatch when capacity available"});
    assert_eq!(kept.json(), expected);
    assert_eq!(send().await.json(), expected, "the same message is the one that waits");

    let path = format!("/workspaces/{target}/a2a/queue/{id}");
    for bearer in [&caller_token, &target_token, &server.token()] {
        let shown = server.send(Method::GET, &path, Some(bearer), "").await;
        assert_eq!(shown.status, 200, "{shown:?}");
        let mut shown = shown.json();
        assert!(shown["enqueued_at"].take().is_string());
        let expected = json!({"queue_id": id, "workspace_id": target, "status": "queued", "priority": 50, "attempts": 0,
            "enqueued_at": null});
        assert_eq!(shown, expected);
    }
    let own = server.send(Method::GET, &format!("/workspaces/{caller}/a2a/queue/{id}"), Some(&caller_token), "").await;
    assert_eq!(own.status, 200, "{own:?}");
    let unknown = format!("/workspaces/{target}/a2a/queue/00000000-0000-4000-8000-000000000000");
    let odd = format!("/workspaces/{target}/a2a/queue/7");
    let token = server.token();
    for (path, bearer) in [
        (&path, None),
        (&path, Some("nonsense")),
        (&path, Some(other_token.as_str())),
        (&unknown, Some(token.as_str())),
        (&odd, Some(token.as_str())),
    ] {
        let hidden = server.send(Method::GET, path, bearer, "").await;
        assert_eq!((hidden.status, hidden.error().as_str()), (404, "queue item not found"), "{path} {bearer:?}");
        assert_tells_nothing(&server, &hidden);
    }

    let mut brief = message.clone();
    brief["messageId"] = "m2".into();
    let request = json!({"method": "message/send", "params": {"message": brief, "expires_in_seconds": 3600}});
    let kept = server.post(&format!("/workspaces/{target}/a2a"), &request).await.json();
    assert_eq!(kept["queue_depth"], 2);
    let brief = kept["queue_id"].as_str().expect("it has an id");
    let shown = server.get(&format!("/workspaces/{target}/a2a/queue/{brief}")).await.json();
    let at = |name: &str| shown[name].as_str().and_then(|text| text.parse::<chrono::DateTime<chrono::Utc>>().ok());
    let lasts = at("expires_at").zip(at("enqueued_at")).map(|(end, start)| (end - start).num_seconds());
    assert_eq!(lasts, Some(3600), "{shown}");

    let stale = "/admin/a2a-queue/drop-stale";
    for (query, status) in [("max_age_minutes=0", 400), ("max_age_minutes=x", 400), ("workspace_id=x", 400)] {
        assert_eq!(server.post(&format!("{stale}?{query}"), &json!({})).await.status, status, "{query}");
    }
    assert_eq!(server.send(Method::POST, stale, Some(&caller_token), "").await.status, 401);
    assert_eq!(server.post(stale, &json!({})).await.json(), json!({"dropped": 0}));

    let usage = server.send(Method::GET, &format!("/workspaces/{target}/metrics"), Some(&target_token), "").await;
    let mut usage = usage.json();
    assert!(usage["period_start"].take().is_string() && usage["period_end"].take().is_string());
    let expected = json!({"input_tokens": 0, "output_tokens": 0, "total_calls": 0, "estimated_cost_usd": "0.000000",
        "period_start": null, "period_end": null});
    assert_eq!(usage, expected);

    // A removed workspace is sent nothing any more.
    assert_eq!(server.delete(&format!("/workspaces/{target}")).await.status, 200);
    let late = send().await;
    assert_eq!(
        (late.status, late.error().as_str()),
        (403, "access denied: workspaces cannot communicate per hierarchy rules")
    );
    until("its messages are dropped", async || {
        let shown = server.get(&path).await.json();
        (shown["status"] == "dropped").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_silent_agent_is_given_up_after_the_time_that_was_set() {
    let server = Setup::none().env("A2A_IDLE_TIMEOUT_SECONDS", "1").start().await;
    let (url, calls, _never, _agent) = slow_agent().await;
    let (target, _) = called_at(&server, "target", &url).await;
    let began = std::time::Instant::now();
    let message = json!({"role": "user", "messageId": "m", "content": "hi"});
    let kept = server
        .post(&format!("/workspaces/{target}/a2a"), &json!({"method": "message/send", "params": {"message": message}}))
        .await;
    assert_eq!((kept.status, calls.load(Ordering::SeqCst)), (202, 1), "{kept:?}");
    assert!(began.elapsed() >= std::time::Duration::from_secs(1));
}

#[tokio::test]
async fn the_newest_delegations_are_listed_with_the_beginning_of_what_came_of_them() {
    let server = Setup::none().start().await;
    let (lead, _) = server.create_external("lead", None).await;
    let (member, _) = server.create_external("member", None).await;
    let record = format!("/workspaces/{lead}/delegations/record");
    for n in 0..52 {
        let body = json!({"target_id": member, "task": "x", "delegation_id": format!("d{n}")});
        assert_eq!(server.post(&record, &body).await.status, 202);
    }
    let update = format!("/workspaces/{lead}/delegations/d51/update");
    let done = json!({"status": "completed", "response_preview": "ü".repeat(400)});
    assert_eq!(server.post(&update, &done).await.status, 200);
    let rows = server.get(&format!("/workspaces/{lead}/delegations")).await.json();
    let rows = rows.as_array().expect("a list");
    assert_eq!(rows.len(), 50);
    assert_eq!((&rows[0]["delegation_id"], &rows[1]["delegation_id"]), (&json!("d51"), &json!("d51")));
    assert_eq!(rows[0]["response_preview"].as_str().map(|text| text.chars().count()), Some(300));
    assert_eq!(rows[49]["delegation_id"], "d3");
}

#[tokio::test]
async fn a_team_delegates_over_the_wire() {
    let server = Setup::process().start().await;
    let lead = server.create("lead").await;
    let created = server.post("/workspaces", &json!({"name": "member", "parent_id": lead})).await;
    let member = created.json()["id"].as_str().expect("it has an id").to_owned();
    let stranger = server.post("/workspaces", &json!({"name": "stranger", "parent_id": member})).await;
    let stranger = stranger.json()["id"].as_str().expect("it has an id").to_owned();
    server.until_status(&lead, "online").await;
    server.until_status(&member, "online").await;

    let path = format!("/workspaces/{lead}/delegate");
    let task = json!({"target_id": member, "task": "count to three", "idempotency_key": "k1"});
    let begun = server.post(&path, &task).await;
    assert_eq!(begun.status, 202, "{begun:?}");
    let id = begun.json()["delegation_id"].as_str().expect("it has an id").to_owned();
    assert_eq!(begun.json(), json!({"delegation_id": id, "status": "delegated", "target_id": member}));
    let rows = until("the agent replied", async || {
        let rows = server.get(&format!("/workspaces/{lead}/delegations")).await;
        let rows: Vec<Value> = serde_json::from_str(&rows.text).expect("a list");
        (rows[0]["status"] == "completed").then_some(rows)
    })
    .await;
    assert_eq!(rows.len(), 2);
    assert_eq!((&rows[0]["delegation_id"], &rows[0]["type"]), (&json!(id), &json!("delegation")));
    assert!(rows[0]["response_preview"].as_str().is_some_and(|text| text.contains("count to three")), "{rows:?}");
    let again = server.post(&path, &task).await;
    let expected = json!({"delegation_id": id, "status": "completed", "target_id": member, "idempotent_hit": true});
    assert_eq!((again.status, again.json()), (200, expected));

    let update = format!("/workspaces/{lead}/delegations/{id}/update");
    let unknown = format!("/workspaces/{lead}/delegations/nothing/update");
    let record = format!("/workspaces/{lead}/delegations/record");
    let denied = "access denied: workspaces cannot communicate per hierarchy rules";
    let sibling = format!("/workspaces/{stranger}/delegate");
    let (root, _) = server.create_external("root", None).await;
    for (path, body, status, message) in [
        (&path, json!({"task": "x"}), 400, "invalid delegation request"),
        (&path, json!({"target_id": "x", "task": "x"}), 400, "target_id must be a valid UUID"),
        (&path, json!({"target_id": lead, "task": "x"}), 400, "self-delegation not permitted"),
        (&sibling, json!({"target_id": root, "task": "x"}), 403, denied),
        (&update, json!({"status": "half"}), 400, "status must be 'completed' or 'failed'"),
        (&update, json!([]), 400, "invalid request body"),
        (&unknown, json!({"status": "failed"}), 404, "delegation not found"),
        (&record, json!({"target_id": member, "task": "x"}), 400, "invalid request body"),
        (&record, json!({"target_id": "x", "task": "x", "delegation_id": "d"}), 400, "target_id must be a valid UUID"),
    ] {
        let refused = server.post(path, &body).await;
        assert_eq!((refused.status, refused.error().as_str()), (status, message), "{path} {body}");
        assert_tells_nothing(&server, &refused);
    }
    let recorded = server.post(&record, &json!({"target_id": member, "task": "x", "delegation_id": "d"})).await;
    assert_eq!((recorded.status, recorded.json()), (202, json!({"delegation_id": "d", "status": "recorded"})));
    let done = server.post(&update.replace(&id, "d"), &json!({"status": "failed", "error": "no time"})).await;
    assert_eq!((done.status, done.json()), (200, json!({"delegation_id": "d", "status": "failed"})));
    let kinds: Vec<String> = server.events(&lead).await.into_iter().map(|(kind, _)| kind).collect();
    let told: Vec<&str> = kinds.iter().filter_map(|kind| kind.strip_prefix("DELEGATION_")).collect();
    assert_eq!(told, ["SENT", "STATUS", "COMPLETE", "SENT", "FAILED"]);
}
