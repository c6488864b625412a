//! What stops workspaces for a while: pausing and hibernating. Each is a compare-and-set, as in [`workspaces`](super).

use chrono::{DateTime, Utc};

use super::{
    Store,
    events::insert_event,
    pool::{in_transaction, on_pool, statements},
};
use crate::{
    error::Result,
    events::Event,
    id::WorkspaceId,
    workspace::{Status, Transition},
};

statements! {
    /// Forgets the address, the try and what its agent worked on: what a start that is still under way brings up belongs to nobody.
    HALT = "UPDATE workspaces SET status = $3, url = '', provision_attempt = NULL, active_tasks = 0, \
            current_task = '', updated_at = $4 WHERE id = $1 AND status = $2";
    /// As HALT, but only of an idle agent, unless forced.
    CLAIM_FOR_HIBERNATION = "UPDATE workspaces SET status = $3, url = '', provision_attempt = NULL, updated_at = $4 \
                             WHERE id = $1 AND status = $2 AND ($5 OR active_tasks = 0)";
    FORGET_INSTANCE = "UPDATE workspaces SET instance_id = NULL WHERE id = $1 AND instance_id = $2";
    /// The names of the paused workspaces above one, nearest first.
    PAUSED_ABOVE = "WITH RECURSIVE up (id, parent_id, depth) AS ( \
                        SELECT id, parent_id, 0 FROM workspaces WHERE id = $1 \
                        UNION \
                        SELECT w.id, w.parent_id, u.depth + 1 FROM workspaces w JOIN up u ON w.id = u.parent_id \
                        WHERE u.depth < 32 \
                    ) SELECT w.name FROM up u JOIN workspaces w ON w.id = u.id \
                    WHERE u.depth > 0 AND w.status = $2 ORDER BY u.depth LIMIT 1";
}

impl Store {
    /// Takes all of `steps` at once into a status in which nothing runs, recording their events.
    ///
    /// False, with nothing changed, when any row is no longer at its start.
    pub(crate) async fn halt(&self, steps: &[(WorkspaceId, Transition, Event)]) -> Result<bool> {
        // An error is what rolls the transaction back.
        let moved = std::sync::atomic::AtomicBool::new(false);
        let result: Result<()> = in_transaction!(self.writer(), |tx| {
            for (id, step, event) in steps {
                let done = sqlx::query(HALT)
                    .bind(*id)
                    .bind(step.from())
                    .bind(step.to())
                    .bind(event.created_at)
                    .execute(&mut *tx)
                    .await?;
                if done.rows_affected() == 0 {
                    moved.store(true, std::sync::atomic::Ordering::Relaxed);
                    return Err(sqlx::Error::RowNotFound.into());
                }
                insert_event!(tx, event)?;
            }
            Ok(())
        });
        steps.iter().for_each(|(id, ..)| self.memory.changed(*id));
        match result {
            Err(_) if moved.into_inner() => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Claims a workspace for hibernation. False when it has moved, or its agent works, unless `forced`.
    pub(crate) async fn claim_for_hibernation(
        &self,
        id: WorkspaceId,
        step: Transition,
        forced: bool,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let done = on_pool!(self.writer(), |p| sqlx::query(CLAIM_FOR_HIBERNATION)
            .bind(id)
            .bind(step.from())
            .bind(step.to())
            .bind(now)
            .bind(forced)
            .execute(p)
            .await
            .map(|done| done.rows_affected()))?;
        if done == 1 {
            self.memory.changed(id);
        }
        Ok(done == 1)
    }

    /// Forgets a machine that was given back.
    pub(crate) async fn forget_instance(&self, id: WorkspaceId, instance: &str) -> Result<()> {
        on_pool!(self.writer(), |p| sqlx::query(FORGET_INSTANCE).bind(id).bind(instance).execute(p).await.map(drop))?;
        Ok(())
    }

    /// The name of the nearest paused workspace above `id`, if any.
    pub(crate) async fn paused_above(&self, id: WorkspaceId) -> Result<Option<String>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_scalar(PAUSED_ABOVE)
            .bind(id)
            .bind(Status::Paused)
            .fetch_optional(p)
            .await)?)
    }
}
