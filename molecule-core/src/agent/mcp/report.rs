//! What a workspace says in its own log of what it said to others: without that, its history would show one side alone.

use std::time::Duration;

use serde_json::{Value, json};

use super::tools::{Tools, post};
use crate::{agent::client::Call, id::WorkspaceId};

/// How long a report may take. None is worth waiting for.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest summary, in characters.
const SUMMARY: usize = 256;

/// The longest reason of a failure, in characters.
const DETAIL: usize = 4096;

/// Says that `task` goes to workspace `id`.
pub(super) async fn sent(tools: &Tools, id: &WorkspaceId, name: &str, task: &str) {
    let body = json!({"parts": [{"kind": "text", "text": task}]});
    keep(tools, "a2a_send", id, &format!("Delegating to {name}: {task}"), json!({"request_body": body})).await;
}

/// Says what became of it.
pub(super) async fn answered(tools: &Tools, id: &WorkspaceId, name: &str, said: &Result<String, String>) {
    let (summary, more) = match said {
        Ok(text) => (format!("{name} replied: {text}"), json!({"response_body": {"text": text}})),
        Err(why) => (format!("{name} did not reply"), json!({"status": "error", "error_detail": start(why, DETAIL)})),
    };
    keep(tools, "a2a_receive", id, &summary, more).await;
}

async fn keep(tools: &Tools, kind: &str, target: &WorkspaceId, summary: &str, more: Value) {
    let mut report = json!({
        "activity_type": kind, "method": "message/send", "target_id": target.to_string(), "summary": start(summary, SUMMARY),
    });
    if let (Some(report), Value::Object(more)) = (report.as_object_mut(), more) {
        report.extend(more);
    }
    let path = tools.own("activity");
    // Nothing that is said about the work may come between it and whoever asked for it.
    if let Err(reason) = tools.client.exchange(&Call { timeout: TIMEOUT, ..post(&path, &report) }).await {
        tracing::warn!("molecule-mcp: what was said to {target} could not be kept in the log: {reason}");
    }
}

fn start(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}
