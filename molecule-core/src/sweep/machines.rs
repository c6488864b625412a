//! Gives machines back that nobody wants, until they are: each goes on costing money.

use chrono::TimeDelta;

use crate::{
    control_plane::{Backend, ControlPlane},
    error::{Error, ErrorKind, Result},
};

impl ControlPlane {
    /// Asks once more for each machine back that could not be given back, and for those of removed workspaces. Nothing to be
    /// done but on machines of another control plane.
    pub(crate) async fn give_back_left(&self) -> Result<()> {
        let Backend::ControlPlane(provisioner) = &self.inner.backend else { return Ok(()) };
        let config = &self.inner.config;
        let grace = TimeDelta::from_std(config.orphan_grace).unwrap_or(TimeDelta::MAX);
        let before = self.now().checked_sub_signed(grace).unwrap_or_default();
        for machine in self.inner.store.left_machines(before).await? {
            let (id, instance) = (machine.workspace_id, &*machine.instance_id);
            let late = || Error::new(ErrorKind::Upstream, "it was not given back in time");
            let stopped = tokio::time::timeout(config.delete_budget, provisioner.stop(id, instance)).await;
            match stopped.unwrap_or_else(|_| Err(late())) {
                Ok(()) => {
                    tracing::info!(workspace.id = %id, instance, "a machine that was left is given back");
                    self.inner.store.forget_left_machine(&machine).await?;
                }
                Err(error) => {
                    let error = error.detail();
                    tracing::warn!(workspace.id = %id, instance, error, "a machine could not be given back yet");
                }
            }
        }
        Ok(())
    }
}
