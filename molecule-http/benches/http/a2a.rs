//! What a message costs that goes to its agent through the server, beside one that goes there straight.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use axum::{Json, Router, routing::post};
use molecule_core::http_client::{Timeouts, build};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    CONNECTIONS, Outcome, Size, between,
    children::{Child, stay_on},
};

/// How long the agent thinks about each message where throughput is measured. No model answers sooner.
const THINKS: Duration = Duration::from_millis(20);

/// An agent that answers every message after `thinks`, until it is killed.
pub(crate) async fn agent(address: &str, thinks: Duration) -> Outcome<()> {
    let answer = move |Json(message): Json<Value>| async move {
        if !thinks.is_zero() {
            tokio::time::sleep(thinks).await;
        }
        let reply =
            json!({"kind": "message", "role": "agent", "messageId": "r", "parts": [{"kind": "text", "text": "yes"}]});
        Json(json!({"jsonrpc": "2.0", "id": message["id"], "result": reply}))
    };
    axum::serve(TcpListener::bind(address).await?, Router::new().route("/", post(answer))).await?;
    Ok(())
}

pub(crate) async fn measure(size: Size, server_on: usize, load_on: usize) -> Outcome<()> {
    // It sends the messages.
    stay_on(load_on)?;
    let folder = tempfile::tempdir()?;
    let server = Child::server(folder.path(), server_on).await?;
    let token = operator_token(folder.path()).await?;
    let thinker = Child::agent(THINKS, load_on).await?;
    let through = Target::through(&server, &token, &thinker).await?;
    let straight = Target::straight(&thinker);
    // What is sent first opens the connections.
    through.send(CONNECTIONS, Duration::from_millis(500)).await?;
    let before = straight.send(CONNECTIONS, size.lasts).await?;
    let share = through.send(CONNECTIONS, size.lasts).await?;
    let after = straight.send(CONNECTIONS, size.lasts).await?;
    let ratio = between(before.per_second, share.per_second, after.per_second)?;
    println!(
        "a2a: {:.0} messages per second over {CONNECTIONS} connections to an agent that thinks for {} ms, {ratio:.2} of \
         straight to it ({:.0}, {:.0})",
        share.per_second,
        THINKS.as_millis(),
        before.per_second,
        after.per_second
    );

    let prompt = Child::agent(Duration::ZERO, load_on).await?;
    let (through, straight) = (Target::through(&server, &token, &prompt).await?, Target::straight(&prompt));
    through.send(1, Duration::from_millis(500)).await?;
    let before = straight.send(1, size.lasts / 2).await?.median;
    let with = through.send(1, size.lasts / 2).await?.median;
    let after = straight.send(1, size.lasts / 2).await?.median;
    between(before.as_secs_f64(), with.as_secs_f64(), after.as_secs_f64())?;
    let more = with.saturating_sub((before + after) / 2);
    println!(
        "a2a: {} us more at the median, one message after the other ({with:?}, straight {before:?})",
        more.as_micros()
    );
    Ok(())
}

/// The token of the operator, which a server writes some time after it listens.
async fn operator_token(data: &Path) -> Outcome<String> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match std::fs::read_to_string(data.join("operator-token")) {
            Ok(token) if !token.is_empty() => return Ok(token),
            _ if Instant::now() > deadline => return Err("the server made no token for its operator".into()),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Where messages are sent to.
struct Target {
    urls: Vec<String>,
    token: Option<String>,
}

/// What came of sending.
struct Sent {
    per_second: f64,
    median: Duration,
}

impl Target {
    fn straight(agent: &Child) -> Self {
        Self { urls: vec![format!("http://{}/", agent.address)], token: None }
    }

    /// Workspaces of which `agent` is the agent, one for each connection.
    async fn through(server: &Child, token: &str, agent: &Child) -> Outcome<Self> {
        let http = client()?;
        let mut urls = Vec::new();
        for number in 0..CONNECTIONS {
            let url = agent.address.replace("127.0.0.1", "http://localhost");
            let body = json!({"name": format!("{}-{number}", agent.address), "external": true});
            let made = post_json(&http, &format!("http://{}/workspaces", server.address), token, &body).await?;
            let (id, own) = (text(&made["id"])?, text(&made["connection"]["auth_token"])?);
            let register = json!({"id": id, "url": url, "delivery_mode": "push", "agent_card": {"name": "a"}});
            post_json(&http, &format!("http://{}/registry/register", server.address), &own, &register).await?;
            urls.push(format!("http://{}/workspaces/{id}/a2a", server.address));
        }
        Ok(Self { urls, token: Some(token.to_owned()) })
    }

    /// Sends one message after the other over each of so many connections.
    async fn send(&self, connections: usize, lasts: Duration) -> Outcome<Sent> {
        let (mut senders, began) = (JoinSet::new(), Instant::now());
        for number in 0..connections {
            let (url, token) = (self.urls[number % self.urls.len()].clone(), self.token.clone());
            senders.spawn(async move {
                let http = client().expect("it is built");
                let mut took = Vec::new();
                while began.elapsed() < lasts {
                    let message = json!({"role": "user", "messageId": format!("{number}-{}", took.len()),
                        "parts": [{"kind": "text", "text": "Is the build green?"}]});
                    let call =
                        json!({"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message}});
                    let sent = Instant::now();
                    let answer = post_json(&http, &url, token.as_deref().unwrap_or_default(), &call)
                        .await
                        .expect("it is answered");
                    took.push(sent.elapsed());
                    assert!(answer["result"]["parts"].is_array(), "{answer}");
                }
                took
            });
        }
        let mut took: Vec<Duration> = senders.join_all().await.into_iter().flatten().collect();
        let per_second = f64::from(u32::try_from(took.len())?) / began.elapsed().as_secs_f64();
        took.sort_unstable();
        let median = *took.get(took.len() / 2).ok_or("nothing was sent")?;
        Ok(Sent { per_second, median })
    }
}

fn client() -> Outcome<reqwest::Client> {
    Ok(build(Timeouts { connect: Duration::from_secs(10), total: None })?)
}

async fn post_json(http: &reqwest::Client, url: &str, token: &str, body: &Value) -> Outcome<Value> {
    let mut request = http.post(url).header("content-type", "application/json").body(body.to_string());
    if !token.is_empty() {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    if !status.is_success() {
        return Err(format!("{url}: {status}: {text}").into());
    }
    Ok(serde_json::from_str(&text)?)
}

fn text(value: &Value) -> Outcome<String> {
    Ok(value.as_str().ok_or("it is no text")?.to_owned())
}
