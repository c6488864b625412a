//! The tools that give work to other workspaces.

use std::{sync::Arc, time::Duration};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    report,
    tools::{REASON, Tools, get, post, start},
};
use crate::{
    agent::client::{Answer, Call, text},
    clock::{Entropy, random_uuid},
    id::WorkspaceId,
    tools::{
        Arguments, newer,
        reply::{self, Reply},
    },
};

/// How long one try may wait for the reply.
const READ: Duration = Duration::from_secs(300);

/// How long the platform is to wait for the reply: whoever is still at work by then is not asked again.
const PATIENCE: Duration = Duration::from_secs(280);

/// How long all tries may take together.
const TOTAL: Duration = Duration::from_secs(600);

/// How long to wait until an agent that is being woken up is tried again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How often a message is sent when the platform is not reached.
const TRIES: u32 = 5;

/// How many delegations are listed when none is named.
const LISTED: usize = 10;

const BOTH: &str = "Error: workspace_id and task are required";

pub(super) async fn delegate(tools: &Tools, arguments: &Arguments) -> Result<String, String> {
    let (id, task) = (arguments.workspace("workspace_id")?, arguments.text("task")?);
    let Some(id) = id.filter(|_| !task.is_empty()) else { return Err(BOTH.into()) };
    let name = find(tools, &id).await?;
    // Whoever reads the log of this workspace sees both sides of the conversation.
    let sent = report::sent(tools, &id, &name, task);
    let said = ask(tools, &id, &name, task).await;
    report::answered(tools, &id, &name, said.as_ref().map_err(String::as_str), sent);
    Ok(match said? {
        Said::Replied(text) => text,
        Said::Queued => format!(
            "Queued: {name} is busy or asks for its messages, and has the task or is given it then. Do not send it again."
        ),
    })
}

/// What came of a task that was sent.
pub(super) enum Said {
    Replied(String),
    Queued,
}

/// Sends `task` to workspace `id`, and gives what its agent replies.
async fn ask(tools: &Tools, id: &WorkspaceId, name: &str, task: &str) -> Result<Said, String> {
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
    let wants_newer = |answer: &Answer| answer.json().is_some_and(|said| newer::is_wanted(&said));
    let sent = match send(tools, &call).await {
        Ok(answer) if wants_newer(&answer) => {
            let request = newer::request(&message_id, task, None).to_string().into_bytes();
            send(tools, &Call { body: Some(request), protocol: Some(newer::VERSION), ..call }).await
        }
        sent => sent,
    };
    let answer = match sent {
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
        Some(Reply::Queued) if answer.status.is_success() => Ok(Said::Queued),
        Some(Reply::Text(text)) if answer.status.is_success() => Ok(Said::Replied(text)),
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
        (status, _) => Err(format!(
            "Error: delegation failed with status {}: {}",
            status.as_u16(),
            start(&answer.message(), REASON)
        )),
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
            // A message wakes the first two, and is kept for the last where that asks for its messages.
            if !matches!(status, "hibernated" | "hibernating" | "awaiting_agent") {
                return Err(format!("Error: workspace {id} is {status}"));
            }
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

/// Sends `call`, again as long as the agent is being woken up, or nothing reached the platform: what did reach an agent is
/// not sent twice.
async fn send(tools: &Tools, call: &Call<'_>) -> Result<Answer, Unsent> {
    let deadline = Instant::now() + TOTAL;
    let mut tries = 1;
    let mut is_waking = false;
    loop {
        let silence = match tools.client.exchange(call).await {
            Ok(answer) => {
                is_waking = wakes(&answer, is_waking);
                if !is_waking || Instant::now() + LOOK_AGAIN >= deadline {
                    return Ok(answer);
                }
                sleep(LOOK_AGAIN).await;
                continue;
            }
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

/// Whether `answer` says that the agent is being woken up, or, once `before` one did, that it is not up yet.
fn wakes(answer: &Answer, before: bool) -> bool {
    let object = answer.object().unwrap_or_default();
    let is_not_up = || object.get("status").is_some_and(|status| status == "provisioning");
    answer.status == StatusCode::SERVICE_UNAVAILABLE
        && (object.get("waking").is_some_and(|waking| waking == true) || before && is_not_up())
}

/// One second, then twice as long each time, a quarter to either side.
fn pause(tries: u32, entropy: &Arc<dyn Entropy>) -> Duration {
    let mut byte = [0];
    entropy.fill(&mut byte);
    let spread = 0.75 + 0.5 * f64::from(byte[0]) / f64::from(u8::MAX);
    Duration::from_secs(1 << (tries - 1).min(3)).mul_f64(spread)
}

#[cfg(test)]
mod tests {
    use reqwest::Method;
    use tokio::{io::AsyncReadExt, net::TcpListener};
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::{
        agent::{InboundSecret, PlatformClient, StateDir, TokenStore},
        clock::SystemEntropy,
        http_client::Way,
    };

    fn tools(platform: &str) -> (tempfile::TempDir, Tools) {
        let root = tempfile::tempdir().unwrap();
        let folder = StateDir::resolve(Some(root.path()), None).unwrap();
        let tokens = TokenStore::supplied_first(&folder, Some("t0ken".into()));
        let id = "6f9619ff-8b86-d011-b42d-00cf4fc964ff".parse().unwrap();
        let inbound = InboundSecret::new(&folder);
        let client = PlatformClient::new(platform.parse().unwrap(), id, tokens, inbound, &Way::default()).unwrap();
        let secrets = folder.path().to_owned();
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let reports = TaskTracker::new();
        (root, Tools { client, entropy, inbox: None, folders: Vec::new(), secrets, reports })
    }

    #[tokio::test(start_paused = true)]
    async fn what_reached_nobody_is_sent_five_times_with_longer_and_longer_pauses() {
        // A port that was free a moment ago.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (_root, tools) = tools(&format!("http://{}", listener.local_addr().unwrap()));
        drop(listener);
        let started = Instant::now();
        let Err(Unsent::Tried(reason)) = send(&tools, &Call::to(Method::POST, "/")).await else {
            panic!("it was sent")
        };
        assert!(reason.ends_with(" (tried 5 times)"), "{reason}");
        let (least, most) = (Duration::from_millis(11_250), Duration::from_millis(18_800));
        assert!((least..most).contains(&started.elapsed()), "1 + 2 + 4 + 8 s, a quarter to either side");
    }

    #[tokio::test]
    async fn what_may_have_arrived_is_not_sent_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (_root, tools) = tools(&format!("http://{}", listener.local_addr().unwrap()));
        let hang_up = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 4]).await.unwrap();
        };
        let call = Call::to(Method::POST, "/");
        let (sent, ()) = tokio::join!(send(&tools, &call), hang_up);
        assert!(matches!(sent, Err(Unsent::PerhapsSent(_))));
    }

    #[test]
    fn pauses_grow_up_to_eight_seconds() {
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        for (tries, seconds) in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (9, 8.0)] {
            let pause = pause(tries, &entropy).as_secs_f64();
            assert!((0.75 * seconds..=1.25 * seconds).contains(&pause), "{tries}: {pause}");
        }
    }
}
