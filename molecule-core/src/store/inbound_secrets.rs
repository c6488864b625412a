//! The secret that calls of the platform into a workspace present.

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::{
    Store,
    memory::{Epoch, Fingerprint},
    pool::{on_pool, statements},
};
use crate::{error::Result, id::WorkspaceId, workspace::Status};

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
    pub(crate) async fn inbound_secret(&self, id: WorkspaceId, now: DateTime<Utc>) -> Result<Option<SecretString>> {
        if let Some(secret) = self.memory.inbound_secret(id, now) {
            return Ok(Some(secret));
        }
        let epoch = self.memory.epoch(id);
        let kept: Option<Option<String>> = on_pool!(self.reader(), |p| sqlx::query_scalar(READ)
            .bind(id)
            .bind(Status::Removed)
            .fetch_optional(p)
            .await)?;
        Ok(kept.flatten().filter(|kept| !kept.is_empty()).map(|kept| self.know_inbound_secret(id, epoch, kept, now)))
    }

    /// Keeps `secret` for `id` if it has none. Gives the one that it has then; none where it is unknown or removed.
    pub(crate) async fn mint_inbound_secret(
        &self,
        id: WorkspaceId,
        secret: &SecretString,
        now: DateTime<Utc>,
    ) -> Result<Option<SecretString>> {
        let epoch = self.memory.epoch(id);
        let kept: Option<String> = on_pool!(self.writer(), |p| sqlx::query_scalar(MINT)
            .bind(id)
            .bind(Status::Removed)
            .bind(secret.expose_secret())
            .fetch_optional(p)
            .await)?;
        Ok(kept.map(|kept| self.know_inbound_secret(id, epoch, kept, now)))
    }

    /// Keeps `secret` for `id` in place of the one that it has. False where it is unknown or removed.
    pub(crate) async fn replace_inbound_secret(
        &self,
        id: WorkspaceId,
        secret: &SecretString,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let kept = on_pool!(self.writer(), |p| sqlx::query(REPLACE)
            .bind(id)
            .bind(Status::Removed)
            .bind(secret.expose_secret())
            .execute(p)
            .await
            .map(|done| done.rows_affected() == 1))?;
        if kept {
            // Whoever read the one before must not remember it now.
            self.memory.changed(id);
            let epoch = self.memory.epoch(id);
            self.know_inbound_secret(id, epoch, secret.expose_secret().to_owned(), now);
        }
        Ok(kept)
    }

    fn know_inbound_secret(&self, id: WorkspaceId, epoch: Epoch, kept: String, now: DateTime<Utc>) -> SecretString {
        let kept_as = fingerprint(&kept);
        let secret = SecretString::from(kept);
        self.memory.know_inbound_secret(id, epoch, secret.clone(), kept_as, now);
        secret
    }
}

/// What tells `kept` from another, without being it.
pub(super) fn fingerprint(kept: &str) -> Fingerprint {
    let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = Sha256::digest(kept.as_bytes()).into();
    Fingerprint(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}
