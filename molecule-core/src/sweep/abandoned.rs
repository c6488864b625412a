//! Goes on with the tries of servers that died before their backend answered.
//!
//! Whoever carries a try out says so again and again. Where nobody does, the row that changes is the claim: of several servers
//! one begins anew, and what the earlier try may still bring up is superseded.

use chrono::{DateTime, TimeDelta, Utc};

use super::jumps::age;
use crate::{
    control_plane::{Backend, ControlPlane},
    error::Result,
    id::{AttemptId, WorkspaceId},
    store::{Abandoned, Engine, Supervised},
    workspace::{EXTERNAL_RUNTIME, Status},
};

/// The try of `row`, where who carried it out has said nothing about it for longer than `lease`.
pub(super) fn is_abandoned(
    row: &Supervised,
    lease: TimeDelta,
    jumped_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Option<Abandoned> {
    let abandoned = under_way(row)?;
    (age(abandoned.renewed_at, jumped_at, now) > lease).then_some(abandoned)
}

/// The try of `row` that a server has to carry out.
fn under_way(row: &Supervised) -> Option<Abandoned> {
    if row.status != Status::Provisioning || row.runtime == EXTERNAL_RUNTIME {
        return None;
    }
    Some(Abandoned { attempt: row.provision_attempt?, renewed_at: row.provision_renewed_at? })
}

impl ControlPlane {
    /// Says that this server carries `attempt` out. False where there is nothing to carry out any more.
    pub(crate) async fn renew_attempt(&self, id: WorkspaceId, attempt: AttemptId) -> bool {
        self.inner.store.renew_attempt(id, attempt, self.now()).await.unwrap_or_else(|error| {
            tracing::warn!(workspace.id = %id, error = error.detail(), "a try could not be claimed for longer");
            true
        })
    }

    /// Begins anew what an earlier process had under way when it died, where no other process can have it under way.
    pub(crate) async fn resume_interrupted(&self) -> Result<()> {
        if self.inner.store.engine() != Engine::Sqlite && !self.inner.config.alone {
            return Ok(());
        }
        for row in self.inner.store.provisioning().await? {
            if let Some(abandoned) = under_way(&row) {
                self.go_on(&row, abandoned).await?;
            }
        }
        Ok(())
    }

    /// Goes on with the try of `row` that nobody carries out, unless this server does or has no backend. Whether it was.
    pub(super) async fn go_on(&self, row: &Supervised, abandoned: Abandoned) -> Result<bool> {
        let (id, attempt) = (row.id, abandoned.attempt);
        // An earlier try of this server may hang in the backend: it is given up for the new one.
        if matches!(self.inner.backend, Backend::None) || self.inner.attempts.carries(id, attempt) {
            return Ok(false);
        }
        let Some(workspace) = self.inner.store.workspace(id).await? else { return Ok(false) };
        let taken = workspace.status == Status::Provisioning && self.take_over(workspace, abandoned).await?;
        if taken {
            tracing::warn!(workspace.id = %id, "its start was interrupted; beginning anew");
            let machines = matches!(self.inner.backend, Backend::ControlPlane(_));
            if machines && row.provision_asked_at.is_some() && row.instance_id.is_none() {
                // Whether the other control plane made a machine is known to nobody.
                tracing::error!("LEAK-SUSPECT cpProv.Start workspace_id={id} attempt={attempt}");
            }
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_try_is_abandoned_once_nobody_speaks_of_it_and_the_backend_did_not_answer() {
        use Status::{Failed, Paused, Provisioning};
        let at = |seconds| DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap();
        let lease = TimeDelta::seconds(120);
        let attempt = AttemptId::from_uuid(Uuid::from_u128(1));
        let row = |status, runtime: &str, attempt, renewed: Option<i64>| Supervised {
            id: WorkspaceId::from_uuid(Uuid::nil()),
            status,
            url: String::new(),
            runtime: runtime.to_owned(),
            last_heartbeat_at: None,
            updated_at: at(0),
            provision_attempt: attempt,
            provision_started_at: Some(at(0)),
            provision_asked_at: Some(at(0)),
            provision_renewed_at: renewed.map(at),
            instance_id: None,
        };
        for (status, runtime, attempt, renewed, jumped_at, now, expected) in [
            (Provisioning, "hermes", Some(attempt), Some(0), None, 120, false),
            (Provisioning, "hermes", Some(attempt), Some(0), None, 121, true),
            // The backend has answered: the agent is waited for, by everyone.
            (Provisioning, "hermes", Some(attempt), None, None, 9999, false),
            (Provisioning, "hermes", None, Some(0), None, 9999, false),
            (Provisioning, "external", Some(attempt), Some(0), None, 9999, false),
            (Failed, "hermes", Some(attempt), Some(0), None, 9999, false),
            (Paused, "hermes", Some(attempt), Some(0), None, 9999, false),
            // A clock that jumps abandons nothing.
            (Provisioning, "hermes", Some(attempt), Some(0), Some(3600), 3700, false),
            (Provisioning, "hermes", Some(attempt), Some(0), Some(3600), 3721, true),
        ] {
            let row = row(status, runtime, attempt, renewed);
            let abandoned = is_abandoned(&row, lease, jumped_at.map(at), at(now));
            assert_eq!(abandoned.is_some(), expected, "{row:?} {jumped_at:?} {now}");
        }
    }
}
