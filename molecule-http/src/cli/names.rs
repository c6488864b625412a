//! Which workspace is meant.

use molecule_core::{
    error::{Error, Result},
    id::WorkspaceId,
};

use super::{
    client::Client,
    workspace::{self, Workspace},
};
use crate::paths;

/// The id of the workspace that `name` names: itself, where it is an id.
///
/// # Errors
/// [`ErrorKind::NotFound`](molecule_core::error::ErrorKind::NotFound) for an unknown name;
/// [`ErrorKind::InvalidInput`](molecule_core::error::ErrorKind::InvalidInput) for one that several workspaces have.
pub(crate) async fn resolve(client: &Client, name: &str) -> Result<String> {
    if let Ok(id) = name.parse::<WorkspaceId>() {
        return Ok(id.to_string());
    }
    let (workspaces, _) = workspace::list(client).await?;
    pick(workspaces, name)
}

fn pick(workspaces: Vec<Workspace>, name: &str) -> Result<String> {
    let mut ids: Vec<String> =
        workspaces.into_iter().filter(|workspace| workspace.name == name).map(|workspace| workspace.id).collect();
    match ids.len() {
        0 => Err(Error::not_found(format!("no workspace is named {name:?}; see: {} list", paths::program()))),
        1 => Ok(ids.remove(0)),
        count => Err(Error::invalid(format!(
            "{count} workspaces are named {name:?}; use the id of one of them: {}",
            ids.join(", ")
        ))),
    }
}
