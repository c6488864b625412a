//! Ends tries at bringing a workspace up that took too long.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::jumps::age;
use crate::{
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    store::Supervised,
    workspace::Status,
};

const TOO_LATE: &str = "provisioning timed out — container started but never called /registry/register. \
                        Check container logs and network connectivity to the platform.";

/// Whether the try of `row` has had its time.
fn is_over(row: &Supervised, timeout: TimeDelta, jumped_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    let began = row.provision_started_at.unwrap_or(row.updated_at);
    row.status == Status::Provisioning && age(began, jumped_at, now) > timeout
}

impl ControlPlane {
    /// Looks at every try that is under way, once.
    pub(crate) async fn sweep_timeouts(&self) -> Result<()> {
        let jumped_at = self.inner.jumps.last(&*self.inner.clock);
        // What templates say of time may have changed.
        self.inner.config.templates.list().await;
        for row in self.inner.store.provisioning().await? {
            let timeout = self.inner.config.provision_timeout_for(&row.runtime);
            let limit = TimeDelta::from_std(timeout).unwrap_or(TimeDelta::MAX);
            let Some(attempt) = row.provision_attempt.filter(|_| is_over(&row, limit, jumped_at, self.now())) else {
                continue;
            };
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::id::WorkspaceId;

    #[test]
    fn a_try_has_its_time_whatever_the_clock_does() {
        let at = |seconds| DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap();
        let row = |status, began: Option<i64>| Supervised {
            id: WorkspaceId::from_uuid(Uuid::nil()),
            status,
            url: String::new(),
            runtime: "hermes".to_owned(),
            last_heartbeat_at: None,
            updated_at: at(0),
            provision_attempt: None,
            provision_started_at: began.map(at),
        };
        let limit = TimeDelta::seconds(600);
        for (status, began, jumped_at, now, expected) in [
            (Status::Provisioning, Some(0), None, 600, false),
            (Status::Provisioning, Some(0), None, 601, true),
            (Status::Provisioning, None, None, 601, true),
            // Touched since, as by an old agent's words: that is no new beginning.
            (Status::Provisioning, Some(-300), None, 301, true),
            (Status::Provisioning, Some(0), Some(3600), 3700, false),
            (Status::Provisioning, Some(0), Some(3600), 4201, true),
            (Status::Provisioning, Some(0), Some(-3600), -3000, false),
            (Status::Provisioning, Some(0), Some(-3600), -2999, true),
            (Status::Online, Some(0), None, 601, false),
            (Status::Failed, Some(0), None, 601, false),
        ] {
            let over = is_over(&row(status, began), limit, jumped_at.map(at), at(now));
            assert_eq!(over, expected, "{status} {began:?} {jumped_at:?} {now}");
        }
    }
}
