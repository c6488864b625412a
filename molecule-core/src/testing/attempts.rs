//! What is under way to bring workspaces up, for tests that wait for it.

use crate::{control_plane::ControlPlane, id::WorkspaceId};

/// Returns once nothing is asked of the backend any more for the try that is under way for `id` on this replica.
pub async fn until_asked(control_plane: &ControlPlane, id: WorkspaceId) {
    control_plane.inner.attempts.until_asked(id).await;
}

/// Returns once the try that is under way for `id` on this replica is over: its agent came, or it was given up.
pub async fn until_over(control_plane: &ControlPlane, id: WorkspaceId) {
    control_plane.inner.attempts.until_over(id).await;
}
