//! Machines of another control plane that nobody wants and that were not given back yet.

use chrono::{DateTime, Utc};

use super::{
    Store,
    lifecycle::FORGET_INSTANCE,
    pool::{in_transaction, on_pool, row, statements},
};
use crate::{error::Result, id::WorkspaceId, workspace::Status};

statements! {
    NOTE = "INSERT INTO machines_left (workspace_id, instance_id, noted_at) VALUES ($1, $2, $3) \
            ON CONFLICT (workspace_id, instance_id) DO NOTHING";
    /// A delete gives the machine back itself, and is given the time to.
    LEFT = "SELECT workspace_id, instance_id FROM machines_left \
            UNION SELECT id, instance_id FROM workspaces \
            WHERE status = $1 AND updated_at < $2 AND instance_id IS NOT NULL AND instance_id <> '' \
            ORDER BY workspace_id, instance_id";
    FORGET = "DELETE FROM machines_left WHERE workspace_id = $1 AND instance_id = $2";
}

row! {
    /// A machine, and the workspace that it was asked for.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct LeftMachine {
        pub(crate) workspace_id: WorkspaceId,
        pub(crate) instance_id: String,
    }
}

impl Store {
    /// Notes a machine that could not be given back. Repeating it changes nothing.
    pub(crate) async fn note_left_machine(&self, id: WorkspaceId, instance: &str, now: DateTime<Utc>) -> Result<()> {
        on_pool!(self.writer(), |p| sqlx::query(NOTE).bind(id).bind(instance).bind(now).execute(p).await.map(drop))?;
        Ok(())
    }

    /// The machines that were noted, and those of workspaces that were removed `before` then.
    pub(crate) async fn left_machines(&self, before: DateTime<Utc>) -> Result<Vec<LeftMachine>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(LEFT).bind(Status::Removed).bind(before).fetch_all(p).await)?)
    }

    /// Forgets a machine that was given back, also where its workspace still names it.
    pub(crate) async fn forget_left_machine(&self, machine: &LeftMachine) -> Result<()> {
        let LeftMachine { workspace_id, instance_id } = machine;
        in_transaction!(self.writer(), |tx| {
            sqlx::query(FORGET).bind(*workspace_id).bind(instance_id).execute(&mut *tx).await?;
            sqlx::query(FORGET_INSTANCE).bind(*workspace_id).bind(instance_id).execute(&mut *tx).await?;
            Ok(())
        })
    }
}
