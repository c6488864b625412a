//! Memories that others may find, with the full-text search of each database behind one call.

use chrono::{DateTime, Utc};

use super::{
    Store, clean,
    pool::{Pool, in_transaction, on_pool, row, statements},
};
use crate::{
    error::Result,
    id::{MemoryId, WorkspaceId},
    memory::{Scope, Search},
    workspace::Status,
};

/// Which memories are looked at, as the condition that every search shares: $1 is the scope, if one is asked for, $2 the
/// workspace that asks, $3 the one that leads its team, $4 the namespace, if any, $5 the status of removed workspaces.
///
/// No border of an organisation, which is all below a workspace that a token was ever bound to, lies between who reads a
/// global memory and whose it is: both are in it or neither is.
macro_rules! reach {
    () => {
        "(CAST($1 AS TEXT) IS NULL OR m.scope = CAST($1 AS TEXT)) \
         AND (m.workspace_id = $2 \
              OR (CAST($1 AS TEXT) = 'GLOBAL' AND NOT EXISTS ( \
                  WITH RECURSIVE up (start, id) AS ( \
                      SELECT id, id FROM workspaces WHERE id IN (m.workspace_id, $2) \
                      UNION \
                      SELECT u.start, w.parent_id FROM workspaces w JOIN up u ON w.id = u.id \
                      WHERE w.parent_id IS NOT NULL \
                  ) SELECT u.id FROM up u WHERE u.id IN (SELECT org_id FROM org_api_tokens) \
                  GROUP BY u.id HAVING COUNT(*) = 1)) \
              OR (CAST($1 AS TEXT) = 'TEAM' AND m.workspace_id IN \
                  (SELECT id FROM workspaces WHERE (id = $3 OR parent_id = $3) AND status <> $5))) \
         AND (CAST($4 AS TEXT) IS NULL OR m.namespace = CAST($4 AS TEXT))"
    };
}

macro_rules! select {
    ($($rest:tt)*) => {
        concat!("SELECT m.id, m.workspace_id, m.content, m.scope, m.namespace, m.created_at FROM ", $($rest)*)
    };
}

statements! {
    INSERT = "INSERT INTO agent_memories (id, workspace_id, content, scope, namespace, created_at, updated_at) \
              VALUES ($1, $2, $3, $4, $5, $6, $6)";
    INSERT_ONCE = "INSERT INTO agent_memories (id, workspace_id, content, scope, namespace, created_at, updated_at) \
                   SELECT $1, $2, $3, $4, $5, $6, $6 WHERE NOT EXISTS \
                   (SELECT 1 FROM agent_memories WHERE workspace_id = $2 AND content = $3 AND scope = $4)";
    DELETE = "DELETE FROM agent_memories WHERE id = $1 AND workspace_id = $2";
    NEWEST = select!("agent_memories m WHERE ", reach!(), " ORDER BY m.created_at DESC, m.number DESC LIMIT $6");
    HOLDING = select!("agent_memories m WHERE ", reach!(), " AND LOWER(m.content) LIKE LOWER($7) ESCAPE '!' \
                       ORDER BY m.created_at DESC, m.number DESC LIMIT $6");
    EXPORT = "SELECT m.id, m.content, m.scope, m.namespace, m.created_at, w.name AS workspace_name \
              FROM agent_memories m JOIN workspaces w ON w.id = m.workspace_id ORDER BY m.created_at, m.number";
    NAMED = "SELECT id FROM workspaces WHERE name = $1 AND status <> $2 ORDER BY created_at, id LIMIT 1";
    /// Takes the lock of the row, so that imports of one workspace go one at a time.
    LOCK = "UPDATE workspaces SET updated_at = updated_at WHERE id = $1";
}

pub(super) mod sqlite {
    use crate::store::pool::statements;

    statements! {
        MATCHING = select!("agent_memories_fts f JOIN agent_memories m ON m.number = f.rowid \
                            WHERE agent_memories_fts MATCH $7 AND ", reach!(),
                           " ORDER BY f.rank, m.created_at DESC, m.number DESC LIMIT $6");
    }
}

pub(super) mod postgres {
    use crate::store::pool::statements;

    statements! {
        MATCHING = select!("agent_memories m WHERE m.content_tsv @@ plainto_tsquery('english', $7) AND ", reach!(),
                           " ORDER BY ts_rank(m.content_tsv, plainto_tsquery('english', $7)) DESC, \
                            m.created_at DESC, m.number DESC LIMIT $6");
    }
}

row! {
    /// A memory as it is kept.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Memory {
        /// Its id.
        pub id: MemoryId,
        /// Whose it is.
        pub workspace_id: WorkspaceId,
        /// What is remembered.
        pub content: String,
        /// Who may find it.
        pub scope: Scope,
        /// The part of the workspace's memories that it belongs to.
        pub namespace: String,
        /// When it was made.
        pub created_at: DateTime<Utc>,
    }
}

row! {
    /// A memory as operators carry it to another server.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ExportedMemory {
        /// Its id.
        pub id: MemoryId,
        /// What is remembered.
        pub content: String,
        /// Who may find it.
        pub scope: Scope,
        /// The part of the workspace's memories that it belongs to.
        pub namespace: String,
        /// When it was made.
        pub created_at: DateTime<Utc>,
        /// The name of the workspace whose it is.
        pub workspace_name: String,
    }
}

/// Which memories are looked for.
#[derive(Debug, Clone)]
pub(crate) struct MemoryQuery<'a> {
    /// All of the asker's own where it is `None`.
    pub(crate) scope: Option<Scope>,
    pub(crate) asker: WorkspaceId,
    pub(crate) team: WorkspaceId,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) search: Search,
    pub(crate) limit: u32,
}

/// Binds what every search shares, in the order of `reach!`, and the limit after it.
macro_rules! query {
    ($statement:expr, $query:expr) => {
        sqlx::query_as($statement)
            .bind($query.scope)
            .bind($query.asker)
            .bind($query.team)
            .bind($query.namespace.map(clean::text))
            .bind(Status::Removed)
            .bind(i64::from($query.limit))
    };
}

/// Binds a memory to the statement that inserts it.
macro_rules! insert {
    ($statement:expr, $memory:expr) => {
        sqlx::query($statement)
            .bind($memory.id)
            .bind($memory.workspace_id)
            .bind(clean::text(&$memory.content))
            .bind($memory.scope)
            .bind(clean::text(&$memory.namespace))
            .bind($memory.created_at)
    };
}

impl Store {
    /// Keeps a memory.
    pub(crate) async fn insert_memory(&self, memory: &Memory) -> Result<()> {
        on_pool!(self.writer(), |p| insert!(INSERT, memory).execute(p).await.map(drop))?;
        Ok(())
    }

    /// Keeps a memory unless its workspace has one of this content and scope. True where it was kept.
    pub(crate) async fn import_memory(&self, memory: &Memory) -> Result<bool> {
        in_transaction!(self.writer(), |tx| {
            sqlx::query(LOCK).bind(memory.workspace_id).execute(&mut *tx).await?;
            Ok(insert!(INSERT_ONCE, memory).execute(&mut *tx).await?.rows_affected() == 1)
        })
    }

    /// The memories that `query` finds: the best first, or else the newest.
    pub(crate) async fn memories(&self, query: &MemoryQuery<'_>) -> Result<Vec<Memory>> {
        let pool = self.reader();
        Ok(match &query.search {
            Search::Everything => on_pool!(pool, |p| query!(NEWEST, query).fetch_all(p).await)?,
            Search::Holding(text) => {
                let pattern = pattern(&clean::text(text));
                on_pool!(pool, |p| query!(HOLDING, query).bind(&pattern).fetch_all(p).await)?
            }
            Search::Words(words) => match pool {
                Pool::Sqlite(p) => query!(sqlite::MATCHING, query).bind(quoted(words)).fetch_all(p).await?,
                Pool::Postgres(p) => query!(postgres::MATCHING, query).bind(words.join(" ")).fetch_all(p).await?,
            },
        })
    }

    /// Deletes a memory of `workspace`. False where it has none by that id.
    pub(crate) async fn delete_memory(&self, workspace: WorkspaceId, id: MemoryId) -> Result<bool> {
        Ok(on_pool!(self.writer(), |p| sqlx::query(DELETE)
            .bind(id)
            .bind(workspace)
            .execute(p)
            .await
            .map(|done| done.rows_affected() == 1))?)
    }

    /// Every memory, oldest first.
    pub(crate) async fn all_memories(&self) -> Result<Vec<ExportedMemory>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(EXPORT).fetch_all(p).await)?)
    }

    /// The oldest workspace of this name that is not removed.
    pub(crate) async fn workspace_named(&self, name: &str) -> Result<Option<WorkspaceId>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_scalar(NAMED)
            .bind(clean::text(name))
            .bind(Status::Removed)
            .fetch_optional(p)
            .await)?)
    }
}

/// The pattern of LIKE for what holds `text`, with `!` before what would otherwise stand for more.
fn pattern(text: &str) -> String {
    let mut pattern = String::from("%");
    for c in text.chars() {
        if matches!(c, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

/// Words as SQLite's full-text search takes them: all of them, and none for an operator.
fn quoted(words: &[String]) -> String {
    words.iter().map(|word| format!("\"{}\"", word.replace('"', "\"\""))).collect::<Vec<_>>().join(" ")
}
