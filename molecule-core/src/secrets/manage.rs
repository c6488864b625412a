//! List, set, delete and hand out secrets.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};

use super::{check_key, check_value};
use crate::{
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    id::WorkspaceId,
    store::{NewSecret, Secret},
    workspace::lifecycle::{gone_is_not_found, said},
};

/// Who is given a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every workspace that has none of its own by that name.
    Global,
    /// One workspace.
    Workspace,
}

impl Scope {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Workspace => "workspace",
        }
    }
}

/// What may be shown of a secret: everything but its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretInfo {
    /// Its name.
    pub key: String,
    /// Who is given it.
    pub scope: Scope,
    /// When it was set first.
    pub created_at: DateTime<Utc>,
    /// When its value changed last.
    pub updated_at: DateTime<Utc>,
}

impl SecretInfo {
    fn of(secret: Secret, scope: Scope) -> Self {
        Self { key: secret.key, scope, created_at: secret.created_at, updated_at: secret.updated_at }
    }
}

impl ControlPlane {
    /// The secrets that a workspace is given: its own by name, then the global ones that it has no own for.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace.
    pub async fn secrets(&self, id: WorkspaceId) -> Result<Vec<SecretInfo>> {
        self.existing(id).await.map_err(gone_is_not_found)?;
        let own = self.inner.store.workspace_secrets(id).await?;
        let names: BTreeSet<String> = own.iter().map(|secret| secret.key.clone()).collect();
        let global = self.inner.store.global_secrets().await?.into_iter().filter(|secret| !names.contains(&secret.key));
        let own = own.into_iter().map(|secret| SecretInfo::of(secret, Scope::Workspace));
        Ok(own.chain(global.map(|secret| SecretInfo::of(secret, Scope::Global))).collect())
    }

    /// The secrets of every workspace, by name.
    pub async fn global_secrets(&self) -> Result<Vec<SecretInfo>> {
        let secrets = self.inner.store.global_secrets().await?;
        Ok(secrets.into_iter().map(|secret| SecretInfo::of(secret, Scope::Global)).collect())
    }

    /// Keeps a secret of one workspace, in place of an earlier value, and begins to bring the workspace up anew. A value
    /// that is kept already changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for what is no name or no value of a secret, [`ErrorKind::NotFound`] for an unknown
    /// or removed workspace.
    pub async fn set_secret(&self, id: WorkspaceId, key: &str, value: &SecretString) -> Result<()> {
        self.existing(id).await.map_err(gone_is_not_found)?;
        let secret = self.new_secret(key, value)?;
        let before = self.inner.store.workspace_secret(id, key).await;
        let before = before.map_err(|error| said(error, "failed to save secret"))?;
        if let Some(since) = self.kept_since(before.as_ref(), &secret, value) {
            self.roll_out_late(vec![id], since);
            return Ok(());
        }
        let kept = self.inner.store.set_workspace_secret(id, &secret, self.now()).await;
        kept.map_err(|error| said(error, "failed to save secret"))?;
        self.roll_out(vec![id]);
        Ok(())
    }

    /// Deletes a secret of one workspace, and begins to bring the workspace up anew.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is none by that name, so also on repeat.
    pub async fn delete_secret(&self, id: WorkspaceId, key: &str) -> Result<()> {
        self.existing(id).await.map_err(gone_is_not_found)?;
        let deleted = self.inner.store.delete_workspace_secret(id, key).await;
        if !deleted.map_err(|error| said(error, "failed to delete secret"))? {
            return Err(Error::not_found("secret not found").context("workspace.id", id));
        }
        self.roll_out(vec![id]);
        Ok(())
    }

    /// Keeps a secret of every workspace, and begins to bring up anew, a few at a time, those that are given it. A value
    /// that is kept already changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for what is no name or no value of a secret.
    pub async fn set_global_secret(&self, key: &str, value: &SecretString) -> Result<()> {
        let secret = self.new_secret(key, value)?;
        let before = self.inner.store.global_secrets().await;
        let before =
            before.map_err(|error| said(error, "failed to save secret"))?.into_iter().find(|one| one.key == key);
        if let Some(since) = self.kept_since(before.as_ref(), &secret, value) {
            self.roll_out_late(self.inner.store.workspaces_without_secret(key).await?, since);
            return Ok(());
        }
        let kept = self.inner.store.set_global_secret(&secret, self.now()).await;
        kept.map_err(|error| said(error, "failed to save secret"))?;
        self.roll_out_globally(key).await
    }

    /// Deletes a secret of every workspace, and begins to bring up anew, a few at a time, those that were given it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is none by that name, so also on repeat.
    pub async fn delete_global_secret(&self, key: &str) -> Result<()> {
        let deleted = self.inner.store.delete_global_secret(key).await;
        if !deleted.map_err(|error| said(error, "failed to delete secret"))? {
            return Err(Error::not_found("secret not found"));
        }
        self.roll_out_globally(key).await
    }

    /// The values that a workspace is given, its own before global ones: all of them, or none.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace; [`ErrorKind::Unexpected`] with `failed_keys` where
    /// any does not decrypt.
    pub async fn secret_values(&self, id: WorkspaceId) -> Result<BTreeMap<String, SecretString>> {
        self.existing(id).await.map_err(gone_is_not_found)?;
        let (values, failed) = self.open_secrets(id).await?;
        if failed.is_empty() {
            return Ok(values);
        }
        let failed: Vec<String> = failed.iter().map(|(scope, key)| format!("{}:{key}", scope.as_str())).collect();
        Err(Error::new(ErrorKind::Unexpected, "failed to decrypt some secrets").with_member("failed_keys", failed))
    }

    /// The values that a workspace is given, and the secrets that do not decrypt.
    pub(crate) async fn open_secrets(
        &self,
        id: WorkspaceId,
    ) -> Result<(BTreeMap<String, SecretString>, Vec<(Scope, String)>)> {
        let mut failed = Vec::new();
        let mut values = BTreeMap::new();
        let global = self.inner.store.global_secrets().await?.into_iter().map(|secret| (Scope::Global, secret));
        let own = self.inner.store.workspace_secrets(id).await?.into_iter().map(|secret| (Scope::Workspace, secret));
        for (scope, secret) in global.chain(own) {
            match self.inner.cipher.open(&secret.sealed) {
                Ok(value) => drop(values.insert(secret.key, value)),
                Err(error) => {
                    let (of, key) = (scope.as_str(), &secret.key);
                    tracing::error!(workspace.id = %id, scope = of, key, error = error.detail(), "a secret is unreadable");
                    failed.push((scope, secret.key));
                }
            }
        }
        Ok((values, failed))
    }

    /// Since when the secret `before` has this value, under the same key as `new`; `None` where it does not.
    pub(super) fn kept_since(
        &self,
        before: Option<&Secret>,
        new: &NewSecret,
        value: &SecretString,
    ) -> Option<DateTime<Utc>> {
        let before = before.filter(|before| before.sealed.key_id == new.sealed.key_id)?;
        let opened = self.inner.cipher.open(&before.sealed).ok()?;
        (opened.expose_secret() == value.expose_secret()).then_some(before.updated_at)
    }

    /// A secret in the form in which it is kept.
    pub(crate) fn new_secret(&self, key: &str, value: &SecretString) -> Result<NewSecret> {
        check_key(key)?;
        check_value(key, value.expose_secret())?;
        let sealed = self.inner.cipher.seal(value, &*self.inner.entropy);
        let sealed = sealed.map_err(|error| {
            let text = format!("failed to encrypt secret: {key}");
            Error::new(ErrorKind::Unexpected, text).caused_by(error)
        })?;
        Ok(NewSecret { key: key.to_owned(), sealed })
    }
}
