//! The tools that give work to other workspaces.

use std::{sync::Arc, time::Duration};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::tools::{Tools, get, post, start};
use crate::{
    agent::client::{Answer, Call, text},
    clock::{Entropy, random_uuid},
    id::WorkspaceId,
    tools::{
        Arguments,
        reply::{self, Reply},
    },
};

/// How long one try may wait for the reply.
const READ: Duration = Duration::from_secs(300);

/// How long the platform is to wait for the reply: whoever is still at work by then is not asked again.
const PATIENCE: Duration = Duration::from_secs(280);

/// How long all tries may take together.
const TOTAL: Duration = Duration::from_secs(600);

/// How often a message is sent when the platform is not reached.
const TRIES: u32 = 5;

/// How many delegations are listed when none is named.
const LISTED: usize = 10;

const BOTH: &str = "Error: workspace_id and task are required";

pub(super) async fn delegate(tools: &Tools, arguments: &Arguments) -> Result<String, String> {
    let (id, task) = (arguments.workspace("workspace_id")?, arguments.text("task")?);
    let Some(id) = id.filter(|_| !task.is_empty()) else { return Err(BOTH.into()) };
    let name = find(tools, &id).await?;
    let path = format!("/workspaces/{id}/a2a");
    // One id for all tries.
    let message_id = random_uuid(tools.entropy.as_ref()).to_string();
    let message = json!({"role": "user", "messageId": message_id, "parts": [{"kind": "text", "text": task}]});
    let request = json!({"jsonrpc": "2.0", "id": message_id, "method": "message/send", "params": {"message": message}});
    let call = Call { timeout: READ, patience: Some(PATIENCE), ..post(&path, &request) };
    let failed = |kind: &str, reason: &str| {
        format!(
            "DELEGATION FAILED to {name}: [A2A_ERROR] {kind}: {reason} [target={}]. Do the task yourself, ask another peer, \
             or tell the user that {name} is not available.",
            tools.client.platform().endpoint(&path)
        )
    };
    let answer = match send(tools, &call).await {
        Ok(answer) => answer,
        Err(Unsent::Tried(reason)) => return Err(failed("Unreachable", &reason)),
        Err(Unsent::PerhapsSent(reason)) => {
            return Err(format!(
                "No reply from {name}: {reason}. The task may have reached it, and it may still be at work on it: do not send \
                 it again."
            ));
        }
    };
    let said = answer.json().map(|json| reply::read(&json));
    match said {
        Some(Reply::Queued) if answer.status.is_success() => Ok(format!(
            "Queued: {name} is busy or asks for its messages, and has the task or is given it then. Do not send it again."
        )),
        Some(Reply::Text(text)) if answer.status.is_success() => Ok(text),
        Some(Reply::Error(error)) if answer.status.is_success() => Err(failed("Agent", &error)),
        _ => Err(failed(&format!("HTTP {}", answer.status.as_u16()), &answer.message())),
    }
}

pub(super) async fn delegate_async(tools: &Tools, arguments: &Arguments) -> Result<String, String> {
    let (id, task) = (arguments.workspace("workspace_id")?, arguments.text("task")?);
    let Some(id) = id.filter(|_| !task.is_empty()) else { return Err(BOTH.into()) };
    // New for every call: the same task later is another delegation.
    let key = random_uuid(tools.entropy.as_ref()).simple().to_string();
    let request = json!({"target_id": id.to_string(), "task": task, "idempotency_key": key});
    let answer = tools.ask(&post(&tools.own("delegate"), &request)).await?;
    let object = answer.object().unwrap_or_default();
    match (answer.status, text(&object, "delegation_id")) {
        (StatusCode::OK | StatusCode::ACCEPTED, Some(delegation)) => Ok(json!({
            "delegation_id": delegation,
            "workspace_id": id.to_string(),
            "status": "delegated",
            "note": "Ask for the outcome with check_task_status.",
        })
        .to_string()),
        (status, _) => {
            Err(format!("Error: delegation failed with status {}: {}", status.as_u16(), start(&answer.message())))
        }
    }
}

pub(super) async fn check(tools: &Tools, arguments: &Arguments) -> Result<String, String> {
    let (id, task) = (arguments.workspace("workspace_id")?, arguments.text("task_id")?);
    let answer = tools.ask(&get(&tools.own("delegations"), &[])).await?;
    if answer.status != StatusCode::OK {
        return Err(format!("Error: failed to check delegations ({})", answer.status.as_u16()));
    }
    let Some(Value::Array(rows)) = answer.json() else { return Err("Error: the answer was not a list".into()) };
    if task.is_empty() {
        let wanted = |row: &&Value| id.as_ref().is_none_or(|id| row.get("target_id") == Some(&id.to_string().into()));
        let listed: Vec<&Value> = rows.iter().filter(wanted).take(LISTED).collect();
        return Ok(json!({"delegations": listed, "count": listed.len()}).to_string());
    }
    let found = rows.iter().find(|row| row.get("delegation_id").is_some_and(|known| known == task));
    Ok(found.map_or_else(|| json!({"status": "not_found", "delegation_id": task}).to_string(), ToString::to_string))
}

/// The name of workspace `id`, if it can be given work.
async fn find(tools: &Tools, id: &WorkspaceId) -> Result<String, String> {
    let path = format!("/registry/discover/{id}");
    // The platform wants to know who asks.
    let answer = tools.ask(&Call { is_own: true, ..get(&path, &[]) }).await?;
    let object = answer.object().unwrap_or_default();
    match answer.status {
        StatusCode::OK => {}
        StatusCode::SERVICE_UNAVAILABLE => {
            let status = text(&object, "status").unwrap_or("offline");
            return Err(format!("Error: workspace {id} is {status}"));
        }
        StatusCode::UNAUTHORIZED => {
            return Err("Error: the platform rejected the token of this workspace (HTTP 401): it may be revoked".into());
        }
        _ => return Err(format!("Error: workspace {id} not found or not accessible (check access control)")),
    }
    if text(&object, "status") == Some("offline") {
        return Err(format!("Error: workspace {id} is offline"));
    }
    Ok(text(&object, "name").map_or_else(|| id.to_string(), str::to_owned))
}

/// Why no answer came.
enum Unsent {
    /// Nothing reached the platform.
    Tried(String),
    /// Nobody knows what the other end got.
    PerhapsSent(String),
}

/// Sends `call`, again as long as nothing reached the platform: what did is not sent twice.
async fn send(tools: &Tools, call: &Call<'_>) -> Result<Answer, Unsent> {
    let deadline = Instant::now() + TOTAL;
    let mut tries = 1;
    loop {
        let silence = match tools.client.exchange(call).await {
            Ok(answer) => return Ok(answer),
            Err(silence) => silence,
        };
        if !silence.was_not_sent {
            return Err(Unsent::PerhapsSent(silence.into()));
        }
        let pause = pause(tries, &tools.entropy);
        if tries >= TRIES || Instant::now() + pause >= deadline {
            return Err(Unsent::Tried(format!("{silence} (tried {tries} times)")));
        }
        sleep(pause).await;
        tries += 1;
    }
}

/// One second, then twice as long each time, a quarter to either side.
fn pause(tries: u32, entropy: &Arc<dyn Entropy>) -> Duration {
    let mut byte = [0];
    entropy.fill(&mut byte);
    let spread = 0.75 + 0.5 * f64::from(byte[0]) / f64::from(u8::MAX);
    Duration::from_secs(1 << (tries - 1).min(3)).mul_f64(spread)
}
