//! What is kept of a call: a row in the log of the workspace that was called, and what it used.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Answer, Used, dispatch::Letter};
use crate::{
    activity::NewActivity,
    control_plane::ControlPlane,
    error::{Error, Result},
    events::EventKind,
    id::WorkspaceId,
    identity::Caller,
    workspace::Workspace,
};

/// How long keeping what a call left may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The most of an answer that is kept, and that listeners are told.
const KEPT: usize = 1024 * 1024;

/// What is kept of an answer; for one that is too long, only that.
pub(super) fn kept(body: &[u8]) -> Value {
    if body.len() > KEPT {
        return json!({"truncated": true});
    }
    serde_json::from_slice(body).unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned().into())
}

/// The tools that an agent says to have used for its answer.
pub(super) fn tool_trace(answer: &Value) -> Option<Value> {
    answer.get("result")?.get("metadata")?.get("tool_trace").filter(|trace| !trace.is_null()).cloned()
}

pub(super) fn millis(took: Duration) -> i32 {
    i32::try_from(took.as_millis()).unwrap_or(i32::MAX)
}

impl ControlPlane {
    /// The row of a call that was answered.
    pub(super) fn letter_row(&self, workspace: &Workspace, letter: &Letter) -> NewActivity {
        NewActivity {
            source_id: letter.sender(),
            target_id: Some(workspace.id),
            method: Some(letter.method.clone()),
            summary: Some(format!("{} → {}", letter.method, workspace.name)),
            request_body: Some(letter.request.clone()),
            ..self.new_activity(workspace.id, "a2a_receive")
        }
    }

    /// Keeps a message for an agent that asks for its messages.
    pub(super) async fn keep_for_poll(&self, workspace: &Workspace, letter: &Letter) -> Result<Answer> {
        let mut row = self.letter_row(workspace, letter);
        row.summary = row.summary.map(|summary| summary + " (queued for poll)");
        self.inner.store.insert_activity(&row).await?;
        self.tell_activity(&row);
        self.touch_sender(letter.sender()).await;
        let body = json!({"status": "queued", "delivery_mode": "poll", "method": letter.method});
        Ok(Answer { status: 200, body: body.to_string().into() })
    }

    /// Keeps what an agent answered, in a task of its own.
    pub(super) fn note_answer(&self, workspace: Workspace, letter: Letter, answer: Answer, took: Duration) {
        let this = self.clone();
        self.later(async move {
            let body = kept(&answer.body);
            let failed = answer.status >= 400;
            if !failed {
                this.tell_canvas(&workspace, &letter, &body, took);
            }
            let row = NewActivity {
                duration_ms: Some(millis(took)),
                tool_trace: tool_trace(&body),
                status: if failed { "error" } else { "ok" }.to_owned(),
                error_detail: failed.then(|| body.get("error").and_then(Value::as_str).unwrap_or_default().to_owned()),
                response_body: Some(body),
                ..this.letter_row(&workspace, &letter)
            };
            this.log_or_count(&row).await;
            if !failed {
                this.touch_sender(letter.sender()).await;
                this.note_usage(workspace.id, row.response_body.as_ref()).await;
            }
        });
    }

    /// Keeps that an agent gave no answer, in a task of its own.
    pub(super) fn note_failure(
        &self,
        workspace: Workspace,
        letter: Letter,
        error: &Error,
        delivered: bool,
        took: Duration,
    ) {
        let said = error.message().to_owned();
        let this = self.clone();
        self.later(async move {
            let mut row = this.letter_row(&workspace, &letter);
            row.duration_ms = Some(millis(took));
            // An agent that has the message did what it was asked; only its words are lost.
            if !delivered {
                row.summary = Some(format!("A2A request to {} failed: {said}", workspace.name));
                row.status = "error".to_owned();
                row.error_detail = Some(said);
            }
            this.log_or_count(&row).await;
            if delivered {
                this.touch_sender(letter.sender()).await;
            }
        });
    }

    /// Tells the canvas what an agent answered to its user.
    pub(super) fn tell_canvas(&self, workspace: &Workspace, letter: &Letter, body: &Value, took: Duration) {
        if letter.caller != Caller::Operator {
            return;
        }
        let truncated = body.get("truncated").is_some() && body.as_object().is_some_and(|members| members.len() == 1);
        let mut payload = json!({
            "response_body": if truncated { &Value::Null } else { body },
            "method": letter.method,
            "duration_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        });
        if truncated {
            payload["truncated"] = true.into();
        }
        self.announce(self.event(EventKind::A2aResponse, workspace.id, payload));
    }

    /// Notes that a workspace called another with success.
    pub(super) async fn touch_sender(&self, sender: Option<WorkspaceId>) {
        let Some(id) = sender else { return };
        if let Err(error) = self.inner.store.touch_outbound(id, self.now()).await {
            tracing::warn!(workspace.id = %id, error = error.detail(), "a call could not be noted");
        }
    }

    /// Adds what an answer says to have used.
    pub(super) async fn note_usage(&self, id: WorkspaceId, answer: Option<&Value>) {
        let Some(used) = answer.and_then(Used::of) else { return };
        if let Err(error) = self.inner.store.add_usage(id, self.now(), used).await {
            tracing::warn!(workspace.id = %id, error = error.detail(), "what a call used could not be kept");
        }
    }

    /// Runs `work` in a task of its own, within its time.
    fn later(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.inner.tasks.spawn(async move {
            if tokio::time::timeout(PATIENCE, work).await.is_err() {
                tracing::error!("what a call left could not be kept in time");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_an_answer() {
        assert_eq!(kept(br#"{"a":1}"#), json!({"a": 1}));
        assert_eq!(kept(b"<html>"), json!("<html>"));
        assert_eq!(kept(&vec![b'x'; KEPT + 1]), json!({"truncated": true}));
    }

    #[test]
    fn tools_are_found_where_they_are_told() {
        let trace = json!([{"tool": "ls"}]);
        assert_eq!(tool_trace(&json!({"result": {"metadata": {"tool_trace": trace}}})), Some(trace));
        for odd in
            [json!({"result": {"metadata": {"tool_trace": null}}}), json!({"result": "x"}), json!([]), json!("x")]
        {
            assert_eq!(tool_trace(&odd), None, "{odd}");
        }
    }
}
