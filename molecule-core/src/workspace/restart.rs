//! Begins new tries at bringing workspaces up.

use serde_json::json;

use super::{
    Status, Workspace,
    lifecycle::{PATIENCE_WITH_RACES, gone_is_not_found, raced},
};
use crate::{
    control_plane::{Backend, ControlPlane},
    error::{Error, ErrorKind, Result},
    events::EventKind,
    id::WorkspaceId,
    provisioner::{dispatch::Job, no_backend, stop::Source},
    store::{Abandoned, Asked, Cause},
    templates::{ConfigSource, EXISTING},
};

/// How a workspace is brought up anew. [`Default`] leaves its conversation and its configuration alone.
#[derive(Debug, Clone, Default)]
pub struct Restart {
    /// Forgets the agent's conversation, where the backend keeps one.
    pub reset_session: bool,
    /// Puts the files of this template into the configuration folder; empty is none.
    pub template: String,
    /// The same with the template that is called like the workspace, else with that of its runtime.
    pub apply_template: bool,
    /// The same with the folder below `org-templates` that is called like the workspace.
    pub rebuild_config: bool,
}

/// What a restart did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restarted {
    /// A new try began; stop and start go on without the caller.
    Provisioning,
    /// Nothing: the agent of an external workspace is not this control plane's to restart.
    External,
}

impl ControlPlane {
    /// Begins a new try at bringing the workspace up. The answer waits for neither stop nor start.
    ///
    /// `reset_session` forgets the agent's conversation, where the backend keeps one. Of tries that overlap, the newest wins; the others end without a trace on the backend.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace; [`ErrorKind::Unavailable`] without a backend;
    /// [`ErrorKind::Conflict`] below a paused workspace.
    pub async fn restart(&self, id: WorkspaceId, reset_session: bool) -> Result<Restarted> {
        let restart = Restart { reset_session, ..Restart::default() };
        self.restart_from(id, &restart).await.map(|(restarted, _)| restarted)
    }

    /// As [`ControlPlane::restart`], and says what the configuration of the workspace comes from: a template, or
    /// `existing-volume`, which leaves what is there as it is.
    ///
    /// A template that is not there, or leads out of the folder of templates, is passed over.
    ///
    /// # Errors
    /// As [`ControlPlane::restart`].
    pub async fn restart_from(&self, id: WorkspaceId, restart: &Restart) -> Result<(Restarted, String)> {
        for _ in 0..PATIENCE_WITH_RACES {
            let workspace = self.existing(id).await.map_err(gone_is_not_found)?;
            if workspace.is_external() {
                return Ok((Restarted::External, String::new()));
            }
            self.demand_backend()?;
            self.refuse_below_paused(&workspace).await?;
            let (config, label) = self.config_for_restart(restart, &workspace).await?;
            let asked = Asked {
                provision_config: (label != EXISTING).then(|| label.clone()),
                provision_reset: restart.reset_session,
            };
            if self.begin_attempt_from(workspace, Source::Restart, config, Cause::Asked(asked)).await? {
                return Ok((Restarted::Provisioning, label));
            }
        }
        Err(raced(id))
    }

    pub(crate) fn demand_backend(&self) -> Result<()> {
        match self.inner.backend {
            Backend::None => {
                Err(Error::new(ErrorKind::Unavailable, "provisioner not available").caused_by(no_backend()))
            }
            _ => Ok(()),
        }
    }

    /// What is below a paused workspace stays stopped until that one is resumed.
    pub(crate) async fn refuse_below_paused(&self, workspace: &Workspace) -> Result<()> {
        if workspace.parent_id.is_none() {
            return Ok(());
        }
        match self.inner.store.paused_above(workspace.id).await? {
            Some(name) => {
                Err(Error::new(ErrorKind::Conflict, format!("parent workspace {name:?} is paused — resume it first")))
            }
            None => Ok(()),
        }
    }

    /// Moves the workspace from the status it was read with into a new try. False when it has moved meanwhile.
    pub(crate) async fn begin_attempt(
        &self,
        workspace: Workspace,
        source: Source,
        reset_session: bool,
    ) -> Result<bool> {
        let asked = Asked { provision_config: None, provision_reset: reset_session };
        self.begin_attempt_from(workspace, source, ConfigSource::Keep, Cause::Asked(asked)).await
    }

    /// Goes on in a new try with what nobody carries out any more, and with what that was asked for. False when somebody
    /// does after all.
    pub(crate) async fn take_over(&self, workspace: Workspace, abandoned: Abandoned) -> Result<bool> {
        self.begin_attempt_from(workspace, Source::AutoRestart, ConfigSource::Keep, Cause::Abandoned(abandoned)).await
    }

    /// As [`ControlPlane::begin_attempt`], with what goes into the configuration folder.
    async fn begin_attempt_from(
        &self,
        workspace: Workspace,
        source: Source,
        config: ConfigSource,
        cause: Cause,
    ) -> Result<bool> {
        let step = workspace.status.to(Status::Provisioning)?;
        let attempt = self.new_attempt();
        let event = self.event(
            EventKind::WorkspaceProvisioning,
            workspace.id,
            json!({"name": workspace.name, "tier": workspace.tier, "runtime": workspace.runtime}),
        );
        let Some(asked) = self.inner.store.begin_attempt(workspace.id, step, attempt, &cause, &event).await? else {
            return Ok(false);
        };
        self.announce(event);
        let config = match cause {
            Cause::Asked(_) => config,
            Cause::Abandoned(_) => self.config_asked_for(asked.provision_config).await,
        };
        self.provision(Job { workspace, attempt, restart: Some(source), reset_session: asked.provision_reset, config });
        Ok(true)
    }

    /// Brings a lost workspace up again, unless it has moved on meanwhile. Whether a try began.
    pub(crate) async fn auto_restart(&self, id: WorkspaceId) -> Result<bool> {
        if self.demand_backend().is_err() {
            return Ok(false);
        }
        match self.inner.store.workspace(id).await? {
            Some(workspace) if workspace.status == Status::Offline && !workspace.is_external() => {
                match self.refuse_below_paused(&workspace).await {
                    Ok(()) => self.begin_attempt(workspace, Source::AutoRestart, false).await,
                    Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
                    Err(error) => Err(error),
                }
            }
            _ => Ok(false),
        }
    }
}
