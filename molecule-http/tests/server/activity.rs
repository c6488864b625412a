//! What agents did, over the wire.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    refused::assert_tells_nothing,
    server::{Reply, Server, Setup},
    socket::Feed,
    support,
};

#[tokio::test]
async fn activity_is_kept_and_paged_on_sqlite() {
    kept_and_paged(None).await;
}

#[tokio::test]
async fn activity_is_kept_and_paged_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        kept_and_paged(Some(database.url())).await;
    }
}

async fn get(server: &Server, path: &str, bearer: &str) -> Reply {
    server.send(Method::GET, path, Some(bearer), "").await
}

async fn post(server: &Server, path: &str, bearer: &str, body: &Value) -> Reply {
    server.send(Method::POST, path, Some(bearer), body.to_string()).await
}

fn rows(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{reply:?}");
    serde_json::from_str(&reply.text).expect("a list")
}

fn summaries(reply: &Reply) -> Vec<String> {
    rows(reply).iter().map(|row| row["summary"].as_str().expect("a summary").to_owned()).collect()
}

async fn kept_and_paged(database: Option<&str>) {
    let server = Setup::none().database(database).start().await;
    let (id, token) = server.create_external("one", None).await;
    let (peer, peer_token) = server.create_external("two", None).await;
    let path = format!("/workspaces/{id}/activity");
    assert_eq!(get(&server, &path, &token).await.text, "[]");

    let mut feed = Feed::open(&server, None, Some(&server.token())).await;
    for n in 0..5 {
        let report = json!({
            "activity_type": if n % 2 == 0 { "agent_log" } else { "a2a_send" },
            "summary": format!("row {n}"),
            "target_id": if n == 3 { peer.to_uppercase() } else { String::new() },
            "source_id": if n == 1 { id.to_uppercase() } else { String::new() },
            "duration_ms": n,
            "metadata": {"n": n},
            "something_new": true,
        });
        let reply = post(&server, &path, &token, &report).await;
        assert_eq!((reply.status, reply.text.as_str()), (200, r#"{"status":"logged"}"#));
    }
    let told = feed.next_of("ACTIVITY_LOGGED").await;
    let payload = json!({"activity_type": "agent_log", "method": null, "summary": "row 0", "status": "ok", "source_id": id,
        "target_id": null, "duration_ms": 0});
    assert_eq!((told["workspace_id"].as_str(), &told["payload"]), (Some(id.as_str()), &payload));

    let all = rows(&get(&server, &path, &token).await);
    assert_eq!(all.len(), 5);
    let mut newest = all[0].clone();
    for member in ["id", "created_at"] {
        assert!(newest[member].take().is_string());
    }
    let expected = json!({"id": null, "workspace_id": id, "activity_type": "agent_log", "source_id": id,
        "target_id": null, "method": null, "summary": "row 4", "request_body": {"n": 4}, "duration_ms": 4,
        "status": "ok", "error_detail": null, "created_at": null});
    assert_eq!(newest, expected);

    let cursor = |n: usize| all[4 - n]["id"].as_str().expect("an id").to_owned();
    let time = |n: usize| all[4 - n]["created_at"].as_str().expect("a time").to_owned();
    let table = [
        ("type=a2a_send".to_owned(), vec![3, 1]),
        ("type=nothing".to_owned(), vec![]),
        ("source=canvas".to_owned(), vec![]),
        ("source=agent&limit=2".to_owned(), vec![4, 3]),
        (format!("peer_id={peer}"), vec![3]),
        (format!("peer_id={id}&type=a2a_send"), vec![3, 1]),
        (format!("before_ts={}", time(2)), vec![1, 0]),
        (format!("since_id={}", cursor(2)), vec![3, 4]),
        (format!("since_id={}&limit=1", cursor(2)), vec![3]),
        (format!("since_id={}&before_ts={}", cursor(0), time(3)), vec![1, 2]),
        (format!("since_id={}&type=a2a_send&peer_id={peer}", cursor(1)), vec![3]),
        ("since_secs=600&type=agent_log".to_owned(), vec![4, 2, 0]),
        ("type=&source=&peer_id=&since_secs=&since_id=&before_ts=&limit=".to_owned(), vec![4, 3, 2, 1, 0]),
    ];
    for (query, expected) in table {
        let found = summaries(&get(&server, &format!("{path}?{query}"), &token).await);
        assert_eq!(found, expected.iter().map(|n| format!("row {n}")).collect::<Vec<_>>(), "{query}");
    }

    let unknown = "00000000-0000-4000-8000-000000000000";
    let gone = "since_id cursor not found (row may have been pruned or belongs to a different workspace); \
                omit since_id to reset";
    let before = "before_ts must be an RFC3339 timestamp (e.g. 2026-05-01T00:00:00Z)";
    let other_row = format!("/workspaces/{peer}/activity?since_id={}", cursor(0));
    let with = |query: &str| format!("{path}?{query}");
    let refused = [
        (with("peer_id=x&since_id=x&source=x"), token.as_str(), 400, "peer_id must be a UUID"),
        (with("before_ts=yesterday"), &token, 400, before),
        (with("before_ts=2026-05-01%27%20OR%201=1"), &token, 400, before),
        (with("since_secs=0"), &token, 400, "since_secs must be a positive integer"),
        (with("since_id=x"), &token, 400, "since_id must be a UUID"),
        (with(&format!("since_id={unknown}&source=x")), &token, 410, gone),
        (other_row, &peer_token, 410, gone),
        (with("source=user"), &token, 400, "source must be 'canvas' or 'agent'"),
        (path.clone(), &peer_token, 401, "invalid workspace auth token"),
        (format!("/workspaces/{unknown}/activity"), &server.token(), 404, "workspace not found"),
        (format!("/workspaces/{unknown}/session-search"), &server.token(), 404, "workspace not found"),
    ];
    for (path, bearer, status, message) in refused {
        let reply = get(&server, &path, bearer).await;
        assert_eq!((reply.status, reply.error().as_str()), (status, message), "{path}");
        assert_tells_nothing(&server, &reply);
    }
    reports_are_refused(&server, &path, &token, &peer).await;
    speaks_to_the_user(&server, &mut feed, &id, &token).await;
}

async fn reports_are_refused(server: &Server, path: &str, token: &str, peer: &str) {
    let types = "invalid activity_type, must be one of: a2a_send, a2a_receive, task_update, agent_log, \
                 skill_promotion, memory_write, error";
    for (body, status, message) in [
        (json!({"summary": "x"}), 400, "invalid request body"),
        (json!({"activity_type": ""}), 400, "invalid request body"),
        (json!({"activity_type": 5}), 400, "invalid request body"),
        (json!([]), 400, "invalid request body"),
        (json!({"activity_type": "delegation"}), 400, types),
        (json!({"activity_type": "error", "source_id": peer}), 403, "source_id must match authenticated workspace"),
        (json!({"activity_type": "error", "source_id": "a\nb"}), 403, "source_id must match authenticated workspace"),
        (json!({"activity_type": "error", "target_id": "x"}), 400, "target_id must be a UUID"),
    ] {
        let reply = post(server, path, token, &body).await;
        assert_eq!((reply.status, reply.error().as_str()), (status, message), "{body}");
        assert_tells_nothing(server, &reply);
    }
}

async fn speaks_to_the_user(server: &Server, feed: &mut Feed, id: &str, token: &str) {
    let notify = format!("/workspaces/{id}/notify");
    let message = format!("{}!", "ü".repeat(80));
    let file = json!({"uri": "workspace:/a", "name": "a.txt", "mimeType": "text/plain", "size": 3, "odd": 1});
    let reply = post(server, &notify, token, &json!({"message": message, "attachments": [file]})).await;
    assert_eq!((reply.status, reply.text.as_str()), (200, r#"{"status":"sent"}"#));
    let told = feed.next_of("AGENT_MESSAGE").await;
    let file = json!({"uri": "workspace:/a", "name": "a.txt", "mimeType": "text/plain", "size": 3});
    let payload = json!({"message": message, "workspace_id": id, "name": "one", "attachments": [file]});
    assert_eq!(told["payload"], payload);

    let found = rows(&get(server, &format!("/workspaces/{id}/activity?source=canvas"), token).await);
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0]["activity_type"], &found[0]["method"]), (&json!("a2a_receive"), &json!("notify")));
    assert_eq!(found[0]["summary"], format!("Agent message: {}…", "ü".repeat(80)));
    assert_eq!(found[0]["response_body"], json!({"result": message, "parts": [{"kind": "file", "file": file}]}));
    assert!(found[0].get("request_body").is_none());

    for (body, message) in [
        (json!({}), "message is required"),
        (json!({"message": ""}), "message is required"),
        (
            json!({"message": "x", "attachments": [{"uri": "a", "name": "b"}, {"uri": "a"}]}),
            "attachment[1]: uri and name are required",
        ),
    ] {
        let reply = post(server, &notify, token, &body).await;
        assert_eq!((reply.status, reply.error().as_str()), (400, message), "{body}");
    }

    let search = format!("/workspaces/{id}/session-search");
    let found = rows(&get(server, &format!("{search}?q=%20ROW%203%20"), token).await);
    assert_eq!(found.len(), 1);
    let mut found = found[0].clone();
    for member in ["id", "created_at"] {
        assert!(found[member].take().is_string());
    }
    let expected = json!({"kind": "activity", "id": null, "workspace_id": id, "label": "a2a_send", "content": "row 3",
        "method": "", "status": "ok", "created_at": null, "request_body": {"n": 3}});
    assert_eq!(found, expected);
    assert_eq!(rows(&get(server, &search, token).await).len(), 6);
    assert_eq!(rows(&get(server, &format!("{search}?limit=2"), token).await).len(), 2);
    // No character stands for others.
    let odd = json!({"activity_type": "agent_log", "summary": r"100%_\done Größe"});
    assert_eq!(post(server, &format!("/workspaces/{id}/activity"), token, &odd).await.status, 200);
    for (query, found) in
        [("100%25_%5c", 1), ("100%25%5c", 0), ("100__", 0), ("DONE%20Gr%C3%B6%C3%9Fe", 1), ("%25", 1), ("_%5C", 1)]
    {
        assert_eq!(rows(&get(server, &format!("{search}?q={query}"), token).await).len(), found, "{query}");
    }

    assert_eq!(server.delete(&format!("/workspaces/{id}")).await.status, 200);
    let late = server.post(&notify, &json!({"message": "late"})).await;
    assert_eq!((late.status, late.error().as_str()), (404, "workspace not found"));
}
