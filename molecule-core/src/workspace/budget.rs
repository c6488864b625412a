//! What a workspace may spend.

use super::lifecycle::{gone_is_not_found, said};
use crate::{
    control_plane::ControlPlane,
    error::{Error, Result},
    id::WorkspaceId,
};

/// What a workspace may spend a month and has spent, in US cents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Most it may spend; `None` is as much as it likes.
    pub limit: Option<i64>,
    /// What its agent says to have spent.
    pub spent: i64,
}

impl Budget {
    /// What is left, below zero where more was spent.
    pub fn remaining(&self) -> Option<i64> {
        self.limit.map(|limit| limit.saturating_sub(self.spent))
    }
}

impl ControlPlane {
    /// The budget of a workspace.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for an unknown or removed one.
    pub async fn budget(&self, id: WorkspaceId) -> Result<Budget> {
        let workspace = self.existing(id).await.map_err(gone_is_not_found)?;
        Ok(Budget { limit: workspace.budget_limit, spent: workspace.monthly_spend })
    }

    /// Sets what a workspace may spend, and gives its budget then.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for less than nothing;
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for an unknown or removed workspace.
    pub async fn set_budget(&self, id: WorkspaceId, limit: Option<i64>) -> Result<Budget> {
        if limit.is_some_and(|limit| limit < 0) {
            return Err(Error::invalid("budget_limit must be >= 0 (USD cents)"));
        }
        let failed = |error| said(error, "failed to update budget");
        if !self.inner.store.set_budget(id, limit, self.now()).await.map_err(failed)? {
            return Err(Error::not_found("workspace not found").context("workspace.id", id));
        }
        self.budget(id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_may_be_less_than_nothing() {
        assert_eq!(Budget { limit: None, spent: 5 }.remaining(), None);
        assert_eq!(Budget { limit: Some(7), spent: 5 }.remaining(), Some(2));
        assert_eq!(Budget { limit: Some(0), spent: 5 }.remaining(), Some(-5));
    }
}
