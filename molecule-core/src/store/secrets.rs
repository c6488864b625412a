//! Secrets, as they are kept.

use chrono::{DateTime, Utc};

use super::{
    Store,
    pool::{in_transaction, on_pool, statements},
    tokens::LOCK_WORKSPACE,
};
use crate::{
    error::Result,
    id::WorkspaceId,
    secrets::Sealed,
    workspace::{EXTERNAL_RUNTIME, Status},
};

statements! {
    LIST_OF = "SELECT key, encrypted_value, encryption_version, key_id, created_at, updated_at FROM workspace_secrets \
               WHERE workspace_id = $1 ORDER BY key";
    ONE_OF = "SELECT key, encrypted_value, encryption_version, key_id, created_at, updated_at FROM workspace_secrets \
              WHERE workspace_id = $1 AND key = $2";
    LIST_GLOBAL = "SELECT key, encrypted_value, encryption_version, key_id, created_at, updated_at FROM global_secrets \
                   ORDER BY key";
    SET_OF = "INSERT INTO workspace_secrets (workspace_id, key, encrypted_value, encryption_version, key_id, \
              created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $6) \
              ON CONFLICT (workspace_id, key) DO UPDATE SET encrypted_value = excluded.encrypted_value, \
              encryption_version = excluded.encryption_version, key_id = excluded.key_id, \
              updated_at = excluded.updated_at";
    SET_GLOBAL = "INSERT INTO global_secrets (key, encrypted_value, encryption_version, key_id, created_at, updated_at) \
                  VALUES ($1, $2, $3, $4, $5, $5) \
                  ON CONFLICT (key) DO UPDATE SET encrypted_value = excluded.encrypted_value, \
                  encryption_version = excluded.encryption_version, key_id = excluded.key_id, \
                  updated_at = excluded.updated_at";
    DELETE_OF = "DELETE FROM workspace_secrets WHERE workspace_id = $1 AND key = $2";
    DELETE_GLOBAL = "DELETE FROM global_secrets WHERE key = $1";
    OTHERS_OF = "SELECT workspace_id, key, encrypted_value, encryption_version, key_id, created_at, updated_at \
                 FROM workspace_secrets WHERE key_id IS DISTINCT FROM $1 ORDER BY workspace_id, key";
    OTHERS_GLOBAL = "SELECT key, encrypted_value, encryption_version, key_id, created_at, updated_at \
                     FROM global_secrets WHERE key_id IS DISTINCT FROM $1 ORDER BY key";
    RESEAL_OF = "UPDATE workspace_secrets SET encrypted_value = $4, encryption_version = $5, key_id = $6 \
                 WHERE workspace_id = $1 AND key = $2 AND encrypted_value = $3";
    RESEAL_GLOBAL = "UPDATE global_secrets SET encrypted_value = $3, encryption_version = $4, key_id = $5 \
                     WHERE key = $1 AND encrypted_value = $2";
    WITHOUT = "SELECT w.id FROM workspaces w WHERE w.status <> $2 AND w.runtime <> $3 AND NOT EXISTS \
               (SELECT 1 FROM workspace_secrets s WHERE s.workspace_id = w.id AND s.key = $1) \
               ORDER BY w.created_at, w.id";
}

/// A secret as it is kept.
#[derive(Debug, Clone)]
pub(crate) struct Secret {
    pub(crate) key: String,
    pub(crate) sealed: Sealed,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

impl<'r, R> sqlx::FromRow<'r, R> for Secret
where
    R: sqlx::Row,
    &'static str: sqlx::ColumnIndex<R>,
    Sealed: sqlx::FromRow<'r, R>,
    String: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    DateTime<Utc>: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            key: row.try_get("key")?,
            sealed: Sealed::from_row(row)?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
        })
    }
}

/// A secret as it is kept, and whose it is; nobody's for a global one.
#[derive(Debug, Clone)]
pub(crate) struct KeptSecret {
    pub(crate) workspace_id: Option<WorkspaceId>,
    pub(crate) secret: Secret,
}

impl<'r, R> sqlx::FromRow<'r, R> for KeptSecret
where
    R: sqlx::Row,
    &'static str: sqlx::ColumnIndex<R>,
    Secret: sqlx::FromRow<'r, R>,
    WorkspaceId: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self { workspace_id: Some(row.try_get("workspace_id")?), secret: Secret::from_row(row)? })
    }
}

/// A secret that is to be kept.
#[derive(Debug, Clone)]
pub(crate) struct NewSecret {
    pub(crate) key: String,
    pub(crate) sealed: Sealed,
}

/// What becomes of the secrets of one workspace.
#[derive(Debug)]
pub(crate) struct SecretChange {
    pub(crate) kept: Vec<NewSecret>,
    pub(crate) gone: Vec<&'static str>,
}

/// Binds a secret of one workspace to the statement that keeps it, on a connection or within a transaction.
macro_rules! set_workspace_secret {
    ($on:expr, $id:expr, $secret:expr, $now:expr) => {
        sqlx::query($crate::store::secrets::SET_OF)
            .bind($id)
            .bind(&$secret.key)
            .bind(&$secret.sealed.encrypted_value)
            .bind($secret.sealed.encryption_version)
            .bind(&$secret.sealed.key_id)
            .bind($now)
            .execute($on)
            .await
    };
}
pub(crate) use set_workspace_secret;

impl Store {
    /// The secrets of one workspace, by name.
    pub(crate) async fn workspace_secrets(&self, id: WorkspaceId) -> Result<Vec<Secret>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(LIST_OF).bind(id).fetch_all(p).await)?)
    }

    /// One secret of one workspace.
    pub(crate) async fn workspace_secret(&self, id: WorkspaceId, key: &str) -> Result<Option<Secret>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(ONE_OF).bind(id).bind(key).fetch_optional(p).await)?)
    }

    /// The secrets of every workspace, by name.
    pub(crate) async fn global_secrets(&self) -> Result<Vec<Secret>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(LIST_GLOBAL).fetch_all(p).await)?)
    }

    /// Keeps a secret of one workspace, which must exist, in place of an earlier value.
    pub(crate) async fn set_workspace_secret(
        &self,
        id: WorkspaceId,
        secret: &NewSecret,
        now: DateTime<Utc>,
    ) -> Result<()> {
        on_pool!(self.writer(), |p| set_workspace_secret!(p, id, secret, now).map(drop))?;
        Ok(())
    }

    /// Keeps a secret of every workspace, in place of an earlier value.
    pub(crate) async fn set_global_secret(&self, secret: &NewSecret, now: DateTime<Utc>) -> Result<()> {
        on_pool!(self.writer(), |p| sqlx::query(SET_GLOBAL)
            .bind(&secret.key)
            .bind(&secret.sealed.encrypted_value)
            .bind(secret.sealed.encryption_version)
            .bind(&secret.sealed.key_id)
            .bind(now)
            .execute(p)
            .await
            .map(drop))?;
        Ok(())
    }

    /// Changes secrets of one workspace as `decide` finds them, all of it or nothing; no other call of this kind comes between.
    /// False where it finds nothing to change, or the workspace is gone.
    pub(crate) async fn change_workspace_secrets(
        &self,
        id: WorkspaceId,
        now: DateTime<Utc>,
        decide: impl FnOnce(&[Secret]) -> Result<Option<SecretChange>>,
    ) -> Result<bool> {
        in_transaction!(self.writer(), |tx| {
            let lock = sqlx::query(LOCK_WORKSPACE).bind(id).bind(Status::Removed);
            if lock.execute(&mut *tx).await?.rows_affected() == 0 {
                return Ok(false);
            }
            let found: Vec<Secret> = sqlx::query_as(LIST_OF).bind(id).fetch_all(&mut *tx).await?;
            let Some(SecretChange { kept, gone }) = decide(&found)? else { return Ok(false) };
            for secret in &kept {
                set_workspace_secret!(&mut *tx, id, secret, now)?;
            }
            for key in gone {
                sqlx::query(DELETE_OF).bind(id).bind(key).execute(&mut *tx).await?;
            }
            Ok(true)
        })
    }

    /// False where the workspace has none by that name.
    pub(crate) async fn delete_workspace_secret(&self, id: WorkspaceId, key: &str) -> Result<bool> {
        Ok(on_pool!(self.writer(), |p| sqlx::query(DELETE_OF)
            .bind(id)
            .bind(key)
            .execute(p)
            .await
            .map(|done| done.rows_affected() == 1))?)
    }

    /// False where there is none by that name.
    pub(crate) async fn delete_global_secret(&self, key: &str) -> Result<bool> {
        Ok(on_pool!(self.writer(), |p| sqlx::query(DELETE_GLOBAL)
            .bind(key)
            .execute(p)
            .await
            .map(|done| done.rows_affected() == 1))?)
    }

    /// Every secret that is not kept under the key, global ones last.
    pub(crate) async fn secrets_under_other_keys(&self, key_id: &str) -> Result<Vec<KeptSecret>> {
        let mut kept: Vec<KeptSecret> =
            on_pool!(self.reader(), |p| sqlx::query_as(OTHERS_OF).bind(key_id).fetch_all(p).await)?;
        let global: Vec<Secret> =
            on_pool!(self.reader(), |p| sqlx::query_as(OTHERS_GLOBAL).bind(key_id).fetch_all(p).await)?;
        kept.extend(global.into_iter().map(|secret| KeptSecret { workspace_id: None, secret }));
        Ok(kept)
    }

    /// Keeps the same value in another form. False where it is no longer kept as `before`.
    pub(crate) async fn reseal(&self, of: Option<WorkspaceId>, before: &Sealed, new: &NewSecret) -> Result<bool> {
        let (key, sealed) = (&new.key, &new.sealed);
        let done = match of {
            Some(id) => on_pool!(self.writer(), |p| sqlx::query(RESEAL_OF)
                .bind(id)
                .bind(key)
                .bind(&before.encrypted_value)
                .bind(&sealed.encrypted_value)
                .bind(sealed.encryption_version)
                .bind(&sealed.key_id)
                .execute(p)
                .await
                .map(|done| done.rows_affected()))?,
            None => on_pool!(self.writer(), |p| sqlx::query(RESEAL_GLOBAL)
                .bind(key)
                .bind(&before.encrypted_value)
                .bind(&sealed.encrypted_value)
                .bind(sealed.encryption_version)
                .bind(&sealed.key_id)
                .execute(p)
                .await
                .map(|done| done.rows_affected()))?,
        };
        Ok(done == 1)
    }

    /// The managed workspaces that are not removed and have no secret of their own by that name, oldest first.
    pub(crate) async fn workspaces_without_secret(&self, key: &str) -> Result<Vec<WorkspaceId>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_scalar(WITHOUT)
            .bind(key)
            .bind(Status::Removed)
            .bind(EXTERNAL_RUNTIME)
            .fetch_all(p)
            .await)?)
    }
}
