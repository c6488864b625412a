//! What is kept of a call: a row in the log of the workspace that was called, and what it used.

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::{Answer, Note, Used, dispatch::Letter, told::Kept};
use crate::{
    activity::NewActivity,
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    events::EventKind,
    id::WorkspaceId,
    workspace::Workspace,
};

/// For how long the same message from the same sender is one that was sent again.
const REPEATED: TimeDelta = TimeDelta::minutes(10);

pub(super) fn millis(took: Duration) -> i32 {
    i32::try_from(took.as_millis()).unwrap_or(i32::MAX)
}

impl ControlPlane {
    /// The row of a call that was answered.
    pub(super) fn letter_row(&self, workspace: &Workspace, letter: &Letter) -> NewActivity {
        NewActivity {
            source_id: letter.sender.workspace(),
            target_id: Some(workspace.id),
            method: Some(letter.method.clone()),
            summary: Some(match letter.sender.system() {
                Some(system) => format!("{} → {} ({system})", letter.method, workspace.name),
                None => format!("{} → {}", letter.method, workspace.name),
            }),
            request_body: Some(letter.request.clone()),
            ..self.new_activity(workspace.id, "a2a_receive")
        }
    }

    /// The row in which an agent that asks for its messages finds one, and what its caller is told.
    pub(super) fn poll_row(&self, workspace: &Workspace, letter: &Letter) -> (NewActivity, Value) {
        let mut row = self.letter_row(workspace, letter);
        row.summary = row.summary.map(|summary| summary + " (queued for poll)");
        (row, json!({"status": "queued", "delivery_mode": "poll", "method": letter.method}))
    }

    /// Keeps a message for an agent that asks for its messages. A repeat of one that is there is that one.
    pub(super) async fn keep_for_poll(&self, workspace: &Workspace, letter: &Letter) -> Result<Answer> {
        let (row, told) = self.poll_row(workspace, letter);
        let (this, sender) = (self.clone(), letter.sender.workspace());
        // What is kept is told as well, though its caller hangs up.
        let kept = self.inner.tasks.spawn(async move {
            if this.inner.store.insert_message(&row, row.at - REPEATED).await? {
                this.tell_activity(&row);
            }
            this.touch_sender(sender).await;
            Ok::<_, Error>(())
        });
        let ended = |error| Error::new(ErrorKind::Unexpected, "the call ended early").caused_by(error);
        kept.await.map_err(ended)??;
        Ok(Answer::own(200, &told))
    }

    /// Notes what an agent answered.
    pub(super) async fn note_answer(
        &self,
        workspace: &Workspace,
        letter: &Letter,
        answer: &Answer,
        kept: Kept,
        took: Duration,
    ) {
        let Kept { body, tool_trace, used } = kept;
        let failed = answer.status >= 400;
        if !failed {
            self.tell_canvas(workspace, letter, &body, took);
        }
        let row = NewActivity {
            duration_ms: Some(millis(took)),
            tool_trace,
            status: if failed { "error" } else { "ok" }.to_owned(),
            error_detail: failed.then(|| body.get("error").and_then(Value::as_str).unwrap_or_default().to_owned()),
            response_body: Some(body),
            ..self.letter_row(workspace, letter)
        };
        let sender = letter.sender.workspace().filter(|_| !failed);
        self.note(Note { row, sender, used: used.filter(|_| !failed) }, letter.size + answer.body.len()).await;
    }

    /// Notes that an agent gave no answer. `delivered` is what came of one that has the message.
    pub(super) async fn note_failure(
        &self,
        workspace: &Workspace,
        letter: &Letter,
        error: &Error,
        delivered: Option<Kept>,
        took: Duration,
    ) {
        let mut row = self.letter_row(workspace, letter);
        row.duration_ms = Some(millis(took));
        let Some(Kept { body, tool_trace, used }) = delivered else {
            let said = error.message().to_owned();
            row.summary = Some(format!("A2A request to {} failed: {said}", workspace.name));
            row.status = "error".to_owned();
            row.error_detail = Some(said);
            return self.note(Note { row, sender: None, used: None }, letter.size).await;
        };
        // An agent that has the message did what it was asked; only its words, or the last of them, are lost.
        row.response_body = Some(body).filter(|body| !body.is_null());
        row.tool_trace = tool_trace;
        self.note(Note { row, sender: letter.sender.workspace(), used }, letter.size).await;
    }

    /// Tells the canvas what an agent answered to its user, or to the platform.
    pub(super) fn tell_canvas(&self, workspace: &Workspace, letter: &Letter, body: &Value, took: Duration) {
        if letter.sender.workspace().is_some() {
            return;
        }
        self.mention(EventKind::A2aResponse, workspace.id, || {
            let truncated =
                body.get("truncated").is_some() && body.as_object().is_some_and(|members| members.len() == 1);
            let mut payload = json!({
                "response_body": if truncated { &Value::Null } else { body },
                "method": letter.method,
                "duration_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            });
            if truncated {
                payload["truncated"] = true.into();
            }
            payload
        });
    }

    /// Notes that a workspace called another with success.
    pub(super) async fn touch_sender(&self, sender: Option<WorkspaceId>) {
        let Some(id) = sender else { return };
        if let Err(error) = self.inner.store.touch_outbound(id, self.now()).await {
            tracing::warn!(workspace.id = %id, error = error.detail(), "a call could not be noted");
        }
    }

    /// Adds what an answer says to have used.
    pub(super) async fn note_usage(&self, id: WorkspaceId, used: Option<Used>) {
        let Some(used) = used else { return };
        if let Err(error) = self.inner.store.add_usage(id, self.now(), used).await {
            tracing::warn!(workspace.id = %id, error = error.detail(), "what a call used could not be kept");
        }
    }
}
