//! Create workspaces and look at them.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde_json::json;

use super::{CreateWorkspace, Status, Workspace, create::Checked};
use crate::{
    clock::random_uuid,
    control_plane::{Backend, ControlPlane},
    error::{Error, ErrorKind, Result},
    events::EventKind,
    id::WorkspaceId,
    identity,
    provisioner::dispatch::Job,
    store::NewWorkspace,
    templates::ConfigSource,
};

/// How often a change is tried again after another change came in between.
pub(super) const PATIENCE_WITH_RACES: usize = 8;

/// A workspace that was just made.
#[derive(Debug)]
pub struct Created {
    /// The workspace.
    pub workspace: Workspace,
    /// The token of an external workspace: shown this once.
    pub auth_token: Option<SecretString>,
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
        let mut request = request;
        let memories = std::mem::take(&mut request.initial_memories);
        let (checked, template, found) = self.check_create(request).await?;
        let workspace_dir = self.check_workspace_dir(checked.workspace_dir.as_deref()).await?;
        if let Some(parent) = checked.parent_id {
            self.existing(parent).await.map_err(|error| match error.kind() {
                ErrorKind::NotFound | ErrorKind::Removed => Error::invalid("parent workspace not found"),
                _ => error,
            })?;
        }
        let id = WorkspaceId::from_uuid(random_uuid(&*self.inner.entropy));
        let created = if checked.runtime == super::EXTERNAL_RUNTIME {
            self.create_external(id, checked).await?
        } else {
            let config = match found {
                Some(folder) => ConfigSource::Folder(folder),
                None if template.is_some() => self.config_of_runtime(&checked.runtime).await?,
                None => ConfigSource::Generated,
            };
            self.create_managed(id, checked, workspace_dir, template.unwrap_or_default(), config).await?
        };
        self.remember_from_start(id, memories).await;
        Ok(created)
    }

    /// Checks a request as far as it can be without making anything. Gives besides the template that was named, and its
    /// folder where there is one.
    pub(super) async fn check_create(
        &self,
        mut request: CreateWorkspace,
    ) -> Result<(Checked, Option<String>, Option<PathBuf>)> {
        let template = request.template.take().filter(|name| !name.is_empty());
        let found = self.template_for_create(template.clone()).await?;
        if let Some((_, template)) = &found {
            request.fill_in(template);
        }
        let checked = request.check(&self.inner.config.templates)?;
        Ok((checked, template, found.map(|(folder, _)| folder)))
    }

    async fn create_managed(
        &self,
        id: WorkspaceId,
        checked: Checked,
        workspace_dir: Option<String>,
        template: String,
        config: ConfigSource,
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
            template: Some(template),
            ..self.new_row(id, &checked, event.created_at)?
        };
        let made = self.inner.store.insert_workspace(&new, None, std::slice::from_ref(&event)).await;
        let workspace = made.map_err(create_failed)?;
        self.announce(event);
        self.provision(Job { workspace: workspace.clone(), attempt, restart: None, reset_session: false, config });
        Ok(Created { workspace, auth_token: None })
    }

    async fn create_external(&self, id: WorkspaceId, checked: Checked) -> Result<Created> {
        if let Some(url) = &checked.url {
            self.check_url(url).await?;
        }
        let (status, kind) = match checked.url {
            Some(_) => (Status::Online, EventKind::WorkspaceOnline),
            None => (Status::AwaitingAgent, EventKind::WorkspaceAwaitingAgent),
        };
        let event = self.event(kind, id, json!({"name": checked.name, "external": true}));
        let new = NewWorkspace { status, ..self.new_row(id, &checked, event.created_at)? };
        let (kept, issued) = identity::issue(id, None, &*self.inner.entropy, event.created_at);
        let made = self.inner.store.insert_workspace(&new, Some(&kept), std::slice::from_ref(&event)).await;
        let workspace = made.map_err(create_failed)?;
        self.announce(event);
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
            hibernation_idle_minutes: checked.hibernation_idle_minutes,
            budget_limit: checked.budget_limit,
            max_concurrent_tasks: checked.max_concurrent_tasks,
            delivery_mode: checked.delivery_mode,
            provision_attempt: None,
            template: None,
            canvas: checked.canvas,
            secrets,
            created_at,
        })
    }

    /// A folder of the host is given away only below a root that the operator named, whatever links lead there.
    pub(super) async fn check_workspace_dir(&self, dir: Option<&str>) -> Result<Option<String>> {
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
        let now = self.now();
        Ok(self.inner.store.workspaces().await?.into_iter().map(|row| row.at(now)).collect())
    }

    /// The workspace with `id`, removed ones included; `None` for an unknown one.
    pub async fn workspace(&self, id: WorkspaceId) -> Result<Option<Workspace>> {
        let now = self.now();
        Ok(self.inner.store.workspace(id).await?.map(|row| row.at(now)))
    }

    /// The workspace with `id`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown one, [`ErrorKind::Removed`] for one that is gone.
    pub async fn existing(&self, id: WorkspaceId) -> Result<Workspace> {
        match self.workspace(id).await? {
            None => Err(Error::not_found("workspace not found").context("workspace.id", id)),
            Some(row) if row.status == Status::Removed => {
                Err(Error::new(ErrorKind::Removed, "workspace removed").context("workspace.id", id))
            }
            Some(row) => Ok(row),
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

pub(super) fn raced(id: WorkspaceId) -> Error {
    Error::new(ErrorKind::Conflict, "the workspace keeps changing; try again").context("workspace.id", id)
}
