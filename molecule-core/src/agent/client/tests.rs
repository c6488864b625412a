use std::fs;

use secrecy::ExposeSecret;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{exchange::BODY_LIMIT, *};
use crate::agent::AgentCard;
use crate::agent::StateDir;

const ID: &str = "6f9619ff-8b86-d011-b42d-00cf4fc964ff";

/// A workspace whose platform gives the listed answers, one connection each, and then is gone.
struct Fixture {
    root: tempfile::TempDir,
    tokens: TokenStore,
    inbound: InboundSecret,
    client: PlatformClient,
    listener: TcpListener,
}

async fn fixture(supplied: Option<&str>) -> Fixture {
    let root = tempfile::tempdir().unwrap();
    let folder = StateDir::resolve(Some(root.path()), None).unwrap();
    let tokens = TokenStore::supplied_first(&folder, supplied.map(SecretString::from));
    let inbound = InboundSecret::new(&folder);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let platform = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let client =
        PlatformClient::new(platform, ID.parse().unwrap(), tokens.clone(), inbound.clone(), &Way::default()).unwrap();
    Fixture { root, tokens, inbound, client, listener }
}

impl Fixture {
    fn file(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.root.path().join(name)).ok()
    }

    /// Runs `call` against `answers` and returns its result and the requests.
    async fn run<T>(&self, call: impl Future<Output = T>, answers: &[String]) -> (T, Vec<String>) {
        let serve = async {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut stream, _) = self.listener.accept().await.unwrap();
                requests.push(read_request(&mut stream).await);
                // The client hangs up on an answer that is too long.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
            requests
        };
        tokio::join!(call, serve)
    }

    async fn beat(&self, answer: String) -> BeatOutcome {
        self.run(self.client.heartbeat(&Beat::default()), &[answer]).await.0
    }

    async fn register(&self, answer: String) -> RegisterOutcome {
        let card = AgentCard::default();
        self.run(self.client.register(&card, &Delivery::Poll), &[answer]).await.0
    }
}

async fn read_request(stream: &mut tokio::net::TcpStream) -> String {
    let mut request = String::new();
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer).await.unwrap();
        request.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        let Some((head, body)) = request.split_once("\r\n\r\n") else { continue };
        let expected = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        if body.len() >= expected.parse().unwrap() {
            return request;
        }
    }
}

fn answer(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

fn body(request: &str) -> Value {
    serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn a_registration_says_who_and_where_and_keeps_both_secrets() {
    let fixture = fixture(Some("t0ken")).await;
    let card = AgentCard { name: "a".into(), ..AgentCard::default() };
    let delivery = Delivery::Push { url: "http://agent:8000".into() };
    let accepted = answer(
        200,
        "",
        r#"{"status":"registered","delivery_mode":"push","auth_token":"issued","platform_inbound_secret":"s3cret"}"#,
    );
    let (outcome, requests) = fixture.run(fixture.client.register(&card, &delivery), &[accepted]).await;
    assert_eq!(outcome, RegisterOutcome::Accepted { delivery_mode: Some("push".into()) });
    assert!(requests[0].starts_with("POST /registry/register HTTP/1.1\r\n"));
    assert!(requests[0].contains("authorization: Bearer t0ken\r\n"));
    assert!(requests[0].contains("origin: http://127.0.0.1:"));
    assert_eq!(
        body(&requests[0]),
        json!({
            "id": ID,
            "url": "http://agent:8000",
            "agent_card": {"name": "a", "skills": []},
            "delivery_mode": "push",
        })
    );
    assert_eq!(fixture.file(".auth_token").as_deref(), Some("issued"));
    assert_eq!(fixture.file(".platform_inbound_secret").as_deref(), Some("s3cret"));
    assert_eq!(fixture.tokens.get().unwrap().unwrap().expose_secret(), "issued");
    assert!(fixture.inbound.verify(Some(b"Bearer s3cret")));
}

#[tokio::test]
async fn an_agent_that_polls_registers_without_an_address() {
    let fixture = fixture(None).await;
    let card = AgentCard::default();
    let accepted = answer(200, "", "{}");
    let (outcome, requests) = fixture.run(fixture.client.register(&card, &Delivery::Poll), &[accepted]).await;
    assert_eq!(outcome, RegisterOutcome::Accepted { delivery_mode: None });
    assert!(!requests[0].contains("authorization"));
    assert_eq!(body(&requests[0])["url"], "");
    assert_eq!(body(&requests[0])["delivery_mode"], "poll");
}

#[tokio::test]
async fn every_answer_to_a_registration_has_its_outcome() {
    let fixture = fixture(None).await;
    let refused = |status: u16, message: &str| RegisterOutcome::Refused {
        status: StatusCode::from_u16(status).unwrap(),
        message: message.into(),
    };
    for (given, expected) in [
        (answer(401, "", "{}"), RegisterOutcome::Unauthorized(StatusCode::UNAUTHORIZED)),
        (answer(403, "", ""), RegisterOutcome::Unauthorized(StatusCode::FORBIDDEN)),
        (answer(410, "", ""), RegisterOutcome::Removed(StatusCode::GONE)),
        (
            answer(429, "Retry-After: 7\r\n", ""),
            RegisterOutcome::RateLimited { retry_after: Some(Duration::from_secs(7)) },
        ),
        (answer(429, "Retry-After: soon\r\n", ""), RegisterOutcome::RateLimited { retry_after: None }),
        (answer(500, "", ""), RegisterOutcome::ServerError(StatusCode::INTERNAL_SERVER_ERROR)),
        (answer(400, "", r#"{"error":"url is\nrequired"}"#), refused(400, "url is required")),
        (answer(404, "", "<html>"), refused(404, "<html>")),
        (answer(400, "", &"ü".repeat(300)), refused(400, &"ü".repeat(200))),
        (
            answer(302, "Location: http://127.0.0.1:9/\r\n", ""),
            refused(302, "the platform redirects, which is not followed: its URL must be the final one"),
        ),
        (answer(200, "", "<html>"), RegisterOutcome::NotAPlatform),
        (answer(200, "", "[1]"), RegisterOutcome::NotAPlatform),
        (answer(200, "", &format!("{{\"a\":\"{}\"}}", "x".repeat(BODY_LIMIT))), RegisterOutcome::NotAPlatform),
    ] {
        assert_eq!(fixture.register(given).await, expected);
    }
    assert_eq!(fixture.file(".auth_token"), None);
}

#[tokio::test]
async fn every_answer_to_a_heartbeat_has_its_outcome() {
    let fixture = fixture(None).await;
    let ok = |seconds: Option<u64>| BeatOutcome::Ok { next_heartbeat: seconds.map(Duration::from_secs) };
    for (given, expected) in [
        (answer(200, "", r#"{"status":"ok"}"#), ok(None)),
        (answer(200, "", r#"{"next_heartbeat_secs":30}"#), ok(Some(30))),
        (answer(200, "", r#"{"next_heartbeat_secs":-1}"#), ok(None)),
        (answer(200, "", r#"{"next_heartbeat_secs":1e300}"#), ok(None)),
        (answer(200, "", r#"{"next_heartbeat_secs":"soon"}"#), ok(None)),
        (answer(200, "", "<html>"), ok(None)),
        (answer(200, "", "[]"), ok(None)),
        (answer(200, "", &"x".repeat(1024 * 1024)), ok(None)),
        (answer(401, "", ""), BeatOutcome::Unauthorized(StatusCode::UNAUTHORIZED)),
        (answer(403, "", ""), BeatOutcome::Unauthorized(StatusCode::FORBIDDEN)),
        (answer(404, "", ""), BeatOutcome::Removed(StatusCode::NOT_FOUND)),
        (answer(410, "", ""), BeatOutcome::Removed(StatusCode::GONE)),
        (answer(429, "Retry-After: 7\r\n", ""), BeatOutcome::RateLimited { retry_after: Some(Duration::from_secs(7)) }),
        (answer(503, "", ""), BeatOutcome::ServerError(StatusCode::SERVICE_UNAVAILABLE)),
        (answer(302, "Location: http://127.0.0.1:9/\r\n", ""), BeatOutcome::ServerError(StatusCode::FOUND)),
    ] {
        assert_eq!(fixture.beat(given).await, expected);
    }
}

#[tokio::test]
async fn a_heartbeat_sends_the_whole_body_and_numbers_that_json_has() {
    let fixture = fixture(Some("t0ken")).await;
    let beat = Beat { error_rate: f64::NAN, active_tasks: 2, uptime_seconds: 5, ..Beat::default() };
    let (_, requests) = fixture.run(fixture.client.heartbeat(&beat), &[answer(200, "", "{}")]).await;
    assert!(requests[0].starts_with("POST /registry/heartbeat HTTP/1.1\r\n"));
    assert_eq!(
        body(&requests[0]),
        json!({"workspace_id": ID, "error_rate": 0.0, "sample_error": "", "active_tasks": 2, "uptime_seconds": 5})
    );
}

#[tokio::test]
async fn an_inbound_secret_is_kept_only_from_a_good_answer() {
    let fixture = fixture(None).await;
    let secret = |value: &str| format!(r#"{{"platform_inbound_secret":{value}}}"#);
    for (status, value) in [(200, r#""""#), (200, "7"), (200, "null"), (500, r#""s3cret""#)] {
        fixture.beat(answer(status, "", &secret(value))).await;
        assert_eq!(fixture.file(".platform_inbound_secret"), None, "{status} {value}");
    }
    fixture.beat(answer(200, "", &secret(r#""s3cret""#))).await;
    assert_eq!(fixture.file(".platform_inbound_secret").as_deref(), Some("s3cret"));
}

#[tokio::test]
async fn a_rejected_token_is_replaced_by_that_of_the_file() {
    let fixture = fixture(Some("old")).await;
    fs::write(fixture.root.path().join(".auth_token"), "new").unwrap();
    let answers = [answer(401, "", ""), answer(200, "", "{}")];
    let (outcome, requests) = fixture.run(fixture.client.heartbeat(&Beat::default()), &answers).await;
    assert_eq!(outcome, BeatOutcome::Ok { next_heartbeat: None });
    assert!(requests[0].contains("Bearer old\r\n"));
    assert!(requests[1].contains("Bearer new\r\n"));
    let (_, requests) = fixture.run(fixture.client.heartbeat(&Beat::default()), &answers[1..]).await;
    assert!(requests[0].contains("Bearer new\r\n"));
}

#[tokio::test]
async fn two_rejected_tokens_end_in_one_failure_and_the_old_order() {
    let fixture = fixture(Some("old")).await;
    fs::write(fixture.root.path().join(".auth_token"), "new").unwrap();
    let answers = [answer(401, "", ""), answer(401, "", "")];
    let (outcome, _) = fixture.run(fixture.client.heartbeat(&Beat::default()), &answers).await;
    assert_eq!(outcome, BeatOutcome::Unauthorized(StatusCode::UNAUTHORIZED));
    assert_eq!(fixture.tokens.get().unwrap().unwrap().expose_secret(), "old");
}

#[tokio::test]
async fn no_answer_is_unreachable_and_says_why() {
    let fixture = fixture(Some("t0ken")).await;
    let slow = fixture.client.clone().with_timeout(Duration::from_millis(50));
    let BeatOutcome::Unreachable(reason) = slow.heartbeat(&Beat::default()).await else { panic!("nobody accepts") };
    assert_eq!(reason, "no answer in time");

    let client = fixture.client.clone();
    drop(fixture.listener);
    let BeatOutcome::Unreachable(reason) = client.heartbeat(&Beat::default()).await else { panic!("nobody listens") };
    assert!(reason.contains("refused"), "{reason}");
    let card = AgentCard::default();
    assert!(matches!(client.register(&card, &Delivery::Poll).await, RegisterOutcome::Unreachable(_)));
}

#[test]
fn what_is_not_accepted_is_an_error_that_tells_whether_to_try_again() {
    let refused = RegisterOutcome::Refused { status: StatusCode::BAD_REQUEST, message: "url is required".into() };
    let limited = RegisterOutcome::RateLimited { retry_after: Some(Duration::from_secs(7)) };
    for (outcome, kind, retry) in [
        (RegisterOutcome::Unauthorized(StatusCode::FORBIDDEN), ErrorKind::Unauthenticated, Retry::Never),
        (RegisterOutcome::Removed(StatusCode::GONE), ErrorKind::Removed, Retry::Never),
        (limited, ErrorKind::LimitReached, Retry::Maybe),
        (RegisterOutcome::RateLimited { retry_after: None }, ErrorKind::LimitReached, Retry::Maybe),
        (refused, ErrorKind::InvalidInput, Retry::Never),
        (RegisterOutcome::ServerError(StatusCode::BAD_GATEWAY), ErrorKind::Unavailable, Retry::Maybe),
        (RegisterOutcome::Unreachable("gone".into()), ErrorKind::Unavailable, Retry::Maybe),
        (RegisterOutcome::NotAPlatform, ErrorKind::Upstream, Retry::Never),
    ] {
        let text = outcome.to_string();
        let error = outcome.into_result().unwrap_err();
        assert_eq!((error.kind(), error.retry()), (kind, retry), "{error}");
        assert!(error.message().ends_with(&text), "{error}");
    }
    let accepted = RegisterOutcome::Accepted { delivery_mode: Some("poll".into()) };
    assert_eq!(accepted.into_result().unwrap().as_deref(), Some("poll"));
}

#[tokio::test]
async fn the_platform_is_told_how_long_to_wait_for_another_agent() {
    let fixture = fixture(Some("t")).await;
    for (patience, told) in [(Some(Duration::from_secs(280)), true), (None, false)] {
        let call = exchange::Call { patience, ..exchange::Call::to(reqwest::Method::POST, "/workspaces/x/a2a") };
        let (_, requests) = fixture.run(fixture.client.exchange(&call), &[answer(202, "", "{}")]).await;
        assert_eq!(requests[0].contains("\r\nx-timeout: 280\r\n"), told, "{requests:?}");
    }
}
