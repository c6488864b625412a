//! Removes workspaces.

use serde_json::json;

use super::{
    Status, Workspace,
    lifecycle::{PATIENCE_WITH_RACES, gone_is_not_found, raced, said},
};
use crate::{
    control_plane::ControlPlane,
    error::Result,
    events::EventKind,
    id::WorkspaceId,
    provisioner::stop::{Leaves, could_not_stop},
};

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

/// How much of a tree goes.
#[derive(Debug, Clone, Copy)]
enum Extent<'a> {
    Whole,
    /// All but its root. Those directly below it are named.
    Below {
        names: &'a [String],
    },
}

impl ControlPlane {
    /// Removes a workspace and all below it: first their rows and tokens, then what runs, then what is kept; what their agents
    /// worked on, and the rows themselves, only to `purge` them, which may come later.
    ///
    /// Repeating it finishes what an earlier call could not; an unknown id is removed already. The clean-up goes on
    /// when the caller leaves.
    ///
    /// # Errors
    /// [`ErrorKind::Unexpected`](crate::ErrorKind::Unexpected) with `removed_count` and `stop_failures` where a backend
    /// could not be stopped: the rows stay removed, and another call tries again.
    pub async fn delete(&self, id: WorkspaceId, confirmed: bool, purge: bool) -> Result<Deleted> {
        let children = self.inner.store.children(id).await.map_err(|error| said(error, "failed to check children"))?;
        if !children.is_empty() && !confirmed {
            return Ok(Deleted::ConfirmationRequired { children });
        }
        let (tree, removed) =
            self.remove_tree(id, Extent::Whole, if purge { Leaves::Nothing } else { Leaves::Work }).await?;
        if purge {
            self.inner.store.purge(&tree).await.map_err(|error| said(error, "purge failed"))?;
            return Ok(Deleted::Purged { cascade_deleted: tree.len().saturating_sub(1) });
        }
        Ok(Deleted::Removed { cascade_deleted: removed.saturating_sub(1) })
    }

    /// Removes all that is below a workspace. Gives the names of those that were directly below it.
    ///
    /// # Errors
    /// As [`ControlPlane::delete`]; [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for an unknown or removed one.
    pub async fn collapse(&self, id: WorkspaceId) -> Result<Vec<String>> {
        self.existing(id).await.map_err(gone_is_not_found)?;
        let children = self.inner.store.children(id).await.map_err(|error| said(error, "failed to check children"))?;
        let names: Vec<String> = children.into_iter().map(|child| child.name).collect();
        self.remove_tree(id, Extent::Below { names: &names }, Leaves::Work).await?;
        Ok(names)
    }

    /// Marks workspaces as removed, then stops and clears what they left on the backend. Gives all of them, those removed
    /// earlier included, and how many this call removed.
    async fn remove_tree(
        &self,
        id: WorkspaceId,
        extent: Extent<'_>,
        leaves: Leaves,
    ) -> Result<(Vec<WorkspaceId>, usize)> {
        let (tree, removed) = self.mark_removed(id, extent).await?;
        let failures = self.stop_all(tree.clone(), Status::Removed, leaves).await?;
        if failures.is_empty() {
            Ok((tree, removed))
        } else {
            Err(could_not_stop(&failures, tree.len(), "removed_count", removed))
        }
    }

    async fn mark_removed(&self, id: WorkspaceId, extent: Extent<'_>) -> Result<(Vec<WorkspaceId>, usize)> {
        for _ in 0..PATIENCE_WITH_RACES {
            let mut tree = self.tree(id).await?;
            let collapsed = match extent {
                Extent::Whole => None,
                Extent::Below { names } => {
                    tree.retain(|workspace| workspace.id != id);
                    Some(self.event(EventKind::WorkspaceCollapsed, id, json!({"removed_children": names})))
                }
            };
            let live: Vec<&Workspace> = tree.iter().filter(|workspace| workspace.status != Status::Removed).collect();
            let below = live.iter().filter(|workspace| workspace.id != id).count();
            let mut steps = Vec::new();
            for workspace in live {
                let payload = if workspace.id == id { json!({"cascade_deleted": below}) } else { json!({}) };
                let event = self.event(EventKind::WorkspaceRemoved, workspace.id, payload);
                steps.push((workspace.id, workspace.status.to(Status::Removed)?, event));
            }
            if self.inner.store.remove(&steps, collapsed.as_ref()).await? {
                let removed = steps.len();
                for (id, _, event) in steps {
                    self.inner.attempts.give_up(id);
                    self.announce(event);
                }
                collapsed.into_iter().for_each(|event| self.announce(event));
                return Ok((tree.into_iter().map(|workspace| workspace.id).collect(), removed));
            }
        }
        Err(raced(id))
    }

    /// The workspace and all below it, removed ones included; by id, so that any two that take them lock in one order.
    pub(crate) async fn tree(&self, id: WorkspaceId) -> Result<Vec<Workspace>> {
        let mut tree = Vec::new();
        for member in self.inner.store.subtree(id).await? {
            tree.extend(self.inner.store.workspace(member).await?);
        }
        tree.sort_by_key(|workspace| workspace.id);
        Ok(tree)
    }
}
