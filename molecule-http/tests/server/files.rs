//! Files on their way to an agent and back: streamed, limited, and never held as a whole.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::json;
use tokio::net::TcpListener;

use crate::{
    refused::assert_tells_nothing,
    server::{Reply, Server, Setup},
    support,
};

const CHUNK: usize = 64 * 1024;
const MIB: usize = 1024 * 1024;

/// What the workspace saw, and which secret it takes.
#[derive(Debug, Default)]
struct Seen {
    secret: String,
    uploads: Vec<(usize, String)>,
    paths: Vec<String>,
    redirects: bool,
}

type Shared = Arc<Mutex<Seen>>;

fn is_known(seen: &Shared, headers: &HeaderMap) -> bool {
    let secret = seen.lock().unwrap().secret.clone();
    headers.get(header::AUTHORIZATION).is_some_and(|value| *value == format!("Bearer {secret}"))
}

async fn ingest(State(seen): State<Shared>, request: Request) -> Response {
    if !is_known(&seen, request.headers()) {
        return (StatusCode::UNAUTHORIZED, r#"{"error":"unauthorized"}"#).into_response();
    }
    let kind = request.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    let mut body = request.into_body().into_data_stream();
    let mut size = 0;
    while let Some(Ok(chunk)) = body.next().await {
        size += chunk.len();
    }
    seen.lock().unwrap().uploads.push((size, kind));
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], r#"{"files":[]}"#).into_response()
}

async fn read(State(seen): State<Shared>, Query(query): Query<Vec<(String, String)>>, headers: HeaderMap) -> Response {
    if !is_known(&seen, &headers) {
        return (StatusCode::UNAUTHORIZED, r#"{"error":"unauthorized"}"#).into_response();
    }
    if seen.lock().unwrap().redirects {
        return (StatusCode::FOUND, [(header::LOCATION, "http://169.254.169.254/")], "").into_response();
    }
    let path = query[0].1.clone();
    seen.lock().unwrap().paths.push(path.clone());
    if path.ends_with("missing") {
        return (StatusCode::NOT_FOUND, r#"{"error":"file not found"}"#).into_response();
    }
    let size = path.rsplit('-').next().and_then(|size| size.parse::<usize>().ok()).unwrap_or(1) * MIB;
    let chunks = stream::iter((0..size / CHUNK).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![7; CHUNK]))));
    Response::builder()
        .header(header::CONTENT_TYPE, "text/x-odd")
        .header(header::CONTENT_LENGTH, size)
        .header(header::CONTENT_DISPOSITION, "attachment; filename=\"x\"; filename*=UTF-8''x")
        .header("x-inner", "stays inside")
        .body(Body::from_stream(chunks))
        .unwrap()
}

/// A server with a workspace whose files are served by this test.
async fn with_workspace(setup: Setup) -> (Server, String, String, Shared) {
    let server = setup.env("MOLECULE_DEPLOY_MODE", "self-hosted").start().await;
    let seen = Shared::default();
    let routes = Router::new()
        .route("/internal/chat/uploads/ingest", post(ingest))
        .route("/internal/file/read", get(read))
        .with_state(seen.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let (id, token) = server.create_external("files", None).await;
    let register = json!({"id": id, "url": url, "delivery_mode": "push", "agent_card": {"name": "files"}});
    let reply = server.send(Method::POST, "/registry/register", Some(&token), register.to_string()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let secret = reply.json()["platform_inbound_secret"].as_str().expect("the secret is delivered").to_owned();
    seen.lock().unwrap().secret = secret;
    (server, id, token, seen)
}

/// So many bytes that nobody knows the number of before.
fn unknown_length(size: usize) -> reqwest::Body {
    let chunks = (0..size.div_ceil(CHUNK))
        .map(move |n| Ok::<_, std::io::Error>(Bytes::from(vec![1; CHUNK.min(size - n * CHUNK)])));
    reqwest::Body::wrap_stream(stream::iter(chunks))
}

#[tokio::test]
async fn files_pass_within_their_limits() {
    pass(Setup::none()).await;
}

#[tokio::test]
async fn files_pass_within_their_limits_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        pass(Setup::none().database(Some(database.url()))).await;
    }
}

async fn pass(setup: Setup) {
    let (server, id, token, seen) = with_workspace(setup).await;
    let uploads = format!("/workspaces/{id}/chat/uploads");
    let upload = async |body: reqwest::Body| server.send(Method::POST, &uploads, Some(&token), body).await;
    let whole = upload(vec![1; 50 * MIB].into()).await;
    assert_eq!((whole.status, whole.text.as_str()), (200, r#"{"files":[]}"#));
    assert_eq!(upload(unknown_length(50 * MIB)).await.status, 200);
    let expected = (50 * MIB, "application/json".to_owned());
    assert_eq!(seen.lock().unwrap().uploads, [expected.clone(), expected]);
    let over = upload(unknown_length(50 * MIB + 1)).await;
    assert_eq!((over.status, over.error().as_str()), (413, "request body exceeds total limit (50 MB)"));
    assert_tells_nothing(&server, &over);

    let download = async |query: &str| {
        server.send(Method::GET, &format!("/workspaces/{id}/chat/download{query}"), Some(&token), "").await
    };
    let file = download("?path=/workspace/a%20b%26c%3D%23.txt").await;
    assert_eq!((file.status, file.text.len()), (200, MIB));
    assert_eq!(file.headers["content-type"], "text/x-odd");
    assert_eq!(file.headers["content-length"], MIB.to_string().as_str());
    assert_eq!(file.headers["content-disposition"], "attachment; filename=\"x\"; filename*=UTF-8''x");
    assert!(!file.headers.contains_key("x-inner"));
    assert_eq!(file.headers["content-security-policy"], "sandbox; default-src 'none'", "it is no page of the server");
    assert_eq!(seen.lock().unwrap().paths, ["/workspace/a b&c=#.txt"]);
    let crabs = format!("/home/{}", "🦀".repeat(300));
    let encoded: String = url::form_urlencoded::byte_serialize(crabs.as_bytes()).collect();
    assert_eq!(download(&format!("?path={encoded}")).await.status, 200);
    assert_eq!(seen.lock().unwrap().paths[1], crabs);
    let missing = download("?path=/workspace/missing").await;
    assert_eq!((missing.status, missing.text.as_str()), (404, r#"{"error":"file not found"}"#), "unchanged");
    assert_eq!(missing.headers["content-disposition"], "attachment", "where the workspace says nothing");

    let under = "path must be under /configs, /workspace, /home, or /plugins";
    for (query, error) in [
        ("", "path query required"),
        ("?path=", "path query required"),
        ("?path=workspace/a", "path must be absolute"),
        ("?path=/etc/passwd", under),
        ("?path=/workspace/..%2F..%2Fetc/passwd", "invalid path"),
        ("?path=/workspace/a%00b", "invalid path"),
        ("?path=/workspace//a", "invalid path"),
    ] {
        let reply = download(query).await;
        assert_eq!((reply.status, reply.error().as_str()), (400, error), "{query}");
    }
    refusals(&server, &id, &token, &seen).await;
}

async fn refusals(server: &Server, id: &str, token: &str, seen: &Shared) {
    let path = format!("/workspaces/{id}/chat/download?path=/workspace/a");
    let ask = async |path: &str, token: &str| -> Reply { server.send(Method::GET, path, Some(token), "").await };
    seen.lock().unwrap().redirects = true;
    let reply = ask(&path, token).await;
    assert_eq!((reply.status, reply.error().as_str()), (502, "workspace unreachable"), "redirects are not followed");
    seen.lock().unwrap().redirects = false;
    let secret = std::mem::take(&mut seen.lock().unwrap().secret);
    let reply = ask(&path, token).await;
    assert_eq!((reply.status, reply.text.as_str()), (401, r#"{"error":"unauthorized"}"#), "as the workspace says");
    seen.lock().unwrap().secret = secret;
    assert_eq!(ask(&path, token).await.status, 200);

    let (other, other_token) = server.create_external("no address", None).await;
    assert_eq!(ask(&path, &other_token).await.status, 401);
    let reply = ask(&format!("/workspaces/{other}/chat/download?path=/workspace/a"), &other_token).await;
    assert_eq!((reply.status, reply.error().as_str()), (503, "workspace url not registered yet"));
    let reply = ask("/workspaces/7/chat/download?path=/workspace/a", token).await;
    assert_eq!((reply.status, reply.error().as_str()), (400, "invalid workspace ID"));
    assert_eq!(server.delete(&format!("/workspaces/{id}?confirm=true")).await.status, 200);
    let reply = ask(&path, &server.token()).await;
    assert_eq!((reply.status, reply.error().as_str()), (404, "workspace not found"));
}

/// The most memory that the server ever held, in KiB.
fn peak(server: &Server) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", server.process_id())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux tells it");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("it is a number")
}

#[tokio::test]
async fn a_large_file_passes_in_little_memory() {
    const FILE: usize = 500;
    let (server, id, token, _) = with_workspace(Setup::none()).await;
    let uploads = format!("/workspaces/{id}/chat/uploads");
    let before = peak(&server);
    let client = reqwest_client();
    let url = format!("{}/workspaces/{id}/chat/download?path=/workspace/big-{FILE}", server.url());
    let mut answer = client.get(url).bearer_auth(&token).send().await.unwrap();
    let mut size = 0;
    while let Some(chunk) = answer.chunk().await.unwrap() {
        size += chunk.len();
    }
    assert_eq!(size, FILE * MIB);
    assert_eq!(server.send(Method::POST, &uploads, Some(&token), unknown_length(50 * MIB)).await.status, 200);
    let added = peak(&server).saturating_sub(before) / 1024;
    assert!(added < 16, "{added} MiB were added");
}

fn reqwest_client() -> reqwest::Client {
    use molecule_core::http_client::{Timeouts, build};
    build(Timeouts { connect: crate::process::PATIENCE, total: None }).expect("a client can be made")
}
