//! What agents ask leave for. Nobody who is asked and stays silent gives it.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::{Approval, PendingApproval};
use crate::{
    clock::random_uuid,
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    events::EventKind,
    id::{ApprovalId, WorkspaceId},
    identity::Credential,
    store::{Verdict, pool::text_enum},
    workspace::lifecycle::{gone_is_not_found, said},
};

/// How long a request waits before it is denied.
const PATIENCE: TimeDelta = TimeDelta::minutes(10);

/// Who denies a request that waited too long.
const TIME: &str = "auto-expired";

/// How many requests one answer holds at most.
const PAGE: i64 = 50;

/// How many late requests are denied before others get their turn.
const BATCH: i64 = 100;

text_enum! {
    /// What became of a request.
    pub enum ApprovalStatus {
        /// It waits.
        Pending = "pending",
        /// The agent may.
        Approved = "approved",
        /// The agent may not.
        Denied = "denied",
        /// It was handed on; kept by older servers.
        Escalated = "escalated",
    }
}

/// What an agent asks leave for.
#[derive(Debug, Clone, Default)]
pub struct AskApproval {
    /// What it wants to do.
    pub action: String,
    /// The task it belongs to.
    pub task_id: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Anything that helps to decide.
    pub context: Option<Value>,
}

/// In whose name a decision is made. An agent decides nothing: it could grant what it asks for itself.
///
/// # Errors
/// [`ErrorKind::PermissionDenied`] for the token of a workspace.
pub fn decider(credential: Credential) -> Result<String> {
    match credential {
        Credential::Workspace(_) | Credential::Unknown => {
            Err(Error::new(ErrorKind::PermissionDenied, "an agent may not decide approvals"))
        }
        _ => Ok("human".to_owned()),
    }
}

impl ControlPlane {
    /// Keeps what an agent asks leave for, and tells of it: of the workspace, and of the one that leads it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace.
    pub async fn ask_approval(&self, id: WorkspaceId, ask: AskApproval) -> Result<Approval> {
        let workspace = self.existing(id).await.map_err(gone_is_not_found)?;
        let approval = Approval {
            id: ApprovalId::from_uuid(random_uuid(&*self.inner.entropy)),
            workspace_id: id,
            task_id: ask.task_id,
            action: ask.action,
            reason: ask.reason,
            status: ApprovalStatus::Pending,
            decided_by: None,
            decided_at: None,
            created_at: self.now(),
        };
        let asked = json!({
            "approval_id": approval.id, "action": approval.action, "reason": approval.reason, "task_id": approval.task_id,
        });
        let mut events = vec![self.event(EventKind::ApprovalRequested, id, asked)];
        events.extend(workspace.parent_id.map(|parent| {
            let asked = json!({
                "approval_id": approval.id, "from_workspace_id": id, "action": approval.action, "reason": approval.reason,
            });
            self.event(EventKind::ApprovalEscalated, parent, asked)
        }));
        let kept = self.inner.store.insert_approval(&approval, ask.context.as_ref(), &events).await;
        kept.map_err(|error| said(error, "failed to create approval"))?;
        events.into_iter().for_each(|event| self.announce(event));
        Ok(approval)
    }

    /// The newest requests of a workspace, newest first.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace.
    pub async fn approvals(&self, id: WorkspaceId) -> Result<Vec<Approval>> {
        self.existing(id).await.map_err(gone_is_not_found)?;
        self.inner.store.approvals(id, PAGE).await
    }

    /// The newest requests that wait, newest first. Those that waited too long are denied before.
    pub async fn pending_approvals(&self) -> Result<Vec<PendingApproval>> {
        self.expire_approvals().await?;
        self.inner.store.pending_approvals(PAGE).await
    }

    /// Decides a request of a workspace in the name of `decided_by`. One that waited too long is denied already.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for any other decision;
    /// [`ErrorKind::NotFound`] where no such request waits.
    pub async fn decide_approval(
        &self,
        id: WorkspaceId,
        approval: ApprovalId,
        decision: &str,
        decided_by: &str,
    ) -> Result<ApprovalStatus> {
        let status = match decision.parse() {
            Ok(status @ (ApprovalStatus::Approved | ApprovalStatus::Denied)) => status,
            _ => return Err(Error::invalid("decision must be 'approved' or 'denied'")),
        };
        let now = self.now();
        let verdict = Verdict { id: approval, workspace_id: id, status, decided_by, at: now };
        if self.settle(&verdict, now.checked_sub_signed(PATIENCE)).await? {
            return Ok(status);
        }
        self.expire_approvals().await?;
        let error = Error::not_found("approval not found or already decided");
        Err(error.context("workspace.id", id).context("approval.id", approval))
    }

    /// Denies what waited too long.
    pub(crate) async fn expire_approvals(&self) -> Result<()> {
        let now = self.now();
        loop {
            let late = self.inner.store.late_approvals(now - PATIENCE, BATCH).await?;
            let whole = late.len() as i64 == BATCH;
            for late in late {
                let verdict = Verdict {
                    id: late.id,
                    workspace_id: late.workspace_id,
                    status: ApprovalStatus::Denied,
                    decided_by: TIME,
                    at: now,
                };
                self.settle(&verdict, None).await?;
            }
            if !whole || self.inner.stop.is_cancelled() {
                return Ok(());
            }
        }
    }

    /// Takes a verdict, and tells of it. False where nothing waits for one.
    async fn settle(&self, verdict: &Verdict<'_>, asked_after: Option<chrono::DateTime<chrono::Utc>>) -> Result<bool> {
        let kind = match verdict.status {
            ApprovalStatus::Approved => EventKind::ApprovalApproved,
            _ => EventKind::ApprovalDenied,
        };
        let told = json!({
            "approval_id": verdict.id, "decision": verdict.status, "decided_by": verdict.decided_by,
        });
        let event = self.event(kind, verdict.workspace_id, told);
        let taken = self.inner.store.decide_approval(verdict, asked_after, &event).await;
        let taken = taken.map_err(|error| said(error, "failed to update approval"))?;
        if taken {
            self.announce(event);
        }
        Ok(taken)
    }
}
