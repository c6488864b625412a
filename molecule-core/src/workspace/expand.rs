//! Makes the team of a workspace, as its template says.

use serde_json::json;

use super::{CreateWorkspace, Position, Status, Workspace, lifecycle::gone_is_not_found};
use crate::{
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    events::EventKind,
    id::WorkspaceId,
    templates::{SubWorkspace, sub_workspaces},
};

/// How many workspaces one call may make.
const TEAM_LIMIT: usize = 100;

impl ControlPlane {
    /// Makes the workspaces that `sub_workspaces` of the template names which is called like this workspace, directly below
    /// it and of its tier. They are brought up like any other; that goes on after the call. All of them are made, or none.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where there is no such template, it names none, or names one that cannot be made;
    /// [`ErrorKind::Conflict`] at or below a paused workspace; [`ErrorKind::NotFound`] for an unknown or removed one.
    pub async fn expand(&self, id: WorkspaceId) -> Result<Vec<Workspace>> {
        let workspace = self.existing(id).await.map_err(gone_is_not_found)?;
        if workspace.status == Status::Paused {
            let text = format!("parent workspace {:?} is paused — resume it first", workspace.name);
            return Err(Error::new(ErrorKind::Conflict, text));
        }
        self.refuse_below_paused(&workspace).await?;
        let team = self.team_of(&workspace).await?;
        let requests: Vec<CreateWorkspace> = team.into_iter().map(|member| request(member, &workspace)).collect();
        for request in &requests {
            // What is wrong with one is found before the first is made.
            self.check_create(request.clone()).await?;
        }
        let mut made = Vec::new();
        for request in requests {
            match self.create(request).await {
                Ok(created) => made.push(created.workspace),
                Err(error) => {
                    self.take_back(&made).await;
                    return Err(error);
                }
            }
        }
        let children: Vec<_> =
            made.iter().map(|child| json!({"id": child.id, "name": child.name, "role": child.role})).collect();
        let event = self.event(EventKind::WorkspaceExpanded, id, json!({"children": children}));
        self.inner.store.record(&event).await?;
        self.announce(event);
        Ok(made)
    }

    /// Who belongs to the team of a workspace.
    async fn team_of(&self, workspace: &Workspace) -> Result<Vec<SubWorkspace>> {
        let (templates, name) = (self.inner.config.templates.clone(), workspace.name.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let (_, folder) = templates.called_like("", &name)?;
            Some(std::fs::read_to_string(folder.join("config.yaml")))
        });
        let unreadable = || Error::new(ErrorKind::Unexpected, "failed to read config");
        let config = reading.await.map_err(|error| unreadable().caused_by(error))?;
        let config = config.ok_or_else(|| Error::invalid("no config found for workspace"))?;
        let config = config.map_err(|error| unreadable().caused_by(error))?;
        let team = sub_workspaces(&config).map_err(|error| {
            Error::new(ErrorKind::Unexpected, "failed to parse config").with_member("detail", error)
        })?;
        match team.len() {
            0 => Err(Error::invalid("workspace has no sub_workspaces defined in config")),
            1..=TEAM_LIMIT => Ok(team),
            count => Err(Error::invalid(format!("too many sub_workspaces ({count}), max {TEAM_LIMIT}"))),
        }
    }

    async fn take_back(&self, made: &[Workspace]) {
        for workspace in made {
            if let Err(error) = self.delete(workspace.id, true, true).await {
                tracing::error!(workspace.id = %workspace.id, error = error.detail(), "half of a team was left behind");
            }
        }
    }
}

fn request(member: SubWorkspace, lead: &Workspace) -> CreateWorkspace {
    CreateWorkspace {
        name: member.name,
        role: Some(member.role),
        template: Some(member.config),
        tier: lead.tier,
        parent_id: Some(lead.id),
        canvas: Some(Position { x: 0.0, y: 0.0 }),
        ..CreateWorkspace::default()
    }
}
