//! The first minute: one workspace, online, and what to type next.

use std::time::Duration;

use molecule_core::{
    ControlPlane, Error,
    workspace::{CreateWorkspace, Status, Workspace},
};

use crate::{cli::output, paths};

const NAME: &str = "hello";

/// How often the workspace is looked at while it comes up.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Brings up a first workspace where there is none, waits for it, and says what to type next.
pub(crate) async fn welcome(control_plane: &ControlPlane, server: &str) -> Result<(), Error> {
    let mut fleet = control_plane.workspaces().await?;
    if fleet.is_empty() {
        output::line(&format!("Bringing up a first workspace named {NAME} ({}) …", control_plane.backend_name()))?;
        let request = CreateWorkspace { name: NAME.to_owned(), ..CreateWorkspace::default() };
        let created = control_plane.create(request).await?.workspace;
        fleet.push(settled(control_plane, created).await?);
    }
    output::line("")?;
    output::line(&format!("Molecule is ready at {server}"))?;
    for workspace in &fleet {
        let why = match &workspace.last_sample_error {
            Some(why) if workspace.status == Status::Failed => format!(" — {why}"),
            _ => String::new(),
        };
        output::line(&format!("  {:<24} {}{why}", workspace.name, workspace.status))?;
    }
    let Some(first) = fleet.iter().find(|workspace| workspace.status == Status::Online) else {
        return Ok(());
    };
    let program = paths::program();
    output::line("")?;
    output::line("Ask it something, from another terminal:")?;
    output::line(&format!("  {program} ask {} \"Good morning\"", first.name))?;
    output::line(&format!("  {program} --help"))?;
    Ok(())
}

/// The workspace once it is up or has failed; as it is after the time that bringing it up may take.
async fn settled(control_plane: &ControlPlane, created: Workspace) -> Result<Workspace, Error> {
    let patience = control_plane.config().provision_timeout_for(&created.runtime);
    let settled = async {
        loop {
            let workspace = control_plane.existing(created.id).await?;
            if workspace.status != Status::Provisioning {
                return Ok(workspace);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    match tokio::time::timeout(patience, settled).await {
        Ok(result) => result,
        Err(_) => control_plane.existing(created.id).await,
    }
}
