//! An agent reports where it is and what it can do.

use secrecy::SecretString;
use serde_json::{Value, json};

use crate::{
    control_plane::{Backend, ControlPlane},
    error::{Error, ErrorKind, Result},
    events::EventKind,
    id::WorkspaceId,
    identity::{self, Credential},
    net::{self, CheckedUrl},
    store::{Registration, TokenOwner},
    workspace::{DeliveryMode, Status, Workspace},
};

/// How often a register call is judged anew after the workspace moved meanwhile.
const PATIENCE_WITH_RACES: usize = 8;

/// What an agent says about itself.
#[derive(Debug, Clone)]
pub struct Register {
    /// Whose agent it is.
    pub id: WorkspaceId,
    /// Where it is called; empty for one that asks for its messages.
    pub url: String,
    /// What it can do, verbatim.
    pub agent_card: Value,
    /// How messages reach it; what is kept already where it does not say.
    pub delivery_mode: Option<DeliveryMode>,
}

/// What an agent is told when it registered.
#[derive(Debug)]
pub struct Registered {
    /// How messages reach it.
    pub delivery_mode: DeliveryMode,
    /// Its token, where this call issued the first: shown this once.
    pub auth_token: Option<SecretString>,
    /// What calls of the platform present; none where the caller did not prove who it is, or it cannot be told now.
    pub inbound_secret: Option<SecretString>,
}

/// The status after a register call. Stopped workspaces stay stopped, whoever still speaks for them.
fn status_after(from: Status) -> Status {
    match from {
        Status::Provisioning
        | Status::Online
        | Status::Offline
        | Status::Degraded
        | Status::Failed
        | Status::AwaitingAgent => Status::Online,
        Status::Paused | Status::Hibernating | Status::Hibernated | Status::Removed => from,
    }
}

/// How deep a card may be nested. Readers of JSON give up at about twice that, with what they read it in.
const DEEPEST_CARD: usize = 64;

/// A card that clients could not read back would hide the whole list that it is in.
fn check_card(card: &Value) -> Result<()> {
    let mut level: Vec<&Value> = vec![card];
    for _ in 0..=DEEPEST_CARD {
        level = level
            .into_iter()
            .flat_map(|value| match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(members) => members.values().collect(),
                _ => Vec::new(),
            })
            .collect();
        if level.is_empty() {
            return Ok(());
        }
    }
    Err(Error::invalid("invalid request body")
        .with_member("detail", format!("agent_card is nested deeper than {DEEPEST_CARD} levels")))
}

/// Whether the caller is the agent of the try that is under way. The one before may speak until it is stopped, and must
/// not be taken for it.
pub(super) fn is_of_this_try(credential: Credential, workspace: &Workspace) -> bool {
    match credential {
        Credential::Workspace(TokenOwner { provision_attempt: Some(attempt), .. }) => {
            workspace.provision_attempt == Some(attempt)
        }
        _ => true,
    }
}

impl ControlPlane {
    /// Keeps what an agent says about itself, and brings its workspace online.
    ///
    /// Repeating it changes nothing but the time of the last heartbeat. Where the backend assigned the agent's
    /// address, the agent's own word on it is not used.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown workspace, [`ErrorKind::Unauthenticated`] without its token or for a
    /// removed one, [`ErrorKind::InvalidInput`] for an address that must not be called.
    pub async fn register(&self, register: &Register, credential: Credential) -> Result<Registered> {
        check_card(&register.agent_card)?;
        for _ in 0..PATIENCE_WITH_RACES {
            let (workspace, verified) = self.admit_to_registry(credential, register.id).await?;
            let mode = register.delivery_mode.unwrap_or(workspace.delivery_mode);
            let url = self.address_to_keep(&workspace, register, mode).await?;
            if mode == DeliveryMode::Push {
                self.check_card_url(&workspace, &register.agent_card).await?;
            }
            let to = if workspace.status == Status::Provisioning && !is_of_this_try(credential, &workspace) {
                Status::Provisioning
            } else {
                status_after(workspace.status)
            };
            let url = match url {
                None if to == Status::Online && mode == DeliveryMode::Push => self.address_to_find(&workspace).await,
                url => url.map(str::to_owned),
            };
            if let Some(registered) =
                self.keep_registration(&workspace, register, to, mode, url.as_deref(), verified).await?
            {
                return Ok(registered);
            }
        }
        Err(Error::new(ErrorKind::Conflict, "registration failed").context("workspace.id", register.id))
    }

    /// Whether the backend tells where the agent is called, so that its own word on it is not used.
    fn is_assigned(&self, workspace: &Workspace) -> bool {
        !workspace.is_external() && self.inner.backend.assigns_urls()
    }

    /// Others may follow an address that a card names, so it must be one that may be called.
    async fn check_card_url(&self, workspace: &Workspace, card: &Value) -> Result<()> {
        let named = card.get("url").and_then(Value::as_str).filter(|url| !url.is_empty());
        let Some(url) = named else { return Ok(()) };
        // Names on the network of a backend cannot be looked up from here.
        let checked =
            if self.is_assigned(workspace) { net::check_as_written(url) } else { self.check_url(url).await.map(drop) };
        checked.map_err(|error| {
            let why = error.message().to_owned();
            Error::invalid("workspace agent_card URL not allowed").with_member("detail", why)
        })
    }

    /// The address that replaces what is kept; `None` leaves it alone.
    async fn address_to_keep<'a>(
        &self,
        workspace: &Workspace,
        register: &'a Register,
        mode: DeliveryMode,
    ) -> Result<Option<&'a str>> {
        if mode == DeliveryMode::Poll || self.is_assigned(workspace) || workspace.url.starts_with("http://127.0.0.1") {
            return Ok(None);
        }
        if register.url.is_empty() {
            return Err(Error::invalid("url is required for push-mode workspaces"));
        }
        self.check_url(&register.url).await?;
        Ok(Some(&register.url))
    }

    /// Checks an address that did not come from a backend.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], naming the first thing that forbids it.
    pub(crate) async fn check_url(&self, url: &str) -> Result<CheckedUrl> {
        net::check_url(url, self.inner.config.address_policy, &self.inner.names).await
    }

    /// Where the agent of a workspace is called whose address was lost: its try had failed before it came, or its server
    /// died before it could keep it.
    async fn address_to_find(&self, workspace: &Workspace) -> Option<String> {
        let Backend::Local { inspector, .. } = &self.inner.backend else { return None };
        if !workspace.url.is_empty() || !self.is_assigned(workspace) {
            return None;
        }
        inspector.address(workspace.id).await.unwrap_or_else(|error| {
            tracing::warn!(workspace.id = %workspace.id, error = error.detail(), "cannot tell where its agent is called");
            None
        })
    }

    async fn keep_registration(
        &self,
        workspace: &Workspace,
        register: &Register,
        to: Status,
        delivery_mode: DeliveryMode,
        url: Option<&str>,
        verified: bool,
    ) -> Result<Option<Registered>> {
        let address = url.unwrap_or(if workspace.url.is_empty() { &register.url } else { &workspace.url });
        let card = &register.agent_card;
        let (kind, payload) = if to == Status::Online {
            let payload = json!({"url": address, "agent_card": card, "delivery_mode": delivery_mode});
            (EventKind::WorkspaceOnline, payload)
        } else {
            (EventKind::AgentCardUpdated, json!({"agent_card": card}))
        };
        let event = self.event(kind, register.id, payload);
        let registration = Registration {
            id: register.id,
            from: workspace.status,
            to,
            url,
            agent_card: &register.agent_card,
            delivery_mode,
            at: event.created_at,
        };
        let first = (!verified)
            .then(|| identity::issue(register.id, workspace.provision_attempt, &*self.inner.entropy, event.created_at));
        let failed = |error: Error| match error.kind() {
            ErrorKind::Unavailable => error,
            _ => error.with_message("registration failed"),
        };
        let kept = self
            .inner
            .store
            .register(&registration, first.as_ref().map(|(kept, _)| kept), &event)
            .await
            .map_err(failed)?;
        let Some(token_kept) = kept else { return Ok(None) };
        self.announce(event);
        let auth_token = first.filter(|_| token_kept).map(|(_, issued)| issued.token);
        let proven = verified || auth_token.is_some();
        let inbound_secret = if proven { self.deliver_inbound_secret(register.id, "register").await } else { None };
        Ok(Some(Registered { delivery_mode, auth_token, inbound_secret }))
    }

    /// Replaces an agent's card.
    ///
    /// # Errors
    /// As [`ControlPlane::register`].
    pub async fn update_card(&self, id: WorkspaceId, card: &Value, credential: Credential) -> Result<()> {
        check_card(card)?;
        let (workspace, _) = self.admit_to_registry(credential, id).await?;
        self.check_card_url(&workspace, card).await?;
        let event = self.event(EventKind::AgentCardUpdated, id, json!({"agent_card": card}));
        let failed = |error: Error| match error.kind() {
            ErrorKind::Unavailable => error,
            _ => error.with_message("failed to update card"),
        };
        if !self.inner.store.update_card(id, card, &event).await.map_err(failed)? {
            return Err(Error::not_found("workspace not found").context("workspace.id", id));
        }
        self.announce(event);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_that_readers_would_choke_on_is_refused() {
        let nested = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
        assert!(check_card(&nested(DEEPEST_CARD)).is_ok());
        assert!(check_card(&nested(DEEPEST_CARD + 1)).is_err());
    }

    #[test]
    fn a_register_call_never_wakes_what_was_stopped_and_obeys_the_table() {
        for from in Status::ALL {
            let to = status_after(from);
            assert!(to == from || from.can_become(to), "{from} -> {to}");
        }
        for stopped in [Status::Paused, Status::Hibernating, Status::Hibernated, Status::Removed] {
            assert_eq!(status_after(stopped), stopped);
        }
    }
}
