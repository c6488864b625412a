//! How workspaces are set up, as their agents and the canvas keep it: any JSON object.

use serde_json::{Map, Value};

use crate::{
    control_plane::ControlPlane,
    error::Result,
    id::WorkspaceId,
    workspace::lifecycle::{gone_is_not_found, said},
};

impl ControlPlane {
    /// How a workspace is set up; an empty object where nobody said.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for an unknown or removed workspace.
    pub async fn configuration(&self, id: WorkspaceId) -> Result<Value> {
        self.existing(id).await.map_err(gone_is_not_found)?;
        Ok(self.inner.store.configuration(id).await?.unwrap_or_else(|| Value::Object(Map::new())))
    }

    /// Sets the members of `patch`, whole, and leaves the others as they are.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for an unknown or removed workspace.
    pub async fn patch_configuration(&self, id: WorkspaceId, patch: &Map<String, Value>) -> Result<()> {
        self.existing(id).await.map_err(gone_is_not_found)?;
        let patched = self.inner.store.patch_configuration(id, patch, self.now()).await;
        patched.map_err(|error| said(error, "failed to update config"))
    }
}
