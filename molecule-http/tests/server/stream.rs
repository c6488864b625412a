//! What happens to one workspace, as server-sent events.

use futures_util::StreamExt;
use molecule_core::http_client::{self, Timeouts};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    process::PATIENCE,
    refused::assert_tells_nothing,
    server::{Server, Setup, until},
    socket::say_much,
    support,
};

/// One who listens.
struct Stream {
    response: Response,
    text: String,
}

impl Stream {
    async fn open(server: &Server, id: &str, token: &str, last: Option<&str>) -> Self {
        let http = http_client::build(Timeouts { connect: PATIENCE, total: None }).unwrap();
        let mut request = http.get(format!("{}/workspaces/{id}/events/stream", server.url())).bearer_auth(token);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let mut stream = Self { response, text: String::new() };
        // The first bytes say that it is there.
        assert_eq!(stream.piece().await.as_deref(), Some(": ping"));
        stream
    }

    /// What comes before the next blank line; none at the end.
    async fn piece(&mut self) -> Option<String> {
        loop {
            if let Some((piece, rest)) = self.text.split_once("\n\n") {
                let (piece, rest) = (piece.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(piece);
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await.expect("something comes");
            self.text.push_str(std::str::from_utf8(&chunk.expect("the connection stands")?).expect("it is text"));
        }
    }

    /// The next event with its id, if it has one; none at the end.
    async fn event(&mut self) -> Option<(Option<String>, Value)> {
        loop {
            let piece = self.piece().await?;
            let Some((before, data)) = piece.split_once("data: ") else { continue };
            let id = before.strip_prefix("id: ").map(|id| id.trim().to_owned());
            return Some((id, serde_json::from_str(data).expect("the data is JSON")));
        }
    }
}

#[tokio::test]
async fn a_workspace_is_streamed_and_no_other_on_sqlite() {
    streams(None).await;
}

#[tokio::test]
async fn a_workspace_is_streamed_and_no_other_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        streams(Some(database.url())).await;
    }
}

async fn streams(database: Option<&str>) {
    let server = Setup::none().database(database).start().await;
    let (id, token) = server.create_external("one", None).await;
    let (other, other_token) = server.create_external("two", None).await;
    let mut stream = Stream::open(&server, &id, &token, None).await;
    for (name, value) in
        [("content-type", "text/event-stream"), ("cache-control", "no-cache"), ("x-accel-buffering", "no")]
    {
        assert_eq!(stream.response.headers()[name], value);
    }
    assert_eq!(server.beat(&other, &other_token).await.status, 200);
    assert_eq!(server.beat(&id, &token).await.status, 200);
    let (recorded, online) = stream.event().await.unwrap();
    let logged = server.get(&format!("/events/{id}?limit=1")).await.json();
    assert_eq!(recorded.as_deref(), logged[0]["id"].as_str());
    let timestamp = online["timestamp"].as_i64().expect("milliseconds");
    let payload = json!({"recovered_from": "awaiting_agent"});
    assert_eq!(online, json!({"type": "WORKSPACE_ONLINE", "timestamp": timestamp, "data": payload}));
    let (ephemeral, beat) = stream.event().await.unwrap();
    assert_eq!((ephemeral, &beat["type"]), (None, &json!("WORKSPACE_HEARTBEAT")));
    drop(stream);

    // Who comes again is told what was recorded meanwhile, and then what happens.
    let card = json!({"workspace_id": id, "agent_card": {"name": "new"}}).to_string();
    let updated = server.send(Method::POST, "/registry/update-card", Some(&token), card).await;
    assert_eq!(updated.status, 200, "{updated:?}");
    let mut again = Stream::open(&server, &id, &server.token(), recorded.as_deref()).await;
    assert_eq!(again.event().await.unwrap().1["type"], "AGENT_CARD_UPDATED");
    assert_eq!(server.beat(&id, &token).await.status, 200);
    assert_eq!(again.event().await.unwrap().1["type"], "WORKSPACE_HEARTBEAT");
    let unknown = "00000000-0000-4000-8000-000000000000";
    for last in [unknown, "nonsense"] {
        let mut stream = Stream::open(&server, &id, &token, Some(last)).await;
        assert_eq!(server.beat(&id, &token).await.status, 200);
        assert_eq!(stream.event().await.unwrap().1["type"], "WORKSPACE_HEARTBEAT", "{last}");
    }

    // Removal is the last that is told.
    assert_eq!(server.delete(&format!("/workspaces/{id}")).await.status, 200);
    while let Some((_, event)) = again.event().await {
        assert!(["WORKSPACE_HEARTBEAT", "WORKSPACE_REMOVED"].contains(&event["type"].as_str().unwrap()), "{event}");
    }
    for id in [id.as_str(), unknown] {
        let gone = server.get(&format!("/workspaces/{id}/events/stream")).await;
        assert_eq!((gone.status, gone.error()), (404, "workspace not found".to_owned()));
    }
}

#[tokio::test]
async fn a_stream_is_for_those_who_may_hear_and_ends_when_they_may_not() {
    let mut server = Setup::none().start().await;
    let (id, token) = server.create_external("one", None).await;
    let (_, other) = server.create_external("two", None).await;
    let path = format!("/workspaces/{id}/events/stream");
    for (bearer, error) in [
        (None, "missing workspace auth token"),
        (Some("wrong"), "invalid workspace auth token"),
        (Some(other.as_str()), "invalid workspace auth token"),
    ] {
        let refused = server.send(Method::GET, &path, bearer, "").await;
        assert_eq!((refused.status, refused.error()), (401, error.to_owned()));
        assert_tells_nothing(&server, &refused);
    }
    assert_eq!(server.get("/workspaces/nonsense/events/stream").await.status, 400);

    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(Stream::open(&server, &id, &token, None).await);
    }
    let full = server.get(&path).await;
    assert_eq!((full.status, full.error()), (429, "too many listeners for this workspace".to_owned()));
    streams.truncate(2);
    until("there is room again", async || {
        let http = http_client::build(Timeouts { connect: PATIENCE, total: None }).unwrap();
        let answer = http.get(format!("{}{path}", server.url())).bearer_auth(&token).send().await.unwrap();
        (answer.status() == 200).then_some(())
    })
    .await;

    let tokens = server.get(&format!("/workspaces/{id}/tokens")).await.json();
    let revoked = format!("/workspaces/{id}/tokens/{}", tokens["tokens"][0]["id"].as_str().unwrap());
    let mut operators = Stream::open(&server, &id, &server.token(), None).await;
    assert_eq!(server.delete(&revoked).await.status, 200);
    for stream in &mut streams {
        while stream.piece().await.is_some() {}
    }
    // Others go on, and nothing holds the server up on its way down.
    server.terminate();
    while operators.piece().await.is_some() {}
    assert_eq!(server.ended().await, Some(0));
}

#[tokio::test]
async fn a_quiet_stream_says_that_it_is_there() {
    let server = Setup::none().env("MOLECULE_LISTENER_PING_MS", "200").start().await;
    let (id, token) = server.create_external("one", None).await;
    let mut stream = Stream::open(&server, &id, &token, None).await;
    for _ in 0..3 {
        assert_eq!(stream.piece().await.as_deref(), Some(": ping"));
    }
}

#[tokio::test]
async fn a_stream_that_falls_behind_ends() {
    let server = Setup::none().start().await;
    let (id, token) = server.create_external("one", None).await;
    let mut slow = Stream::open(&server, &id, &token, None).await;
    // More than the buffers of both ends hold, and then more events than are kept for anybody.
    for _ in 0..40 {
        say_much(&server, &id, &token).await;
    }
    futures_util::stream::iter(0..1200)
        .map(|_| server.beat(&id, &token))
        .buffer_unordered(16)
        .for_each(async |beaten| assert_eq!(beaten.status, 200))
        .await;
    let mut beats = 0;
    while let Some((_, event)) = slow.event().await {
        beats += usize::from(event["type"] == "WORKSPACE_HEARTBEAT");
    }
    assert!(beats < 1200, "it missed some, and ended for that");
}

#[tokio::test]
async fn a_stream_that_is_never_read_holds_nothing_for_long() {
    let server = Setup::none().start().await;
    let (id, token) = server.create_external("one", None).await;
    let mut deaf = Vec::new();
    for _ in 0..16 {
        deaf.push(Stream::open(&server, &id, &token, None).await);
    }
    for _ in 0..40 {
        say_much(&server, &id, &token).await;
    }
    // Their places are free again, although all of them stand.
    let path = format!("/workspaces/{id}/events/stream");
    until("there is room again", async || {
        let http = http_client::build(Timeouts { connect: PATIENCE, total: None }).unwrap();
        let answer = http.get(format!("{}{path}", server.url())).bearer_auth(&token).send().await.unwrap();
        (answer.status() == 200).then_some(())
    })
    .await;
    drop(deaf);
}
