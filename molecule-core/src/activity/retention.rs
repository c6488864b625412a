//! Forgets what is old.

use chrono::TimeDelta;

use crate::{control_plane::ControlPlane, error::Result};

/// How many rows one statement deletes. Between two of them other writers get their turn.
const BATCH: i64 = 1000;

impl ControlPlane {
    /// Deletes the rows of the activity log, and messages to agents that are over, that are older than [`Config::activity_retention`](crate::config::Config).
    pub(crate) async fn prune_activity(&self) -> Result<()> {
        let kept = TimeDelta::from_std(self.inner.config.activity_retention).unwrap_or(TimeDelta::MAX);
        let Some(time) = self.now().checked_sub_signed(kept) else { return Ok(()) };
        let mut deleted = 0;
        loop {
            let rows = self.inner.store.prune_activity(time, BATCH).await?;
            let messages = self.inner.store.forget_messages(time, BATCH).await?;
            deleted += rows + messages;
            if rows.max(messages) < BATCH as u64 || self.inner.stop.is_cancelled() {
                break;
            }
            tokio::task::yield_now().await;
        }
        if deleted > 0 {
            tracing::info!(activity.deleted = deleted, "old activity and messages were deleted");
        }
        Ok(())
    }
}
