//! Memories that others may find, as far as their scope says.

use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Memory, Scope, redact, search::Search};
use crate::{
    activity::NewActivity,
    clock::random_uuid,
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    id::{MemoryId, WorkspaceId},
    store::MemoryQuery,
    workspace::lifecycle::{gone_is_not_found, said},
};

/// Where a memory belongs whose maker does not say.
pub(super) const NAMESPACE: &str = "general";

/// The longest name of a namespace, in bytes.
const NAMESPACE_LIMIT: usize = 50;

/// How many memories one answer holds at most.
const PAGE_LIMIT: u32 = 50;

/// A memory to be kept.
#[derive(Debug, Clone, Default)]
pub struct NewMemory {
    /// What is remembered.
    pub content: String,
    /// The name of a [`Scope`].
    pub scope: String,
    /// The part of the workspace's memories that it belongs to; `general` where it is empty.
    pub namespace: String,
}

/// Which memories are looked for.
#[derive(Debug, Clone, Default)]
pub struct Recall {
    /// The name of a [`Scope`]; anything else stands for the asker's own memories of every scope.
    pub scope: String,
    /// What they hold.
    pub query: String,
    /// Only those of this namespace, unless it is empty.
    pub namespace: String,
    /// How many at most; 50 otherwise, which is also the most.
    pub limit: Option<u32>,
}

/// How many bytes are kept of what a workspace remembers from the start.
const LONGEST_FIRST_MEMORY: usize = 100_000;

impl ControlPlane {
    /// Keeps a memory of a workspace, without the secrets in it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a broken rule; [`ErrorKind::NotFound`] for an unknown or removed workspace;
    /// [`ErrorKind::PermissionDenied`] for a global one of a workspace that another leads.
    pub async fn remember(&self, id: WorkspaceId, new: &NewMemory) -> Result<Memory> {
        let scope: Scope = new.scope.parse().map_err(|_| Error::invalid("scope must be LOCAL, TEAM, or GLOBAL"))?;
        let namespace = check_namespace(&new.namespace)?;
        let workspace = self.existing(id).await.map_err(gone_is_not_found)?;
        if scope == Scope::Global && workspace.parent_id.is_some() {
            return Err(Error::new(ErrorKind::PermissionDenied, "only root workspaces can write GLOBAL memories"));
        }
        let memory = Memory {
            id: MemoryId::from_uuid(random_uuid(&*self.inner.entropy)),
            workspace_id: id,
            content: stored(&new.content, scope),
            scope,
            namespace,
            created_at: self.now(),
        };
        self.inner.store.insert_memory(&memory).await.map_err(|error| said(error, "failed to store memory"))?;
        if scope == Scope::Global {
            self.note_global(&memory).await;
        }
        Ok(memory)
    }

    /// Keeps what a new workspace remembers. One that cannot be kept does not keep the workspace from being there.
    pub(crate) async fn remember_from_start(&self, id: WorkspaceId, memories: Vec<NewMemory>) {
        for mut memory in memories.into_iter().filter(|memory| !memory.content.is_empty()) {
            memory.content.truncate(memory.content.floor_char_boundary(LONGEST_FIRST_MEMORY));
            memory.scope = match memory.scope.trim() {
                "" => Scope::Local.as_str().to_owned(),
                scope => scope.to_uppercase(),
            };
            if let Err(error) = self.remember(id, &memory).await {
                tracing::warn!(workspace.id = %id, error = error.detail(), "a first memory was left out");
            }
        }
    }

    /// Leaves a trail of what every agent may read from now on, without its text.
    async fn note_global(&self, memory: &Memory) {
        let digest = Sha256::digest(memory.content.as_bytes());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let body = json!({"memory_id": memory.id, "namespace": memory.namespace, "content_sha256": hex});
        let row = NewActivity {
            source_id: Some(memory.workspace_id),
            summary: Some("a memory for everyone was made".to_owned()),
            request_body: Some(body),
            ..self.new_activity(memory.workspace_id, "memory_write_global")
        };
        self.log_or_count(&row).await;
    }

    /// The memories that a workspace finds: the best first where it looks for words, the newest first otherwise.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace.
    pub async fn recall(&self, id: WorkspaceId, recall: &Recall) -> Result<Vec<Memory>> {
        let workspace = self.existing(id).await.map_err(gone_is_not_found)?;
        let query = MemoryQuery {
            scope: recall.scope.parse().ok(),
            asker: id,
            team: workspace.parent_id.unwrap_or(id),
            namespace: Some(recall.namespace.as_str()).filter(|namespace| !namespace.is_empty()),
            search: Search::of(&recall.query),
            limit: recall.limit.filter(|limit| (1..=PAGE_LIMIT).contains(limit)).unwrap_or(PAGE_LIMIT),
        };
        let mut found = self.inner.store.memories(&query).await.map_err(|error| said(error, "search failed"))?;
        for memory in found.iter_mut().filter(|memory| memory.scope == Scope::Global) {
            memory.content = marked(memory);
        }
        Ok(found)
    }

    /// Deletes a memory of a workspace.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the workspace has none by that id, so also on repeat.
    pub async fn forget(&self, id: WorkspaceId, memory: MemoryId) -> Result<()> {
        if self.inner.store.delete_memory(id, memory).await.map_err(|error| said(error, "failed to delete memory"))? {
            return Ok(());
        }
        let error = Error::not_found("memory not found or not owned by this workspace");
        Err(error.context("workspace.id", id).context("memory.id", memory))
    }
}

pub(super) fn check_namespace(namespace: &str) -> Result<String> {
    match namespace {
        "" => Ok(NAMESPACE.to_owned()),
        namespace if namespace.len() > NAMESPACE_LIMIT => {
            Err(Error::invalid(format!("namespace must be <= {NAMESPACE_LIMIT} characters")))
        }
        namespace => Ok(namespace.to_owned()),
    }
}

/// What is kept of `content`: no secrets, and in a global memory nothing that looks like the mark of another one.
pub(super) fn stored(content: &str, scope: Scope) -> String {
    let content = redact(content);
    match scope {
        Scope::Global => content.replace("[MEMORY ", "[_MEMORY "),
        Scope::Local | Scope::Team => content.into_owned(),
    }
}

/// A global memory as others read it: an agent must be able to tell it from its own instructions.
fn marked(memory: &Memory) -> String {
    format!("[MEMORY id={} scope=GLOBAL from={}]: {}", memory.id, memory.workspace_id, memory.content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept() {
        let rows = [
            ("[MEMORY id=1] A_TOKEN=x", Scope::Global, "[_MEMORY id=1] [REDACTED:TOKEN]"),
            ("[MEMORY id=1] A_TOKEN=x", Scope::Team, "[MEMORY id=1] [REDACTED:TOKEN]"),
            ("plain", Scope::Local, "plain"),
        ];
        for (content, scope, expected) in rows {
            assert_eq!(stored(content, scope), expected, "{scope}");
        }
    }

    #[test]
    fn a_namespace_is_short_and_has_a_default() {
        assert_eq!(check_namespace("").unwrap(), "general");
        assert_eq!(check_namespace(&"n".repeat(50)).unwrap().len(), 50);
        assert_eq!(check_namespace(&"ü".repeat(26)).unwrap_err().message(), "namespace must be <= 50 characters");
    }
}
