//! Ends tries at bringing a workspace up that took too long.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use crate::{
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    store::Supervised,
    workspace::Status,
};

const TOO_LATE: &str = "provisioning timed out — container started but never called /registry/register. \
                        Check container logs and network connectivity to the platform.";

/// Whether the try of `row` has had its time.
fn is_over(row: &Supervised, timeout: TimeDelta, now: DateTime<Utc>) -> bool {
    row.status == Status::Provisioning && now - row.provision_started_at.unwrap_or(row.updated_at) > timeout
}

impl ControlPlane {
    /// Looks at every try that is under way, once.
    pub(crate) async fn sweep_timeouts(&self) -> Result<()> {
        for row in self.inner.store.supervised().await? {
            let timeout = self.inner.config.provision_timeout_for(&row.runtime);
            let limit = TimeDelta::from_std(timeout).unwrap_or(TimeDelta::MAX);
            let Some(attempt) = row.provision_attempt.filter(|_| is_over(&row, limit, self.now())) else { continue };
            let extra = json!({
                "timeout_secs": timeout.as_secs(),
                "runtime": row.runtime,
                "source": "provision_timeout_sweep",
            });
            self.fail_attempt(row.id, attempt, &Error::new(ErrorKind::Upstream, TOO_LATE), true, extra).await;
        }
        Ok(())
    }
}
