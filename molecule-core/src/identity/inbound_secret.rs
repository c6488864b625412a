//! The secret by which an agent knows that a call comes from its platform.

use secrecy::SecretString;

use super::random_token;
use crate::{
    control_plane::ControlPlane,
    error::{Error, Result},
    id::WorkspaceId,
};

/// A secret that was asked for.
#[derive(Debug, Clone)]
pub struct InboundSecret {
    /// What a call presents as its bearer.
    pub secret: SecretString,
    /// There was none, so that the agent hears of it with its next heartbeat only.
    pub minted: bool,
}

impl ControlPlane {
    /// The secret that calls into `id` present, minted where it has none.
    ///
    /// It is read at most once in five minutes, however many ask.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for an unknown or removed workspace.
    pub async fn inbound_secret(&self, id: WorkspaceId) -> Result<InboundSecret> {
        let store = &self.inner.store;
        if let Some(secret) = store.memory().inbound_secret(id, self.now()) {
            return Ok(InboundSecret { secret, minted: false });
        }
        // Of those who ask at once, one asks the database.
        let _turn = self.inner.secret_gates.enter(id).await;
        if let Some(secret) = store.inbound_secret(id, self.now()).await? {
            return Ok(InboundSecret { secret, minted: false });
        }
        let minted = store.mint_inbound_secret(id, &random_token(&*self.inner.entropy), self.now()).await?;
        let secret = minted.ok_or_else(|| no_workspace(id))?;
        tracing::info!(workspace.id = %id, "a workspace without an inbound secret was given one");
        Ok(InboundSecret { secret, minted: true })
    }

    /// As [`ControlPlane::inbound_secret`], for an answer that is due with or without it.
    pub(crate) async fn deliver_inbound_secret(&self, id: WorkspaceId, operation: &str) -> Option<SecretString> {
        match self.inbound_secret(id).await {
            Ok(found) => Some(found.secret),
            Err(error) => {
                tracing::warn!(workspace.id = %id, operation, error = error.detail(), "the inbound secret is not told");
                None
            }
        }
    }

    /// Gives `id` another secret than it has, and gives that. Other replicas use it at once.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for an unknown or removed workspace.
    pub async fn rotate_inbound_secret(&self, id: WorkspaceId) -> Result<SecretString> {
        let _turn = self.inner.secret_gates.enter(id).await;
        let secret = random_token(&*self.inner.entropy);
        if !self.inner.store.replace_inbound_secret(id, &secret, self.now()).await? {
            return Err(no_workspace(id));
        }
        Ok(secret)
    }

    /// Forgets every secret that was read, so that each is read anew.
    pub fn forget_inbound_secrets(&self) {
        self.inner.store.memory().forget_inbound_secrets();
    }
}

fn no_workspace(id: WorkspaceId) -> Error {
    Error::not_found("workspace not found").context("workspace.id", id)
}
