//! Two servers on one Postgres: what is done on one holds on the other, and either may die.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::{
    process::{PATIENCE, POLL},
    server::{Server, Setup, until},
    socket::Feed,
    support::{self, TestDatabase},
};

async fn pair(database: &TestDatabase, setup: impl Fn() -> Setup) -> (Server, Server) {
    let one = setup().database(Some(database.url())).start().await;
    let other = setup().database(Some(database.url())).start().await;
    (one, other)
}

/// Has the agent beat on `server` until `feed` hears it.
async fn beat_until_heard(server: &Server, (id, token): &(String, String), feed: &mut Feed) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert_eq!(server.beat(id, token).await.status, 200);
        let heard = tokio::time::timeout(Duration::from_millis(300), async {
            while feed.event().await["event"] != "WORKSPACE_HEARTBEAT" {}
        });
        if heard.await.is_ok() {
            return;
        }
        assert!(Instant::now() < deadline, "a beat on one server is not heard on the other");
    }
}

#[tokio::test]
async fn what_happens_on_one_server_is_heard_and_obeyed_on_the_other() {
    let Some(database) = support::postgres_database().await else { return };
    let (one, other) = pair(&database, Setup::none).await;
    let mut feed = Feed::open(&other, None, Some(&other.token())).await;
    let agent = one.create_external("one", None).await;
    let event = feed.event().await;
    assert_eq!((&event["event"], &event["workspace_id"]), (&json!("WORKSPACE_AWAITING_AGENT"), &json!(agent.0)));
    beat_until_heard(&one, &agent, &mut feed).await;

    // The other knows the token by heart, and forgets it at once.
    for _ in 0..3 {
        assert_eq!(other.beat(&agent.0, &agent.1).await.status, 200);
    }
    let tokens = one.get(&format!("/workspaces/{}/tokens", agent.0)).await.json();
    let token = tokens["tokens"][0]["id"].as_str().unwrap();
    assert_eq!(one.delete(&format!("/workspaces/{}/tokens/{token}", agent.0)).await.status, 200);
    let revoked = Instant::now();
    while other.beat(&agent.0, &agent.1).await.status != 401 {
        assert!(revoked.elapsed() < Duration::from_secs(1), "a revoked token is good for too long");
        sleep(POLL).await;
    }

    // The same secret is told by both.
    let agent = other.create_external("two", None).await;
    let secret = async |server: &Server| server.beat(&agent.0, &agent.1).await.json()["platform_inbound_secret"].take();
    let told = secret(&one).await;
    assert_eq!((told.as_str().map(str::len), &secret(&other).await), (Some(43), &told));
}

#[tokio::test]
async fn what_a_token_began_before_it_was_revoked_comes_to_its_end() {
    let Some(database) = support::postgres_database().await else { return };
    let (one, other) = pair(&database, Setup::none).await;
    let (id, token) = one.create_external("one", None).await;
    assert_eq!(one.beat(&id, &token).await.status, 200);
    let body = json!({"workspace_id": id}).to_string();
    let head = format!(
        "POST /registry/heartbeat HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(one.url().trim_start_matches("http://")).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // Asked for the body, so that the head was judged.
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).await.unwrap();
    assert!(asked.starts_with(b"HTTP/1.1 100"));
    let tokens = other.get(&format!("/workspaces/{id}/tokens")).await.json();
    let kept = tokens["tokens"][0]["id"].as_str().unwrap();
    assert_eq!(other.delete(&format!("/workspaces/{id}/tokens/{kept}")).await.status, 200);
    until("it is refused", async || (one.beat(&id, &token).await.status == 401).then_some(())).await;
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn each_silent_agent_is_lost_once_whoever_sweeps() {
    let Some(database) = support::postgres_database().await else { return };
    let hasty = || Setup::none().env("MOLECULE_HEALTH_TICK_MS", "20").env("REMOTE_LIVENESS_STALE_AFTER", "1");
    let (one, other) = pair(&database, hasty).await;
    let mut ids = Vec::new();
    for (number, server) in [&one, &other].into_iter().cycle().take(12).enumerate() {
        let (id, token) = one.create_external(&format!("e{number}"), None).await;
        assert_eq!(server.beat(&id, &token).await.status, 200);
        ids.push(id);
    }
    for id in &ids {
        other.until_status(id, "awaiting_agent").await;
        let lost = one.events(id).await.into_iter().filter(|(kind, _)| kind == "WORKSPACE_OFFLINE").count();
        assert_eq!(lost, 1, "{id}");
    }
}

#[tokio::test]
async fn whichever_server_dies_nothing_is_lost() {
    let Some(database) = support::postgres_database().await else { return };
    let (mut one, mut other) = pair(&database, Setup::none).await;
    let mut agents = Vec::new();
    for number in 0..4 {
        agents.push(one.create_external(&format!("e{number}"), None).await);
    }
    let answered = async |server: &Server| {
        let mut secrets = Vec::new();
        for (id, token) in &agents {
            let answer = server.beat(id, token).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            secrets.push(answer.json()["platform_inbound_secret"].clone());
        }
        secrets
    };
    let secrets = answered(&one).await;
    let log = async |server: &Server| server.get("/events?limit=500").await.json();
    let before: Value = log(&one).await;

    one.kill9();
    assert_eq!((answered(&other).await, &log(&other).await), (secrets.clone(), &before));
    let mut feed = Feed::open(&other, None, Some(&other.token())).await;
    one.start_again().await;
    beat_until_heard(&one, &agents[0], &mut feed).await;

    other.kill9();
    assert_eq!((answered(&one).await, &log(&one).await), (secrets.clone(), &before));
    other.start_again().await;
    let fleet = until("the fleet is whole", async || {
        let fleet = other.fleet().await;
        fleet.values().all(|row| row["status"] == "online").then_some(fleet)
    });
    assert_eq!(fleet.await.len(), agents.len());
    assert_eq!((answered(&other).await, &log(&other).await), (secrets, &before));
}
