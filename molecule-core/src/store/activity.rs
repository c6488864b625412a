//! The activity log. The rows of a workspace have times that only grow, in the order in which they appear.

use std::{collections::BTreeSet, sync::LazyLock};

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{
    Store, clean,
    pool::{in_transaction, on_pool, statements},
    usage::add_usage,
    workspaces::TOUCH_OUTBOUND,
};
use crate::{
    a2a::Note,
    activity::{Activity, Found, NewActivity, Page, Source},
    error::{Error, Result},
    id::{ActivityId, WorkspaceId},
};

/// Whether a column holds what is looked for, as one more way to be found.
macro_rules! holds {
    ($column:literal) => {
        concat!(" OR LOWER(", $column, ") LIKE '%' || LOWER($2) || '%' ESCAPE '\\'")
    };
}

statements! {
    /// Takes the next time of a workspace, and holds back whoever comes next until this transaction is over.
    TICK = "INSERT INTO activity_clocks (workspace_id, newest) VALUES ($1, $2) \
            ON CONFLICT (workspace_id) DO UPDATE SET newest = \
            CASE WHEN activity_clocks.newest >= excluded.newest THEN activity_clocks.newest + 1 \
            ELSE excluded.newest END RETURNING newest";
    INSERT = "INSERT INTO activity_logs (id, workspace_id, activity_type, source_id, target_id, method, summary, \
              request_body, response_body, tool_trace, duration_ms, status, error_detail, delegation_id, \
              idempotency_key, created_at) \
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";
    MESSAGES_FROM = "SELECT request_body FROM activity_logs WHERE workspace_id = $1 AND source_id IS NOT DISTINCT FROM $2 \
                     AND activity_type = 'a2a_receive' AND created_at >= $3 AND response_body IS NULL \
                     ORDER BY created_at DESC LIMIT 200";
    TIME_OF = "SELECT created_at FROM activity_logs WHERE id = $1 AND workspace_id = $2";
    PRUNE = "DELETE FROM activity_logs WHERE id IN \
             (SELECT id FROM activity_logs WHERE created_at < $1 ORDER BY created_at LIMIT $2)";
    SEARCH = concat!(
        "SELECT kind, id, label, content, method, status, created_at, request_body, response_body FROM (\
         SELECT 'activity' AS kind, id, activity_type AS label, COALESCE(summary, '') AS content, \
         COALESCE(method, '') AS method, status, created_at, request_body, response_body FROM activity_logs \
         WHERE workspace_id = $1 AND ($2 = ''",
        holds!("COALESCE(summary, '')"), holds!("activity_type"), holds!("COALESCE(method, '')"), holds!("status"),
        holds!("COALESCE(CAST(request_body AS TEXT), '')"), holds!("COALESCE(CAST(response_body AS TEXT), '')"),
        ") UNION ALL SELECT 'memory' AS kind, id, scope AS label, content, '' AS method, '' AS status, created_at, \
         CAST(NULL AS JSONB) AS request_body, CAST(NULL AS JSONB) AS response_body FROM agent_memories \
         WHERE workspace_id = $1 AND ($2 = ''",
        holds!("content"), holds!("scope"),
        ")) AS found ORDER BY created_at DESC, id DESC LIMIT $3",
    );
}

const COLUMNS: &str = "id, workspace_id, activity_type, source_id, target_id, method, summary, request_body, \
                       response_body, tool_trace, duration_ms, status, error_detail, delegation_id, created_at";

/// Which statement reads a page: each way to filter has its own, so that each is read from an index of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    of_type: bool,
    source: Option<Source>,
    with_peer: bool,
    oldest_first: bool,
}

const SOURCES: [Option<Source>; 3] = [None, Some(Source::Canvas), Some(Source::Agent)];

impl Shape {
    /// Every shape, at the place that [`Shape::place`] gives it.
    fn all() -> impl Iterator<Item = Self> {
        (0..SOURCES.len() * 8).map(|n| Self {
            of_type: n & 1 != 0,
            with_peer: n & 2 != 0,
            oldest_first: n & 4 != 0,
            source: SOURCES[n / 8],
        })
    }

    fn place(self) -> usize {
        let source = SOURCES.iter().position(|source| *source == self.source).unwrap_or_default();
        usize::from(self.of_type) + 2 * usize::from(self.with_peer) + 4 * usize::from(self.oldest_first) + 8 * source
    }

    fn sql(self) -> String {
        let order = if self.oldest_first { "created_at, id" } else { "created_at DESC, id DESC" };
        let page = |filters: &[&str]| {
            format!(
                "SELECT {COLUMNS} FROM activity_logs WHERE workspace_id = $1 AND (created_at, id) > ($2, $3) \
                 AND created_at < $4{}{} ORDER BY {order} LIMIT $5",
                if self.of_type { " AND activity_type = $6" } else { "" },
                filters.concat(),
            )
        };
        let of_source = match self.source {
            None => "",
            Some(Source::Canvas) => " AND source_id IS NULL",
            Some(Source::Agent) => " AND source_id IS NOT NULL",
        };
        if !self.with_peer {
            return page(&[of_source]);
        }
        let peer = if self.of_type { "$7" } else { "$6" };
        let to_peer = format!(" AND target_id = {peer}");
        if self.source == Some(Source::Canvas) {
            return page(&[&to_peer, of_source]);
        }
        // An OR would be read from no index in the order of the page.
        let sent = page(&[&format!(" AND source_id = {peer}")]);
        let received = page(&[&to_peer, of_source, &format!(" AND source_id IS DISTINCT FROM {peer}")]);
        format!(
            "SELECT {COLUMNS} FROM (SELECT * FROM ({sent}) AS sent UNION ALL SELECT * FROM ({received}) AS received) \
             AS page ORDER BY {order} LIMIT $5"
        )
    }
}

static PAGES: LazyLock<Vec<String>> = LazyLock::new(|| Shape::all().map(Shape::sql).collect());

/// The statement of every shape of page, with a name for each.
pub(super) fn pages() -> impl Iterator<Item = (String, &'static str)> {
    Shape::all().map(|shape| (format!("{shape:?}"), PAGES[shape.place()].as_str()))
}

/// Writes a row within a transaction, and gives the time that it was given.
macro_rules! insert_activity {
    ($tx:expr, $new:expr) => {
        async {
            let new: &$crate::activity::NewActivity = $new;
            let text =
                |text: &Option<String>| text.as_deref().map(|text| $crate::store::clean::text(text).into_owned());
            let newest: i64 = sqlx::query_scalar($crate::store::activity::TICK)
                .bind(new.workspace_id)
                .bind(new.at.timestamp_micros())
                .fetch_one(&mut *$tx)
                .await?;
            let at = chrono::DateTime::from_timestamp_micros(newest).unwrap_or(new.at);
            sqlx::query($crate::store::activity::INSERT)
                .bind(new.id)
                .bind(new.workspace_id)
                .bind($crate::store::clean::text(&new.activity_type).into_owned())
                .bind(new.source_id)
                .bind(new.target_id)
                .bind(text(&new.method))
                .bind(text(&new.summary))
                .bind(new.request_body.as_ref().map($crate::store::clean::json))
                .bind(new.response_body.as_ref().map($crate::store::clean::json))
                .bind(new.tool_trace.as_ref().map($crate::store::clean::json))
                .bind(new.duration_ms)
                .bind($crate::store::clean::text(&new.status).into_owned())
                .bind(text(&new.error_detail))
                .bind(text(&new.delegation_id))
                .bind(text(&new.idempotency_key))
                .bind(at)
                .execute(&mut *$tx)
                .await
                .map(|_| at)
        }
        .await
    };
}

pub(super) use insert_activity;

impl Store {
    /// Writes a row, and gives the time that it was given.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::ErrorKind::NotFound) where there is no such workspace.
    pub(crate) async fn insert_activity(&self, new: &NewActivity) -> Result<DateTime<Utc>> {
        in_transaction!(self.writer(), |tx| { insert_activity!(tx, new).map_err(no_workspace) })
    }

    /// Writes what was noted of calls: all of it or nothing.
    ///
    /// # Errors
    /// As [`Store::insert_activity`].
    pub(crate) async fn insert_notes(&self, notes: &[Note], now: DateTime<Utc>) -> Result<()> {
        let mut in_order: Vec<&Note> = notes.iter().collect();
        // Servers that write at once take what they both need in one order, so that neither holds up the other for good.
        in_order.sort_by_key(|note| note.row.workspace_id);
        let senders: BTreeSet<_> = notes.iter().filter_map(|note| note.sender).collect();
        in_transaction!(self.writer(), |tx| {
            for note in &in_order {
                insert_activity!(tx, &note.row).map_err(no_workspace)?;
            }
            for sender in &senders {
                sqlx::query(TOUCH_OUTBOUND).bind(*sender).bind(now).execute(&mut *tx).await?;
            }
            for (note, used) in in_order.iter().filter_map(|note| Some((note, note.used?))) {
                add_usage!(tx, note.row.workspace_id, now, used)?;
            }
            Ok(())
        })
    }

    /// Writes the row of a message. False where the same one, by its id and all that it says, is there since `since`.
    ///
    /// # Errors
    /// As [`Store::insert_activity`].
    pub(crate) async fn insert_message(&self, new: &NewActivity, since: DateTime<Utc>) -> Result<bool> {
        let params = new.request_body.as_ref().map(|request| clean::json(&request["params"]));
        let names_itself = params.as_ref().is_some_and(|params| params["message"]["messageId"].is_string());
        in_transaction!(self.writer(), |tx| {
            if names_itself {
                let earlier: Vec<Option<Value>> = sqlx::query_scalar(MESSAGES_FROM)
                    .bind(new.workspace_id)
                    .bind(new.source_id)
                    .bind(since)
                    .fetch_all(&mut *tx)
                    .await?;
                let is_it =
                    |earlier: &Option<Value>| earlier.as_ref().map(|request| &request["params"]) == params.as_ref();
                if earlier.iter().any(is_it) {
                    return Ok(false);
                }
            }
            insert_activity!(tx, new).map_err(no_workspace)?;
            Ok(true)
        })
    }

    /// One page of the log of a workspace.
    pub(crate) async fn activity(&self, of: WorkspaceId, page: &Page) -> Result<Vec<Activity>> {
        let shape = Shape {
            of_type: page.activity_type.is_some(),
            source: page.source,
            with_peer: page.peer.is_some(),
            oldest_first: page.oldest_first,
        };
        let sql = PAGES[shape.place()].as_str();
        let rows: Vec<Activity> = on_pool!(self.reader(), |p| {
            let mut query = sqlx::query_as(sql)
                .bind(of)
                .bind(page.after.0)
                .bind(page.after.1)
                .bind(page.before)
                .bind(i64::from(page.limit));
            if let Some(activity_type) = &page.activity_type {
                query = query.bind(clean::text(activity_type).into_owned());
            }
            if let Some(peer) = page.peer {
                query = query.bind(peer);
            }
            query.fetch_all(p).await
        })?;
        Ok(rows)
    }

    /// When a row of this workspace was written; `None` where there is none of that id.
    pub(crate) async fn activity_time(&self, of: WorkspaceId, id: ActivityId) -> Result<Option<DateTime<Utc>>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_scalar(TIME_OF).bind(id).bind(of).fetch_optional(p).await)?)
    }

    /// The newest rows and memories that hold `text`, in whatever case; all of them where it is empty.
    pub(crate) async fn search_session(&self, of: WorkspaceId, text: &str, limit: u32) -> Result<Vec<Found>> {
        let text = clean::text(text).replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(SEARCH)
            .bind(of)
            .bind(&text)
            .bind(i64::from(limit))
            .fetch_all(p)
            .await)?)
    }

    /// Deletes rows from before `time`, at most `limit`, and gives how many there were.
    pub(crate) async fn prune_activity(&self, time: DateTime<Utc>, limit: i64) -> Result<u64> {
        Ok(on_pool!(self.writer(), |p| sqlx::query(PRUNE)
            .bind(time)
            .bind(limit)
            .execute(p)
            .await
            .map(|done| done.rows_affected()))?)
    }
}

/// A row about a workspace that is gone is refused by the database itself.
pub(super) fn no_workspace(error: sqlx::Error) -> Error {
    match &error {
        sqlx::Error::Database(cause) if cause.is_foreign_key_violation() => {
            Error::not_found("workspace not found").caused_by(error)
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_has_its_place() {
        for (n, shape) in Shape::all().enumerate() {
            assert_eq!(shape.place(), n, "{shape:?}");
        }
    }
}
