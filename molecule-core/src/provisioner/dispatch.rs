//! The one way to bring a workspace up, for every caller and every backend.
//!
//! The entry is logged before anything else, a panic is contained, and every failure goes through one path that is
//! guarded by the try it belongs to: a late result of an earlier try changes nothing.

use std::{any::Any, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Workload, stop::Source};
use crate::{
    control_plane::{Backend, ControlPlane},
    error::{Error, ErrorKind, Result},
    events::EventKind,
    id::{AttemptId, WorkspaceId},
    renewal::while_renewing,
    templates::ConfigSource,
    workspace::{Status, Workspace},
};

/// How often a workload that has not reported in yet is looked at.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// After how many looks the row is read also where nothing is known to have changed in it.
const LOOKS_WITHOUT_ROW: u32 = 10;

/// How long keeping a failure may take.
const KEEP_WITHIN: Duration = Duration::from_secs(10);

/// One try at bringing a workspace up.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// The workspace as it was when the try began.
    pub(crate) workspace: Workspace,
    pub(crate) attempt: AttemptId,
    /// Stop what runs first, and leave the configuration that it left behind alone; why.
    pub(crate) restart: Option<Source>,
    /// Forget the agent's conversation first.
    pub(crate) reset_session: bool,
    /// What goes into the configuration folder.
    pub(crate) config: ConfigSource,
}

impl ControlPlane {
    /// Begins `job` in a task of its own.
    pub(crate) fn provision(&self, job: Job) {
        let this = self.clone();
        let given_up = self.inner.attempts.begin(job.workspace.id, job.attempt);
        self.inner.tasks.spawn(async move {
            let id = job.workspace.id;
            tracing::info!(
                workspace.id = %id,
                workspace.runtime = job.workspace.runtime,
                mode = this.inner.backend.mode(),
                attempt = %job.attempt,
                "provisioning a workspace"
            );
            let lease = this.inner.config.queue_lease;
            let run = while_renewing(lease, || this.renew_attempt(id, job.attempt), this.run(&job, &given_up));
            let outcome = AssertUnwindSafe(run).catch_unwind().await;
            let failure = outcome.unwrap_or_else(|panic| Err(from_panic(&*panic))).err();
            if let Some(failure) = failure {
                this.fail_job(&job, &failure, "").await;
            }
            this.inner.attempts.end(id, job.attempt);
        });
    }

    async fn run(&self, job: &Job, given_up: &CancellationToken) -> Result<()> {
        let id = job.workspace.id;
        {
            let _gate = self.inner.gates.enter(id).await;
            let Some(workspace) = self.current(job).await? else {
                tracing::info!(workspace.id = %id, attempt = %job.attempt, "superseded before it started");
                return Ok(());
            };
            let waits = tokio::select! {
                waits = self.bring_up(job, &workspace) => waits?,
                () = given_up.cancelled() => {
                    tracing::info!(workspace.id = %id, attempt = %job.attempt, "given up for something newer");
                    self.discard(job, None).await;
                    return Ok(());
                }
            };
            if !waits {
                return Ok(());
            }
        }
        self.inner.attempts.asked(id, job.attempt);
        self.watch(job).await
    }

    /// The workspace as it is now, while the try is the current one: what an earlier try brought up after this one had
    /// begun is known only there.
    async fn current(&self, job: &Job) -> Result<Option<Workspace>> {
        let row = self.inner.store.workspace(job.workspace.id).await?;
        Ok(row.filter(|row| row.status == Status::Provisioning && row.provision_attempt == Some(job.attempt)))
    }

    /// Looks at what was started until its agent reports in, so that one that ends at once is not waited for.
    async fn watch(&self, job: &Job) -> Result<()> {
        let Backend::Local { inspector, .. } = &self.inner.backend else { return Ok(()) };
        let (mut looks, mut epoch) = (0_u32, None);
        loop {
            tokio::select! {
                () = self.inner.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(WATCH_EVERY) => {}
            }
            // Whatever ends the try changes the row. Another process may do that unheard.
            let now = self.inner.store.memory().epoch(job.workspace.id);
            let is_due = epoch.replace(now) != Some(now) || looks.is_multiple_of(LOOKS_WITHOUT_ROW);
            if is_due && self.current(job).await?.is_none() {
                return Ok(());
            }
            looks = looks.wrapping_add(1);
            match inspector.observe(job.workspace.id).await {
                Ok(workload) if never_comes(workload, true) => {
                    self.fail_job(job, &ended_before_it_registered(workload), "").await;
                    self.put_to_rest(job.workspace.id, job.attempt).await;
                    return Ok(());
                }
                Ok(_) => {}
                // A backend that can't tell says nothing about the workload; the timeout sweep has the last word.
                Err(error) => tracing::warn!(workspace.id = %job.workspace.id, error = error.detail(), "cannot look"),
            }
        }
    }

    /// Fails what `job` tried, whose agent is called at `address` from now on; nowhere where that is empty.
    pub(super) async fn fail_job(&self, job: &Job, failure: &Error, address: &str) {
        let extra = failure.members().iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        self.fail_attempt(job.workspace.id, job.attempt, failure, Some(address), Value::Object(extra)).await;
    }

    /// As [`ControlPlane::try_to_fail`], for those who can do nothing about a failure that could not be kept.
    pub(crate) async fn fail_attempt(
        &self,
        id: WorkspaceId,
        attempt: AttemptId,
        failure: &Error,
        address: Option<&str>,
        extra: Value,
    ) {
        let kept = tokio::time::timeout(KEEP_WITHIN, self.try_to_fail(id, attempt, failure, address, extra)).await;
        let late =
            |_| Err(Error::new(ErrorKind::Unavailable, format!("it took longer than {} s", KEEP_WITHIN.as_secs())));
        if let Err(error) = kept.unwrap_or_else(late) {
            tracing::error!(workspace.id = %id, error = error.detail(), "the failure could not be kept");
        }
    }

    /// The one failure path: the row, the log and the event. False, and without effect, when `attempt` is over.
    ///
    /// An agent that may still come keeps its address, so that it can be called when it does: none is given then to replace
    /// it.
    pub(crate) async fn try_to_fail(
        &self,
        id: WorkspaceId,
        attempt: AttemptId,
        failure: &Error,
        address: Option<&str>,
        extra: Value,
    ) -> Result<bool> {
        tracing::error!(workspace.id = %id, attempt = %attempt, error = failure.detail(), "provisioning failed");
        let mut payload = json!({"error": failure.message()});
        if let (Some(payload), Value::Object(extra)) = (payload.as_object_mut(), extra) {
            payload.extend(extra);
        }
        let event = self.event(EventKind::WorkspaceProvisionFailed, id, payload);
        let step = Status::Provisioning.to(Status::Failed)?;
        let kept = self.inner.store.fail_attempt(id, step, attempt, failure.message(), address, &event).await?;
        if kept {
            self.announce(event);
        }
        Ok(kept)
    }
}

/// Whether no agent can report in any more from what was `started`. Before that, what is seen to end is the workload of
/// the try before.
pub(crate) fn never_comes(workload: Workload, started: bool) -> bool {
    started && workload != Workload::Running
}

/// What an agent that ended before its first word is failed with.
pub(crate) fn ended_before_it_registered(workload: Workload) -> Error {
    let code = match workload {
        Workload::Ended { exit_code: Some(code) } => format!(" with exit code {code}"),
        _ => String::new(),
    };
    Error::new(
        ErrorKind::Upstream,
        format!("the agent ended{code} before it registered — its log says why (molecule logs)"),
    )
}

/// A fixed text for callers: what a panic says may hold anything. The panic hook has logged it with its trace.
fn from_panic(panic: &(dyn Any + Send)) -> Error {
    let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref().cloned());
    Error::new(ErrorKind::Unexpected, "provision panic: the workspace could not be started because of a defect")
        .context("panic", said.unwrap_or_default())
}
