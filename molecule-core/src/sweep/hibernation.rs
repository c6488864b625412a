//! Hibernates workspaces that have been idle for as long as they are to be, and finishes what was begun.

use chrono::{DateTime, TimeDelta, Utc};

use super::jumps::age;
use crate::{
    control_plane::{Backend, ControlPlane},
    error::{ErrorKind, Result},
    store::{Idle, Standing},
    workspace::Status,
};

/// How long a workspace may be `hibernating` before whoever began that is taken for dead.
const FINISHED_WITHIN: TimeDelta = TimeDelta::minutes(5);

/// Since when the agent of `row` has nothing to do: that it beats is no work.
fn idle_since(row: &Idle) -> DateTime<Utc> {
    let spoken = row.newest_activity.and_then(DateTime::from_timestamp_micros);
    let known = [row.last_busy_at, row.last_outbound_at, row.provision_started_at, spoken];
    known.into_iter().flatten().fold(row.created_at, DateTime::max)
}

/// Whether the workspace has been idle for as long as it is to be. Before `hearing_since` nobody would know.
fn is_due(row: &Idle, hearing_since: DateTime<Utc>, jumped_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    let limit = TimeDelta::minutes(i64::from(row.hibernation_idle_minutes));
    limit > TimeDelta::zero() && age(idle_since(row).max(hearing_since), jumped_at, now) > limit
}

impl ControlPlane {
    /// Looks once at every workspace that is to hibernate when it is idle, and at those that are hibernating.
    pub(crate) async fn sweep_idle(&self) -> Result<()> {
        if matches!(self.inner.backend, Backend::None) {
            return Ok(());
        }
        // The rows must know of every task before they are asked for those who have none.
        self.save_telemetry().await?;
        let jumped_at = self.inner.jumps.last(&*self.inner.clock);
        let since = self.inner.hearing.known_since();
        let due = |row: &Idle| is_due(row, since, jumped_at, self.now());
        for row in self.inner.store.idle().await?.into_iter().filter(due) {
            tracing::info!(workspace.id = %row.id, since = %idle_since(&row), "idle; hibernating it");
            match self.hibernate(row.id, false).await {
                // It moved on, or began to work.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {}
                Err(error) => {
                    tracing::warn!(workspace.id = %row.id, error = error.detail(), "an idle workspace does not hibernate");
                }
                Ok(()) => {}
            }
        }
        for id in self.inner.store.in_status(Status::Hibernating).await? {
            let Some(Standing { updated_at, .. }) = self.inner.store.standing(id).await? else { continue };
            if age(updated_at, jumped_at, self.now()) <= FINISHED_WITHIN {
                continue;
            }
            if let Some(workspace) = self.inner.store.workspace(id).await?
                && let Err(error) = self.finish_hibernation(&workspace).await
            {
                tracing::warn!(workspace.id = %id, error = error.detail(), "a hibernation could not be finished yet");
            }
        }
        Ok(())
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

    fn idle(minutes: i32) -> Idle {
        Idle {
            id: WorkspaceId::from_uuid(Uuid::nil()),
            hibernation_idle_minutes: minutes,
            last_busy_at: None,
            last_outbound_at: None,
            provision_started_at: None,
            newest_activity: None,
            created_at: at(0),
        }
    }

    #[test]
    fn who_did_nothing_for_so_long_is_due_row_by_row() {
        let due = |row: &Idle, now| is_due(row, at(-10), None, at(now));
        assert!(!due(&idle(0), 1_000_000) && !due(&idle(-1), 1_000_000), "it is not to hibernate");
        let rows = [
            idle(10),
            Idle { last_busy_at: Some(at(100)), ..idle(10) },
            Idle { last_outbound_at: Some(at(100)), ..idle(10) },
            Idle { provision_started_at: Some(at(100)), ..idle(10) },
            Idle { newest_activity: Some(at(100).timestamp_micros()), ..idle(10) },
            Idle { last_busy_at: Some(at(100)), last_outbound_at: Some(at(50)), ..idle(10) },
        ];
        for (n, row) in rows.iter().enumerate() {
            let since = if n == 0 { 0 } else { 100 };
            assert!(!due(row, since + 600) && due(row, since + 601), "{row:?}");
        }
        let heard_again = |now| is_due(&idle(10), at(1000), None, at(now));
        assert!(!heard_again(1600) && heard_again(1601), "nobody could hear it for a while");
    }

    #[test]
    fn a_clock_that_jumps_puts_nobody_to_sleep() {
        for jumped_at in [3600, -3600] {
            let due = |now| is_due(&idle(10), at(-10), Some(at(jumped_at)), at(now));
            assert!(!due(jumped_at) && !due(jumped_at + 600) && due(jumped_at + 601), "{jumped_at}");
        }
    }
}
