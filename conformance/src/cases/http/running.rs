//! Workspaces that the server brings up by itself, as their operator sees them.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    case::{Area, Verdict, cases},
    http::{Answer, Server},
};

cases! {
    Area::Workspaces;
    Extended(Feature::Backend), "R-RUN-1", a_workspace_comes_up: "A workspace that is created comes online by itself";
    Extended(Feature::Backend), "R-RUN-2", the_log_tells_how_it_came_up:
        "The log tells that a workspace was being brought up, and that it came online";
    Extended(Feature::Backend), "R-RUN-3", a_running_agent_is_called: "The agent of a running workspace is called";
    Extended(Feature::Backend), "R-RUN-4", a_restart_brings_it_back: "A workspace that is restarted comes back";
    Extended(Feature::Backend), "R-RUN-5", a_paused_workspace_is_brought_back:
        "A paused workspace is stopped, and comes back where it is resumed";
    Extended(Feature::Backend), "R-RUN-6", a_message_wakes_a_hibernated_workspace:
        "A message to a hibernated workspace wakes it";
}

/// How long a workspace may take to come up; a little less than a case may.
const PATIENCE: Duration = Duration::from_secs(25);

const POLL: Duration = Duration::from_millis(100);

/// What is told of a workspace where there is nothing to run it.
const NO_BACKEND: &str = "no provisioning backend available";

/// Creates a workspace that the server brings up.
async fn create(server: &Server, name: &str) -> Result<Uuid, Verdict> {
    let answer = server.post_as_admin("/workspaces", &json!({"name": name})).await?;
    let created = answer.has(201, &json!({"status": "provisioning"}))?;
    let id = created["id"].as_str().and_then(|id| id.parse().ok()).ok_or_else(|| answer.wrong("an id"))?;
    server.made(id);
    Ok(id)
}

/// Waits until the workspace came online `times` times, and is.
async fn comes_online(server: &Server, id: Uuid, times: usize) -> Result<(), Verdict> {
    let came = tokio::time::timeout(PATIENCE, async {
        loop {
            let log = server.get_as_admin(&format!("/events/{id}?type=WORKSPACE_ONLINE")).await?;
            let seen = server.get_as_admin("/workspaces").await?;
            let fleet = seen.json(200)?;
            let row = fleet.as_array().into_iter().flatten().find(|row| row["id"] == id.to_string());
            let row = row.ok_or_else(|| seen.wrong("the workspace that was made"))?;
            match row["status"].as_str() {
                Some("online") if log.json(200)?.as_array().is_some_and(|events| events.len() >= times) => {
                    return Ok(());
                }
                Some("failed") => return Err(why_not(&row["last_sample_error"])),
                _ => tokio::time::sleep(POLL).await,
            }
        }
    });
    let late = || Verdict::Failed(format!("{id} did not come online within {} s", PATIENCE.as_secs()));
    came.await.unwrap_or_else(|_| Err(late()))
}

fn why_not(error: &Value) -> Verdict {
    match error.as_str().unwrap_or_default() {
        error if error.starts_with(NO_BACKEND) => {
            Verdict::Unsupported("the server has nothing to run workspaces on".into())
        }
        error => Verdict::Failed(format!("the workspace did not come up: {error}")),
    }
}

async fn online(server: &Server, name: &str) -> Result<Uuid, Verdict> {
    let id = create(server, name).await?;
    comes_online(server, id, 1).await?;
    Ok(id)
}

async fn verb(server: &Server, id: Uuid, verb: &str) -> Result<Answer, Verdict> {
    server.post_as_admin(&format!("/workspaces/{id}/{verb}"), &json!({})).await
}

async fn say(server: &Server, id: Uuid) -> Result<Answer, Verdict> {
    let message = json!({"role": "user", "parts": [{"kind": "text", "text": "are you there?"}]});
    let call = json!({"method": "message/send", "params": {"message": message}});
    server.post_as_admin(&format!("/workspaces/{id}/a2a"), &call).await
}

async fn a_workspace_comes_up(server: &Server) -> Result<(), Verdict> {
    online(server, "conformance runs").await.map(drop)
}

async fn the_log_tells_how_it_came_up(server: &Server) -> Result<(), Verdict> {
    let id = online(server, "conformance told").await?;
    let answer = server.get_as_admin(&format!("/events/{id}")).await?;
    let log = answer.json(200)?;
    let kinds: Vec<&str> = log.as_array().into_iter().flatten().filter_map(|it| it["event_type"].as_str()).collect();
    let [.., first] = &log.as_array().map(Vec::as_slice).unwrap_or_default() else {
        return Err(answer.wrong("two events"));
    };
    let told = &first["payload"];
    let complete = told["name"] == "conformance told" && told["tier"].is_number() && told["runtime"].is_string();
    match kinds[..] {
        ["WORKSPACE_ONLINE", "WORKSPACE_PROVISIONING"] if complete => Ok(()),
        _ => Err(answer.wrong("WORKSPACE_PROVISIONING with name, tier and runtime, and then WORKSPACE_ONLINE")),
    }
}

async fn a_running_agent_is_called(server: &Server) -> Result<(), Verdict> {
    let id = online(server, "conformance called").await?;
    say(server, id).await?.has(200, &json!({"jsonrpc": "2.0"})).map(drop)
}

async fn a_restart_brings_it_back(server: &Server) -> Result<(), Verdict> {
    let id = online(server, "conformance again").await?;
    verb(server, id, "restart").await?.has(200, &json!({"status": "provisioning"}))?;
    comes_online(server, id, 2).await
}

async fn a_paused_workspace_is_brought_back(server: &Server) -> Result<(), Verdict> {
    let id = online(server, "conformance paused").await?;
    verb(server, id, "pause").await?.has(200, &json!({"status": "paused"}))?;
    let called = say(server, id).await?;
    if called.status() < 400 {
        return Err(called.wrong("a refusal, since it is paused"));
    }
    verb(server, id, "resume").await?.is(200, &json!({"status": "provisioning", "resumed_count": 1}))?;
    comes_online(server, id, 2).await
}

async fn a_message_wakes_a_hibernated_workspace(server: &Server) -> Result<(), Verdict> {
    let id = online(server, "conformance sleeps").await?;
    verb(server, id, "hibernate").await?.has(200, &json!({"status": "hibernated"}))?;
    let waking = say(server, id).await?;
    waking.has(503, &json!({"waking": true}))?;
    if waking.header("retry-after").is_none_or(|seconds| seconds.parse::<u32>().is_err()) {
        return Err(waking.wrong("Retry-After in seconds"));
    }
    comes_online(server, id, 2).await
}
