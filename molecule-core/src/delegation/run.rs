//! Carries a delegation out.

use bytes::Bytes;
use serde_json::{Value, json};

use super::outcome::{Outcome, may_retry};
use crate::{
    a2a::{Answer, Call},
    activity::NewActivity,
    control_plane::ControlPlane,
    error::Error,
    events::{Event, EventKind},
    id::WorkspaceId,
    identity::Caller,
};

impl ControlPlane {
    /// Hands the task over and keeps what became of it.
    pub(super) async fn run_delegation(&self, source: WorkspaceId, target: WorkspaceId, id: String, task: String) {
        let payload = json!({"delegation_id": id, "target_id": target, "status": "dispatched"});
        let dispatched = self.event(EventKind::DelegationStatus, source, payload);
        match self.inner.store.dispatch_delegation(source, &id, &dispatched).await {
            Ok(true) => self.announce(dispatched),
            Ok(false) => return,
            // It is handed over all the same: its outcome may be kept again.
            Err(error) => self.cannot_keep(source, &id, &error),
        }
        let mut called = self.hand_over(source, target, &id, &task).await;
        if may_retry(&called) {
            tokio::select! {
                () = self.inner.stop.cancelled() => {}
                () = tokio::time::sleep(self.inner.config.delegation_retry) => {
                    called = self.hand_over(source, target, &id, &task).await;
                }
            }
        }
        let outcome = Outcome::of(&called);
        let event = self.event(outcome.kind(), source, outcome.payload(&id, Some(target), None));
        let row = self.result_row(source, target, &id, &outcome);
        match self.inner.store.end_delegation(&row, &event, false).await {
            Ok(true) => self.ended(event, &row),
            // A queued task was answered meanwhile, or its agent said what became of it.
            Ok(false) => {}
            Err(error) => self.cannot_keep(source, &id, &error),
        }
    }

    async fn hand_over(&self, source: WorkspaceId, target: WorkspaceId, id: &str, task: &str) -> Result<Answer, Error> {
        let message = json!({
            "role": "user",
            "messageId": id,
            "parts": [{"type": "text", "text": task}],
            "metadata": {"delegation_id": id},
        });
        let request = json!({"method": "message/send", "params": {"message": message}});
        let body = Bytes::from(request.to_string());
        self.call(Call { target, caller: Caller::Workspace(source), body, deadline: None }).await
    }

    /// Keeps the answer to a task that had to wait, or that there will be none.
    pub(crate) async fn end_queued_delegation(
        &self,
        source: Option<WorkspaceId>,
        target: WorkspaceId,
        request: &Value,
        outcome: Outcome,
    ) {
        let id = request["params"]["message"]["metadata"]["delegation_id"].as_str();
        let (Some(source), Some(id)) = (source, id) else { return };
        let event = self.event(outcome.kind(), source, outcome.payload(id, Some(target), Some("queue_drain")));
        let row = self.result_row(source, target, id, &outcome);
        match self.inner.store.end_delegation(&row, &event, true).await {
            Ok(true) => self.ended(event, &row),
            Ok(false) => {}
            Err(error) => self.cannot_keep(source, id, &error),
        }
    }

    pub(super) fn result_row(
        &self,
        source: WorkspaceId,
        target: WorkspaceId,
        id: &str,
        outcome: &Outcome,
    ) -> NewActivity {
        NewActivity {
            source_id: Some(source),
            target_id: Some(target),
            method: Some("delegate_result".to_owned()),
            summary: Some(outcome.summary()),
            response_body: Some(outcome.response_body(id)),
            status: outcome.status().to_owned(),
            error_detail: outcome.error(),
            delegation_id: Some(id.to_owned()),
            ..self.new_activity(source, "delegation")
        }
    }

    pub(super) fn ended(&self, event: Event, row: &NewActivity) {
        self.announce(event);
        self.tell_activity(row);
    }

    fn cannot_keep(&self, source: WorkspaceId, id: &str, error: &Error) {
        tracing::error!(
            workspace.id = %source,
            delegation.id = id,
            error = error.detail(),
            "what became of a delegation could not be kept"
        );
    }
}
