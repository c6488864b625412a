//! Ends tries at bringing a workspace up that took too long, and goes on with those that nobody carries out any more.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::{abandoned::is_abandoned, jumps::age};
use crate::{
    control_plane::{Backend, ControlPlane},
    error::{Error, ErrorKind, Result},
    store::Supervised,
    workspace::Status,
};

const TOO_LATE: &str = "provisioning timed out — container started but never called /registry/register. \
                        Check container logs and network connectivity to the platform.";

/// No try takes longer, whatever the settings say.
const LONGEST: TimeDelta = TimeDelta::days(365);

const NOT_FETCHED: &str = "provisioning timed out — what it needs, such as its image, was not fetched in time, or the \
                           server that fetched it went away. Restart it.";

const NOT_ANSWERED: &str = "provisioning timed out — the backend did not say that it started, or the server that asked it \
                            went away. Restart it.";

/// How long the two parts of a try may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Before the backend is asked for anything.
    prepare: TimeDelta,
    start: TimeDelta,
}

/// Whether the try of `row` has had its time.
fn is_over(row: &Supervised, limits: Limits, jumped_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    let (began, limit) = match row.provision_asked_at {
        Some(asked_at) => (asked_at, limits.start),
        None => (row.provision_started_at.unwrap_or(row.updated_at), limits.prepare + limits.start),
    };
    row.status == Status::Provisioning && age(began, jumped_at, now) > limit
}

/// What came of the try of `row`, where the backend `tells` when it started something.
fn reason(row: &Supervised, tells: bool) -> &'static str {
    match row.provision_asked_at {
        None => NOT_FETCHED,
        Some(_) if tells && row.url.is_empty() && row.instance_id.is_none() => NOT_ANSWERED,
        Some(_) => TOO_LATE,
    }
}

impl ControlPlane {
    /// Looks at every try that is under way, once.
    pub(crate) async fn sweep_timeouts(&self) -> Result<()> {
        let jumped_at = self.inner.jumps.last(&*self.inner.clock);
        // What templates say of time may have changed.
        self.inner.config.templates.list().await;
        let prepare = TimeDelta::from_std(self.inner.config.prepare_timeout).unwrap_or(LONGEST);
        let tells = self.inner.backend.assigns_urls() || matches!(self.inner.backend, Backend::ControlPlane(_));
        let lease = TimeDelta::from_std(self.inner.config.queue_lease).unwrap_or(TimeDelta::MAX);
        for row in self.inner.store.provisioning().await? {
            if let Some(abandoned) = is_abandoned(&row, lease, jumped_at, self.now())
                && self.go_on(row.id, abandoned).await?
            {
                continue;
            }
            let timeout = self.inner.config.provision_timeout_for(&row.runtime);
            let limits = Limits { prepare, start: TimeDelta::from_std(timeout).unwrap_or(LONGEST) };
            let Some(attempt) = row.provision_attempt.filter(|_| is_over(&row, limits, jumped_at, self.now())) else {
                continue;
            };
            let extra = json!({
                "timeout_secs": timeout.as_secs(),
                "runtime": row.runtime,
                "source": "provision_timeout_sweep",
            });
            let failure = Error::new(ErrorKind::Upstream, reason(&row, tells));
            self.fail_attempt(row.id, attempt, &failure, None, extra).await;
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
        let row = |status, began: Option<i64>, asked: Option<i64>| Supervised {
            id: WorkspaceId::from_uuid(Uuid::nil()),
            status,
            url: String::new(),
            runtime: "hermes".to_owned(),
            last_heartbeat_at: None,
            updated_at: at(0),
            provision_attempt: None,
            provision_started_at: began.map(at),
            provision_asked_at: asked.map(at),
            provision_renewed_at: None,
            instance_id: None,
        };
        let limits = Limits { prepare: TimeDelta::seconds(900), start: TimeDelta::seconds(600) };
        for (status, began, asked, jumped_at, now, expected) in [
            (Status::Provisioning, Some(-900), Some(0), None, 600, false),
            (Status::Provisioning, Some(-900), Some(0), None, 601, true),
            // What it needs is still being fetched: both parts of its time are to come.
            (Status::Provisioning, Some(0), None, None, 1500, false),
            (Status::Provisioning, Some(0), None, None, 1501, true),
            (Status::Provisioning, None, None, None, 1501, true),
            // Touched since, as by an old agent's words: that is no new beginning.
            (Status::Provisioning, Some(-300), Some(-300), None, 301, true),
            (Status::Provisioning, Some(0), Some(0), Some(3600), 3700, false),
            (Status::Provisioning, Some(0), Some(0), Some(3600), 4201, true),
            (Status::Provisioning, Some(0), Some(0), Some(-3600), -3000, false),
            (Status::Provisioning, Some(0), Some(0), Some(-3600), -2999, true),
            (Status::Online, Some(0), Some(0), None, 601, false),
            (Status::Failed, Some(0), Some(0), None, 601, false),
        ] {
            let over = is_over(&row(status, began, asked), limits, jumped_at.map(at), at(now));
            assert_eq!(over, expected, "{status} {began:?} {asked:?} {jumped_at:?} {now}");
        }
        let asked = row(Status::Provisioning, Some(0), Some(0));
        let at_address = Supervised { url: "http://127.0.0.1:9000".to_owned(), ..asked.clone() };
        let on_machine = Supervised { instance_id: Some("i-1".to_owned()), ..asked.clone() };
        for (row, tells, expected) in [
            (row(Status::Provisioning, Some(0), None), true, NOT_FETCHED),
            (asked.clone(), true, NOT_ANSWERED),
            (asked, false, TOO_LATE),
            (at_address, true, TOO_LATE),
            (on_machine, true, TOO_LATE),
        ] {
            assert_eq!(reason(&row, tells), expected, "{row:?} {tells}");
        }
    }
}
