//! Clears up what nobody claims: workloads of removed workspaces, workloads that no row knows, and tokens of agents that
//! are not there. Three passes, none of which keeps another from being made.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join3;

use crate::{
    control_plane::{Backend, ControlPlane},
    error::{Error, ErrorKind, Result},
    id::WorkspaceId,
    provisioner::{LocalProvisioner, Workload, WorkloadInspector, stop::Leaves},
    store::Standing,
    workspace::Status,
};

/// How long one pass may take. What it could not do the next one tries again.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long something may be without a claim.
#[derive(Debug, Clone, Copy)]
struct Policy {
    /// Before it is stopped.
    grace: TimeDelta,
    /// Before its disk is removed as well.
    disk_grace: TimeDelta,
}

/// What is done about something on the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Leave,
    /// Stopped, its disk kept.
    Stop,
    /// Stopped, and its disk removed.
    Clear,
}

/// What is done about what a removed workspace left behind. Its delete clears up itself, and is given the time to.
fn decide_removed(standing: Option<Standing>, now: DateTime<Utc>, policy: &Policy) -> Verdict {
    match standing {
        Some(Standing { status: Status::Removed, updated_at }) if now - updated_at > policy.grace => Verdict::Clear,
        _ => Verdict::Leave,
    }
}

/// What is done about something of our own making that no row knows and that was first `seen` then. A row that is missing
/// may be a database that is the wrong one: what can't be made again is kept for longer.
fn decide_unknown(seen: DateTime<Utc>, now: DateTime<Utc>, policy: &Policy) -> Verdict {
    match now - seen {
        unclaimed if unclaimed > policy.disk_grace => Verdict::Clear,
        unclaimed if unclaimed > policy.grace => Verdict::Stop,
        _ => Verdict::Leave,
    }
}

/// Since when things are seen that no row knows.
#[derive(Debug, Default)]
pub(crate) struct Strays(Mutex<HashMap<WorkspaceId, Stray>>);

#[derive(Debug, Clone, Copy)]
struct Stray {
    seen: DateTime<Utc>,
    stopped: bool,
}

impl Strays {
    /// Since when it is seen. A clock that went back is no reason to wait for longer.
    fn see(&self, id: WorkspaceId, now: DateTime<Utc>) -> Stray {
        let mut strays = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stray = strays.entry(id).or_insert(Stray { seen: now, stopped: false });
        stray.seen = stray.seen.min(now);
        *stray
    }

    fn note_stopped(&self, id: WorkspaceId) {
        if let Some(stray) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&id) {
            stray.stopped = true;
        }
    }

    /// Forgets whatever is none of `these`.
    fn keep_only(&self, these: &[WorkspaceId]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| these.contains(id));
    }
}

impl ControlPlane {
    /// Makes the three passes, once. Nothing to be done without a backend on this host.
    pub(crate) async fn sweep_orphans(&self, strays: &Strays) -> Result<()> {
        let Backend::Local { provisioner, inspector, .. } = &self.inner.backend else { return Ok(()) };
        let (removed, unknown, tokens) = join3(
            in_time(self.clear_removed(provisioner, inspector)),
            in_time(self.clear_unknown(provisioner, inspector, strays)),
            in_time(self.revoke_stale(inspector)),
        )
        .await;
        for (pass, outcome) in [("removed workspaces", removed), ("unknown workloads", unknown), ("tokens", tokens)] {
            if let Err(error) = outcome {
                tracing::warn!(pass, error = error.detail(), "a pass of the orphan sweep could not finish");
            }
        }
        Ok(())
    }

    fn orphan_policy(&self) -> Policy {
        let span = |duration| TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX);
        let config = &self.inner.config;
        Policy { grace: span(config.orphan_grace), disk_grace: span(config.orphan_disk_grace) }
    }

    async fn clear_removed(
        &self,
        provisioner: &Arc<dyn LocalProvisioner>,
        inspector: &Arc<dyn WorkloadInspector>,
    ) -> Result<()> {
        let policy = self.orphan_policy();
        let inventory = inspector.inventory().await?;
        let standings = self.inner.store.standings(&inventory).await?;
        for id in inventory {
            let verdict = decide_removed(standings.get(&id).copied(), self.now(), &policy);
            if verdict == Verdict::Clear {
                tracing::warn!(workspace.id = %id, "clearing up after a removed workspace");
                self.clear(provisioner, id, verdict, Leaves::Work).await;
            }
        }
        Ok(())
    }

    async fn clear_unknown(
        &self,
        provisioner: &Arc<dyn LocalProvisioner>,
        inspector: &Arc<dyn WorkloadInspector>,
        strays: &Strays,
    ) -> Result<()> {
        let policy = self.orphan_policy();
        let mut unknown = Vec::new();
        let inventory = inspector.own_inventory().await?;
        let standings = self.inner.store.standings(&inventory).await?;
        for id in inventory.into_iter().filter(|id| !standings.contains_key(id)) {
            unknown.push(id);
            let stray = strays.see(id, self.now());
            let verdict = decide_unknown(stray.seen, self.now(), &policy);
            if verdict == Verdict::Leave || (verdict == Verdict::Stop && stray.stopped) {
                continue;
            }
            tracing::warn!(workspace.id = %id, ?verdict, "no row knows this workspace; clearing up");
            if self.clear(provisioner, id, verdict, Leaves::Nothing).await {
                strays.note_stopped(id);
            }
        }
        strays.keep_only(&unknown);
        Ok(())
    }

    /// Carries `verdict` out. Whether that was done: what failed is tried again by the next sweep.
    async fn clear(
        &self,
        provisioner: &Arc<dyn LocalProvisioner>,
        id: WorkspaceId,
        verdict: Verdict,
        leaves: Leaves,
    ) -> bool {
        let _gate = self.inner.gates.enter(id).await;
        let cleared = async {
            provisioner.stop(id).await?;
            // Only what does not run any more has a disk that may go.
            if verdict == Verdict::Clear && provisioner.capability().volumes {
                self.inner.backend.clear(id, leaves).await?;
            }
            Ok::<_, Error>(())
        };
        let cleared = cleared.await;
        if let Err(error) = &cleared {
            tracing::warn!(workspace.id = %id, error = error.detail(), "an orphan could not be cleared up yet");
        }
        cleared.is_ok()
    }

    /// Revokes tokens that nobody used for a while, of workspaces that should run and have no workload.
    async fn revoke_stale(&self, inspector: &Arc<dyn WorkloadInspector>) -> Result<()> {
        // The database must know of every use before it is asked for those who made none.
        self.save_telemetry().await?;
        let now = self.now();
        let before = now - self.orphan_policy().grace;
        for id in self.inner.store.with_stale_tokens(before).await? {
            let gone = match inspector.observe(id).await {
                Ok(workload) => workload == Workload::Absent,
                Err(error) => {
                    tracing::warn!(workspace.id = %id, error = error.detail(), "a workload could not be looked at");
                    false
                }
            };
            if gone && self.inner.store.revoke_stale_tokens(id, before, now).await? > 0 {
                tracing::warn!(workspace.id = %id, "revoked stale tokens: no workload of it is there");
            }
        }
        Ok(())
    }
}

async fn in_time(pass: impl Future<Output = Result<()>> + Send) -> Result<()> {
    let late = |_| Error::new(ErrorKind::Upstream, format!("it took longer than {} s", DEADLINE.as_secs()));
    tokio::time::timeout(DEADLINE, pass).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const POLICY: Policy = Policy { grace: TimeDelta::minutes(5), disk_grace: TimeDelta::hours(24) };

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn what_a_removed_workspace_left_is_cleared_and_nothing_else() {
        for status in Status::ALL {
            for (now, late) in [(0, false), (300, false), (301, true), (-3600, false)] {
                let standing = Standing { status, updated_at: at(0) };
                let expected = if status == Status::Removed && late { Verdict::Clear } else { Verdict::Leave };
                assert_eq!(decide_removed(Some(standing), at(now), &POLICY), expected, "{status} {now}");
            }
        }
        assert_eq!(decide_removed(None, at(999_999), &POLICY), Verdict::Leave, "that is for the other pass");
    }

    #[test]
    fn what_no_row_knows_is_stopped_and_its_disk_removed_much_later() {
        for (now, expected) in [
            (0, Verdict::Leave),
            (300, Verdict::Leave),
            (301, Verdict::Stop),
            (86_400, Verdict::Stop),
            (86_401, Verdict::Clear),
            (-3600, Verdict::Leave),
        ] {
            assert_eq!(decide_unknown(at(0), at(now), &POLICY), expected, "{now}");
        }
    }

    #[test]
    fn strays_are_known_from_when_they_were_first_seen_until_they_are_gone() {
        let strays = Strays::default();
        let [one, other] = [1, 2].map(|n| WorkspaceId::from_uuid(Uuid::from_u128(n)));
        strays.see(one, at(0));
        assert_eq!(strays.see(one, at(60)).seen, at(0));
        assert_eq!(strays.see(one, at(-3600)).seen, at(-3600), "the clock went back");
        strays.see(other, at(60));
        strays.keep_only(&[other]);
        assert_eq!((strays.see(one, at(90)).seen, strays.see(other, at(90)).seen), (at(90), at(60)));
    }
}
