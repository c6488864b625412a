//! Brings what is kept under an older key, or under none, under the current one.

use crate::{
    control_plane::ControlPlane,
    error::Result,
    store::{KeptSecret, NewSecret},
};

impl ControlPlane {
    /// Encrypts anew every secret that is not kept under the current key, but for inbound secrets. Gives how
    /// many were, and how many could not be read. Nothing is done without a key.
    ///
    /// Repeating it does what is left. A secret that is set meanwhile is left alone.
    pub async fn renew_secrets(&self) -> Result<(usize, usize)> {
        let Some(key) = self.inner.cipher.key_id() else { return Ok((0, 0)) };
        let (mut renewed, mut unreadable) = (0, 0);
        for KeptSecret { workspace_id, secret } in self.inner.store.secrets_under_other_keys(key).await? {
            let value = match self.inner.cipher.open(&secret.sealed) {
                Ok(value) => value,
                Err(error) => {
                    let owner = workspace_id.map_or_else(|| "global".to_owned(), |id| id.to_string());
                    tracing::error!(owner, secret = secret.key, error = error.detail(), "a secret is unreadable");
                    unreadable += 1;
                    continue;
                }
            };
            let sealed = self.inner.cipher.seal(&value, &*self.inner.entropy)?;
            let new = NewSecret { key: secret.key, sealed };
            renewed += usize::from(self.inner.store.reseal(workspace_id, &secret.sealed, &new).await?);
        }
        Ok((renewed, unreadable))
    }
}
