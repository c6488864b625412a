//! The record of which model the agent of a workspace is.

use serde_json::json;

use super::{
    create::broken_rule,
    lifecycle::{PATIENCE_WITH_RACES, gone_is_not_found, raced},
};
use crate::{
    clock::random_uuid,
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    events::EventKind,
    id::{AgentId, WorkspaceId},
    store::{ActiveAgent, NewAgent, pool::text_enum},
};

text_enum! {
    /// Whether an agent is the one that its workspace has.
    pub enum AgentState {
        /// It is.
        Active = "active",
        /// Another took its place.
        Replaced = "replaced",
        /// It was taken away.
        Removed = "removed",
    }
}

/// An agent that took another's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// The agent now.
    pub agent: ActiveAgent,
    /// The model of the one before.
    pub old_model: String,
}

/// An agent that belongs to another workspace now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The agent.
    pub agent: ActiveAgent,
    /// Where it was.
    pub from: WorkspaceId,
    /// Where it is.
    pub to: WorkspaceId,
}

impl ControlPlane {
    /// Gives a workspace its agent.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace; [`ErrorKind::Conflict`] where it has one.
    pub async fn assign_agent(&self, id: WorkspaceId, model: &str) -> Result<ActiveAgent> {
        let new = self.new_agent(id, model)?;
        self.existing(id).await.map_err(gone_is_not_found)?;
        let event = self.event(EventKind::AgentAssigned, id, json!({"agent_id": new.id, "model": new.model}));
        if !self.inner.store.assign_agent(&new, &event).await? {
            let text = "workspace already has an active agent, use PATCH to replace";
            return Err(Error::new(ErrorKind::Conflict, text));
        }
        self.announce(event);
        Ok(ActiveAgent { id: new.id, model: new.model })
    }

    /// Puts another agent in the place of the one that a workspace has.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where it has none.
    pub async fn replace_agent(&self, id: WorkspaceId, model: &str) -> Result<Replaced> {
        let new = self.new_agent(id, model)?;
        let none = || Error::not_found("no active agent to replace");
        for _ in 0..PATIENCE_WITH_RACES {
            let old = self.inner.store.active_agent(id).await?.ok_or_else(none)?;
            let payload = json!({"agent_id": new.id, "model": new.model, "old_model": old.model});
            let event = self.event(EventKind::AgentReplaced, id, payload);
            if self.inner.store.replace_agent(old.id, &new, &event).await? {
                self.announce(event);
                return Ok(Replaced { agent: ActiveAgent { id: new.id, model: new.model }, old_model: old.model });
            }
        }
        Err(raced(id))
    }

    /// Takes the agent of a workspace away.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where it has none.
    pub async fn remove_agent(&self, id: WorkspaceId) -> Result<ActiveAgent> {
        let none = || Error::not_found("no active agent to remove");
        for _ in 0..PATIENCE_WITH_RACES {
            let agent = self.inner.store.active_agent(id).await?.ok_or_else(none)?;
            let event = self.event(EventKind::AgentRemoved, id, json!({"agent_id": agent.id, "model": agent.model}));
            if self.inner.store.remove_agent(agent.id, &event).await? {
                self.announce(event);
                return Ok(agent);
            }
        }
        Err(raced(id))
    }

    /// Gives the agent of one workspace to another.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is no such agent or target; [`ErrorKind::Conflict`] where the target has one.
    pub async fn move_agent(&self, from: WorkspaceId, to: WorkspaceId) -> Result<Moved> {
        let no_target = |error: Error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::Removed => Error::not_found("target workspace not found"),
            _ => error,
        };
        self.existing(to).await.map_err(no_target)?;
        let none = || Error::not_found("no active agent in source workspace");
        let agent = self.inner.store.active_agent(from).await?.ok_or_else(none)?;
        let occupied = || Error::new(ErrorKind::Conflict, "target workspace already has an active agent");
        if self.inner.store.active_agent(to).await?.is_some() {
            return Err(occupied());
        }
        let told = |id, other: &'static str, whose: WorkspaceId| {
            self.event(EventKind::AgentMoved, id, json!({"agent_id": agent.id, "model": agent.model, other: whose}))
        };
        let events = [told(from, "target_workspace_id", to), told(to, "source_workspace_id", from)];
        if !self.inner.store.move_agent(agent.id, to, &events).await? {
            return Err(occupied());
        }
        events.into_iter().for_each(|event| self.announce(event));
        Ok(Moved { agent, from, to })
    }

    fn new_agent(&self, workspace_id: WorkspaceId, model: &str) -> Result<NewAgent> {
        let model = model.trim();
        if model.is_empty() {
            return Err(Error::invalid("model is required"));
        }
        match broken_rule("model", model, 100) {
            Some(rule) => Err(Error::invalid(rule)),
            None => {
                let id = AgentId::from_uuid(random_uuid(&*self.inner.entropy));
                Ok(NewAgent { id, workspace_id, model: model.to_owned() })
            }
        }
    }
}
