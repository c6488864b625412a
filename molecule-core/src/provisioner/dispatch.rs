//! The one way to bring a workspace up, for every caller and every backend.
//!
//! The entry is logged before anything else, a panic is contained, and every failure goes through one path that is
//! guarded by the try it belongs to: a late result of an earlier try changes nothing.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{ControlPlaneProvisioner, Instance, StartSpec, Workload, prepare, stop::Source};
use crate::{
    control_plane::{Backend, ControlPlane},
    error::{Error, ErrorKind, Result},
    events::EventKind,
    id::{AttemptId, WorkspaceId},
    identity,
    templates::ConfigSource,
    workspace::{Status, Workspace, restart_context::RestartContext},
};

/// How often a workload that has not reported in yet is looked at.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// One try at bringing a workspace up.
#[derive(Debug)]
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
            let outcome = AssertUnwindSafe(this.run(&job, &given_up)).catch_unwind().await;
            let failure = outcome.unwrap_or_else(|panic| Err(from_panic(&*panic))).err();
            if let Some(failure) = failure {
                let extra = failure.members().iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
                this.fail_attempt(id, job.attempt, &failure, false, Value::Object(extra)).await;
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
            let deadline = self.inner.config.provision_timeout_for(&job.workspace.runtime);
            let brought_up = tokio::select! {
                brought_up = tokio::time::timeout(deadline, self.bring_up(job, &workspace)) => brought_up,
                () = given_up.cancelled() => {
                    tracing::info!(workspace.id = %id, attempt = %job.attempt, "given up for something newer");
                    self.discard(id, None).await;
                    return Ok(());
                }
            };
            match brought_up {
                Ok(result) => result?,
                Err(_) => {
                    // What was given up half-way may have left something behind.
                    self.discard(id, None).await;
                    return Err(Error::new(
                        ErrorKind::Upstream,
                        format!("workspace start failed: the backend did not answer within {} s", deadline.as_secs()),
                    ));
                }
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

    async fn has_config(&self, id: WorkspaceId) -> Result<bool> {
        match &self.inner.backend {
            Backend::Local { provisioner, .. } if provisioner.capability().volumes => {
                provisioner.volume_has_file(id, prepare::CONFIG_FILE).await.map_err(start_failed)
            }
            _ => Ok(false),
        }
    }

    async fn bring_up(&self, job: &Job, workspace: &Workspace) -> Result<()> {
        if let Some(source) = job.restart {
            self.stop_for_restart(workspace, source).await;
        }
        let (kept, issued) = identity::issue(workspace.id, Some(job.attempt), &*self.inner.entropy, self.now());
        let env = self.environment(workspace).await?;
        // What its user made of an earlier configuration survives.
        let holds = job.config == ConfigSource::Keep && self.has_config(workspace.id).await?;
        let files = self.config_files(workspace, &job.config, holds, &env).await?;
        let mut spec = prepare::spec(workspace, env, files, &self.inner.config, &issued.token);
        spec.reset_session = job.reset_session;
        let names = spec.env.keys().cloned().collect();
        let (url, instance) = match &self.inner.backend {
            Backend::None => return Err(super::no_backend()),
            Backend::Local { provisioner, .. } => {
                let secret = self.rotate_inbound_secret(workspace.id).await?;
                spec.files.push(prepare::inbound_secret_file(&secret));
                // Just before the start: a start that never comes leaves the old credential alone.
                self.inner.store.replace_tokens(&kept).await?;
                (provisioner.start(&spec).await.map_err(start_failed)?, None)
            }
            Backend::ControlPlane(provisioner) => {
                // The token is issued by the register call that the machine makes without one.
                self.inner.store.revoke_tokens(workspace.id, self.now()).await?;
                // The machine hears of it when it registers.
                self.rotate_inbound_secret(workspace.id).await?;
                // What the control plane said is for the log.
                let failed = |error: Error| Error::new(error.kind(), "provisioning failed").caused_by(error);
                (None, Some(self.start_machine(provisioner, spec).await.map_err(failed)?.instance_id))
            }
        };
        let assigned =
            self.inner.store.assign(workspace.id, job.attempt, url.as_deref(), instance.as_deref(), self.now()).await;
        let kept = match assigned {
            Ok(kept) => kept,
            Err(error) => {
                // Nobody would ever find again what was started.
                self.discard(workspace.id, instance.as_deref()).await;
                return Err(error);
            }
        };
        if kept {
            tracing::info!(workspace.id = %workspace.id, attempt = %job.attempt, "started; waiting for the agent");
            if job.restart.is_some() {
                let context = RestartContext {
                    restarted_at: workspace.provision_started_at.unwrap_or_else(|| self.now()),
                    heard_before: workspace.last_heartbeat_at,
                    env: names,
                };
                self.tell_of_restart(workspace, job.attempt, context);
            }
        } else {
            tracing::warn!(workspace.id = %workspace.id, attempt = %job.attempt, "superseded; stopping what it started");
            self.discard(workspace.id, instance.as_deref()).await;
        }
        Ok(())
    }

    /// Asks for a machine, and sees the call through also where nobody waits for it any more: a machine whose name
    /// was not heard could never be given back.
    async fn start_machine(&self, provisioner: &Arc<dyn ControlPlaneProvisioner>, spec: StartSpec) -> Result<Instance> {
        let (this, provisioner) = (self.clone(), Arc::clone(provisioner));
        let (tell, told) = oneshot::channel();
        let call = self.inner.tasks.spawn(async move {
            if let Err(Ok(Instance { instance_id })) = tell.send(provisioner.start(&spec).await) {
                tracing::warn!(workspace.id = %spec.workspace_id, "a machine came up that nobody waits for any more");
                this.discard(spec.workspace_id, Some(&instance_id)).await;
            }
        });
        match told.await {
            Ok(started) => started,
            Err(_) => match call.await {
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                _ => Err(Error::new(ErrorKind::Unexpected, "the call to the control plane ended without an answer")),
            },
        }
    }

    /// Stops what a try started that was superseded or given up, and clears its storage where the workspace is gone.
    async fn discard(&self, id: WorkspaceId, instance: Option<&str>) {
        let discard = async {
            self.inner.backend.stop(id, instance).await?;
            match self.inner.store.workspace(id).await? {
                Some(row) if row.status != Status::Removed => Ok(()),
                _ => self.inner.backend.clear(id).await,
            }
        };
        if let Err(error) = discard.await {
            tracing::error!(workspace.id = %id, error = error.detail(), "a workload that nobody wants was left behind");
        }
    }

    /// Looks at what was started until its agent reports in, so that one that ends at once is not waited for.
    async fn watch(&self, job: &Job) -> Result<()> {
        let Backend::Local { inspector, .. } = &self.inner.backend else { return Ok(()) };
        loop {
            tokio::select! {
                () = self.inner.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(WATCH_EVERY) => {}
            }
            if self.current(job).await?.is_none() {
                return Ok(());
            }
            match inspector.observe(job.workspace.id).await {
                Ok(workload) if never_comes(workload, true) => return Err(ended_before_it_registered(workload)),
                Ok(_) => {}
                // A backend that can't tell says nothing about the workload; the timeout sweep has the last word.
                Err(error) => tracing::warn!(workspace.id = %job.workspace.id, error = error.detail(), "cannot look"),
            }
        }
    }

    /// The one failure path: the row, the log and the event. Without effect when `attempt` is over.
    ///
    /// An agent that `may_still_come` keeps its address, so that it can be called when it does.
    pub(crate) async fn fail_attempt(
        &self,
        id: WorkspaceId,
        attempt: AttemptId,
        failure: &Error,
        may_still_come: bool,
        extra: Value,
    ) -> bool {
        tracing::error!(workspace.id = %id, attempt = %attempt, error = failure.detail(), "provisioning failed");
        let mut payload = json!({"error": failure.message()});
        if let (Some(payload), Value::Object(extra)) = (payload.as_object_mut(), extra) {
            payload.extend(extra);
        }
        let event = self.event(EventKind::WorkspaceProvisionFailed, id, payload);
        let step = Status::Provisioning.to(Status::Failed);
        let kept = match step {
            Ok(step) => {
                self.inner.store.fail_attempt(id, step, attempt, failure.message(), may_still_come, &event).await
            }
            Err(error) => Err(error),
        };
        match kept {
            Ok(true) => {
                self.announce(event);
                true
            }
            Ok(false) => false,
            Err(error) => {
                tracing::error!(workspace.id = %id, error = error.detail(), "the failure could not be kept");
                false
            }
        }
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

fn start_failed(error: Error) -> Error {
    let text = format!("workspace start failed: {}", error.message());
    error.with_message(text)
}

/// A fixed text for callers: what a panic says may hold anything. The panic hook has logged it with its trace.
fn from_panic(panic: &(dyn Any + Send)) -> Error {
    let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref().cloned());
    Error::new(ErrorKind::Unexpected, "provision panic: the workspace could not be started because of a defect")
        .context("panic", said.unwrap_or_default())
}
