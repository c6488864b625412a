//! Values by key. One whose time is over counts as absent, whether or not its row is still there.

use chrono::{DateTime, Utc};
use serde_json::Value as Json;

use super::{
    Store, clean,
    pool::{on_pool, row, statements},
};
use crate::{clock::Entropy, clock::random_uuid, error::Result, id::WorkspaceId};

statements! {
    LIST = "SELECT key, value, version, expires_at, updated_at FROM workspace_memory \
            WHERE workspace_id = $1 AND (expires_at IS NULL OR expires_at > $2) ORDER BY key";
    ONE = "SELECT key, value, version, expires_at, updated_at FROM workspace_memory \
           WHERE workspace_id = $1 AND key = $2 AND (expires_at IS NULL OR expires_at > $3)";
    SET = "INSERT INTO workspace_memory (id, workspace_id, key, value, version, expires_at, updated_at) \
           VALUES ($1, $2, $3, $4, 1, $5, $6) ON CONFLICT (workspace_id, key) DO UPDATE SET value = excluded.value, \
               expires_at = excluded.expires_at, updated_at = excluded.updated_at, \
               version = CASE WHEN workspace_memory.expires_at <= excluded.updated_at THEN 1 \
                              ELSE workspace_memory.version + 1 END \
           RETURNING version";
    CREATE = "INSERT INTO workspace_memory (id, workspace_id, key, value, version, expires_at, updated_at) \
              VALUES ($1, $2, $3, $4, 1, $5, $6) ON CONFLICT (workspace_id, key) DO UPDATE SET value = excluded.value, \
                  expires_at = excluded.expires_at, updated_at = excluded.updated_at, version = 1 \
              WHERE workspace_memory.expires_at <= excluded.updated_at RETURNING version";
    REPLACE = "UPDATE workspace_memory SET value = $4, expires_at = $5, updated_at = $6, version = version + 1 \
               WHERE workspace_id = $1 AND key = $2 AND version = $3 AND (expires_at IS NULL OR expires_at > $6) \
               RETURNING version";
    DELETE = "DELETE FROM workspace_memory WHERE workspace_id = $1 AND key = $2";
    PURGE = "DELETE FROM workspace_memory WHERE expires_at <= $1";
}

row! {
    /// A value that an agent keeps under a key.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Value {
        /// Its key.
        pub key: String,
        /// Itself.
        pub value: Json,
        /// How often it was written since it is there.
        pub version: i64,
        /// When it is gone, if ever.
        pub expires_at: Option<DateTime<Utc>>,
        /// When it was written last.
        pub updated_at: DateTime<Utc>,
    }
}

/// A value to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewValue<'a> {
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) key: &'a str,
    pub(crate) value: &'a Json,
    pub(crate) expires_at: Option<DateTime<Utc>>,
    pub(crate) now: DateTime<Utc>,
}

impl Store {
    /// The live values of `id`, by key.
    pub(crate) async fn values(&self, id: WorkspaceId, now: DateTime<Utc>) -> Result<Vec<Value>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(LIST).bind(id).bind(now).fetch_all(p).await)?)
    }

    /// The live value of `id` under `key`.
    pub(crate) async fn value(&self, id: WorkspaceId, key: &str, now: DateTime<Utc>) -> Result<Option<Value>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(ONE)
            .bind(id)
            .bind(clean::text(key))
            .bind(now)
            .fetch_optional(p)
            .await)?)
    }

    /// Writes a value whatever was there, and gives its version.
    pub(crate) async fn set_value(&self, new: &NewValue<'_>, entropy: &dyn Entropy) -> Result<i64> {
        Ok(on_pool!(self.writer(), |p| sqlx::query_scalar(SET)
            .bind(random_uuid(entropy))
            .bind(new.workspace_id)
            .bind(clean::text(new.key))
            .bind(clean::json(new.value))
            .bind(new.expires_at)
            .bind(new.now)
            .fetch_one(p)
            .await)?)
    }

    /// Writes a value where none is, and gives its version; `None` where one is.
    pub(crate) async fn create_value(&self, new: &NewValue<'_>, entropy: &dyn Entropy) -> Result<Option<i64>> {
        Ok(on_pool!(self.writer(), |p| sqlx::query_scalar(CREATE)
            .bind(random_uuid(entropy))
            .bind(new.workspace_id)
            .bind(clean::text(new.key))
            .bind(clean::json(new.value))
            .bind(new.expires_at)
            .bind(new.now)
            .fetch_optional(p)
            .await)?)
    }

    /// Writes a value over the one of version `expected`, and gives the new version; `None` where another is there.
    pub(crate) async fn replace_value(&self, new: &NewValue<'_>, expected: i64) -> Result<Option<i64>> {
        Ok(on_pool!(self.writer(), |p| sqlx::query_scalar(REPLACE)
            .bind(new.workspace_id)
            .bind(clean::text(new.key))
            .bind(expected)
            .bind(clean::json(new.value))
            .bind(new.expires_at)
            .bind(new.now)
            .fetch_optional(p)
            .await)?)
    }

    /// Deletes the value under `key`, if any.
    pub(crate) async fn delete_value(&self, id: WorkspaceId, key: &str) -> Result<()> {
        on_pool!(self.writer(), |p| sqlx::query(DELETE).bind(id).bind(clean::text(key)).execute(p).await.map(drop))?;
        Ok(())
    }

    /// Deletes the rows of values whose time is over.
    pub(crate) async fn purge_values(&self, now: DateTime<Utc>) -> Result<u64> {
        Ok(on_pool!(self.writer(), |p| sqlx::query(PURGE).bind(now).execute(p).await.map(|done| done.rows_affected()))?)
    }
}
