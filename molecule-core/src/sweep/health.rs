//! Finds workspaces whose agent was lost. One half looks at the backend, the other at the clock; the second always
//! runs, also where there is no backend.

use std::{panic::AssertUnwindSafe, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{FutureExt, StreamExt, stream};
use serde_json::json;

use super::{jumps::age, supervisor::panic_text};
use crate::{
    config::Config,
    control_plane::{Backend, ControlPlane},
    error::Result,
    events::EventKind,
    provisioner::{Workload, dispatch},
    store::Supervised,
    workspace::{EXTERNAL_RUNTIME, Status},
};

/// How many workloads are looked at at once.
const LOOKS_AT_ONCE: usize = 16;

/// What a sweep goes by.
#[derive(Debug, Clone, Copy)]
struct Policy {
    external_silence: Duration,
    managed_silence: Duration,
    /// Nobody could be heard before this.
    hearing_since: DateTime<Utc>,
    /// When the clock was last set. How long ago something was that was noted before is not known.
    jumped_at: Option<DateTime<Utc>>,
}

/// What is to be done about a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nothing.
    Leave,
    /// Its agent was lost: it goes to this status, and is brought up again where that is ours to do.
    Lost { to: Status, restart: bool },
    /// It ended before its agent said a word.
    NeverCame(Workload),
    /// It was lost and nobody brings it up: whoever found it was interrupted, or had no backend.
    BringUp,
}

/// What is to be done about `row`, whose agent was `heard` last, given what its workload was seen to do. `None` is
/// "could not be seen", which says nothing about the workload.
fn decide(
    row: &Supervised,
    heard: Option<DateTime<Utc>>,
    workload: Option<Workload>,
    now: DateTime<Utc>,
    policy: &Policy,
) -> Verdict {
    let external = row.runtime == EXTERNAL_RUNTIME;
    let gone = matches!(workload, Some(Workload::Absent | Workload::Ended { .. })) && !external;
    match row.status {
        Status::Online | Status::Degraded => {}
        Status::Offline if !external => return Verdict::BringUp,
        Status::Provisioning => {
            return match workload {
                Some(workload) if !external && dispatch::never_comes(workload, !row.url.is_empty()) => {
                    Verdict::NeverCame(workload)
                }
                _ => Verdict::Leave,
            };
        }
        _ => return Verdict::Leave,
    }
    let patience = if external { policy.external_silence } else { policy.managed_silence };
    let heard = heard.unwrap_or(row.updated_at);
    let silence = age(heard, policy.jumped_at, now).min(age(policy.hearing_since, policy.jumped_at, now));
    let silent = silence > TimeDelta::from_std(patience).unwrap_or(TimeDelta::MAX);
    if gone || (silent && !external) {
        Verdict::Lost { to: Status::Offline, restart: true }
    } else if silent {
        Verdict::Lost { to: Status::AwaitingAgent, restart: false }
    } else {
        Verdict::Leave
    }
}

impl ControlPlane {
    /// Looks at every workspace that should be reporting in, once.
    pub(crate) async fn sweep_health(&self) -> Result<()> {
        let Config { external_silence, managed_silence, .. } = self.inner.config;
        let now = self.now();
        let patience = external_silence.min(managed_silence);
        let before = TimeDelta::from_std(patience).ok().and_then(|patience| now.checked_sub_signed(patience));
        let looks = matches!(self.inner.backend, Backend::Local { .. });
        let rows = self.inner.store.doubtful(looks, before.unwrap_or(DateTime::UNIX_EPOCH), now).await;
        let hearing_since = self.inner.hearing.since(rows.is_ok(), self.now());
        let rows = rows?;
        let jumped_at = self.inner.jumps.last(&*self.inner.clock);
        let policy = Policy { external_silence, managed_silence, hearing_since, jumped_at };
        stream::iter(rows)
            .map(async |row| {
                let id = row.id;
                // A panic over one workspace must not keep the others from being looked at.
                (id, AssertUnwindSafe(self.sweep_one(row, policy)).catch_unwind().await)
            })
            .buffer_unordered(LOOKS_AT_ONCE)
            .for_each(async |(id, outcome)| match outcome {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(workspace.id = %id, error = error.detail(), "a workspace could not be swept");
                }
                Err(panic) => {
                    tracing::error!(workspace.id = %id, panic = panic_text(&*panic), "sweeping a workspace panicked");
                }
            })
            .await;
        Ok(())
    }

    async fn sweep_one(&self, row: Supervised, policy: Policy) -> Result<()> {
        let workload = self.look_at(&row).await;
        let now = self.now();
        let heard = self.last_heard(&row, now);
        match decide(&row, heard, workload, now, &policy) {
            Verdict::Leave => Ok(()),
            Verdict::BringUp => self.auto_restart(row.id).await.map(drop),
            Verdict::NeverCame(ended) => {
                if let Some(attempt) = row.provision_attempt {
                    let failure = dispatch::ended_before_it_registered(ended);
                    self.fail_attempt(row.id, attempt, &failure, Some(""), json!({})).await;
                    self.put_to_rest(row.id, attempt).await;
                }
                Ok(())
            }
            // Heard while its workload was looked at.
            Verdict::Lost { .. } if self.last_heard(&row, self.now()) > heard => Ok(()),
            Verdict::Lost { to, restart } => self.lose(&row, to, restart).await,
        }
    }

    /// When the agent was heard last: memory knows more than the row. A time that is still to come is from before the
    /// clock went back, and only used where there is no other.
    fn last_heard(&self, row: &Supervised, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let heard = [self.inner.store.memory().last_heard(row.id), row.last_heartbeat_at].into_iter().flatten();
        heard.clone().filter(|at| *at <= now).max().or(heard.max())
    }

    async fn look_at(&self, row: &Supervised) -> Option<Workload> {
        if row.runtime == EXTERNAL_RUNTIME {
            return None;
        }
        let Backend::Local { inspector, .. } = &self.inner.backend else { return None };
        match inspector.observe(row.id).await {
            Ok(workload) => Some(workload),
            Err(error) => {
                tracing::warn!(workspace.id = %row.id, error = error.detail(), "a workload could not be looked at");
                None
            }
        }
    }

    /// The row that changes is the claim: of several replicas, one emits the event and restarts.
    async fn lose(&self, row: &Supervised, to: Status, restart: bool) -> Result<()> {
        let event = self.event(EventKind::WorkspaceOffline, row.id, json!({}));
        if !self.inner.store.lose(row.id, row.status.to(to)?, row.last_heartbeat_at, &event).await? {
            return Ok(());
        }
        tracing::warn!(workspace.id = %row.id, from = %row.status, %to, "the agent was lost");
        self.announce(event);
        if restart { self.auto_restart(row.id).await.map(drop) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::id::WorkspaceId;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn row(status: Status, runtime: &str, heard: Option<i64>) -> Supervised {
        Supervised {
            id: WorkspaceId::from_uuid(Uuid::nil()),
            status,
            url: "http://127.0.0.1:9000".to_owned(),
            runtime: runtime.to_owned(),
            last_heartbeat_at: heard.map(at),
            updated_at: at(0),
            provision_attempt: None,
            provision_started_at: None,
            provision_asked_at: None,
            provision_renewed_at: None,
            instance_id: None,
        }
    }

    #[test]
    fn what_a_sweep_decides_row_by_row() {
        use Status::{AwaitingAgent, Degraded, Hibernating, Offline, Online, Paused, Provisioning, Removed};
        let policy = Policy {
            external_silence: Duration::from_secs(90),
            managed_silence: Duration::from_secs(180),
            hearing_since: at(-1000),
            jumped_at: None,
        };
        let ended = Workload::Ended { exit_code: Some(3) };
        let offline = Verdict::Lost { to: Offline, restart: true };
        let awaiting = Verdict::Lost { to: AwaitingAgent, restart: false };
        // status, runtime, seconds heard, workload, now, verdict
        let rows = [
            (Online, "external", Some(0), None, 90, Verdict::Leave),
            (Online, "external", Some(0), None, 91, awaiting),
            (Degraded, "external", Some(0), None, 91, awaiting),
            (Online, "external", None, None, 91, awaiting),
            // A container sweep never touches an external workspace.
            (Online, "external", Some(0), Some(Workload::Absent), 1, Verdict::Leave),
            (Provisioning, "external", None, Some(ended), 1, Verdict::Leave),
            (Online, "hermes", Some(0), Some(Workload::Running), 180, Verdict::Leave),
            (Online, "hermes", Some(0), Some(Workload::Running), 181, offline),
            (Online, "hermes", Some(0), None, 181, offline),
            (Online, "hermes", Some(0), Some(Workload::Absent), 1, offline),
            (Degraded, "hermes", Some(0), Some(ended), 1, offline),
            // A backend that can't tell is no reason.
            (Online, "hermes", Some(0), None, 1, Verdict::Leave),
            (Provisioning, "hermes", None, Some(Workload::Absent), 500, Verdict::NeverCame(Workload::Absent)),
            (Provisioning, "hermes", None, Some(Workload::Running), 500, Verdict::Leave),
            (Provisioning, "hermes", None, Some(ended), 1, Verdict::NeverCame(ended)),
            (Offline, "hermes", Some(0), Some(Workload::Absent), 1, Verdict::BringUp),
            (Offline, "external", Some(0), None, 9999, Verdict::Leave),
            (Paused, "hermes", Some(0), Some(Workload::Absent), 9999, Verdict::Leave),
            (Hibernating, "hermes", Some(0), Some(Workload::Absent), 9999, Verdict::Leave),
            (Removed, "hermes", Some(0), Some(Workload::Absent), 9999, Verdict::Leave),
        ];
        for (status, runtime, heard, workload, now, expected) in rows {
            let row = row(status, runtime, heard);
            assert_eq!(
                decide(&row, row.last_heartbeat_at, workload, at(now), &policy),
                expected,
                "{row:?} {workload:?} {now}"
            );
        }
    }

    #[test]
    fn the_end_of_an_earlier_try_says_nothing_about_this_one() {
        let policy = Policy {
            external_silence: Duration::from_secs(90),
            managed_silence: Duration::from_secs(180),
            hearing_since: at(0),
            jumped_at: None,
        };
        let row = Supervised { url: String::new(), ..row(Status::Provisioning, "hermes", None) };
        let ended = Workload::Ended { exit_code: Some(0) };
        assert_eq!(decide(&row, None, Some(ended), at(1), &policy), Verdict::Leave);
    }

    #[test]
    fn a_clock_that_jumps_makes_nobody_silent_and_keeps_nobody_heard() {
        let policy = |jumped_at| Policy {
            external_silence: Duration::from_secs(90),
            managed_silence: Duration::from_secs(180),
            hearing_since: at(-1000),
            jumped_at: Some(at(jumped_at)),
        };
        for (runtime, patience) in [("external", 90), ("hermes", 180)] {
            let row = row(Status::Online, runtime, Some(0));
            for jumped_at in [3600, -3600] {
                let verdict = |now| decide(&row, row.last_heartbeat_at, None, at(now), &policy(jumped_at));
                assert_eq!(verdict(jumped_at), Verdict::Leave, "{runtime} {jumped_at}");
                assert_eq!(verdict(jumped_at + patience), Verdict::Leave, "{runtime} {jumped_at}");
                assert_ne!(verdict(jumped_at + patience + 1), Verdict::Leave, "{runtime} {jumped_at}");
            }
        }
    }

    #[test]
    fn silence_from_before_this_process_began_means_nothing() {
        let policy = Policy {
            external_silence: Duration::from_secs(90),
            managed_silence: Duration::from_secs(180),
            hearing_since: at(10_000),
            jumped_at: None,
        };
        for runtime in ["external", "hermes"] {
            let row = row(Status::Online, runtime, Some(0));
            assert_eq!(decide(&row, row.last_heartbeat_at, None, at(10_080), &policy), Verdict::Leave, "{runtime}");
            assert_ne!(decide(&row, row.last_heartbeat_at, None, at(10_200), &policy), Verdict::Leave, "{runtime}");
        }
    }
}
