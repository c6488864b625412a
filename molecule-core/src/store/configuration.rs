//! How workspaces are set up: one JSON object each.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::{
    Store, clean,
    pool::{in_transaction, on_pool, statements},
};
use crate::{error::Result, id::WorkspaceId};

statements! {
    READ = "SELECT data FROM workspace_config WHERE workspace_id = $1";
    /// Makes the row where there is none, and takes its lock.
    LOCK = "INSERT INTO workspace_config (workspace_id, data, updated_at) VALUES ($1, $2, $3) \
            ON CONFLICT (workspace_id) DO UPDATE SET updated_at = excluded.updated_at RETURNING data";
    WRITE = "UPDATE workspace_config SET data = $2 WHERE workspace_id = $1";
}

impl Store {
    /// How `id` is set up, where it is.
    pub(crate) async fn configuration(&self, id: WorkspaceId) -> Result<Option<Value>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_scalar(READ).bind(id).fetch_optional(p).await)?)
    }

    /// Sets the members of `patch`, and leaves the others as they are. Of patches at once none is lost.
    pub(crate) async fn patch_configuration(
        &self,
        id: WorkspaceId,
        patch: &Map<String, Value>,
        now: DateTime<Utc>,
    ) -> Result<()> {
        in_transaction!(self.writer(), |tx| {
            let empty = Value::Object(Map::new());
            let lock = sqlx::query_scalar(LOCK).bind(id).bind(empty).bind(now);
            let mut data: Value = lock.fetch_one(&mut *tx).await?;
            if !data.is_object() {
                data = Value::Object(Map::new());
            }
            let Value::Object(patch) = clean::json(&Value::Object(patch.clone())) else { return Ok(()) };
            for (name, value) in patch {
                data[name] = value;
            }
            sqlx::query(WRITE).bind(id).bind(data).execute(&mut *tx).await?;
            Ok(())
        })
    }
}
