//! The secret that calls of the platform into a workspace present, sealed.

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use sha2::{Digest, Sha256};

use super::{
    Store,
    memory::{Epoch, Fingerprint},
    pool::{on_pool, statements},
};
use crate::{error::Result, id::WorkspaceId, identity::open_inbound_secret, secrets::Cipher, workspace::Status};

statements! {
    READ = "SELECT platform_inbound_secret FROM workspaces WHERE id = $1 AND status <> $2";
    /// Sets it only where there is none, and gives what is kept then: of those who race, all are given the same.
    MINT = "UPDATE workspaces SET platform_inbound_secret = COALESCE(NULLIF(platform_inbound_secret, ''), $3) \
            WHERE id = $1 AND status <> $2 RETURNING platform_inbound_secret";
    REPLACE = "UPDATE workspaces SET platform_inbound_secret = $3 WHERE id = $1 AND status <> $2";
}

impl Store {
    /// The secret of `id`; none where it has none, or is unknown or removed.
    ///
    /// What was read less than five minutes before `now` is not read again.
    pub(crate) async fn inbound_secret(
        &self,
        id: WorkspaceId,
        cipher: &Cipher,
        now: DateTime<Utc>,
    ) -> Result<Option<SecretString>> {
        if let Some(secret) = self.memory.inbound_secret(id, now) {
            return Ok(Some(secret));
        }
        let epoch = self.memory.epoch(id);
        let kept: Option<Option<String>> = on_pool!(self.reader(), |p| sqlx::query_scalar(READ)
            .bind(id)
            .bind(Status::Removed)
            .fetch_optional(p)
            .await)?;
        let Some(kept) = kept.flatten().filter(|kept| !kept.is_empty()) else { return Ok(None) };
        let secret = open_inbound_secret(&kept, cipher)?;
        self.memory.know_inbound_secret(id, epoch, secret.clone(), fingerprint(&kept), now);
        Ok(Some(secret))
    }

    /// Keeps what is `sealed` for `id` if it has none. Gives the one that it has then; none where it is unknown or
    /// removed.
    pub(crate) async fn mint_inbound_secret(
        &self,
        id: WorkspaceId,
        sealed: &str,
        cipher: &Cipher,
        now: DateTime<Utc>,
    ) -> Result<Option<SecretString>> {
        let epoch = self.memory.epoch(id);
        let kept: Option<String> = on_pool!(self.writer(), |p| sqlx::query_scalar(MINT)
            .bind(id)
            .bind(Status::Removed)
            .bind(sealed)
            .fetch_optional(p)
            .await)?;
        let Some(kept) = kept else { return Ok(None) };
        let secret = open_inbound_secret(&kept, cipher)?;
        self.memory.know_inbound_secret(id, epoch, secret.clone(), fingerprint(&kept), now);
        Ok(Some(secret))
    }

    /// Keeps `secret`, `sealed`, for `id` in place of the one that it has. False where it is unknown or removed.
    pub(crate) async fn replace_inbound_secret(
        &self,
        id: WorkspaceId,
        secret: &SecretString,
        sealed: &str,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let kept = on_pool!(self.writer(), |p| sqlx::query(REPLACE)
            .bind(id)
            .bind(Status::Removed)
            .bind(sealed)
            .execute(p)
            .await
            .map(|done| done.rows_affected() == 1))?;
        if kept {
            // Whoever read the one before must not remember it now.
            self.memory.changed(id);
            self.know_inbound_secret(id, secret, sealed, now);
        }
        Ok(kept)
    }

    /// Remembers the secret that is kept `sealed` from now on.
    pub(super) fn know_inbound_secret(&self, id: WorkspaceId, secret: &SecretString, sealed: &str, now: DateTime<Utc>) {
        let epoch: Epoch = self.memory.epoch(id);
        self.memory.know_inbound_secret(id, epoch, secret.clone(), fingerprint(sealed), now);
    }

    /// Remembers a secret that is kept `sealed` already, as reading it does.
    #[cfg(feature = "testing")]
    pub(crate) fn remember_inbound_secret(
        &self,
        id: WorkspaceId,
        secret: &SecretString,
        sealed: &str,
        now: DateTime<Utc>,
    ) {
        self.memory.know_inbound_secret(id, self.memory.epoch(id), secret.clone(), fingerprint(sealed), now);
    }
}

/// What tells `kept` from another, without being it.
pub(super) fn fingerprint(kept: &str) -> Fingerprint {
    let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = Sha256::digest(kept.as_bytes()).into();
    Fingerprint(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}
