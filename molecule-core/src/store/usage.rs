//! What workspaces used, by day.

use chrono::{DateTime, Utc};

use super::{
    Store,
    pool::{on_pool, statements},
};
use crate::{a2a::Used, error::Result, id::WorkspaceId};

statements! {
    ADD = "INSERT INTO workspace_token_usage (workspace_id, period_start, input_tokens, output_tokens, call_count) \
           VALUES ($1, $2, $3, $4, 1) ON CONFLICT (workspace_id, period_start) DO UPDATE SET \
           input_tokens = workspace_token_usage.input_tokens + excluded.input_tokens, \
           output_tokens = workspace_token_usage.output_tokens + excluded.output_tokens, \
           call_count = workspace_token_usage.call_count + 1";
    OF_DAY = "SELECT input_tokens, output_tokens, call_count FROM workspace_token_usage \
              WHERE workspace_id = $1 AND period_start = $2";
}

/// Adds what one call used to its day.
macro_rules! add_usage {
    ($connection:expr, $of:expr, $at:expr, $used:expr) => {{
        let used: $crate::a2a::Used = $used;
        sqlx::query($crate::store::usage::ADD)
            .bind($of)
            .bind($crate::a2a::day_of($at))
            .bind(used.input_tokens)
            .bind(used.output_tokens)
            .execute(&mut *$connection)
            .await
    }};
}

pub(super) use add_usage;

impl Store {
    /// Adds what one call used to its day.
    pub(crate) async fn add_usage(&self, of: WorkspaceId, at: DateTime<Utc>, used: Used) -> Result<()> {
        on_pool!(self.writer(), |p| {
            let mut connection = p.acquire().await?;
            add_usage!(connection, of, at, used).map(drop)
        })?;
        Ok(())
    }

    /// Tokens read, tokens written and calls of the day that began then.
    pub(crate) async fn usage(&self, of: WorkspaceId, day: DateTime<Utc>) -> Result<(i64, i64, i64)> {
        let row: Option<(i64, i64, i64)> =
            on_pool!(self.reader(), |p| sqlx::query_as(OF_DAY).bind(of).bind(day).fetch_optional(p).await)?;
        Ok(row.unwrap_or_default())
    }
}
