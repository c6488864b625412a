//! What one try asks of the backend: first all that may fail and leaves alone what runs, then what takes its place.

use std::{future::Future, panic::resume_unwind, sync::Arc, time::Duration};

use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::{
    ControlPlaneProvisioner, StartSpec,
    dispatch::Job,
    no_backend, prepare,
    stop::{Leaves, Source},
};
use crate::{
    control_plane::{Backend, ControlPlane},
    error::{Error, ErrorKind, Result},
    id::{AttemptId, WorkspaceId},
    identity::{self, NewToken},
    templates::ConfigSource,
    workspace::{Status, Workspace, restart_context::RestartContext},
};

/// All that a start needs.
#[derive(Debug)]
pub(super) struct Ready {
    spec: StartSpec,
    token: NewToken,
}

impl ControlPlane {
    /// Brings up what `job` is for. Whether an agent is to be waited for.
    pub(super) async fn bring_up(&self, job: &Job, workspace: &Workspace) -> Result<bool> {
        let id = workspace.id;
        let config = &self.inner.config;
        let ready = match in_time(config.prepare_timeout, "fetch what it needs", self.make_ready(job, workspace)).await
        {
            Ok(ready) => ready,
            Err(failure) => {
                // What ran before runs on, and may be called.
                let address = match job.workspace.status {
                    Status::Online | Status::Degraded | Status::Provisioning => &job.workspace.url,
                    _ => "",
                };
                self.fail_job(job, &failure, address).await;
                return Ok(false);
            }
        };
        // Without anything to stop first it begins with the new credentials.
        if job.restart.is_some() && !self.inner.store.begin_start(id, job.attempt, self.now()).await? {
            return Ok(superseded(job));
        }
        let deadline = config.provision_timeout_for(&job.workspace.runtime);
        match tokio::time::timeout(deadline, self.replace(job, workspace, ready)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                // What was given up half-way may have left something behind.
                self.discard(job, None).await;
                Err(Error::new(
                    ErrorKind::Upstream,
                    format!("workspace start failed: the backend did not answer within {} s", deadline.as_secs()),
                ))
            }
        }
    }

    /// All that can fail without touching what runs: secrets, plugins, the configuration, and what the backend has to fetch.
    async fn make_ready(&self, job: &Job, workspace: &Workspace) -> Result<Ready> {
        if let Backend::None = self.inner.backend {
            self.note_wish(workspace).await;
            return Err(no_backend());
        }
        let (token, issued) = identity::issue(workspace.id, Some(job.attempt), &*self.inner.entropy, self.now());
        let env = self.environment(workspace).await?;
        // What its user made of an earlier configuration survives.
        let holds = job.config == ConfigSource::Keep && self.has_config(workspace).await;
        let (files, command) = self.config_files(workspace, &job.config, holds, &env).await?;
        let mut spec = prepare::spec(workspace, env, files, &self.inner.config, &issued.token);
        spec.reset_session = job.reset_session;
        spec.command = command;
        if let Backend::Local { provisioner, .. } = &self.inner.backend {
            provisioner.prepare(&spec).await.map_err(start_failed)?;
        }
        Ok(Ready { spec, token })
    }

    /// Whether the workspace has a configuration already.
    async fn has_config(&self, workspace: &Workspace) -> bool {
        let was_started = workspace.template.is_none();
        match &self.inner.backend {
            Backend::Local { provisioner, .. } if provisioner.capability().volumes => {
                match provisioner.volume_has_file(workspace.id, prepare::CONFIG_FILE).await {
                    Ok(holds) => holds,
                    // A start may still succeed, and brings what could not be reached.
                    Err(error) => {
                        let error = error.detail();
                        tracing::warn!(workspace.id = %workspace.id, error, "cannot look for a configuration");
                        was_started
                    }
                }
            }
            // Its machine configures itself.
            Backend::ControlPlane(_) => was_started,
            Backend::Local { .. } | Backend::None => false,
        }
    }

    /// Notes what was asked for where nothing can be brought up.
    async fn note_wish(&self, workspace: &Workspace) {
        let Workspace { name, runtime, tier, template, .. } = workspace;
        let wish: Map<String, Value> = [
            ("name", json!(name)),
            ("runtime", json!(runtime)),
            ("tier", json!(tier)),
            ("template", json!(template.as_deref().unwrap_or_default())),
        ]
        .into_iter()
        .map(|(member, value)| (member.to_owned(), value))
        .collect();
        if let Err(error) = self.inner.store.patch_configuration(workspace.id, &wish, self.now()).await {
            tracing::warn!(workspace.id = %workspace.id, error = error.detail(), "what was asked for is not kept");
        }
    }

    /// Puts a new workload in the place of the one before.
    async fn replace(&self, job: &Job, workspace: &Workspace, ready: Ready) -> Result<bool> {
        let id = workspace.id;
        let Ready { mut spec, token } = ready;
        if let Some(source) = job.restart {
            self.stop_for_restart(workspace, source).await;
        }
        let env: Vec<String> = spec.env.keys().cloned().collect();
        let kept = match &self.inner.backend {
            Backend::None => return Err(no_backend()),
            Backend::Local { provisioner, .. } => {
                // Just before the start: a start that never comes leaves the old credentials alone.
                let Some(secret) = self.renew_credentials(id, job.attempt, Some(&token)).await? else {
                    return Ok(superseded(job));
                };
                spec.files.push(prepare::inbound_secret_file(&secret));
                let url = provisioner.start(&spec).await.map_err(start_failed)?;
                self.assign(job, url.as_deref(), None).await?
            }
            Backend::ControlPlane(provisioner) => {
                // The machine registers without a token, and is given one and the secret by the answer.
                if self.renew_credentials(id, job.attempt, None).await?.is_none() {
                    return Ok(superseded(job));
                }
                self.start_machine(job, provisioner, spec).await?
            }
        };
        if kept {
            tracing::info!(workspace.id = %id, attempt = %job.attempt, "started; waiting for the agent");
            // A create that is gone on with is no restart to an agent that was never there.
            if job.restart.is_some() && workspace.last_heartbeat_at.is_some() {
                let context = RestartContext {
                    restarted_at: workspace.provision_started_at.unwrap_or_else(|| self.now()),
                    heard_before: workspace.last_heartbeat_at,
                    env,
                };
                self.tell_of_restart(workspace, job.attempt, context);
            }
        }
        Ok(kept)
    }

    /// Keeps where `job` came up. False where it was superseded; what it started is taken away then.
    async fn assign(&self, job: &Job, url: Option<&str>, instance: Option<&str>) -> Result<bool> {
        let id = job.workspace.id;
        let assigned = self.inner.store.assign(id, job.attempt, url, instance, self.now()).await;
        if !matches!(assigned, Ok(true)) {
            tracing::warn!(workspace.id = %id, attempt = %job.attempt, "nobody would find it; stopping what it started");
            self.discard(job, instance).await;
        }
        assigned
    }

    /// Asks for a machine and keeps its name, and sees both through also where nobody waits for them any more: a machine
    /// whose name was not heard could never be given back.
    async fn start_machine(
        &self,
        job: &Job,
        provisioner: &Arc<dyn ControlPlaneProvisioner>,
        spec: StartSpec,
    ) -> Result<bool> {
        let (this, job, provisioner) = (self.clone(), job.clone(), Arc::clone(provisioner));
        let (tell, told) = oneshot::channel();
        let call = self.inner.tasks.spawn(async move {
            let outcome = match provisioner.start(&spec).await {
                Ok(machine) if tell.is_closed() => {
                    tracing::warn!(workspace.id = %spec.workspace_id, "a machine came up that nobody waits for any more");
                    this.discard(&job, Some(&machine.instance_id)).await;
                    return;
                }
                Ok(machine) => this.assign(&job, None, Some(&machine.instance_id)).await,
                // What the control plane said is for the log.
                Err(error) => Err(Error::new(error.kind(), "provisioning failed").caused_by(error)),
            };
            // Whoever left meanwhile finds it in the row.
            let _ = tell.send(outcome);
        });
        match told.await {
            Ok(outcome) => outcome,
            Err(_) => match call.await {
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                _ => Err(Error::new(ErrorKind::Unexpected, "the call to the control plane ended without an answer")),
            },
        }
    }

    /// Ends for good what `attempt` started and what ended before its agent said a word, which the backend might begin again.
    /// What it wrote stays, for whoever looks why.
    pub(crate) async fn put_to_rest(&self, id: WorkspaceId, attempt: AttemptId) {
        let Backend::Local { provisioner, .. } = &self.inner.backend else { return };
        let _gate = self.inner.gates.enter(id).await;
        let rest = async {
            match self.inner.store.workspace(id).await? {
                Some(row) if row.status == Status::Failed && row.provision_attempt == Some(attempt) => {
                    provisioner.halt(id).await
                }
                _ => Ok(()),
            }
        };
        if let Err(error) = in_time(self.inner.config.delete_budget, "end what failed", rest).await {
            tracing::warn!(workspace.id = %id, error = error.detail(), "a workload that failed may begin again");
        }
    }

    /// Takes away what `job` started, once it was superseded or given up; with its storage where the workspace is gone.
    ///
    /// Where a newer try has taken its place, what runs on this host is that one's, which replaces what it finds.
    pub(super) async fn discard(&self, job: &Job, instance: Option<&str>) {
        let id = job.workspace.id;
        if let Backend::ControlPlane(provisioner) = &self.inner.backend {
            if let Some(instance) = instance {
                self.give_back(&**provisioner, id, instance, Source::GivenUp).await;
            }
            return;
        }
        let discard = async {
            let row = self.inner.store.workspace(id).await?;
            let leaves = Leaves::of(row.as_ref());
            let attempt = row.filter(|_| leaves == Leaves::Storage).and_then(|row| row.provision_attempt);
            if attempt.is_some_and(|attempt| attempt != job.attempt) {
                tracing::info!(workspace.id = %id, attempt = %job.attempt, "a newer try takes its place");
                return Ok(());
            }
            self.inner.backend.stop(id, instance).await?;
            self.inner.backend.clear(id, leaves).await
        };
        if let Err(error) = in_time(self.inner.config.delete_budget, "take away what was started", discard).await {
            tracing::error!(workspace.id = %id, error = error.detail(), "a workload that nobody wants was left behind");
        }
    }
}

/// A try that was overtaken before it asked the backend waits for no agent.
fn superseded(job: &Job) -> bool {
    tracing::info!(workspace.id = %job.workspace.id, attempt = %job.attempt, "superseded before it asked the backend");
    false
}

async fn in_time<T>(limit: Duration, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let text = format!("workspace start failed: it took longer than {} s to {what}", limit.as_secs());
        Err(Error::new(ErrorKind::Upstream, text))
    })
}

fn start_failed(error: Error) -> Error {
    let text = format!("workspace start failed: {}", error.message());
    error.with_message(text)
}
