//! What a workspace says in its own log of what it said to others: without that, its history would show one side alone.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{
    delegation::Said,
    tools::{Tools, post, start},
};
use crate::{agent::client::Call, id::WorkspaceId};

/// How long a report may take. None is worth waiting for.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest summary, in characters.
const SUMMARY: usize = 256;

/// The longest reason of a failure, in characters.
const DETAIL: usize = 4096;

/// Says that `task` goes to workspace `id`.
pub(super) fn sent(tools: &Tools, id: &WorkspaceId, name: &str, task: &str) -> JoinHandle<()> {
    let body = json!({"parts": [{"kind": "text", "text": task}]});
    keep(tools, "a2a_send", id, &format!("Delegating to {name}: {task}"), json!({"request_body": body}), None)
}

/// Says what became of it, once that it was `sent` is said.
pub(super) fn answered(
    tools: &Tools,
    id: &WorkspaceId,
    name: &str,
    said: Result<&Said, &str>,
    sent: JoinHandle<()>,
) -> JoinHandle<()> {
    let (summary, more) = match said {
        Ok(Said::Replied(text)) => (format!("{name} replied: {text}"), json!({"response_body": {"text": text}})),
        Ok(Said::Queued) => (format!("{name} has the task"), json!({})),
        Err(why) => (format!("{name} did not reply"), json!({"status": "error", "error_detail": start(why, DETAIL)})),
    };
    keep(tools, "a2a_receive", id, &summary, more, Some(sent))
}

/// Reports in the background: nothing that is said about the work may come between it and whoever asked for it.
fn keep(
    tools: &Tools,
    kind: &str,
    target: &WorkspaceId,
    summary: &str,
    more: Value,
    after: Option<JoinHandle<()>>,
) -> JoinHandle<()> {
    let mut report = json!({
        "activity_type": kind, "method": "message/send", "target_id": target.to_string(), "summary": start(summary, SUMMARY),
    });
    if let (Some(report), Value::Object(more)) = (report.as_object_mut(), more) {
        report.extend(more);
    }
    let (client, path, target) = (tools.client.clone(), tools.own("activity"), *target);
    tools.reports.spawn(async move {
        if let Some(after) = after {
            // However it ended: this comes after it.
            let _ = after.await;
        }
        let reason = match client.exchange(&Call { timeout: TIMEOUT, ..post(&path, &report) }).await {
            Ok(answer) if answer.status.is_success() => return,
            Ok(answer) => format!("HTTP {}: {}", answer.status.as_u16(), answer.message()),
            Err(silence) => silence.into(),
        };
        tracing::warn!("molecule-mcp: what was said to {target} could not be kept in the log: {reason}");
    })
}
