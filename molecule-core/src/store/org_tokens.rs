//! Tokens of the organisation: only their hashes are kept.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};

use super::{
    Store,
    pool::{on_pool, row, statements},
};
use crate::{
    error::Result,
    id::{TokenId, WorkspaceId},
    identity::NewOrgToken,
};

statements! {
    INSERT = "INSERT INTO org_api_tokens (id, token_hash, prefix, name, created_by, org_id, created_at) \
              VALUES ($1, $2, $3, $4, $5, $6, $7)";
    OWNER = "SELECT id, org_id FROM org_api_tokens WHERE token_hash = $1 AND revoked_at IS NULL";
    PREFIX = "SELECT prefix FROM org_api_tokens WHERE id = $1";
    LIST_LIVE = "SELECT id, prefix, name, org_id, created_by, created_at, last_used_at FROM org_api_tokens \
                 WHERE revoked_at IS NULL ORDER BY created_at DESC, id DESC LIMIT $1";
    REVOKE = "UPDATE org_api_tokens SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";
    NOTE_USE = "UPDATE org_api_tokens SET last_used_at = $2 WHERE id = $1";
}

row! {
    /// A token of the organisation, as far as gates look at it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct OrgTokenOwner {
        /// The token's own id.
        pub id: TokenId,
        /// The topmost workspace of the organisation it is bound to, if any.
        pub org_id: Option<WorkspaceId>,
    }
}

row! {
    /// What is known of a live token of the organisation: everything but its text.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct OrgToken {
        /// Its id, by which it is revoked.
        pub id: TokenId,
        /// Its first 8 characters, to tell it from others.
        pub prefix: String,
        /// What it is for, in the words of who minted it.
        pub name: Option<String>,
        /// The topmost workspace of the organisation it is bound to, if any.
        pub org_id: Option<WorkspaceId>,
        /// With what it was minted: `org-token:PREFIX`, `session` or `admin-token`; nothing where nothing was needed.
        pub created_by: Option<String>,
        /// When it was minted.
        pub created_at: DateTime<Utc>,
        /// When it was presented last, late by at most one [`Config::telemetry_tick`](crate::config::Config).
        pub last_used_at: Option<DateTime<Utc>>,
    }
}

/// The SHA-256 of a token.
type TokenHash = [u8; 32];

#[derive(Debug)]
struct Known {
    owner: OrgTokenOwner,
    used_at: DateTime<Utc>,
    /// The database has not seen the use.
    unsaved: bool,
}

/// The live tokens of the organisation that were presented. There are few, and they change seldom: any change forgets all.
#[derive(Debug, Default)]
pub(super) struct KnownOrgTokens(Mutex<HashMap<TokenHash, Known>>);

impl KnownOrgTokens {
    /// Whose a remembered token is. Notes its use.
    fn owner(&self, hash: &TokenHash, now: DateTime<Utc>) -> Option<OrgTokenOwner> {
        let mut known = self.lock();
        let known = known.get_mut(hash)?;
        known.used_at = now;
        known.unsaved = true;
        Some(known.owner)
    }

    /// Remembers a token if `still_true` says, under the lock, that nothing changed since it was read.
    fn know(&self, hash: TokenHash, owner: OrgTokenOwner, now: DateTime<Utc>, still_true: impl FnOnce() -> bool) {
        let mut known = self.lock();
        if still_true() {
            known.insert(hash, Known { owner, used_at: now, unsaved: true });
        }
    }

    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    /// Forgets what is bound to the organisation below `id`.
    pub(super) fn forget_bound_to(&self, id: WorkspaceId) {
        self.lock().retain(|_, known| known.owner.org_id != Some(id));
    }

    /// Every use that the database has not seen, marked as seen.
    fn take_uses(&self) -> Vec<(TokenId, DateTime<Utc>)> {
        let mut uses = Vec::new();
        for known in self.lock().values_mut().filter(|known| known.unsaved) {
            known.unsaved = false;
            uses.push((known.owner.id, known.used_at));
        }
        uses
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TokenHash, Known>> {
        // Nothing in here can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Keeps `token`.
    pub(crate) async fn add_org_token(&self, token: &NewOrgToken) -> Result<()> {
        on_pool!(self.writer(), |p| sqlx::query(INSERT)
            .bind(token.id)
            .bind(&token.hash[..])
            .bind(&token.prefix)
            .bind(&token.name)
            .bind(&token.created_by)
            .bind(token.org_id)
            .bind(token.created_at)
            .execute(p)
            .await
            .map(drop))?;
        Ok(())
    }

    /// Whose the live token with `hash` is; `None` for an unknown or revoked one.
    ///
    /// Notes that it was used at `now`.
    pub(crate) async fn org_token_owner(&self, hash: &TokenHash, now: DateTime<Utc>) -> Result<Option<OrgTokenOwner>> {
        if let Some(owner) = self.known_org_token(hash, now) {
            return Ok(Some(owner));
        }
        let moment = self.memory.moment();
        let owner: Option<OrgTokenOwner> =
            on_pool!(self.reader(), |p| sqlx::query_as(OWNER).bind(&hash[..]).fetch_optional(p).await)?;
        if let Some(owner) = owner {
            let still_true = || self.memory.is_trusted() && self.memory.moment() == moment;
            self.memory.org_tokens.know(*hash, owner, now, still_true);
        }
        Ok(owner)
    }

    /// As [`Store::org_token_owner`], where it is remembered.
    pub(crate) fn known_org_token(&self, hash: &TokenHash, now: DateTime<Utc>) -> Option<OrgTokenOwner> {
        self.memory.org_tokens.owner(hash, now)
    }

    /// The first characters of a token, live or not.
    pub(crate) async fn org_token_prefix(&self, id: TokenId) -> Result<Option<String>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_scalar(PREFIX).bind(id).fetch_optional(p).await)?)
    }

    /// The live tokens, newest first, at most `limit` of them.
    pub(crate) async fn live_org_tokens(&self, limit: u32) -> Result<Vec<OrgToken>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(LIST_LIVE).bind(i64::from(limit)).fetch_all(p).await)?)
    }

    /// Revokes a live token. False where there is none by that id.
    pub(crate) async fn revoke_org_token(&self, id: TokenId, now: DateTime<Utc>) -> Result<bool> {
        let revoked = on_pool!(self.writer(), |p| sqlx::query(REVOKE)
            .bind(id)
            .bind(now)
            .execute(p)
            .await
            .map(|done| done.rows_affected() == 1))?;
        if revoked {
            self.memory.org_tokens_changed();
        }
        Ok(revoked)
    }

    /// Saves every use that the database has not seen.
    pub(super) async fn save_org_token_uses(&self) -> Result<()> {
        for (id, at) in self.memory.org_tokens.take_uses() {
            on_pool!(self.writer(), |p| sqlx::query(NOTE_USE).bind(id).bind(at).execute(p).await.map(drop))?;
        }
        Ok(())
    }
}
