//! Carries a delegation out.

use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use super::outcome::{Outcome, may_retry};
use crate::{
    a2a::{Answer, Call, Sender},
    activity::NewActivity,
    control_plane::ControlPlane,
    error::Error,
    events::{Event, EventKind},
    id::WorkspaceId,
    renewal::while_renewing,
    tools::newer,
};

impl ControlPlane {
    /// Hands the task over and keeps what became of it, saying again and again that this server does. What the agent said,
    /// where the task was handed over.
    pub(super) async fn run_delegation(
        &self,
        source: WorkspaceId,
        target: WorkspaceId,
        id: String,
        task: String,
        claim: Uuid,
    ) -> Option<Result<Answer, Error>> {
        let renew = || async {
            if let Err(error) = self.inner.store.renew_delegation(source, &id, claim, self.now()).await {
                tracing::warn!(delegation.id = id, error = error.detail(), "a claim could not be renewed");
            }
            true
        };
        while_renewing(self.inner.config.queue_lease, renew, self.carry_out(source, target, &id, &task)).await
    }

    async fn carry_out(
        &self,
        source: WorkspaceId,
        target: WorkspaceId,
        id: &str,
        task: &str,
    ) -> Option<Result<Answer, Error>> {
        if !self.dispatch(source, target, id).await {
            return None;
        }
        let mut called = self.hand_over(source, target, id, task).await;
        if may_retry(&called) {
            if !self.before_retry().await {
                // It did not arrive: whoever takes this over may see to it.
                return Some(called);
            }
            called = self.hand_over(source, target, id, task).await;
        }
        self.end_delegation(source, target, id, Outcome::of(&called)).await;
        Some(called)
    }

    /// Keeps that the task is on its way, before it is: nobody else begins it from there on. False where it is over, or
    /// this server stops.
    async fn dispatch(&self, source: WorkspaceId, target: WorkspaceId, id: &str) -> bool {
        let payload = json!({"delegation_id": id, "target_id": target, "status": "dispatched"});
        let dispatched = self.event(EventKind::DelegationStatus, source, payload);
        loop {
            match self.inner.store.dispatch_delegation(source, id, &dispatched).await {
                Ok(true) => {
                    self.announce(dispatched);
                    return true;
                }
                Ok(false) => return false,
                Err(error) => self.cannot_keep(source, id, &error),
            }
            if !self.before_retry().await {
                return false;
            }
        }
    }

    /// Waits before another try. False where this server stops.
    async fn before_retry(&self) -> bool {
        tokio::select! {
            () = self.inner.stop.cancelled() => false,
            () = tokio::time::sleep(self.inner.config.delegation_retry) => true,
        }
    }

    async fn hand_over(&self, source: WorkspaceId, target: WorkspaceId, id: &str, task: &str) -> Result<Answer, Error> {
        let metadata = json!({"delegation_id": id});
        let call = |request: Value, protocol: Option<&str>| Call {
            target,
            sender: Sender::Workspace(source),
            body: Bytes::from(request.to_string()),
            protocol: protocol.map(str::to_owned),
            deadline: None,
        };
        let message = json!({
            "role": "user",
            "messageId": id,
            "parts": [{"type": "text", "text": task}],
            "metadata": metadata,
        });
        let request = json!({"method": "message/send", "params": {"message": message}});
        let called = self.call_or_keep(call(request, None)).await;
        let said = |answer: &Answer| serde_json::from_slice(&answer.body).unwrap_or_default();
        if !called.as_ref().is_ok_and(|answer| newer::is_wanted(&said(answer))) {
            return called;
        }
        self.call_or_keep(call(newer::request(id, task, Some(metadata)), Some(newer::VERSION))).await
    }

    /// Keeps what became of a delegation that was on its way.
    pub(super) async fn end_delegation(&self, source: WorkspaceId, target: WorkspaceId, id: &str, outcome: Outcome) {
        let event = self.event(outcome.kind(), source, outcome.payload(id, Some(target), None));
        let row = self.result_row(source, target, id, &outcome);
        // False where a queued task was answered meanwhile, or its agent said what became of it.
        match self.inner.store.end_delegation(&row, &event, false).await {
            Ok(true) => self.ended(event, &row),
            Ok(false) => {}
            Err(error) => self.cannot_keep(source, id, &error),
        }
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
        if let (Some(source), Some(id)) = (source, id) {
            self.end_kept_delegation(source, target, id, outcome).await;
        }
    }

    /// The same of a delegation whose id is known.
    pub(super) async fn end_kept_delegation(
        &self,
        source: WorkspaceId,
        target: WorkspaceId,
        id: &str,
        outcome: Outcome,
    ) {
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
