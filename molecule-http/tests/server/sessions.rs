//! People whom another control plane signed in.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    server::{Reply, Server, Setup, until},
    socket::Feed,
};

/// A control plane that signs people in: `mol=good` is a member, others are told in different ways that they are none.
struct Upstream {
    url: String,
    asked: Arc<AtomicUsize>,
    broken: Arc<AtomicBool>,
    /// Ends with the value.
    _task: JoinSet<()>,
}

#[derive(Clone)]
struct Seen {
    asked: Arc<AtomicUsize>,
    broken: Arc<AtomicBool>,
}

async fn tenant_member(
    State(seen): State<Seen>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Response {
    seen.asked.fetch_add(1, Ordering::SeqCst);
    if seen.broken.load(Ordering::SeqCst) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    assert_eq!(query, [("slug".to_owned(), "acme & co".to_owned())]);
    assert_eq!(headers["user-agent"], "molecule-tenant-platform/session-verifier");
    assert!(headers.get("authorization").is_none());
    // Long enough that those who ask at once meet.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let cookies = headers["cookie"].to_str().expect("it is text");
    match cookies.rsplit("mol=").next().unwrap_or_default() {
        "good" | "also-good" => Json(json!({"member": true, "user_id": "u-1"})).into_response(),
        "nobody" => Json(json!({"member": true, "user_id": ""})).into_response(),
        "stranger" => Json(json!({"member": false, "user_id": "u-2"})).into_response(),
        "moved" => (StatusCode::FOUND, [("location", "/login")]).into_response(),
        "odd" => "member".into_response(),
        _ => StatusCode::UNAUTHORIZED.into_response(),
    }
}

impl Upstream {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}/", listener.local_addr().expect("it listens"));
        let seen = Seen { asked: Arc::default(), broken: Arc::default() };
        let router = Router::new().route("/cp/auth/tenant-member", get(tenant_member)).with_state(seen.clone());
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { url, asked: seen.asked, broken: seen.broken, _task: task }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn show(server: &Server, cookie: &str) -> Reply {
    server.ask(Method::GET, "/workspaces", &[("cookie", cookie)], "").await
}

#[tokio::test]
async fn whoever_is_signed_in_there_is_an_operator_here() {
    let upstream = Upstream::start().await;
    let server = Setup::none()
        .env("CP_UPSTREAM_URL", &upstream.url)
        .env("MOLECULE_ORG_SLUG", "acme & co")
        .env("MOLECULE_SESSION_COOKIE", "mol")
        .start()
        .await;
    let nothing = server.ask(Method::GET, "/workspaces", &[], "").await;
    assert_eq!((nothing.status, nothing.error().as_str()), (401, "admin auth required"), "it is not taken for fresh");

    // Twenty who come at once are one question, and so is whoever comes soon after.
    for reply in join_all((0..20).map(|_| show(&server, "a=b; mol=good"))).await {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    assert_eq!(show(&server, "a=b; mol=good").await.status, 200);
    assert_eq!(upstream.asked(), 1);

    for cookie in ["mol=stranger", "mol=nobody", "mol=moved", "mol=odd", "mol=unknown"] {
        for _ in 0..2 {
            let reply = show(&server, cookie).await;
            assert_eq!((reply.status, reply.error().as_str()), (401, "admin auth required"), "{cookie}");
        }
    }
    assert_eq!(upstream.asked(), 6, "a no is remembered for a moment as well");
    assert_eq!(show(&server, "other=good").await.status, 401);
    assert_eq!(upstream.asked(), 6, "a cookie that can be no session is no question");

    // A bearer is judged by itself.
    let operator = format!("Bearer {}", server.token());
    let with = async |bearer: &str, cookie: &str| {
        server.ask(Method::GET, "/workspaces", &[("authorization", bearer), ("cookie", cookie)], "").await
    };
    assert_eq!(with("Bearer wrong", "mol=good").await.error(), "invalid admin auth token");
    assert_eq!(with(&operator, "mol=forged").await.status, 200);
    assert_eq!(with("Basic eDp5", "mol=good").await.status, 200, "another scheme is no bearer");
    assert_eq!(upstream.asked(), 7, "for cookies that were not shown in this form before");

    let (id, token) = server.create_external("a", None).await;
    let own = server.url();
    let good = ("cookie", "a=b; mol=good");
    let reads = [
        ("/events".to_owned(), 200),
        (format!("/workspaces/{id}/tokens"), 200),
        (format!("/registry/{id}/peers"), 200),
        (format!("/workspaces/{id}/logs"), 501),
    ];
    for (path, status) in reads {
        let reply = server.ask(Method::GET, &path, &[good], "").await;
        assert_eq!(reply.status, status, "{path}: {reply:?}");
    }
    // A session is no agent.
    let beat = format!(r#"{{"workspace_id":"{id}"}}"#);
    let beaten = server.ask(Method::POST, "/registry/heartbeat", &[good, ("origin", &own)], &beat).await;
    assert_eq!(beaten.status, 401, "{beaten:?}");
    assert_eq!(server.beat(&id, &token).await.status, 200);

    // Other pages can have a cookie sent, and so must not be able to change anything with it.
    let foreign =
        [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site"), ("x", "y")];
    for header in foreign {
        let reply = server.ask(Method::POST, "/org/tokens", &[good, header], "").await;
        assert_eq!((reply.status, reply.text.as_str()), (403, ""), "{header:?}");
        let delete = server.ask(Method::DELETE, &format!("/workspaces/{id}"), &[good, header], "").await;
        assert_eq!(delete.status, 403, "{header:?}");
    }
    let minted = server.ask(Method::POST, "/org/tokens", &[good, ("origin", &own)], r#"{"name":"n"}"#).await;
    assert_eq!(minted.status, 200, "{minted:?}");
    assert_eq!(server.get("/org/tokens").await.json()["tokens"][0]["created_by"], "session");
    // What let it in is what is noted, whatever else was there.
    let headers = [("authorization", operator.as_str()), good];
    assert_eq!(server.ask(Method::POST, "/org/tokens", &headers, "").await.status, 200);
    let listed = server.get("/org/tokens").await.json();
    assert!(listed["tokens"].as_array().unwrap().iter().any(|token| token["created_by"] == "admin-token"), "{listed}");
    assert!(!server.log().contains("mol=good"), "a cookie is in the log");
}

#[tokio::test]
async fn a_control_plane_that_is_away_is_no_wrong_session() {
    let upstream = Upstream::start().await;
    let server =
        Setup::none().env("CP_UPSTREAM_URL", &upstream.url).env("MOLECULE_ORG_SLUG", "acme & co").start().await;
    upstream.broken.store(true, Ordering::SeqCst);
    for _ in 0..6 {
        let reply = show(&server, "mol=also-good").await;
        assert_eq!((reply.status, reply.json()["code"].clone()), (503, "session_unavailable".into()), "{reply:?}");
    }
    assert_eq!(upstream.asked(), 3, "after three failures nobody is made to wait");
    assert_eq!(server.get("/workspaces").await.status, 200, "tokens are good without it");
    upstream.broken.store(false, Ordering::SeqCst);
    until("the session is asked for again", async || {
        let status = show(&server, "mol=also-good").await.status;
        assert!(matches!(status, 200 | 503), "{status}");
        (status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn whoever_is_signed_in_hears_what_happens() {
    let upstream = Upstream::start().await;
    let server =
        Setup::none().env("CP_UPSTREAM_URL", &upstream.url).env("MOLECULE_ORG_SLUG", "acme & co").start().await;
    let (id, token) = server.create_external("a", None).await;
    let own = server.url();
    let mut feed = Feed::with_headers(&server, &[("cookie", "mol=good"), ("origin", &own)]).await.unwrap();
    assert_eq!(server.beat(&id, &token).await.status, 200);
    assert_eq!(feed.next_of("WORKSPACE_ONLINE").await["workspace_id"], id);
    for (headers, status) in [
        (vec![("cookie", "mol=unknown"), ("origin", own.as_str())], 401),
        (vec![("cookie", "mol=good"), ("origin", "https://evil.example")], 403),
        (vec![("cookie", "mol=good")], 403),
        // A session is no agent.
        (vec![("cookie", "mol=good"), ("origin", own.as_str()), ("x-workspace-id", id.as_str())], 401),
    ] {
        let refused = Feed::with_headers(&server, &headers).await.expect_err("it is refused");
        assert_eq!(refused.status, status, "{headers:?}");
    }
    let stream = async |cookie: &str| {
        let path = format!("{own}/workspaces/{id}/events/stream");
        server.client().get(path).header("cookie", cookie).send().await.unwrap()
    };
    let mut heard = stream("mol=good").await;
    assert_eq!(heard.status(), 200);
    assert_eq!(heard.chunk().await.unwrap().as_deref(), Some(b": ping\n\n".as_slice()));
    assert_eq!(stream("mol=stranger").await.status(), 401);
    // A bearer is judged by itself: who signs people in is not asked.
    upstream.broken.store(true, Ordering::SeqCst);
    let offered = format!("molecule, molecule.bearer.{}", server.token());
    let protocols = [("sec-websocket-protocol", offered.as_str()), ("cookie", "x=y"), ("origin", &own)];
    Feed::with_headers(&server, &protocols).await.unwrap();
}
