//! Tasks that one agent hands to another: handed over in the background, and kept track of in the log of who delegates.
//!
//! A delegation is a row of the activity log, method `delegate`, and one more for its outcome, method
//! `delegate_result`.

mod outcome;
mod resume;
mod run;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

pub(crate) use self::{
    outcome::Outcome,
    resume::{Begun as BegunDelegation, KeptMessage, LoggedMessage, Orphan, Stranded},
};
use crate::{
    a2a::Answer,
    activity::{Activity, NewActivity, kept_key, preview},
    clock::random_uuid,
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    events::EventKind,
    id::WorkspaceId,
    store::Begun,
    workspace::lifecycle::gone_is_not_found,
};

/// How much of a task listeners are told, in characters.
const TASK_SHOWN: usize = 100;

/// The longest id that an agent may give a delegation of its own, in characters.
const LONGEST_ID: usize = 200;

/// How many rows a list of delegations holds.
const LISTED: i64 = 50;

/// A task for another agent.
#[derive(Debug, Clone)]
pub struct Delegate {
    /// Whose agent is to do it.
    pub target_id: String,
    /// What is to be done.
    pub task: String,
    /// A repeat with the same key is the same delegation.
    pub idempotency_key: Option<String>,
}

/// A delegation that was begun, now or by an earlier call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegated {
    /// Names it.
    pub id: String,
    /// `delegated`, or how far the earlier one is.
    pub status: String,
    /// Whose agent is to do it.
    pub target: WorkspaceId,
    /// An earlier call with the same key began it.
    pub is_repeat: bool,
}

/// A delegation that an agent made by itself.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Whose agent does it.
    pub target_id: String,
    /// What is done.
    pub task: String,
    /// What the agent calls it.
    pub delegation_id: String,
}

/// What became of a delegation, as the agent that made it says.
#[derive(Debug, Clone, Default)]
pub struct DelegationUpdate {
    /// `completed` or `failed`.
    pub status: String,
    /// Why it failed.
    pub error: String,
    /// The beginning of the reply.
    pub response_preview: String,
}

fn target(text: &str) -> Result<WorkspaceId> {
    text.trim().parse().map_err(|_| Error::invalid("target_id must be a valid UUID"))
}

impl ControlPlane {
    /// Hands a task to another agent. It goes on in the background; [`ControlPlane::delegations`] tells what became of it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for what names no other workspace, [`ErrorKind::PermissionDenied`] where the two may
    /// not talk, [`ErrorKind::Conflict`] for the key of another task, [`ErrorKind::NotFound`] for a removed workspace.
    pub async fn delegate(&self, source: WorkspaceId, request: Delegate) -> Result<Delegated> {
        self.begin_to_delegate(source, request).await.map(|(delegated, _)| delegated)
    }

    /// As [`ControlPlane::delegate`], with the task that carries it out where this call began it: it gives what the agent
    /// was asked and said, as far as it was asked.
    pub(crate) async fn begin_to_delegate(
        &self,
        source: WorkspaceId,
        request: Delegate,
    ) -> Result<(Delegated, Option<JoinHandle<Option<Result<Answer>>>>)> {
        if request.task.is_empty() || request.target_id.is_empty() {
            return Err(Error::invalid("invalid delegation request"));
        }
        let target = target(&request.target_id)?;
        if target == source {
            return Err(Error::invalid("self-delegation not permitted"));
        }
        self.existing(source).await.map_err(gone_is_not_found)?;
        if !self.can_communicate(source, target).await? {
            let text = "access denied: workspaces cannot communicate per hierarchy rules";
            return Err(Error::new(ErrorKind::PermissionDenied, text));
        }
        let id = random_uuid(&*self.inner.entropy).to_string();
        let key = request.idempotency_key.filter(|key| !key.is_empty()).map(|key| kept_key(&key));
        let row =
            NewActivity { idempotency_key: key, ..self.delegate_row(source, target, &request.task, &id, "pending") };
        let sent = self.event(EventKind::DelegationSent, source, sent_payload(&id, target, &request.task));
        let claim = random_uuid(&*self.inner.entropy);
        match self.inner.store.begin_delegation(&row, &sent, Some(claim)).await? {
            Begun::Now => {}
            Begun::Earlier(earlier) => return Ok((repeat(*earlier, target, &request.task)?, None)),
        }
        self.announce(sent);
        self.tell_activity(&row);
        let this = self.clone();
        let begun = id.clone();
        let run = async move { this.run_delegation(source, target, begun, request.task, claim).await };
        let task = self.inner.tasks.spawn(run);
        Ok((Delegated { id, status: "delegated".to_owned(), target, is_repeat: false }, Some(task)))
    }

    /// Keeps that an agent delegated something by itself.
    ///
    /// # Errors
    /// As [`ControlPlane::delegate`].
    pub async fn record_delegation(&self, source: WorkspaceId, recorded: &Recorded) -> Result<()> {
        if recorded.task.is_empty() || recorded.delegation_id.is_empty() || recorded.target_id.is_empty() {
            return Err(Error::invalid("invalid request body"));
        }
        if recorded.delegation_id.chars().count() > LONGEST_ID {
            return Err(Error::invalid(format!("delegation_id must be <= {LONGEST_ID} characters")));
        }
        let target = target(&recorded.target_id)?;
        self.existing(source).await.map_err(gone_is_not_found)?;
        let id = &recorded.delegation_id;
        let row = self.delegate_row(source, target, &recorded.task, id, "dispatched");
        let sent = self.event(EventKind::DelegationSent, source, sent_payload(id, target, &recorded.task));
        self.inner.store.begin_delegation(&row, &sent, None).await.map_err(|error| match error.kind() {
            ErrorKind::Unexpected => error.with_message("failed to record delegation"),
            _ => error,
        })?;
        self.announce(sent);
        self.tell_activity(&row);
        Ok(())
    }

    /// Keeps what became of a delegation, as the agent that made it says.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for any other status, [`ErrorKind::NotFound`] where it made no such delegation.
    pub async fn update_delegation(&self, source: WorkspaceId, id: &str, update: &DelegationUpdate) -> Result<()> {
        let outcome = match update.status.as_str() {
            "completed" => Outcome::Completed(update.response_preview.clone()),
            "failed" => Outcome::Failed(update.error.clone()),
            _ => return Err(Error::invalid("status must be 'completed' or 'failed'")),
        };
        self.existing(source).await.map_err(gone_is_not_found)?;
        let not_found = || Error::not_found("delegation not found");
        let target = self.inner.store.delegation_target(source, id).await?.ok_or_else(not_found)?;
        // The agent knows whom it asked: listeners are told no target.
        let event = self.event(outcome.kind(), source, outcome.payload(id, None, None));
        let row = self.result_row(source, target, id, &outcome);
        // Said twice is said once.
        if self.inner.store.end_delegation(&row, &event, true).await? {
            self.ended(event, &row);
        }
        Ok(())
    }

    /// The newest rows of delegations that `source` made: the request and the outcome of each.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace.
    pub async fn delegations(&self, source: WorkspaceId) -> Result<Vec<Activity>> {
        self.existing(source).await.map_err(gone_is_not_found)?;
        self.inner.store.delegations(source, LISTED).await
    }

    fn delegate_row(
        &self,
        source: WorkspaceId,
        target: WorkspaceId,
        task: &str,
        id: &str,
        status: &str,
    ) -> NewActivity {
        NewActivity {
            source_id: Some(source),
            target_id: Some(target),
            method: Some("delegate".to_owned()),
            summary: Some(format!("Delegating to {target}")),
            request_body: Some(json!({"task": task, "delegation_id": id})),
            status: status.to_owned(),
            delegation_id: Some(id.to_owned()),
            ..self.new_activity(source, "delegation")
        }
    }
}

fn sent_payload(id: &str, target: WorkspaceId, task: &str) -> Value {
    json!({"delegation_id": id, "target_id": target, "task_preview": preview(task, TASK_SHOWN).0})
}

/// What the caller of a repeat is told; one that asks for something else under the same key is refused.
fn repeat(earlier: Activity, target: WorkspaceId, task: &str) -> Result<Delegated> {
    let same_task = earlier.request_body.as_ref().is_some_and(|body| body["task"].as_str() == Some(task));
    if earlier.target_id != Some(target) || !same_task {
        let text = "idempotency_key was used for another target or task";
        return Err(Error::new(ErrorKind::Conflict, text));
    }
    let id = earlier.delegation_id.unwrap_or_default();
    Ok(Delegated { id, status: earlier.status, target, is_repeat: true })
}
