//! The live feed.

use chrono::DateTime;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sqlx::Connection;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest, http::HeaderValue},
};

use crate::{
    process::PATIENCE,
    refused::assert_tells_nothing,
    server::{Reply, Server, Setup, until},
    support,
};

/// A listener.
#[derive(Debug)]
pub(crate) struct Feed(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Feed {
    /// Listens as `agent`, or as the operator where none is named.
    pub(crate) async fn open(server: &Server, agent: Option<&str>, token: Option<&str>) -> Self {
        Self::try_open(server, agent, token).await.unwrap_or_else(|refused| panic!("{refused:?}"))
    }

    async fn try_open(server: &Server, agent: Option<&str>, token: Option<&str>) -> Result<Self, Reply> {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let agent = agent.map(|agent| ("x-workspace-id", agent));
        let headers: Vec<_> = agent.into_iter().chain(bearer.as_deref().map(|it| ("authorization", it))).collect();
        Self::with_headers(server, &headers).await
    }

    /// Listens with exactly these headers.
    pub(crate) async fn with_headers(server: &Server, headers: &[(&'static str, &str)]) -> Result<Self, Reply> {
        let mut request = format!("{}/ws", server.url().replace("http", "ws")).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
        }
        match connect_async(request).await {
            Ok((stream, _)) => Ok(Self(stream)),
            Err(Error::Http(answer)) => {
                let (parts, body) = answer.into_parts();
                let text = String::from_utf8(body.unwrap_or_default()).unwrap();
                Err(Reply { status: parts.status.as_u16(), headers: parts.headers, text })
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    /// The next event, as text.
    async fn text(&mut self) -> String {
        loop {
            match self.message().await {
                Some(Message::Text(text)) => return text.to_string(),
                Some(Message::Ping(_)) => {}
                other => panic!("no event but {other:?}"),
            }
        }
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> Value {
        serde_json::from_str(&self.text().await).expect("events are JSON")
    }

    /// The next event of this kind, whatever comes before it.
    pub(crate) async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let event = self.event().await;
            if event["event"] == kind {
                return event;
            }
        }
    }

    /// The code that the server closes with, after whatever else it sends.
    pub(crate) async fn close_code(&mut self) -> Option<u16> {
        loop {
            match self.message().await {
                Some(Message::Close(frame)) => return frame.map(|frame| frame.code.into()),
                Some(_) => {}
                None => return None,
            }
        }
    }

    async fn message(&mut self) -> Option<Message> {
        let next = timeout(PATIENCE, self.0.next()).await.expect("the server says something");
        next.map(|message| message.expect("the connection stands"))
    }
}

#[tokio::test]
async fn the_operator_hears_everything_on_sqlite() {
    hears_everything(None).await;
}

#[tokio::test]
async fn the_operator_hears_everything_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        hears_everything(Some(database.url())).await;
    }
}

async fn hears_everything(database: Option<&str>) {
    let server = Setup::none().database(database).start().await;
    // On a fresh install no credential is needed.
    let mut fresh = Feed::open(&server, None, None).await;
    let mut feed = Feed::open(&server, None, Some(&server.token())).await;
    let (id, token) = server.create_external("one", None).await;

    let text = feed.text().await;
    assert_eq!(fresh.text().await, text);
    let event: Value = serde_json::from_str(&text).unwrap();
    let timestamp = event["timestamp"].as_str().expect("it has a time");
    assert!(timestamp.ends_with('Z') && DateTime::parse_from_rfc3339(timestamp).is_ok(), "{timestamp}");
    let payload = r#"{"external":true,"name":"one"}"#;
    let expected = format!(
        r#"{{"event":"WORKSPACE_AWAITING_AGENT","workspace_id":"{id}","timestamp":"{timestamp}","payload":{payload}}}"#
    );
    assert_eq!(text, expected);

    assert_eq!(server.beat(&id, &token).await.status, 200);
    let mut heard = Vec::new();
    for _ in 0..2 {
        let event = feed.event().await;
        heard.push((event["event"].clone(), event["payload"].clone()));
    }
    let expected = [
        (json!("WORKSPACE_ONLINE"), json!({"recovered_from": "awaiting_agent"})),
        (json!("WORKSPACE_HEARTBEAT"), json!({"active_tasks": 0, "uptime_seconds": 0})),
    ];
    assert_eq!(heard, expected);
    assert_eq!(server.delete(&format!("/workspaces/{id}")).await.status, 200);
    assert_eq!(feed.event().await["event"], "WORKSPACE_REMOVED");

    // The log keeps what is to be kept, newest first, with the same kinds and payloads.
    let log: Vec<Value> = serde_json::from_str(&server.get("/events").await.text).unwrap();
    let kinds: Vec<&str> = log.iter().map(|event| event["event_type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["WORKSPACE_REMOVED", "WORKSPACE_ONLINE", "WORKSPACE_AWAITING_AGENT"]);
    let mut members: Vec<&String> = log[0].as_object().unwrap().keys().collect();
    members.sort();
    assert_eq!(members, ["created_at", "event_type", "id", "payload", "workspace_id"]);
    assert_eq!(log[1]["payload"], json!({"recovered_from": "awaiting_agent"}));
    let newest: Vec<Value> = serde_json::from_str(&server.get("/events?limit=1").await.text).unwrap();
    assert_eq!(newest, log[..1]);
    assert_eq!(server.get("/events/00000000-0000-4000-8000-000000000000").await.text, "[]");
}

#[tokio::test]
async fn an_agent_hears_of_those_it_may_talk_to_until_it_is_removed() {
    let server = Setup::none().start().await;
    let (lead, lead_token) = server.create_external("lead", None).await;
    let (stranger, stranger_token) = server.create_external("stranger", None).await;
    let (member, member_token) = server.create_external("member", Some(&lead)).await;
    let (foreign, foreign_token) = server.create_external("foreign", Some(&stranger)).await;
    let mut feed = Feed::open(&server, Some(&member), Some(&member_token)).await;
    let beats =
        [(&foreign, &foreign_token), (&stranger, &stranger_token), (&lead, &lead_token), (&member, &member_token)];
    for (id, token) in beats {
        assert_eq!(server.beat(id, token).await.status, 200);
    }
    let mut heard = Vec::new();
    while heard.len() < 4 {
        let event = feed.event().await;
        heard.push((event["workspace_id"].clone(), event["event"].clone()));
    }
    let expected = [
        (json!(lead), json!("WORKSPACE_ONLINE")),
        (json!(lead), json!("WORKSPACE_HEARTBEAT")),
        (json!(member), json!("WORKSPACE_ONLINE")),
        (json!(member), json!("WORKSPACE_HEARTBEAT")),
    ];
    assert_eq!(heard, expected);

    assert_eq!(server.delete(&format!("/workspaces/{member}")).await.status, 200);
    assert_eq!(feed.close_code().await, Some(1008));
    let refused = Feed::try_open(&server, Some(&member), Some(&member_token)).await.expect_err("it is removed");
    assert_eq!(refused.status, 401);
}

#[tokio::test]
async fn an_agent_hears_that_others_were_removed() {
    let server = Setup::none().start().await;
    let (lead, lead_token) = server.create_external("lead", None).await;
    // Below a lead of its own, since those at the top may all talk to one another.
    let (elsewhere, _) = server.create_external("elsewhere", None).await;
    let (far, far_token) = server.create_external("far", Some(&elsewhere)).await;
    let mut members = Vec::new();
    for name in ["one", "two"] {
        members.push(server.create_external(name, Some(&lead)).await);
    }
    let below = server.create_external("below", Some(&members[0].0)).await;
    let mut far_feed = Feed::open(&server, Some(&far), Some(&far_token)).await;
    let mut lead_feed = Feed::open(&server, Some(&lead), Some(&lead_token)).await;
    let mut sibling = Feed::open(&server, Some(&members[1].0), Some(&members[1].1)).await;
    for (id, also_by) in [(&below.0, None), (&members[0].0, Some(&mut sibling))] {
        assert_eq!(server.delete(&format!("/workspaces/{id}?confirm=true")).await.status, 200);
        for feed in [Some(&mut lead_feed), also_by].into_iter().flatten() {
            assert_eq!(feed.next_of("WORKSPACE_REMOVED").await["workspace_id"], id.as_str());
        }
    }
    // Who could not talk to them hears of none.
    assert_eq!(server.beat(&far, &far_token).await.status, 200);
    let heard = far_feed.event().await;
    assert_eq!((&heard["event"], &heard["workspace_id"]), (&json!("WORKSPACE_ONLINE"), &json!(far)), "{heard}");
}

#[tokio::test]
async fn nobody_else_hears_anything() {
    let server = Setup::none().start().await;
    let (one, one_token) = server.create_external("one", None).await;
    let (two, two_token) = server.create_external("two", None).await;
    let operator = server.token();
    let rows = [
        (None, None),
        (None, Some("wrong")),
        (None, Some(one_token.as_str())),
        (Some(one.as_str()), None),
        (Some(one.as_str()), Some("wrong")),
        (Some(one.as_str()), Some(two_token.as_str())),
        (Some(two.as_str()), Some(operator.as_str())),
        (Some("nonsense"), Some(one_token.as_str())),
    ];
    for (agent, token) in rows {
        let refused = Feed::try_open(&server, agent, token).await.expect_err("it is refused");
        assert_eq!(refused.status, 401, "{agent:?} {token:?}: {refused:?}");
        assert_tells_nothing(&server, &refused);
    }
    let plain = server.get("/ws").await;
    assert_eq!(plain.status, 400, "{plain:?}");
    assert_tells_nothing(&server, &plain);
}

#[tokio::test]
async fn a_browser_shows_its_token_among_the_protocols() {
    let server = Setup::none().start().await;
    let (id, token) = server.create_external("one", None).await;
    let operator = server.token();
    let open = async |agent: Option<&str>, protocols: &str| {
        let mut request = format!("{}/ws", server.url().replace("http", "ws")).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_str(protocols).unwrap());
        if let Some(agent) = agent {
            request.headers_mut().insert("x-workspace-id", HeaderValue::from_str(agent).unwrap());
        }
        match connect_async(request).await {
            Ok((_, answer)) => Ok(answer.headers()["sec-websocket-protocol"].clone()),
            Err(Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(error) => panic!("{error:?}"),
        }
    };
    assert_eq!(open(None, &format!("molecule, molecule.bearer.{operator}")).await.unwrap(), "molecule");
    assert_eq!(open(Some(&id), &format!("molecule.bearer.{token}, molecule")).await.unwrap(), "molecule");
    assert_eq!(open(None, &format!("molecule, molecule.bearer.{token}")).await, Err(401));
    assert_eq!(open(None, "molecule, molecule.bearer.wrong").await, Err(401));
    assert_eq!(open(None, "molecule").await, Err(401));
}

#[tokio::test]
async fn a_feed_ends_when_its_token_is_revoked_and_places_are_few() {
    let server = Setup::none().start().await;
    let (id, token) = server.create_external("one", None).await;
    let mut feeds = Vec::new();
    for _ in 0..16 {
        feeds.push(Feed::open(&server, Some(&id), Some(&token)).await);
    }
    let refused = Feed::try_open(&server, Some(&id), Some(&token)).await.expect_err("there is no place");
    assert_eq!((refused.status, refused.error()), (429, "too many listeners for this workspace".to_owned()));
    let mut operators = Feed::open(&server, None, Some(&server.token())).await;
    let tokens = server.get(&format!("/workspaces/{id}/tokens")).await.json();
    let path = format!("/workspaces/{id}/tokens/{}", tokens["tokens"][0]["id"].as_str().unwrap());
    assert_eq!(server.delete(&path).await.status, 200);
    for feed in &mut feeds {
        assert_eq!(feed.close_code().await, Some(1008));
    }
    server.create_external("two", None).await;
    assert_eq!(operators.event().await["event"], "WORKSPACE_AWAITING_AGENT");
    drop(operators);
    nobody_listens(&server).await;
}

#[tokio::test]
async fn who_says_too_much_or_never_reads_is_let_go_and_nobody_else_notices() {
    let server = Setup::none().start().await;
    let (id, token) = server.create_external("one", None).await;
    let mut talks = Feed::open(&server, None, Some(&server.token())).await;
    talks.0.send(Message::text("x".repeat(4096))).await.unwrap();
    // What is said is of no interest, up to the limit.
    server.create_external("two", None).await;
    assert_eq!(talks.event().await["event"], "WORKSPACE_AWAITING_AGENT");
    talks.0.send(Message::text("x".repeat(4097))).await.unwrap();
    let ended = timeout(PATIENCE, async { while let Some(Ok(_)) = talks.0.next().await {} });
    ended.await.expect("it is let go");

    let deaf = Feed::open(&server, None, Some(&server.token())).await;
    let mut hears = Feed::open(&server, None, Some(&server.token())).await;
    // More than the buffers of both ends hold.
    for _ in 0..60 {
        say_much(&server, &id, &token).await;
        hears.next_of("AGENT_CARD_UPDATED").await;
    }
    drop(hears);
    nobody_listens(&server).await;
    drop(deaf);
}

#[tokio::test]
async fn that_a_task_changed_is_told_before_the_beat_that_says_so() {
    let server = Setup::none().start().await;
    let (id, token) = server.create_external("one", None).await;
    assert_eq!(server.beat(&id, &token).await.status, 200);
    let mut feed = Feed::open(&server, None, Some(&server.token())).await;
    let beat = |task: &str, tasks: i32| {
        json!({"workspace_id": id, "current_task": task, "active_tasks": tasks, "uptime_seconds": 7}).to_string()
    };
    for (task, tasks) in [("count", 2), ("count", 3), ("", 0)] {
        let beaten = server.send(reqwest::Method::POST, "/registry/heartbeat", Some(&token), beat(task, tasks)).await;
        assert_eq!(beaten.status, 200, "{beaten:?}");
    }
    let beat = |tasks: i32| (json!("WORKSPACE_HEARTBEAT"), json!({"active_tasks": tasks, "uptime_seconds": 7}));
    let expected = [
        (json!("TASK_UPDATED"), json!({"current_task": "count", "active_tasks": 2})),
        beat(2),
        beat(3),
        (json!("TASK_UPDATED"), json!({"current_task": "", "active_tasks": 0})),
        beat(0),
    ];
    for expected in expected {
        let event = feed.event().await;
        assert_eq!((event["event"].clone(), event["payload"].clone()), expected);
        assert_eq!(event["workspace_id"], id.as_str());
    }
}

/// How often listeners of a server are asked whether they live, where a test waits for it.
const SOON: &str = "300";

#[tokio::test]
async fn a_listener_is_asked_whether_it_lives_and_let_go_when_it_says_nothing() {
    let server = Setup::none().env("MOLECULE_LISTENER_PING_MS", SOON).start().await;
    // One that reads answers pings by itself.
    let mut lives = Feed::open(&server, None, Some(&server.token())).await;
    let dead = Feed::open(&server, None, Some(&server.token())).await;
    for _ in 0..6 {
        assert!(matches!(lives.message().await, Some(Message::Ping(_))));
    }
    until("the silent one is let go", async || {
        let metrics = server.get("/metrics").await.text;
        metrics.contains("\nmolecule_websocket_connections_active 1").then_some(())
    })
    .await;
    drop(dead);
    server.create_external("one", None).await;
    assert_eq!(lives.event().await["event"], "WORKSPACE_AWAITING_AGENT");
}

#[tokio::test]
async fn who_reads_too_slowly_is_told_to_come_again() {
    let server = Setup::none().start().await;
    let (id, token) = server.create_external("one", None).await;
    let mut slow = Feed::open(&server, None, Some(&server.token())).await;
    // More than the buffers of both ends hold, and then more events than are kept for anybody.
    for _ in 0..40 {
        say_much(&server, &id, &token).await;
    }
    futures_util::stream::iter(0..1200)
        .map(|_| server.beat(&id, &token))
        .buffer_unordered(16)
        .for_each(async |beaten| assert_eq!(beaten.status, 200))
        .await;
    assert_eq!(slow.close_code().await, Some(1013));
}

#[tokio::test]
async fn a_feed_goes_on_while_nobody_can_say_whether_it_may() {
    let server = Setup::none().env("MOLECULE_LISTENER_PING_MS", SOON).start().await;
    // On a fresh install the store says who may listen.
    let mut feed = Feed::open(&server, None, None).await;
    let beside = format!("sqlite:{}", server.data().join("molecule.db").display());
    let mut beside = sqlx::SqliteConnection::connect(&beside).await.unwrap();
    let mut rename = async |from: &str, to: &str| {
        let sql = sqlx::AssertSqlSafe(format!("ALTER TABLE {from} RENAME TO {to}"));
        sqlx::query(sql).execute(&mut beside).await.unwrap();
    };
    rename("workspace_auth_tokens", "away").await;
    // It is looked at several times from one ping to the next.
    for _ in 0..2 {
        assert!(matches!(feed.message().await, Some(Message::Ping(_))));
    }
    rename("away", "workspace_auth_tokens").await;
    server.create_external("one", None).await;
    assert_eq!(feed.event().await["event"], "WORKSPACE_AWAITING_AGENT");
    // That one has a token, so that the install is fresh no more.
    assert_eq!(feed.close_code().await, Some(1008));
}

#[tokio::test]
async fn a_page_opens_the_feed_from_where_it_may() {
    let server = Setup::none().env("CORS_ORIGINS", "https://canvas.example").start().await;
    let (id, token) = server.create_external("one", None).await;
    let (own, foreign, listed) = (server.url(), "https://evil.example", "https://canvas.example");
    let (operator, agent) = (format!("Bearer {}", server.token()), format!("Bearer {token}"));
    let none: Option<&str> = None;
    for origin in [none, Some(own.as_str()), Some(listed), Some(foreign)] {
        let origin: Vec<_> = origin.map(|origin| ("origin", origin)).into_iter().collect();
        // A bearer is what no other page has.
        let as_operator = [&origin[..], &[("authorization", operator.as_str())]].concat();
        let as_agent = [&origin[..], &[("authorization", agent.as_str()), ("x-workspace-id", id.as_str())]].concat();
        for headers in [as_operator, as_agent] {
            drop(
                Feed::with_headers(&server, &headers).await.unwrap_or_else(|refused| panic!("{headers:?} {refused:?}")),
            );
        }
        let refused = Feed::with_headers(&server, &origin).await.expect_err("it shows nothing");
        assert_eq!((refused.status, refused.error().as_str()), (401, "admin auth required"), "{origin:?}");
    }
}

#[tokio::test]
async fn a_foreign_page_does_not_hear_a_fresh_install() {
    let server = Setup::none().start().await;
    let own = server.url();
    drop(Feed::with_headers(&server, &[("origin", own.as_str())]).await.unwrap());
    let refused = Feed::with_headers(&server, &[("origin", "https://evil.example")]).await.expect_err("it is foreign");
    assert_eq!(refused.status, 401, "{refused:?}");
}

/// Has half a megabyte be told of the workspace.
pub(crate) async fn say_much(server: &Server, id: &str, token: &str) {
    let card = json!({"text": "x".repeat(500_000)});
    let body = json!({"workspace_id": id, "agent_card": card}).to_string();
    let said = server.send(reqwest::Method::POST, "/registry/update-card", Some(token), body).await;
    assert_eq!(said.status, 200);
}

/// Waits until the gauge says that every feed is over.
async fn nobody_listens(server: &Server) {
    until("every feed is over", async || {
        let metrics = server.get("/metrics").await.text;
        metrics.contains("\nmolecule_websocket_connections_active 0").then_some(())
    })
    .await;
}
