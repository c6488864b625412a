//! What becomes of delegations whose server died, and of those whose message will not be answered any more.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::outcome::Outcome;
use crate::{
    a2a::QueueStatus, clock::random_uuid, control_plane::ControlPlane, error::Result, id::WorkspaceId, store::pool::row,
};

/// How many are looked at before others get their turn.
const BATCH: i64 = 50;

/// How much earlier than a delegation its message may seem to be.
const LEEWAY: TimeDelta = TimeDelta::minutes(1);

row! {
    /// A delegation that nobody says to carry out any more.
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) struct Orphan {
        pub(crate) workspace_id: WorkspaceId,
        pub(crate) delegation_id: String,
        pub(crate) claim: Uuid,
    }
}

row! {
    /// A delegation as it was begun.
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) struct Begun {
        pub(crate) target_id: Option<WorkspaceId>,
        pub(crate) request_body: Option<Value>,
        pub(crate) status: String,
        pub(crate) created_at: DateTime<Utc>,
    }
}

row! {
    /// What became of the message of a delegation that was kept.
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) struct KeptMessage {
        pub(crate) status: QueueStatus,
        pub(crate) response_body: Option<Value>,
        pub(crate) last_error: Option<String>,
    }
}

row! {
    /// What the log of an agent says of the message of a delegation.
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) struct LoggedMessage {
        pub(crate) status: String,
        pub(crate) response_body: Option<Value>,
        pub(crate) error_detail: Option<String>,
        /// Absent where the agent asks for its messages.
        pub(crate) duration_ms: Option<i32>,
    }
}

row! {
    /// A delegation that waits for a message which is over.
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) struct Stranded {
        pub(crate) source: WorkspaceId,
        pub(crate) target: WorkspaceId,
        pub(crate) delegation_id: String,
        pub(crate) status: QueueStatus,
        pub(crate) response_body: Option<Value>,
        pub(crate) last_error: Option<String>,
    }
}

/// What is to be done about a delegation whose server died.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// It is over, or waits for a message that is kept.
    Leave,
    /// Nothing was sent: it begins anew.
    Run,
    /// This is what became of it.
    End(Outcome),
}

impl KeptMessage {
    fn outcome(&self) -> Outcome {
        match (self.status, &self.response_body) {
            (QueueStatus::Queued | QueueStatus::Dispatched, _) => Outcome::Queued,
            (QueueStatus::Completed, Some(body)) => Outcome::of_reply(body, body.to_string().as_bytes()),
            (QueueStatus::Completed, None) => Outcome::Failed("failed to read agent response".to_owned()),
            (QueueStatus::Dropped | QueueStatus::Failed, _) => {
                Outcome::Failed(self.last_error.clone().unwrap_or_else(|| "it was not sent".to_owned()))
            }
        }
    }
}

impl LoggedMessage {
    fn outcome(&self) -> Outcome {
        match (&self.response_body, self.status.as_str()) {
            (_, "error") => Outcome::Failed(self.error_detail.clone().unwrap_or_default()),
            (Some(body), _) => Outcome::of_reply(body, body.to_string().as_bytes()),
            (None, _) if self.duration_ms.is_none() => Outcome::Queued,
            (None, _) => Outcome::Failed("failed to read agent response".to_owned()),
        }
    }
}

/// Judges by what is left of it. What may have been done is not done again.
fn judge(status: &str, kept: Option<&KeptMessage>, logged: Option<&LoggedMessage>) -> Verdict {
    match (status, kept, logged) {
        ("pending", ..) => Verdict::Run,
        ("dispatched", Some(kept), _) => Verdict::End(kept.outcome()),
        ("dispatched", None, Some(logged)) => Verdict::End(logged.outcome()),
        ("dispatched", None, None) => {
            let text = "the server died while the agent had the task; it may have been done";
            Verdict::End(Outcome::Failed(text.to_owned()))
        }
        _ => Verdict::Leave,
    }
}

impl ControlPlane {
    /// Sees to delegations whose server died, and to those whose message is over. Of several servers that look, one
    /// takes each.
    pub(crate) async fn sweep_delegations(&self) -> Result<()> {
        let now = self.now();
        let lease = TimeDelta::from_std(self.inner.config.queue_lease).unwrap_or(TimeDelta::MAX);
        let silent_since = now.checked_sub_signed(lease).unwrap_or(DateTime::UNIX_EPOCH);
        for orphan in self.inner.store.orphaned_delegations(silent_since, BATCH).await? {
            let claim = random_uuid(&*self.inner.entropy);
            if self.inner.store.take_delegation(&orphan, claim, now).await? {
                self.resume_delegation(orphan, claim).await?;
            }
        }
        for stranded in self.inner.store.stranded_delegations(BATCH).await? {
            let Stranded { source, target, delegation_id, status, response_body, last_error } = stranded;
            let outcome = KeptMessage { status, response_body, last_error }.outcome();
            self.end_kept_delegation(source, target, &delegation_id, outcome).await;
        }
        Ok(())
    }

    async fn resume_delegation(&self, orphan: Orphan, claim: Uuid) -> Result<()> {
        let Orphan { workspace_id: source, delegation_id: id, .. } = orphan;
        let begun = self.inner.store.begun_delegation(source, &id).await?;
        let Some(Begun { target_id: Some(target), request_body, status, created_at }) = begun else {
            return self.inner.store.forget_delegation_claim(source, &id).await;
        };
        let kept = self.inner.store.kept_message(target, &id).await?;
        // The times of two logs may differ a little.
        let since = created_at - LEEWAY;
        let logged = self.inner.store.logged_message(target, source, &id, since).await?;
        match judge(&status, kept.as_ref(), logged.as_ref()) {
            Verdict::Leave => self.inner.store.forget_delegation_claim(source, &id).await,
            Verdict::Run => {
                tracing::info!(workspace.id = %source, delegation.id = id, "a delegation of a server that died begins");
                let task = request_body.as_ref().and_then(|body| body["task"].as_str()).unwrap_or_default().to_owned();
                let this = self.clone();
                let run = async move { this.run_delegation(source, target, id, task, claim).await.map(drop) };
                self.inner.tasks.spawn(run);
                Ok(())
            }
            Verdict::End(outcome) => {
                tracing::warn!(workspace.id = %source, delegation.id = id, "a delegation lost its server");
                self.end_delegation(source, target, &id, outcome).await;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kept(status: QueueStatus, body: Option<Value>) -> KeptMessage {
        KeptMessage { status, response_body: body, last_error: Some("why".to_owned()) }
    }

    fn logged(status: &str, body: Option<Value>, duration_ms: Option<i32>) -> LoggedMessage {
        LoggedMessage {
            status: status.to_owned(),
            response_body: body,
            error_detail: Some("no".to_owned()),
            duration_ms,
        }
    }

    #[test]
    fn what_is_left_of_a_delegation_tells_what_became_of_it() {
        let reply = || Some(json!({"result": {"parts": [{"text": "done"}]}}));
        let failed = |text: &str| Verdict::End(Outcome::Failed(text.to_owned()));
        let completed = || Verdict::End(Outcome::Completed("done".to_owned()));
        let rows = [
            ("pending", None, None, Verdict::Run),
            ("completed", None, None, Verdict::Leave),
            ("failed", None, None, Verdict::Leave),
            ("queued", Some(kept(QueueStatus::Queued, None)), None, Verdict::Leave),
            ("dispatched", Some(kept(QueueStatus::Queued, None)), None, Verdict::End(Outcome::Queued)),
            ("dispatched", Some(kept(QueueStatus::Dispatched, None)), None, Verdict::End(Outcome::Queued)),
            ("dispatched", Some(kept(QueueStatus::Completed, reply())), None, completed()),
            ("dispatched", Some(kept(QueueStatus::Completed, None)), None, failed("failed to read agent response")),
            ("dispatched", Some(kept(QueueStatus::Dropped, None)), None, failed("why")),
            ("dispatched", Some(kept(QueueStatus::Failed, None)), None, failed("why")),
            ("dispatched", None, Some(logged("ok", reply(), Some(5))), completed()),
            ("dispatched", None, Some(logged("error", None, Some(5))), failed("no")),
            ("dispatched", None, Some(logged("ok", None, None)), Verdict::End(Outcome::Queued)),
            ("dispatched", None, Some(logged("ok", None, Some(5))), failed("failed to read agent response")),
            ("dispatched", None, None, failed("the server died while the agent had the task; it may have been done")),
        ];
        for (status, kept, logged, expected) in rows {
            assert_eq!(judge(status, kept.as_ref(), logged.as_ref()), expected, "{status} {kept:?} {logged:?}");
        }
    }
}
