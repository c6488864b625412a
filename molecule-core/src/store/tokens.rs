//! Workspace tokens: only their hashes are kept.

use chrono::{DateTime, Utc};
use secrecy::SecretString;

use super::{
    Store,
    pool::{in_transaction, on_pool, row, statements},
};
use crate::{
    error::Result,
    id::{AttemptId, TokenId, WorkspaceId},
    identity::NewToken,
    workspace::Status,
};

statements! {
    INSERT = "INSERT INTO workspace_auth_tokens (id, workspace_id, token_hash, prefix, created_at, provision_attempt) \
              VALUES ($1, $2, $3, $4, $5, $6)";
    INSERT_FIRST = "INSERT INTO workspace_auth_tokens (id, workspace_id, token_hash, prefix, created_at, \
                    provision_attempt) SELECT $1, $2, $3, $4, $5, $6 WHERE NOT EXISTS \
                    (SELECT 1 FROM workspace_auth_tokens WHERE workspace_id = $2 AND revoked_at IS NULL)";
    REVOKE_ALL = "UPDATE workspace_auth_tokens SET revoked_at = $2 WHERE workspace_id = $1 AND revoked_at IS NULL";
    OWNER = "SELECT t.id, t.workspace_id, t.provision_attempt FROM workspace_auth_tokens t JOIN workspaces w ON w.id = t.workspace_id \
             WHERE t.token_hash = $1 AND t.revoked_at IS NULL AND w.status <> $2";
    /// Takes the lock of the row, so that what hangs on one workspace is looked at and changed by one at a time.
    LOCK_WORKSPACE = "UPDATE workspaces SET updated_at = updated_at WHERE id = $1 AND status <> $2";
    /// The same, while the try is under way that it is done for; notes that the backend is asked now, unless it was before.
    START_ATTEMPT = "UPDATE workspaces SET provision_asked_at = COALESCE(provision_asked_at, $4), \
                     platform_inbound_secret = $5 WHERE id = $1 AND status = $2 AND provision_attempt = $3";
    COUNT_LIVE = "SELECT COUNT(*) FROM workspace_auth_tokens WHERE workspace_id = $1 AND revoked_at IS NULL";
    LIST_LIVE = "SELECT id, prefix, created_at, last_used_at FROM workspace_auth_tokens \
                 WHERE workspace_id = $1 AND revoked_at IS NULL ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3";
    REVOKE_ONE = "UPDATE workspace_auth_tokens SET revoked_at = $3 \
                  WHERE id = $2 AND workspace_id = $1 AND revoked_at IS NULL";
    HAS_LIVE = "SELECT EXISTS (SELECT 1 FROM workspace_auth_tokens WHERE workspace_id = $1 AND revoked_at IS NULL)";
    ANY_LIVE = "SELECT EXISTS (SELECT 1 FROM workspace_auth_tokens t JOIN workspaces w ON w.id = t.workspace_id \
                WHERE t.revoked_at IS NULL AND w.status <> $1) \
                OR EXISTS (SELECT 1 FROM org_api_tokens WHERE revoked_at IS NULL)";
}

row! {
    /// Whose a valid token is.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct TokenOwner {
        /// The token's own id.
        pub id: TokenId,
        /// The workspace that it speaks for.
        pub workspace_id: WorkspaceId,
        /// The try at bringing the workspace up that it was issued for, if any.
        pub provision_attempt: Option<AttemptId>,
    }
}

row! {
    /// What is known of a live token: everything but its text.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Token {
        /// Its id, by which it is revoked.
        pub id: TokenId,
        /// Its first 8 characters, to tell it from others.
        pub prefix: String,
        /// When it was issued.
        pub created_at: DateTime<Utc>,
        /// When it was presented last, late by at most one [`Config::telemetry_tick`](crate::config::Config).
        pub last_used_at: Option<DateTime<Utc>>,
    }
}

/// What a start is given to prove itself and the platform by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Credentials<'a> {
    /// The agent's token; none for an agent that is given its first when it registers.
    pub(crate) token: Option<&'a NewToken>,
    pub(crate) inbound_secret: &'a SecretString,
    /// The inbound secret as it is kept.
    pub(crate) sealed: &'a str,
}

/// What became of an additional token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    Kept,
    /// The workspace has as many live tokens as it may have.
    Full,
    /// The workspace is unknown or removed.
    NoWorkspace,
}

/// Inserts a token by the named statement, within a transaction. True when it was inserted.
macro_rules! insert_token {
    ($tx:expr, $statement:expr, $token:expr) => {
        sqlx::query($statement)
            .bind($token.id)
            .bind($token.workspace_id)
            .bind(&$token.hash[..])
            .bind(&$token.prefix)
            .bind($token.created_at)
            .bind($token.provision_attempt)
            .execute(&mut *$tx)
            .await
            .map(|done| done.rows_affected() == 1)
    };
}
pub(crate) use insert_token;

/// Inserts a token unless the workspace has a live one, within a transaction that already changed the
/// workspace's row and so holds its lock: two callers never both get one.
macro_rules! insert_first_token {
    ($tx:expr, $token:expr) => {
        $crate::store::tokens::insert_token!($tx, $crate::store::tokens::INSERT_FIRST, $token)
    };
}
pub(crate) use insert_first_token;

impl Store {
    /// Gives the workspace `id` other credentials for what `attempt` starts, in place of those that it has, and notes that
    /// the backend is asked now. False, with nothing changed, where that is not the current try: the credentials are those of
    /// the next.
    pub(crate) async fn renew_credentials(
        &self,
        id: WorkspaceId,
        attempt: AttemptId,
        new: Credentials<'_>,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let renewed = in_transaction!(self.writer(), |tx| {
            let start = sqlx::query(START_ATTEMPT).bind(id).bind(Status::Provisioning).bind(attempt);
            if start.bind(now).bind(new.sealed).execute(&mut *tx).await?.rows_affected() == 0 {
                return Ok(false);
            }
            sqlx::query(REVOKE_ALL).bind(id).bind(now).execute(&mut *tx).await?;
            if let Some(token) = new.token {
                insert_token!(tx, INSERT, token)?;
            }
            Ok(true)
        })?;
        if renewed {
            self.memory.changed(id);
            self.know_inbound_secret(id, new.inbound_secret, new.sealed, now);
        }
        Ok(renewed)
    }

    /// Keeps `token` beside the live ones of its workspace, if there are fewer than `limit` of them.
    pub(crate) async fn add_token(&self, token: &NewToken, limit: u32) -> Result<Added> {
        in_transaction!(self.writer(), |tx| {
            let locked = sqlx::query(LOCK_WORKSPACE).bind(token.workspace_id).bind(Status::Removed);
            if locked.execute(&mut *tx).await?.rows_affected() == 0 {
                return Ok(Added::NoWorkspace);
            }
            let live: i64 = sqlx::query_scalar(COUNT_LIVE).bind(token.workspace_id).fetch_one(&mut *tx).await?;
            if live >= i64::from(limit) {
                return Ok(Added::Full);
            }
            insert_token!(tx, INSERT, token)?;
            Ok(Added::Kept)
        })
    }

    /// The live tokens of `id`, newest first: `limit` of them after the first `offset`.
    pub(crate) async fn live_tokens(&self, id: WorkspaceId, limit: u32, offset: u32) -> Result<Vec<Token>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(LIST_LIVE)
            .bind(id)
            .bind(i64::from(limit))
            .bind(i64::from(offset))
            .fetch_all(p)
            .await)?)
    }

    /// Revokes one live token of `id`. False where it has none by that id.
    pub(crate) async fn revoke_token(&self, id: WorkspaceId, token: TokenId, now: DateTime<Utc>) -> Result<bool> {
        let revoked = on_pool!(self.writer(), |p| sqlx::query(REVOKE_ONE)
            .bind(id)
            .bind(token)
            .bind(now)
            .execute(p)
            .await
            .map(|done| done.rows_affected() == 1))?;
        if revoked {
            self.memory.changed(id);
        }
        Ok(revoked)
    }

    /// Whose the live token with `hash` is; `None` for an unknown or revoked one, or one of a removed workspace.
    ///
    /// Notes that it was used at `now`.
    pub(crate) async fn token_owner(&self, hash: &[u8; 32], now: DateTime<Utc>) -> Result<Option<TokenOwner>> {
        if let Some(owner) = self.known_token(hash, now) {
            return Ok(Some(owner));
        }
        let moment = self.memory.moment();
        let owner: Option<TokenOwner> = on_pool!(self.reader(), |p| sqlx::query_as(OWNER)
            .bind(&hash[..])
            .bind(Status::Removed)
            .fetch_optional(p)
            .await)?;
        if let Some(owner) = owner {
            self.memory.know(*hash, owner, moment, now);
        }
        Ok(owner)
    }

    /// As [`Store::token_owner`], where it is remembered.
    pub(crate) fn known_token(&self, hash: &[u8; 32], now: DateTime<Utc>) -> Option<TokenOwner> {
        self.memory.owner(hash, now)
    }

    /// Whether `id` has a live token.
    pub(crate) async fn has_live_token(&self, id: WorkspaceId) -> Result<bool> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_scalar(HAS_LIVE).bind(id).fetch_one(p).await)?)
    }

    /// Whether there is a live token: of a workspace that is not removed, or of the organisation.
    pub(crate) async fn any_live_token(&self) -> Result<bool> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_scalar(ANY_LIVE).bind(Status::Removed).fetch_one(p).await)?)
    }
}
