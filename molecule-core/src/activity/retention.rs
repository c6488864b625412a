//! Forgets what is old.

use chrono::TimeDelta;

use crate::{control_plane::ControlPlane, error::Result};

/// How many rows one statement deletes. Between two of them other writers get their turn.
const BATCH: i64 = 1000;

impl ControlPlane {
    /// Deletes the rows of the activity log that are older than [`Config::activity_retention`](crate::config::Config).
    pub(crate) async fn prune_activity(&self) -> Result<()> {
        let kept = TimeDelta::from_std(self.inner.config.activity_retention).unwrap_or(TimeDelta::MAX);
        let Some(time) = self.now().checked_sub_signed(kept) else { return Ok(()) };
        let mut deleted = 0;
        loop {
            let batch = self.inner.store.prune_activity(time, BATCH).await?;
            deleted += batch;
            if batch < BATCH as u64 || self.inner.stop.is_cancelled() {
                break;
            }
            tokio::task::yield_now().await;
        }
        if deleted > 0 {
            tracing::info!(activity.deleted = deleted, "old activity was deleted");
        }
        Ok(())
    }
}
