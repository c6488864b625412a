//! What is decided about a request before its route: other pages, other organisations, and those who ask too often.

use futures_util::{StreamExt, stream};
use reqwest::Method;

use crate::server::{Reply, Server, Setup};

const PREFLIGHT: [(&str, &str); 2] = [("access-control-request-method", "POST"), ("origin", "https://canvas.example")];

fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    reply.headers.get(name).map(|value| value.to_str().expect("it is text"))
}

/// An answer of the edge itself has what every other has, and no body.
fn assert_empty(reply: &Reply, status: u16) {
    assert_eq!((reply.status, reply.text.as_str()), (status, ""), "{reply:?}");
    assert_eq!(header(reply, "x-frame-options"), Some("DENY"), "{reply:?}");
    assert!(header(reply, "content-security-policy").is_some(), "{reply:?}");
}

#[tokio::test]
async fn only_listed_pages_may_read_answers() {
    let server = Setup::none().env("CORS_ORIGINS", " https://canvas.example ,*,nonsense").start().await;
    assert!(server.log().contains("is no origin"), "{}", server.log());
    let (id, token) = server.create_external("a", None).await;
    let bearer = format!("Bearer {token}");
    let beat = format!(r#"{{"workspace_id":"{id}"}}"#);

    let preflight = server.ask(Method::OPTIONS, "/workspaces", &PREFLIGHT, "").await;
    assert_empty(&preflight, 204);
    assert_eq!(header(&preflight, "access-control-allow-origin"), Some("https://canvas.example"));
    assert_eq!(header(&preflight, "access-control-allow-credentials"), Some("true"));
    assert_eq!(header(&preflight, "vary"), Some("Origin"));
    assert_eq!(header(&preflight, "access-control-allow-methods"), Some("GET,POST,PUT,PATCH,DELETE,OPTIONS"));
    let allowed = header(&preflight, "access-control-allow-headers").expect("it is there");
    for name in ["Origin", "Content-Type", "X-Workspace-Id", "Authorization", "X-Molecule-Org-Id"] {
        assert!(allowed.split(',').any(|allowed| allowed == name), "{name}: {allowed}");
    }
    assert_eq!(header(&preflight, "access-control-max-age"), None);
    assert_eq!(header(&preflight, "x-ratelimit-limit"), None, "a question is not counted");

    let read = server.ask(Method::GET, "/health", &[("origin", "https://canvas.example")], "").await;
    assert_eq!((read.status, header(&read, "access-control-allow-origin")), (200, Some("https://canvas.example")));
    let refused = server.ask(Method::GET, "/workspaces", &[("origin", "https://canvas.example")], "").await;
    assert_eq!((refused.status, header(&refused, "vary")), (401, Some("Origin")), "a refusal can be read as well");

    let foreign = ("origin", "https://evil.example");
    assert_empty(&server.ask(Method::OPTIONS, "/workspaces", &[PREFLIGHT[0], foreign], "").await, 403);
    assert_empty(&server.ask(Method::OPTIONS, "/health", &[foreign], "").await, 403);
    // An agent behind some odd origin must not be told that it may not beat any more.
    let beaten = server.ask(Method::POST, "/registry/heartbeat", &[foreign, ("authorization", &bearer)], &beat).await;
    assert_eq!((beaten.status, header(&beaten, "access-control-allow-origin")), (200, None), "{beaten:?}");
    let developed = server.ask(Method::GET, "/health", &[("origin", "http://localhost:3000")], "").await;
    assert_eq!(header(&developed, "access-control-allow-origin"), None, "the list replaces the default");

    let own = server.url();
    let same = server.ask(Method::OPTIONS, "/health", &[("origin", &own)], "").await;
    assert_eq!((same.status, header(&same, "vary")), (405, None), "its own pages need no permission");
    // A name that lies is somebody else's.
    let rebound = [("host", "evil.example"), ("origin", "http://evil.example")];
    assert_eq!(server.ask(Method::GET, "/workspaces", &rebound, "").await.status, 401);
}

#[tokio::test]
async fn only_one_organisation_finds_anything_here() {
    let server =
        Setup::none().env("MOLECULE_ORG_ID", " org-1 ").env("CANVAS_PROXY_URL", "http://127.0.0.1:9").start().await;
    let get = async |path: &str, headers: &[(&str, &str)]| server.ask(Method::GET, path, headers, "").await;
    for path in ["/health", "/metrics", "/buildinfo"] {
        assert_eq!(get(path, &[]).await.status, 200, "{path}");
    }
    for path in ["/registry/register", "/registry/heartbeat"] {
        assert_eq!(server.ask(Method::POST, path, &[], "").await.status, 400, "{path}");
    }
    for path in ["/workspaces", "/ws", "/registry/update-card", "/registry/discover/x", "/health/", "/nowhere", "/"] {
        assert_empty(&get(path, &[]).await, 404);
        assert_empty(&get(path, &[("x-molecule-org-id", "org-2")]).await, 404);
    }
    let token = format!("Bearer {}", server.token());
    assert_empty(&get("/workspaces", &[("authorization", &token)]).await, 404);
    let own = server.url();
    let passes = [
        ("x-molecule-org-id", "org-1"),
        ("fly-replay-src", "instance=1;region=x;t=1;state=org-1"),
        ("origin", own.as_str()),
        ("referer", &format!("{own}/canvas")),
    ];
    for pass in passes {
        assert_eq!(get("/workspaces", &[pass]).await.status, 200, "{pass:?}: a fresh install");
        assert_eq!(get("/workspaces", &[pass, ("authorization", &token)]).await.status, 200, "{pass:?}");
    }
    let lies = [
        vec![("host", "evil.example"), ("origin", own.as_str())],
        vec![("origin", "https://evil.example")],
        vec![("referer", "https://evil.example/")],
    ];
    for lie in lies {
        assert_empty(&get("/workspaces", &lie).await, 404);
    }
}

#[tokio::test]
async fn a_header_that_names_this_host_is_no_credential() {
    let server = Setup::none().env("CANVAS_PROXY_URL", "http://127.0.0.1:9").start().await;
    let (id, _) = server.create_external("a", None).await;
    let (own, page) = (server.url(), format!("{}/canvas", server.url()));
    for header in [("origin", own.as_str()), ("referer", page.as_str()), ("referer", own.as_str())] {
        for path in ["secrets", "secrets/values", "tokens", "model", "logs", "mcp/stream"] {
            let reply = server.ask(Method::GET, &format!("/workspaces/{id}/{path}"), &[header], "").await;
            assert_eq!(
                (reply.status, reply.error().as_str()),
                (401, "missing workspace auth token"),
                "{header:?} {path}"
            );
        }
        let minted = server.ask(Method::POST, &format!("/workspaces/{id}/tokens"), &[header], "").await;
        assert_eq!((minted.status, minted.error().as_str()), (401, "missing workspace auth token"), "{header:?}");
        for path in ["/workspaces", "/org/tokens", "/settings/secrets", "/events", "/ws"] {
            let reply = server.ask(Method::GET, path, &[header], "").await;
            assert_eq!((reply.status, reply.error().as_str()), (401, "admin auth required"), "{header:?} {path}");
        }
    }
}

async fn counted(server: &Server, headers: &[(&str, &str)]) -> (u16, Option<String>) {
    let reply = server.ask(Method::GET, "/nowhere", headers, "").await;
    (reply.status, header(&reply, "x-ratelimit-remaining").map(str::to_owned))
}

fn left(status: u16, remaining: u32) -> (u16, Option<String>) {
    (status, Some(remaining.to_string()))
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let server = Setup::none().env("RATE_LIMIT", "6").start().await;
    let (id, token) = server.create_external("a", None).await;
    assert_eq!(server.beat(&id, &token).await.status, 200);
    assert_eq!(counted(&server, &[]).await, left(404, 5), "who has a token has a window of its own");
    // Who says that it is somebody else is still the same.
    assert_eq!(counted(&server, &[("x-forwarded-for", "203.0.113.1")]).await, left(404, 4));
    let forged = [("x-forwarded-for", "203.0.113.2"), ("forwarded", "for=1.1.1.1")];
    assert_eq!(counted(&server, &forged).await, left(404, 3));
    for remaining in [2, 1, 0] {
        assert_eq!(counted(&server, &[("authorization", "Bearer made-up")]).await, left(404, remaining));
    }
    let full = server.ask(Method::GET, "/nowhere", &[("authorization", "Bearer made-up")], "").await;
    assert_eq!((full.status, full.error().as_str()), (429, "rate limit exceeded"), "{full:?}");
    let wait: u64 = full.json()["retry_after"].as_u64().expect("a number");
    assert!((1..=60).contains(&wait), "{full:?}");
    assert_eq!(header(&full, "retry-after"), Some(wait.to_string().as_str()));
    assert_eq!(header(&full, "x-ratelimit-reset"), Some(wait.to_string().as_str()));
    assert_eq!((header(&full, "x-ratelimit-limit"), header(&full, "x-ratelimit-remaining")), (Some("6"), Some("0")));
    assert_eq!(header(&full, "x-content-type-options"), Some("nosniff"));
    let metrics = server.ask(Method::GET, "/metrics", &[], "").await;
    assert!(metrics.text.contains(r#"path="unmatched",status="429"} 1"#), "{}", metrics.text);
    for path in ["/health", "/metrics", "/buildinfo"] {
        let free = server.ask(Method::GET, path, &[], "").await;
        assert_eq!((free.status, header(&free, "x-ratelimit-limit")), (200, None), "{path}");
    }
    // Those who are known have windows of their own.
    for _ in 0..5 {
        assert_eq!(server.beat(&id, &token).await.status, 200);
    }
    assert_eq!(server.beat(&id, &token).await.status, 429);
    assert_eq!(server.get("/workspaces").await.status, 200);
}

#[tokio::test]
async fn a_fleet_behind_one_address_is_heard_after_a_restart_whatever_its_limit() {
    let mut server = Setup::none().env("RATE_LIMIT", "12").start().await;
    let mut agents = Vec::new();
    for name in ["a", "b", "c"] {
        let (id, token) = server.create_external(name, None).await;
        let path = format!("/workspaces/{id}/tokens");
        for _ in 0..9 {
            let minted = server.send(Method::POST, &path, Some(&token), "").await;
            agents.push((id.clone(), minted.json()["auth_token"].as_str().expect("a token").to_owned()));
        }
    }
    server.kill9();
    server.start_again().await;
    for (id, token) in &agents {
        assert_eq!(server.beat(id, token).await.status, 200);
    }
    // None of that was counted against the address, and what is made up is.
    let id = &agents[0].0;
    for _ in 0..12 {
        assert_eq!(server.beat(id, "made-up").await.status, 401);
    }
    assert_eq!(server.beat(id, "made-up-as-well").await.status, 429);
    assert_eq!(server.beat(id, &agents[0].1).await.status, 200);
}

#[tokio::test]
async fn development_has_no_limits() {
    let server = Setup::none().env("RATE_LIMIT", "1").env("MOLECULE_ENV", "dev").start().await;
    for _ in 0..3 {
        let reply = server.ask(Method::GET, "/nowhere", &[], "").await;
        assert_eq!((reply.status, header(&reply, "x-ratelimit-limit")), (404, Some("unlimited")));
        assert_eq!(header(&reply, "x-ratelimit-remaining"), None);
    }
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_for_the_hop_before_it() {
    let server = Setup::none().env("RATE_LIMIT", "2").env("TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8").start().await;
    let from = async |hops: &str| counted(&server, &[("x-forwarded-for", hops)]).await;
    assert_eq!(from("203.0.113.1").await, left(404, 1));
    assert_eq!(from("203.0.113.2").await, left(404, 1));
    assert_eq!(from("6.6.6.6, 203.0.113.1, 10.0.0.9").await, left(404, 0));
    assert_eq!(from("7.7.7.7, 203.0.113.1").await.0, 429, "what a sender made up is not looked at");
    assert_eq!(from("2001:db8::1").await, left(404, 1));
    assert_eq!(from("2001:db8::2").await, left(404, 0), "one host of IPv6 has many addresses");
    assert_eq!(from("nonsense").await, left(404, 1));
}

#[tokio::test]
async fn ten_thousand_senders_cost_little_and_bother_nobody() {
    let server = Setup::none().env("RATE_LIMIT", "20").env("TRUSTED_PROXIES", "127.0.0.1").start().await;
    let (id, token) = server.create_external("a", None).await;
    assert_eq!(server.beat(&id, &token).await.status, 200);
    assert_eq!(counted(&server, &[("x-forwarded-for", "198.51.100.1")]).await, left(404, 19));
    let before = server.resident_kib();
    stream::iter(0..10_500_u32)
        .map(async |n| {
            let address = std::net::Ipv4Addr::from(0x0b00_0000 + n).to_string();
            assert_eq!(counted(&server, &[("x-forwarded-for", &address)]).await, left(404, 19), "{address}");
        })
        .buffer_unordered(64)
        .collect::<()>()
        .await;
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "it grew by {grown} KiB");
    assert_eq!(counted(&server, &[("x-forwarded-for", "198.51.100.1")]).await, left(404, 18));
    assert_eq!(server.beat(&id, &token).await.status, 200);
}
