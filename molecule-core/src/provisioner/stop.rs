//! The one way to stop what runs for a workspace, for every caller and every backend.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;

use super::ControlPlaneProvisioner;
use crate::{
    control_plane::{Backend, ControlPlane},
    error::{Error, ErrorKind, Result},
    id::WorkspaceId,
    workspace::{Status, Workspace},
};

/// How often a machine is asked back before a restart goes on without.
const TRIES: u32 = 3;

/// Why a machine is asked back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Somebody asked for it.
    Restart,
    /// The control plane itself found that it has to be.
    AutoRestart,
    /// Nobody waits any more for what the try brought up.
    GivenUp,
}

impl Source {
    /// The name in logs.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Restart => "Restart",
            Self::AutoRestart => "Auto-restart",
            Self::GivenUp => "Given-up",
        }
    }
}

/// What is left of a workspace that is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// What it keeps.
    Storage,
    /// What its agent worked on.
    Work,
    Nothing,
}

impl Leaves {
    /// What is to be left of the workspace with this row, if any.
    pub(crate) fn of(row: Option<&Workspace>) -> Self {
        match row {
            Some(row) if row.status != Status::Removed => Self::Storage,
            Some(_) => Self::Work,
            None => Self::Nothing,
        }
    }
}

impl Backend {
    /// Stops what runs for `id`. Without a backend, or a machine, there is nothing to stop.
    pub(crate) async fn stop(&self, id: WorkspaceId, instance: Option<&str>) -> Result<()> {
        match (self, instance) {
            (Self::Local { provisioner, .. }, _) => provisioner.stop(id).await,
            (Self::ControlPlane(provisioner), Some(instance)) => provisioner.stop(id, instance).await,
            (Self::ControlPlane(_) | Self::None, _) => Ok(()),
        }
    }

    /// Removes what the backend keeps for `id` but what it `leaves`, where that is its to keep.
    pub(crate) async fn clear(&self, id: WorkspaceId, leaves: Leaves) -> Result<()> {
        match (self, leaves) {
            (Self::Local { provisioner, .. }, Leaves::Work) => provisioner.remove_volume(id).await,
            (Self::Local { provisioner, .. }, Leaves::Nothing) => provisioner.purge_volumes(id).await,
            (Self::Local { .. }, Leaves::Storage) | (Self::ControlPlane(_) | Self::None, _) => Ok(()),
        }
    }
}

impl ControlPlane {
    /// Stops all of `workspaces` at once, as long as they are `status`, each within the budget of a clean-up. Goes on when
    /// the caller leaves. Gives the stops that failed.
    pub(crate) async fn stop_all(
        &self,
        workspaces: Vec<WorkspaceId>,
        status: Status,
        leaves: Leaves,
    ) -> Result<Vec<Error>> {
        let this = self.clone();
        let budget = self.inner.config.delete_budget;
        let stopping = self.inner.tasks.spawn(async move {
            let each = workspaces.into_iter().map(|id| {
                let this = &this;
                async move {
                    let late = || Error::new(ErrorKind::Upstream, format!("{id} was not stopped in time"));
                    let stopped = tokio::time::timeout(budget, this.stop_while(id, status, leaves)).await;
                    stopped.unwrap_or_else(|_| Err(late())).err()
                }
            });
            let failures: Vec<Error> = join_all(each).await.into_iter().flatten().collect();
            for failure in &failures {
                tracing::error!(error = failure.detail(), "a workspace could not be stopped");
            }
            failures
        });
        stopping.await.map_err(|error| Error::new(ErrorKind::Unexpected, "the clean-up ended early").caused_by(error))
    }

    /// Waits at the gate: a start that is under way sees that it was superseded and clears up after itself. Whoever
    /// moved the workspace on meanwhile stops what it finds.
    async fn stop_while(&self, id: WorkspaceId, status: Status, leaves: Leaves) -> Result<()> {
        let _gate = self.inner.gates.enter(id).await;
        let row = self.inner.store.workspace(id).await?;
        let Some(workspace) = row.filter(|row| row.status == status && !row.is_external()) else { return Ok(()) };
        self.stop_workload(&workspace).await?;
        if let Err(error) = self.inner.backend.clear(id, leaves).await {
            tracing::error!(workspace.id = %id, error = error.detail(), "a volume was left behind");
        }
        Ok(())
    }

    /// Stops what runs for the workspace, by one try, and forgets its machine.
    async fn stop_workload(&self, workspace: &Workspace) -> Result<()> {
        let instance = workspace.instance_id.as_deref();
        self.inner.backend.stop(workspace.id, instance).await?;
        if let Some(instance) = instance {
            self.forget_instance(workspace.id, instance).await;
        }
        Ok(())
    }

    /// Stops what runs, so that something newer can take its place. Where it cannot be stopped the start goes on: it
    /// replaces what still runs on this host, and leaving the workspace dead would help nobody.
    pub(crate) async fn stop_for_restart(&self, workspace: &Workspace, source: Source) {
        match (&self.inner.backend, &workspace.instance_id) {
            (Backend::ControlPlane(provisioner), Some(instance)) => {
                let base = self.inner.config.restart_stop_backoff;
                if stop_with_retry(&**provisioner, workspace.id, instance, source, base).await {
                    self.forget_instance(workspace.id, instance).await;
                } else {
                    self.note_left(workspace.id, instance).await;
                }
            }
            (backend, _) => {
                if let Err(error) = backend.stop(workspace.id, None).await {
                    let id = workspace.id;
                    tracing::error!(workspace.id = %id, error = error.detail(), "could not stop before a restart");
                }
            }
        }
    }

    /// Gives a machine back that no row names.
    pub(super) async fn give_back(
        &self,
        provisioner: &dyn ControlPlaneProvisioner,
        id: WorkspaceId,
        instance: &str,
        source: Source,
    ) {
        let base = self.inner.config.restart_stop_backoff;
        let stopping = stop_with_retry(provisioner, id, instance, source, base);
        if !tokio::time::timeout(self.inner.config.delete_budget, stopping).await.unwrap_or(false) {
            self.note_left(id, instance).await;
        }
    }

    /// Notes a machine for the sweep, which asks for it back until it is given back.
    async fn note_left(&self, id: WorkspaceId, instance: &str) {
        if let Err(error) = self.inner.store.note_left_machine(id, instance, self.now()).await {
            tracing::error!(workspace.id = %id, instance, error = error.detail(), "a machine that is left is not noted");
        }
    }

    async fn forget_instance(&self, id: WorkspaceId, instance: &str) {
        if let Err(error) = self.inner.store.forget_instance(id, instance).await {
            // Giving back what was given back already does no harm.
            tracing::warn!(workspace.id = %id, error = error.detail(), "a machine that is gone is still remembered");
        }
    }
}

/// The error of a call that could not stop all it had to.
pub(crate) fn could_not_stop(failures: &[Error], of: usize, done: &'static str, count: usize) -> Error {
    let causes: Vec<&str> = failures.iter().map(Error::message).collect();
    let text = format!("{} of {of} workloads could not be stopped: {}", failures.len(), causes.join("; "));
    Error::new(ErrorKind::Unexpected, text)
        .with_member(done, Value::from(count))
        .with_member("stop_failures", failures.len())
}

/// Asks for a machine back before a restart: the only way there. True when it was given back.
///
/// The pauses between tries are `base`, doubled each time. A restart that is given up meanwhile ends it at once.
async fn stop_with_retry(
    provisioner: &dyn ControlPlaneProvisioner,
    id: WorkspaceId,
    instance: &str,
    source: Source,
    base: Duration,
) -> bool {
    let source = source.as_str();
    let mut trial = Trial { id, source, over: false, last_error: None };
    for attempt in 1..=TRIES {
        match provisioner.stop(id, instance).await {
            Ok(()) => {
                if attempt > 1 {
                    tracing::info!("{source}: cpProv.Stop({id}) succeeded on attempt {attempt}");
                }
                trial.over = true;
                return true;
            }
            Err(error) => trial.last_error = Some(error.detail()),
        }
        if attempt < TRIES {
            tokio::time::sleep(base * 2_u32.pow(attempt - 1)).await;
        }
    }
    trial.over = true;
    let last_error = trial.last_error.take().unwrap_or_default();
    tracing::error!(
        "LEAK-SUSPECT cpProv.Stop workspace_id={id} source={source} attempts={TRIES} last_err={last_error:?} instance_id={instance}"
    );
    false
}

/// Says so where it is dropped before it is over.
struct Trial {
    id: WorkspaceId,
    source: &'static str,
    over: bool,
    last_error: Option<String>,
}

impl Drop for Trial {
    fn drop(&mut self) {
        if !self.over {
            let Self { id, source, .. } = self;
            let error = self.last_error.as_deref().unwrap_or("none yet");
            tracing::warn!("{source}: cpProv.Stop({id}) abandoned mid-retry: ctx cancelled (last_err={error})");
        }
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{provisioner::MockControlPlaneProvisioner, testing::Logged};

    /// Fails so often before it succeeds.
    fn failing(times: usize) -> MockControlPlaneProvisioner {
        let mut machines = MockControlPlaneProvisioner::new();
        let mut left = times;
        machines.expect_stop().returning(move |_, _| {
            if left == 0 {
                return Ok(());
            }
            left -= 1;
            Err(Error::new(ErrorKind::Upstream, "unexpected 500"))
        });
        machines
    }

    async fn stop(failures: usize, source: Source) -> (bool, Logged, WorkspaceId) {
        let id = WorkspaceId::from_uuid(Uuid::from_u128(7));
        let (logged, _guard) = Logged::here();
        let stopped = stop_with_retry(&failing(failures), id, "i-1", source, Duration::from_millis(1)).await;
        (stopped, logged, id)
    }

    #[tokio::test]
    async fn success_at_once_is_silent_and_later_is_told() {
        let (stopped, logged, _) = stop(0, Source::Restart).await;
        assert!(stopped && logged.with("").is_empty(), "{logged:?}");
        for (failures, attempt) in [(1, 2), (2, 3)] {
            let (stopped, logged, id) = stop(failures, Source::AutoRestart).await;
            let line = format!("Auto-restart: cpProv.Stop({id}) succeeded on attempt {attempt}");
            assert!(stopped && logged.with("") == [line], "{logged:?}");
        }
    }

    #[tokio::test]
    async fn a_machine_that_may_go_on_costing_money_is_one_line() {
        let (stopped, logged, id) = stop(9, Source::Restart).await;
        let lines = logged.with("");
        assert!(!stopped && lines.len() == 1, "{lines:?}");
        let start = format!("LEAK-SUSPECT cpProv.Stop workspace_id={id} source=Restart attempts=3 last_err=\"");
        assert!(lines[0].starts_with(&start) && lines[0].contains("unexpected 500"), "{lines:?}");
        assert!(lines[0].ends_with(" instance_id=i-1"), "{lines:?}");
    }

    #[tokio::test]
    async fn the_pauses_double_and_none_follows_the_last_try() {
        let id = WorkspaceId::from_uuid(Uuid::from_u128(7));
        let base = Duration::from_millis(40);
        let begun = std::time::Instant::now();
        stop_with_retry(&failing(9), id, "i-1", Source::Restart, base).await;
        let taken = begun.elapsed();
        assert!(taken >= base * 3 && taken < base * 7, "{taken:?}: 1 and 2 times the base, and not 4 times it as well");
    }

    #[tokio::test]
    async fn a_restart_that_is_given_up_suspects_nothing() {
        let id = WorkspaceId::from_uuid(Uuid::from_u128(7));
        let (logged, _guard) = Logged::here();
        let machines = failing(9);
        let stopping = stop_with_retry(&machines, id, "i-1", Source::Restart, Duration::from_secs(3600));
        assert!(tokio::time::timeout(Duration::from_millis(20), stopping).await.is_err());
        let lines = logged.with("");
        let start = format!("Restart: cpProv.Stop({id}) abandoned mid-retry: ctx cancelled (last_err=");
        assert!(lines.len() == 1 && lines[0].starts_with(&start), "{lines:?}");
        assert!(logged.with("LEAK-SUSPECT").is_empty());
    }
}
