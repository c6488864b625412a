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
    /// What an agent has at least since it can be heard again, where it could not meanwhile.
    heard: TimeDelta,
}

/// What of time is known.
#[derive(Debug, Clone, Copy)]
struct Known {
    jumped_at: Option<DateTime<Utc>>,
    /// No agent could be heard before this.
    hearing_since: DateTime<Utc>,
}

/// Whether the try of `row` has had its time.
fn is_over(row: &Supervised, limits: Limits, known: Known, now: DateTime<Utc>) -> bool {
    let age = |then| age(then, known.jumped_at, now);
    let late = match row.provision_asked_at {
        Some(asked_at) => {
            let was_heard = asked_at >= known.hearing_since || age(known.hearing_since) > limits.heard;
            was_heard && age(asked_at) > limits.start
        }
        None => age(row.provision_started_at.unwrap_or(row.updated_at)) > limits.prepare + limits.start,
    };
    row.status == Status::Provisioning && late
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
        // What templates say of time may have changed.
        self.inner.config.templates.list().await;
        let time = |limit| TimeDelta::from_std(limit).unwrap_or(LONGEST);
        let (prepare, heard) = (time(self.inner.config.prepare_timeout), time(self.inner.config.managed_silence));
        let tells = self.inner.backend.assigns_urls() || matches!(self.inner.backend, Backend::ControlPlane(_));
        let lease = TimeDelta::from_std(self.inner.config.queue_lease).unwrap_or(TimeDelta::MAX);
        let rows = self.inner.store.provisioning().await;
        let hearing_since = self.inner.hearing.since(rows.is_ok(), self.now());
        let known = Known { jumped_at: self.inner.jumps.last(&*self.inner.clock), hearing_since };
        for row in rows? {
            if let Some(abandoned) = is_abandoned(&row, lease, known.jumped_at, self.now())
                && self.go_on(&row, abandoned).await?
            {
                continue;
            }
            let timeout = self.inner.config.provision_timeout_for(&row.runtime);
            let limits = Limits { prepare, start: time(timeout), heard };
            let Some(attempt) = row.provision_attempt.filter(|_| is_over(&row, limits, known, self.now())) else {
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
        let (prepare, start) = (TimeDelta::seconds(900), TimeDelta::seconds(600));
        let limits = Limits { prepare, start, heard: TimeDelta::seconds(180) };
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
            let known = Known { jumped_at: jumped_at.map(at), hearing_since: at(-10_000) };
            let over = is_over(&row(status, began, asked), limits, known, at(now));
            assert_eq!(over, expected, "{status} {began:?} {asked:?} {jumped_at:?} {now}");
        }
        // Nobody could hear the agent for a while, or this server began later than the try.
        for (asked, hearing_since, now, expected) in [
            (Some(0), 590, 770, false),
            (Some(0), 590, 771, true),
            (Some(0), 590, 601, false),
            (Some(0), 100, 601, true),
            (Some(600), 590, 1200, false),
            (Some(600), 590, 1201, true),
            // What no agent has to say is not waited for.
            (None, 1490, 1501, true),
        ] {
            let known = Known { jumped_at: None, hearing_since: at(hearing_since) };
            let over = is_over(&row(Status::Provisioning, Some(0), asked), limits, known, at(now));
            assert_eq!(over, expected, "{asked:?} {hearing_since} {now}");
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
