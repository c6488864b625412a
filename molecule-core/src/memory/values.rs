//! Values by key, with versions and an end.

use chrono::TimeDelta;
use serde_json::Value as Json;

use super::Value;
use crate::{
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    id::WorkspaceId,
    store::NewValue,
    workspace::lifecycle::{gone_is_not_found, said},
};

/// The longest key, in bytes: what an index of both databases takes.
const KEY_LIMIT: usize = 1024;

/// The longest life of a value, in seconds: a hundred years.
const LIFE_LIMIT: i64 = 100 * 365 * 24 * 60 * 60;

/// A value to be written.
#[derive(Debug, Clone, Default)]
pub struct SetValue {
    /// Under which key.
    pub key: String,
    /// The value.
    pub value: Json,
    /// How long it lasts, in seconds; for ever otherwise.
    pub ttl_seconds: Option<i64>,
    /// Writes only over this version; 0 where none may be there.
    pub if_match_version: Option<i64>,
}

impl ControlPlane {
    /// The values of a workspace, by key.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace.
    pub async fn values(&self, id: WorkspaceId) -> Result<Vec<Value>> {
        self.existing(id).await.map_err(gone_is_not_found)?;
        self.inner.store.values(id, self.now()).await
    }

    /// The value of a workspace under `key`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is none, or its time is over.
    pub async fn value(&self, id: WorkspaceId, key: &str) -> Result<Value> {
        let found = self.inner.store.value(id, key, self.now()).await?;
        found.ok_or_else(|| Error::not_found("key not found").context("workspace.id", id))
    }

    /// Writes a value and gives its version.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a broken rule; [`ErrorKind::NotFound`] for an unknown or removed workspace;
    /// [`ErrorKind::Conflict`] where the version is another than the caller expects.
    pub async fn set_value(&self, id: WorkspaceId, set: &SetValue) -> Result<i64> {
        if set.key.is_empty() {
            return Err(Error::invalid("key is required"));
        }
        if set.key.len() > KEY_LIMIT {
            return Err(Error::invalid(format!("key must be <= {KEY_LIMIT} bytes")));
        }
        let now = self.now();
        let expires_at = match set.ttl_seconds {
            None => None,
            Some(seconds @ 1..=LIFE_LIMIT) => Some(now + TimeDelta::seconds(seconds)),
            Some(_) => return Err(Error::invalid(format!("ttl_seconds must be between 1 and {LIFE_LIMIT}"))),
        };
        self.existing(id).await.map_err(gone_is_not_found)?;
        let new = NewValue { workspace_id: id, key: &set.key, value: &set.value, expires_at, now };
        let (store, entropy) = (&self.inner.store, &*self.inner.entropy);
        let written = match set.if_match_version {
            None => store.set_value(&new, entropy).await.map(Some),
            Some(0) => store.create_value(&new, entropy).await,
            Some(expected) => store.replace_value(&new, expected).await,
        };
        match (written.map_err(|error| said(error, "failed to set memory"))?, set.if_match_version) {
            (Some(version), _) => Ok(version),
            (None, expected) => Err(self.mismatch(&new, expected.unwrap_or_default()).await?),
        }
    }

    async fn mismatch(&self, new: &NewValue<'_>, expected: i64) -> Result<Error> {
        let current = self.inner.store.value(new.workspace_id, new.key, new.now).await;
        let current = current.map_err(|error| said(error, "failed to probe current version"))?;
        let message = match current {
            Some(_) => "if_match_version mismatch",
            None => "if_match_version mismatch: key does not exist",
        };
        Ok(Error::new(ErrorKind::Conflict, message)
            .with_member("expected_version", expected)
            .with_member("current_version", current.map(|value| value.version)))
    }

    /// Deletes the value under `key`. Where there is none nothing happens.
    pub async fn delete_value(&self, id: WorkspaceId, key: &str) -> Result<()> {
        self.inner.store.delete_value(id, key).await.map_err(|error| said(error, "failed to delete"))
    }

    /// Deletes what nobody sees any more: values whose time is over.
    pub(crate) async fn purge_values(&self) -> Result<()> {
        let purged = self.inner.store.purge_values(self.now()).await?;
        if purged > 0 {
            tracing::debug!(values.purged = purged, "values whose time is over were deleted");
        }
        Ok(())
    }
}
