//! What monitors and browsers see.

use std::{collections::BTreeSet, fs, path::Path};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    refused::assert_tells_nothing,
    server::{Reply, Setup, until},
    support,
};

const HEADERS: [(&str, &str); 5] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("strict-transport-security", "max-age=31536000; includeSubDomains"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
    ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
];

#[tokio::test]
async fn monitors_are_answered_in_their_own_form() {
    let server = Setup::none().start().await;
    let (id, _) = server.create_external("one", None).await;
    let get = async |path: &str| server.send(Method::GET, path, None, "").await;
    let health = get("/health").await;
    assert_eq!((health.status, health.text.as_str()), (200, r#"{"status":"ok"}"#));
    assert_eq!(health.headers["content-type"], "application/json");
    let build = get("/buildinfo").await;
    let members: Vec<String> = build.json().as_object().expect("an object").keys().cloned().collect();
    assert_eq!((build.status, members), (200, vec!["git_sha".to_owned()]));
    // Built together with this test, so from the same revision.
    let built = option_env!("GIT_SHA").filter(|sha| !sha.is_empty()).unwrap_or("dev");
    assert_eq!(build.json()["git_sha"], built);

    get(&format!("/workspaces/{id}")).await;
    get("/nowhere/at/all").await;
    server.send(Method::from_bytes(b"BREW").unwrap(), "/health", None, "").await;
    let rows = [
        r#"molecule_http_requests_total{method="GET",path="/workspaces/:id",status="200"} 1"#,
        r#"molecule_http_requests_total{method="GET",path="unmatched",status="404"} 1"#,
        r#"molecule_http_requests_total{method="other",path="/health",status="405"} 1"#,
        r#"molecule_http_request_duration_seconds_total{method="GET",path="/workspaces/:id",status="200"}"#,
        "molecule_websocket_connections_active 0",
    ];
    // A request is counted just after its answer was sent.
    until("every request is counted", async || {
        let metrics = get("/metrics").await;
        assert_eq!(metrics.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        assert!(!metrics.text.contains(&id), "an id is a label: {}", metrics.text);
        rows.iter().all(|row| metrics.text.contains(row)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_answer_has_the_same_headers() {
    let server = Setup::none().start().await;
    let (id, _) = server.create_external("one", None).await;
    let too_large = vec![b' '; 1024 * 1024 + 1];
    let (token, workspace) = (server.token(), format!("/workspaces/{id}"));
    let token = Some(token.as_str());
    let answers: [(u16, Reply); 10] = [
        (200, server.get("/workspaces").await),
        (200, server.send(Method::GET, &workspace, None, "").await),
        (201, server.post("/workspaces", &json!({"name": "two", "external": true})).await),
        (400, server.get("/workspaces/nonsense").await),
        (401, server.send(Method::GET, "/workspaces", None, "").await),
        (404, server.get("/workspaces/00000000-0000-4000-8000-000000000000").await),
        (404, server.get("/nowhere").await),
        (405, server.send(Method::PUT, "/health", None, "").await),
        (413, server.send(Method::POST, "/workspaces", token, too_large).await),
        (501, server.get(&format!("{workspace}/logs")).await),
    ];
    for (status, answer) in answers {
        assert_eq!(answer.status, status, "{answer:?}");
        for (name, value) in HEADERS {
            assert_eq!(
                answer.headers.get(name).map(|found| found.to_str().unwrap()),
                Some(value),
                "{name}: {answer:?}"
            );
        }
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        // What is no route may be a page.
        let is_page = policy.starts_with("default-src 'self'; script-src 'self' 'unsafe-inline'; ");
        assert!(policy == "default-src 'self'" || (status == 404 && is_page), "{answer:?}");
        assert_eq!(answer.headers["content-type"], "application/json", "{answer:?}");
        assert_compact(&answer.text);
        if status >= 400 {
            assert_tells_nothing(&server, &answer);
        }
    }
    assert_eq!(server.get("/nowhere").await.text, r#"{"error":"not found"}"#);
}

#[tokio::test]
async fn lists_are_lists_when_they_are_empty() {
    let server = Setup::none().start().await;
    for path in ["/workspaces", "/events"] {
        assert_eq!(server.get(path).await.text, "[]");
    }
}

#[tokio::test]
async fn an_operator_sees_that_every_loop_comes_round_on_sqlite() {
    // There are no other servers to tell.
    comes_round(None, &["broadcaster"]).await;
}

#[tokio::test]
async fn an_operator_sees_that_every_loop_comes_round_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        comes_round(Some(database.url()), &[]).await;
    }
}

async fn comes_round(database: Option<&str>, but: &[&str]) {
    let server = Setup::process().database(database).start().await;
    let mut loops = documented_loops();
    // Nor any images, or machines.
    for name in but.iter().chain(&["image-watcher", "machine-sweeper"]) {
        assert!(loops.remove(*name), "docs/supervision.md does not tell of {name}");
    }
    let (id, token) = server.create_external("one", None).await;
    let answer = server.send(Method::GET, "/admin/liveness", Some(&token), "").await;
    assert_eq!((answer.status, answer.error().as_str()), (401, "invalid admin auth token"), "{id} is no operator");
    assert_eq!(server.send(Method::GET, "/admin/liveness", None, "").await.status, 401);
    until("every loop came round", async || {
        let answer = server.get("/admin/liveness").await;
        assert_eq!(answer.status, 200);
        let subsystems = answer.json()["subsystems"].clone();
        for (name, tick) in subsystems.as_object().expect("an object") {
            assert!(tick["seconds_ago"].as_u64().is_some_and(|ago| ago < 120), "{name}: {tick}");
            let at = tick["last_tick_at"].as_str().expect("a time");
            assert!(chrono::DateTime::parse_from_rfc3339(at).is_ok(), "{name}: {at}");
        }
        let subsystems: BTreeSet<String> = subsystems.as_object()?.keys().cloned().collect();
        (subsystems == loops).then_some(())
    })
    .await;
}

/// Every loop that `docs/supervision.md` tells of.
fn documented_loops() -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/supervision.md");
    let text = fs::read_to_string(page).expect("docs/supervision.md can be read");
    let rows = text.lines().skip_while(|line| !line.starts_with("| loop |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('`').nth(1).expect("a row begins with a loop").to_owned()).collect()
}

/// No blanks but those in texts.
fn assert_compact(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap();
    // The order of members may differ, their number of characters cannot.
    assert_eq!(value.to_string().len(), text.len(), "{text}");
}
