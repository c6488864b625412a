//! What the operator tells agents.

use chrono::{DateTime, Utc};

use super::{
    Store,
    activity::no_workspace,
    clean,
    pool::{on_pool, statements},
};
use crate::{
    error::Result,
    id::{InstructionId, WorkspaceId},
    records::Instruction,
};

statements! {
    LIST = "SELECT id, workspace_id, content, position, created_at, updated_at FROM instructions \
            ORDER BY workspace_id IS NOT NULL, workspace_id, position, created_at, id";
    ONE = "SELECT id, workspace_id, content, position, created_at, updated_at FROM instructions WHERE id = $1";
    INSERT = "INSERT INTO instructions (id, workspace_id, content, position, created_at, updated_at) \
              VALUES ($1, $2, $3, $4, $5, $6)";
    REPLACE = "UPDATE instructions SET workspace_id = $2, content = $3, position = $4, updated_at = $5 WHERE id = $1 \
               RETURNING created_at";
    DELETE = "DELETE FROM instructions WHERE id = $1";
    FOR = "WITH RECURSIVE up (id, parent_id, depth) AS ( \
               SELECT id, parent_id, 0 FROM workspaces WHERE id = $1 \
               UNION ALL \
               SELECT w.id, w.parent_id, up.depth + 1 FROM workspaces w JOIN up ON w.id = up.parent_id \
               WHERE up.depth < 32) \
           SELECT i.id, i.workspace_id, i.content, i.position, i.created_at, i.updated_at FROM instructions i \
           LEFT JOIN up ON up.id = i.workspace_id WHERE i.workspace_id IS NULL OR up.id IS NOT NULL \
           ORDER BY i.workspace_id IS NOT NULL, up.depth DESC, i.position, i.created_at, i.id";
}

impl Store {
    /// All of them.
    pub(crate) async fn instructions(&self) -> Result<Vec<Instruction>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(LIST).fetch_all(p).await)?)
    }

    /// One of them.
    pub(crate) async fn instruction(&self, id: InstructionId) -> Result<Option<Instruction>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(ONE).bind(id).fetch_optional(p).await)?)
    }

    /// Keeps a new one.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::ErrorKind::NotFound) where its workspace is not there.
    pub(crate) async fn insert_instruction(&self, new: &Instruction) -> Result<()> {
        on_pool!(self.writer(), |p| sqlx::query(INSERT)
            .bind(new.id)
            .bind(new.workspace_id)
            .bind(clean::text(&new.content))
            .bind(new.position)
            .bind(new.created_at)
            .bind(new.updated_at)
            .execute(p)
            .await
            .map(drop)
            .map_err(no_workspace))
    }

    /// Puts `new` in the place of the one with its id, and says when that was made; `None` where there is none.
    ///
    /// # Errors
    /// As [`Store::insert_instruction`].
    pub(crate) async fn replace_instruction(&self, new: &Instruction) -> Result<Option<DateTime<Utc>>> {
        on_pool!(self.writer(), |p| sqlx::query_scalar(REPLACE)
            .bind(new.id)
            .bind(new.workspace_id)
            .bind(clean::text(&new.content))
            .bind(new.position)
            .bind(new.updated_at)
            .fetch_optional(p)
            .await
            .map_err(no_workspace))
    }

    /// Deletes one. False where there is none.
    pub(crate) async fn delete_instruction(&self, id: InstructionId) -> Result<bool> {
        Ok(on_pool!(self.writer(), |p| sqlx::query(DELETE)
            .bind(id)
            .execute(p)
            .await
            .map(|done| done.rows_affected() > 0))?)
    }

    /// Those that an agent of `id` is told by.
    pub(crate) async fn instructions_for(&self, id: WorkspaceId) -> Result<Vec<Instruction>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(FOR).bind(id).fetch_all(p).await)?)
    }
}
