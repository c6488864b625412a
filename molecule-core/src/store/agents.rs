//! Which model the agent of a workspace is.
use super::{
    Store,
    events::insert_event,
    pool::{in_transaction, is_taken, on_pool, row, statements},
};
use crate::{
    error::{Error, Result},
    events::Event,
    id::{AgentId, WorkspaceId},
    workspace::{AgentState, Status},
};

statements! {
    /// Nothing where the workspace has an active one, or is gone.
    INSERT = "INSERT INTO agents (id, workspace_id, model, status, created_at) \
              SELECT $1, $2, $3, $4, $5 WHERE EXISTS (SELECT 1 FROM workspaces WHERE id = $2 AND status <> $6) \
              ON CONFLICT (workspace_id) WHERE status = 'active' DO NOTHING";
    ACTIVE = "SELECT id, model FROM agents WHERE workspace_id = $1 AND status = $2";
    END = "UPDATE agents SET status = $3, removed_at = $4, removal_reason = $5 WHERE id = $1 AND status = $2";
    MOVE = "UPDATE agents SET workspace_id = $3 WHERE id = $1 AND status = $2 AND NOT EXISTS \
            (SELECT 1 FROM agents a WHERE a.workspace_id = $3 AND a.status = $2)";
}

row! {
    /// The agent that a workspace has now.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ActiveAgent {
        /// Names it.
        pub id: AgentId,
        /// The model that it is.
        pub model: String,
    }
}

/// An agent as it is inserted.
#[derive(Debug, Clone)]
pub(crate) struct NewAgent {
    pub(crate) id: AgentId,
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) model: String,
}

/// Inserts an agent, within a transaction. True when it is the active one now.
macro_rules! insert_agent {
    ($tx:expr, $agent:expr, $at:expr) => {
        sqlx::query(INSERT)
            .bind($agent.id)
            .bind($agent.workspace_id)
            .bind(&$agent.model)
            .bind(AgentState::Active)
            .bind($at)
            .bind(Status::Removed)
            .execute(&mut *$tx)
            .await
            .map(|done| done.rows_affected() == 1)
    };
}

/// Ends an agent, within a transaction. True when it was active until now.
macro_rules! end_agent {
    ($tx:expr, $id:expr, $to:expr, $reason:expr, $at:expr) => {
        sqlx::query(END)
            .bind($id)
            .bind(AgentState::Active)
            .bind($to)
            .bind($at)
            .bind($reason)
            .execute(&mut *$tx)
            .await
            .map(|done| done.rows_affected() == 1)
    };
}

impl Store {
    /// The agent that a workspace has now.
    pub(crate) async fn active_agent(&self, id: WorkspaceId) -> Result<Option<ActiveAgent>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(ACTIVE)
            .bind(id)
            .bind(AgentState::Active)
            .fetch_optional(p)
            .await)?)
    }

    /// Gives a workspace its agent. False, with nothing recorded, where it has one.
    pub(crate) async fn assign_agent(&self, agent: &NewAgent, event: &Event) -> Result<bool> {
        in_transaction!(self.writer(), |tx| {
            let assigned = insert_agent!(tx, agent, event.created_at)?;
            if assigned {
                insert_event!(tx, event)?;
            }
            Ok(assigned)
        })
    }

    /// Puts `new` in the place of `old`. False, with nothing changed, where that is not the active one any more.
    pub(crate) async fn replace_agent(&self, old: AgentId, new: &NewAgent, event: &Event) -> Result<bool> {
        in_transaction!(self.writer(), |tx| {
            let at = event.created_at;
            if !end_agent!(tx, old, AgentState::Replaced, "model_replaced", at)? {
                return Ok(false);
            }
            if !insert_agent!(tx, new, at)? {
                // The workspace is gone meanwhile; an error is what rolls the transaction back.
                return Err(Error::not_found("workspace not found"));
            }
            insert_event!(tx, event)?;
            Ok(true)
        })
    }

    /// Ends an agent. False, with nothing recorded, where it is not the active one any more.
    pub(crate) async fn remove_agent(&self, id: AgentId, event: &Event) -> Result<bool> {
        in_transaction!(self.writer(), |tx| {
            let ended = end_agent!(tx, id, AgentState::Removed, "manual_removal", event.created_at)?;
            if ended {
                insert_event!(tx, event)?;
            }
            Ok(ended)
        })
    }

    /// Gives an agent to another workspace. False, with nothing recorded, where it is not active any more or the target
    /// has one.
    pub(crate) async fn move_agent(&self, id: AgentId, to: WorkspaceId, events: &[Event; 2]) -> Result<bool> {
        let moved: Result<bool> = in_transaction!(self.writer(), |tx| {
            let done =
                sqlx::query(MOVE).bind(id).bind(AgentState::Active).bind(to).execute(&mut *tx).await?.rows_affected();
            if done == 1 {
                for event in events {
                    insert_event!(tx, event)?;
                }
            }
            Ok(done == 1)
        });
        match moved {
            // Somebody else gave the target one at the same time.
            Err(error) if is_taken(&error) => Ok(false),
            moved => moved,
        }
    }
}
