//! Memories on their way from one server to another, carried by an operator.

use chrono::{DateTime, Utc};

use super::{
    ExportedMemory, Memory, Scope, redact,
    scoped::{check_namespace, stored},
};
use crate::{
    clock::{random_uuid, to_micros},
    control_plane::ControlPlane,
    error::{Error, Result},
    id::MemoryId,
    workspace::lifecycle::said,
};

/// A memory to be brought in.
#[derive(Debug, Clone, Default)]
pub struct ImportedMemory {
    /// What is remembered.
    pub content: String,
    /// The name of a [`Scope`].
    pub scope: String,
    /// The part of the workspace's memories that it belongs to; `general` where it is empty.
    pub namespace: String,
    /// When it was made; now otherwise.
    pub created_at: Option<DateTime<Utc>>,
    /// The name of the workspace whose it is to be.
    pub workspace_name: String,
}

/// What became of memories that were brought in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    /// So many are kept now.
    pub imported: usize,
    /// So many were there already, or nobody is called as their workspace was.
    pub skipped: usize,
    /// So many broke a rule, or could not be kept.
    pub errors: usize,
}

impl ControlPlane {
    /// Every memory, oldest first, without the secrets that older servers may have kept in them.
    pub async fn export_memories(&self) -> Result<Vec<ExportedMemory>> {
        let mut all = self.inner.store.all_memories().await.map_err(|error| said(error, "export query failed"))?;
        for memory in &mut all {
            memory.content = redact(&memory.content).into_owned();
        }
        Ok(all)
    }

    /// Brings in memories, each for the workspace of its name. One that fails does not keep the others out; doing it
    /// again changes nothing.
    pub async fn import_memories(&self, memories: Vec<ImportedMemory>) -> Imported {
        let mut done = Imported::default();
        for memory in memories {
            match self.import_memory(memory).await {
                Ok(true) => done.imported += 1,
                Ok(false) => done.skipped += 1,
                Err(error) => {
                    tracing::warn!(error = error.detail(), "a memory could not be imported");
                    done.errors += 1;
                }
            }
        }
        done
    }

    /// False where it is there already, or nobody is called as its workspace was.
    async fn import_memory(&self, memory: ImportedMemory) -> Result<bool> {
        let scope: Scope = memory.scope.parse()?;
        if memory.content.is_empty() {
            return Err(Error::invalid("content is required"));
        }
        let namespace = check_namespace(&memory.namespace)?;
        let Some(workspace_id) = self.inner.store.workspace_named(&memory.workspace_name).await? else {
            return Ok(false);
        };
        let kept = Memory {
            id: MemoryId::from_uuid(random_uuid(&*self.inner.entropy)),
            workspace_id,
            content: stored(&memory.content, scope),
            scope,
            namespace,
            created_at: memory.created_at.map_or_else(|| self.now(), to_micros),
        };
        self.inner.store.import_memory(&kept).await
    }
}
