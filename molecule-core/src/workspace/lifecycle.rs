//! Create, look at, restart and remove workspaces.

use std::path::Path;

use futures_util::future::join_all;
use secrecy::SecretString;
use serde_json::json;

use super::{CreateWorkspace, Status, Workspace, create::Checked};
use crate::{
    clock::random_uuid,
    control_plane::{Backend, ControlPlane},
    error::{Error, ErrorKind, Result},
    events::EventKind,
    id::WorkspaceId,
    identity, net,
    provisioner::{dispatch::Job, no_backend},
    store::NewWorkspace,
};

/// How often a change is tried again after another change came in between.
const PATIENCE_WITH_RACES: usize = 8;

/// A workspace that was just made.
#[derive(Debug)]
pub struct Created {
    /// The workspace.
    pub workspace: Workspace,
    /// The token of an external workspace: shown this once.
    pub auth_token: Option<SecretString>,
}

/// What a restart did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restarted {
    /// A new try began; stop and start go on without the caller.
    Provisioning,
    /// Nothing: the agent of an external workspace is not this control plane's to restart.
    External,
}

/// What a delete did.
#[derive(Debug)]
pub enum Deleted {
    /// Nothing: the workspace leads others, and the caller did not say that they may go as well.
    ConfirmationRequired {
        /// The workspaces directly below it.
        children: Vec<Workspace>,
    },
    /// It is gone, and so many below it.
    Removed {
        /// How many below it.
        cascade_deleted: usize,
    },
    /// It is gone with its rows, and so many below it.
    Purged {
        /// How many below it.
        cascade_deleted: usize,
    },
}

impl ControlPlane {
    /// Makes a workspace and begins to bring it up; that goes on after the call.
    ///
    /// An external one is not brought up: it is online at once where its URL is known, and otherwise waits for its
    /// agent, whose token comes back this once.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a broken rule; nothing is kept then.
    pub async fn create(&self, request: CreateWorkspace) -> Result<Created> {
        let checked = request.check()?;
        let workspace_dir = self.check_workspace_dir(checked.workspace_dir.as_deref()).await?;
        if let Some(parent) = checked.parent_id {
            self.existing(parent).await.map_err(|error| match error.kind() {
                ErrorKind::NotFound | ErrorKind::Removed => Error::invalid("parent workspace not found"),
                _ => error,
            })?;
        }
        let id = WorkspaceId::from_uuid(random_uuid(&*self.inner.entropy));
        if checked.runtime == super::EXTERNAL_RUNTIME {
            self.create_external(id, checked).await
        } else {
            self.create_managed(id, checked, workspace_dir).await
        }
    }

    async fn create_managed(
        &self,
        id: WorkspaceId,
        checked: Checked,
        workspace_dir: Option<String>,
    ) -> Result<Created> {
        let attempt = self.new_attempt();
        let event = self.event(
            EventKind::WorkspaceProvisioning,
            id,
            json!({"name": checked.name, "tier": checked.tier, "runtime": checked.runtime}),
        );
        let new = NewWorkspace {
            status: Status::Provisioning,
            provision_attempt: Some(attempt),
            workspace_dir,
            ..self.new_row(id, &checked, event.created_at)?
        };
        self.inner.store.insert_workspace(&new, None, std::slice::from_ref(&event)).await.map_err(create_failed)?;
        self.announce(event);
        let workspace = self.existing(id).await?;
        self.provision(Job { workspace: workspace.clone(), attempt, restart: false, reset_session: false });
        Ok(Created { workspace, auth_token: None })
    }

    async fn create_external(&self, id: WorkspaceId, checked: Checked) -> Result<Created> {
        if let Some(url) = &checked.url {
            net::check_url(url, self.inner.config.address_policy).await?;
        }
        let (status, kind) = match checked.url {
            Some(_) => (Status::Online, EventKind::WorkspaceOnline),
            None => (Status::AwaitingAgent, EventKind::WorkspaceAwaitingAgent),
        };
        let event = self.event(kind, id, json!({"name": checked.name, "external": true}));
        let new = NewWorkspace { status, ..self.new_row(id, &checked, event.created_at)? };
        let (kept, issued) = identity::issue(id, None, &*self.inner.entropy, event.created_at);
        self.inner
            .store
            .insert_workspace(&new, Some(&kept), std::slice::from_ref(&event))
            .await
            .map_err(create_failed)?;
        self.announce(event);
        let workspace = self.existing(id).await?;
        Ok(Created { workspace, auth_token: Some(issued.token) })
    }

    fn new_row(
        &self,
        id: WorkspaceId,
        checked: &Checked,
        created_at: chrono::DateTime<chrono::Utc>,
    ) -> Result<NewWorkspace> {
        let mut secrets =
            checked.secrets.iter().map(|(key, value)| self.new_secret(key, value)).collect::<Result<Vec<_>>>()?;
        if let Some(model) = &checked.model {
            secrets.extend(self.choice_of_model(model, |key| checked.secrets.contains_key(key))?);
        }
        Ok(NewWorkspace {
            id,
            name: checked.name.clone(),
            role: checked.role.clone(),
            tier: checked.tier,
            status: Status::Provisioning,
            url: checked.url.clone(),
            parent_id: checked.parent_id,
            runtime: checked.runtime.clone(),
            workspace_dir: None,
            workspace_access: checked.workspace_access,
            budget_limit: checked.budget_limit,
            max_concurrent_tasks: checked.max_concurrent_tasks,
            delivery_mode: checked.delivery_mode,
            provision_attempt: None,
            canvas: checked.canvas,
            secrets,
            created_at,
        })
    }

    /// A folder of the host is given away only below a root that the operator named, whatever links lead there.
    async fn check_workspace_dir(&self, dir: Option<&str>) -> Result<Option<String>> {
        let Some(dir) = dir else { return Ok(None) };
        let refuse = |detail: String| Error::invalid("invalid workspace directory").with_member("detail", detail);
        if !Path::new(dir).is_absolute() {
            return Err(refuse("workspace_dir must be absolute".to_owned()));
        }
        let real = tokio::fs::canonicalize(dir)
            .await
            .map_err(|error| refuse("workspace_dir cannot be opened".to_owned()).caused_by(error))?;
        for root in &self.inner.config.workspace_roots {
            if tokio::fs::canonicalize(root).await.is_ok_and(|root| real.starts_with(root)) {
                return Ok(Some(real.to_string_lossy().into_owned()));
            }
        }
        Err(refuse("workspace_dir is not below a root that this server allows".to_owned()))
    }

    /// Every workspace that is not removed, oldest first.
    pub async fn workspaces(&self) -> Result<Vec<Workspace>> {
        self.inner.store.workspaces().await
    }

    /// The workspace with `id`, removed ones included; `None` for an unknown one.
    pub async fn workspace(&self, id: WorkspaceId) -> Result<Option<Workspace>> {
        self.inner.store.workspace(id).await
    }

    /// The workspace with `id`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown one, [`ErrorKind::Removed`] for one that is gone.
    pub async fn existing(&self, id: WorkspaceId) -> Result<Workspace> {
        match self.inner.store.workspace(id).await? {
            None => Err(Error::not_found("workspace not found").context("workspace.id", id)),
            Some(row) if row.status == Status::Removed => {
                Err(Error::new(ErrorKind::Removed, "workspace removed").context("workspace.id", id))
            }
            Some(row) => Ok(row),
        }
    }

    /// Begins a new try at bringing the workspace up. The answer waits for neither stop nor start.
    ///
    /// `reset_session` forgets the agent's conversation, where the backend keeps one. Of tries that overlap, the newest wins; the others end without a trace on the backend.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace; [`ErrorKind::Unavailable`] without a backend.
    pub async fn restart(&self, id: WorkspaceId, reset_session: bool) -> Result<Restarted> {
        for _ in 0..PATIENCE_WITH_RACES {
            let workspace = self.existing(id).await.map_err(gone_is_not_found)?;
            if workspace.is_external() {
                return Ok(Restarted::External);
            }
            if matches!(self.inner.backend, Backend::None) {
                return Err(Error::new(ErrorKind::Unavailable, "provisioner not available").caused_by(no_backend()));
            }
            if self.begin_attempt(workspace, reset_session).await? {
                return Ok(Restarted::Provisioning);
            }
        }
        Err(raced(id))
    }

    /// Moves the workspace from the status it was read with into a new try. False when it has moved meanwhile.
    pub(crate) async fn begin_attempt(&self, workspace: Workspace, reset_session: bool) -> Result<bool> {
        let step = workspace.status.to(Status::Provisioning)?;
        let attempt = self.new_attempt();
        let event = self.event(
            EventKind::WorkspaceProvisioning,
            workspace.id,
            json!({"name": workspace.name, "tier": workspace.tier, "runtime": workspace.runtime}),
        );
        if !self.inner.store.begin_attempt(workspace.id, step, attempt, &event).await? {
            return Ok(false);
        }
        self.announce(event);
        self.provision(Job { workspace, attempt, restart: true, reset_session });
        Ok(true)
    }

    /// Removes a workspace and all below it: first their rows and tokens, then what runs, then what is kept.
    ///
    /// Repeating it finishes what an earlier call could not; an unknown id is removed already. The clean-up goes on
    /// when the caller leaves.
    ///
    /// # Errors
    /// [`ErrorKind::Unexpected`] with `removed_count` and `stop_failures` where a backend could not be stopped: the
    /// rows stay removed, and another call tries again.
    pub async fn delete(&self, id: WorkspaceId, confirmed: bool, purge: bool) -> Result<Deleted> {
        let children = self.inner.store.children(id).await.map_err(|error| said(error, "failed to check children"))?;
        if !children.is_empty() && !confirmed {
            return Ok(Deleted::ConfirmationRequired { children });
        }
        let (tree, removed) = self.mark_removed(id).await?;
        let cleanup = {
            let this = self.clone();
            let tree = tree.clone();
            self.inner.tasks.spawn(async move { this.clean_up(tree).await })
        };
        let failures = cleanup.await.map_err(|error| {
            Error::new(ErrorKind::Unexpected, "the clean-up ended early").caused_by(error).context("workspace.id", id)
        })?;
        if !failures.is_empty() {
            let causes: Vec<&str> = failures.iter().map(Error::message).collect();
            let text =
                format!("{} of {} workloads could not be stopped: {}", failures.len(), tree.len(), causes.join("; "));
            for failure in &failures {
                tracing::error!(error = failure.detail(), "a removed workspace could not be stopped");
            }
            return Err(Error::new(ErrorKind::Unexpected, text)
                .with_member("removed_count", removed)
                .with_member("stop_failures", failures.len()));
        }
        if purge {
            let ids: Vec<WorkspaceId> = tree.iter().map(|workspace| workspace.id).collect();
            self.inner.store.purge(&ids).await.map_err(|error| error.with_message("purge failed"))?;
            return Ok(Deleted::Purged { cascade_deleted: tree.len().saturating_sub(1) });
        }
        Ok(Deleted::Removed { cascade_deleted: removed.saturating_sub(1) })
    }

    /// Marks `id` and all below it as removed. Gives all of them, those removed earlier included, and how many this call
    /// removed.
    async fn mark_removed(&self, id: WorkspaceId) -> Result<(Vec<Workspace>, usize)> {
        for _ in 0..PATIENCE_WITH_RACES {
            let mut tree = Vec::new();
            for member in self.inner.store.subtree(id).await? {
                tree.extend(self.inner.store.workspace(member).await?);
            }
            let live: Vec<&Workspace> = tree.iter().filter(|workspace| workspace.status != Status::Removed).collect();
            let below = live.iter().filter(|workspace| workspace.id != id).count();
            let mut steps = Vec::new();
            for workspace in live {
                let payload = if workspace.id == id { json!({"cascade_deleted": below}) } else { json!({}) };
                let event = self.event(EventKind::WorkspaceRemoved, workspace.id, payload);
                steps.push((workspace.id, workspace.status.to(Status::Removed)?, event));
            }
            if self.inner.store.remove(&steps).await? {
                let removed = steps.len();
                for (id, _, event) in steps {
                    self.inner.attempts.give_up(id);
                    self.announce(event);
                }
                return Ok((tree, removed));
            }
        }
        Err(raced(id))
    }

    /// Stops and clears what removed workspaces left on the backend. Gives the stops that failed.
    async fn clean_up(&self, removed: Vec<Workspace>) -> Vec<Error> {
        let budget = self.inner.config.delete_budget;
        let each = removed.iter().filter(|workspace| !workspace.is_external()).map(async |workspace| {
            let late = || Error::new(ErrorKind::Upstream, format!("{} was not stopped in time", workspace.id));
            tokio::time::timeout(budget, self.release(workspace)).await.unwrap_or_else(|_| Err(late())).err()
        });
        join_all(each).await.into_iter().flatten().collect()
    }

    /// Stops the workload of a removed workspace and removes its volume.
    async fn release(&self, workspace: &Workspace) -> Result<()> {
        // A start that is under way sees that it was superseded and clears up after itself.
        let _gate = self.inner.gates.enter(workspace.id).await;
        match &self.inner.backend {
            Backend::None => Ok(()),
            Backend::Local { provisioner, .. } => {
                provisioner.stop(workspace.id).await?;
                if let Err(error) = provisioner.remove_volume(workspace.id).await {
                    tracing::error!(workspace.id = %workspace.id, error = error.detail(), "a volume was left behind");
                }
                Ok(())
            }
            Backend::ControlPlane(provisioner) => match &workspace.instance_id {
                Some(instance) => provisioner.stop(workspace.id, instance).await,
                None => Ok(()),
            },
        }
    }

    /// The last `lines` lines that the workload of `id` wrote.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the workspace does not run on this host.
    pub async fn logs(&self, id: WorkspaceId, lines: usize) -> Result<Vec<u8>> {
        let workspace = self.existing(id).await?;
        match &self.inner.backend {
            Backend::Local { inspector, .. } if !workspace.is_external() => inspector.logs(id, lines).await,
            _ => Err(Error::new(ErrorKind::Unsupported, "this workspace does not run here, so its logs are elsewhere")),
        }
    }
}

fn create_failed(error: Error) -> Error {
    said(error, "failed to create workspace")
}

/// Says what failed, where the store does not say already that it is away.
pub(crate) fn said(error: Error, message: &'static str) -> Error {
    match error.kind() {
        ErrorKind::Unavailable => error,
        _ => error.with_message(message),
    }
}

pub(crate) fn gone_is_not_found(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Removed => Error::not_found("workspace not found"),
        _ => error,
    }
}

fn raced(id: WorkspaceId) -> Error {
    Error::new(ErrorKind::Conflict, "the workspace keeps changing; try again").context("workspace.id", id)
}
