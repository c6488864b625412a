//! What the operator tells agents once for all tasks: everyone, or one workspace and all below it.

use chrono::{DateTime, Utc};

use crate::{
    clock::random_uuid,
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    id::{InstructionId, WorkspaceId},
    store::pool::{row, text_enum},
    workspace::lifecycle::{gone_is_not_found, said},
};

/// The longest text of one, in characters.
const LONGEST: usize = 16_384;

text_enum! {
    /// For whom an instruction is.
    pub enum InstructionScope {
        /// Every agent.
        Global = "global",
        /// The agents of one workspace, and of all below it.
        Workspace = "workspace",
    }
}

row! {
    /// What the operator tells agents.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Instruction {
        /// Its id.
        pub id: InstructionId,
        /// The workspace that it is for, with all below; none where it is for everyone.
        pub workspace_id: Option<WorkspaceId>,
        /// What it says.
        pub content: String,
        /// Its place among those of its workspace, or of everyone: the lowest first.
        pub position: i32,
        /// When it was made.
        pub created_at: DateTime<Utc>,
        /// When it was changed last.
        pub updated_at: DateTime<Utc>,
    }
}

impl Instruction {
    /// For whom it is.
    pub fn scope(&self) -> InstructionScope {
        if self.workspace_id.is_some() { InstructionScope::Workspace } else { InstructionScope::Global }
    }
}

/// What an instruction is to be.
#[derive(Debug, Clone, Default)]
pub struct NewInstruction {
    /// The name of an [`InstructionScope`].
    pub scope: String,
    /// The workspace that it is for, where it is for one.
    pub workspace_id: Option<WorkspaceId>,
    /// What it says.
    pub content: String,
    /// Its place; 0 where nobody says.
    pub position: i32,
}

impl NewInstruction {
    fn check(&self) -> Result<()> {
        let scope = self.scope.parse().map_err(|_| Error::invalid("scope must be global or workspace"))?;
        match (scope, self.workspace_id) {
            (InstructionScope::Workspace, None) => {
                return Err(Error::invalid("workspace_id is required for the scope workspace"));
            }
            (InstructionScope::Global, Some(_)) => {
                return Err(Error::invalid("workspace_id belongs to the scope workspace"));
            }
            _ => {}
        }
        if self.content.trim().is_empty() {
            return Err(Error::invalid("content is required"));
        }
        if self.content.chars().nth(LONGEST).is_some() {
            return Err(Error::invalid(format!("content must be <= {LONGEST} characters")));
        }
        Ok(())
    }
}

/// What `instructions` say as one text, a blank line between them.
pub fn joined(instructions: &[Instruction]) -> String {
    let texts: Vec<&str> = instructions.iter().map(|instruction| instruction.content.trim()).collect();
    texts.join("\n\n")
}

fn absent(id: InstructionId) -> Error {
    Error::not_found("instruction not found").context("instruction.id", id)
}

impl ControlPlane {
    /// All instructions: those for everyone first, then those of each workspace.
    pub async fn instructions(&self) -> Result<Vec<Instruction>> {
        self.inner.store.instructions().await
    }

    /// One instruction.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is none of that id.
    pub async fn instruction(&self, id: InstructionId) -> Result<Instruction> {
        self.inner.store.instruction(id).await?.ok_or_else(|| absent(id))
    }

    /// Keeps an instruction.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a broken rule; [`ErrorKind::NotFound`] for an unknown or removed workspace.
    pub async fn instruct(&self, new: NewInstruction) -> Result<Instruction> {
        let id = InstructionId::from_uuid(random_uuid(&*self.inner.entropy));
        let instruction = self.checked(id, new).await?;
        let kept = self.inner.store.insert_instruction(&instruction).await;
        kept.map_err(not_kept)?;
        Ok(instruction)
    }

    /// Puts another instruction in the place of one, whole.
    ///
    /// # Errors
    /// As [`ControlPlane::instruct`]; [`ErrorKind::NotFound`] where there is none of that id.
    pub async fn replace_instruction(&self, id: InstructionId, new: NewInstruction) -> Result<Instruction> {
        let instruction = self.checked(id, new).await?;
        let created_at = self.inner.store.replace_instruction(&instruction).await.map_err(not_kept)?;
        Ok(Instruction { created_at: created_at.ok_or_else(|| absent(id))?, ..instruction })
    }

    /// Deletes an instruction.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is none of that id.
    pub async fn delete_instruction(&self, id: InstructionId) -> Result<()> {
        if self.inner.store.delete_instruction(id).await? { Ok(()) } else { Err(absent(id)) }
    }

    /// What an agent of a workspace is told: by those for everyone, then by those of the workspaces above, from the top
    /// down to its own.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace.
    pub async fn instructions_for(&self, id: WorkspaceId) -> Result<Vec<Instruction>> {
        self.existing(id).await.map_err(gone_is_not_found)?;
        self.inner.store.instructions_for(id).await
    }

    async fn checked(&self, id: InstructionId, new: NewInstruction) -> Result<Instruction> {
        new.check()?;
        if let Some(workspace) = new.workspace_id {
            self.existing(workspace).await.map_err(gone_is_not_found)?;
        }
        let NewInstruction { workspace_id, content, position, .. } = new;
        let now = self.now();
        Ok(Instruction { id, workspace_id, content, position, created_at: now, updated_at: now })
    }
}

/// A workspace that went meanwhile says so.
fn not_kept(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => error,
        _ => said(error, "failed to keep instruction"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_checked() {
        let one = Some(WorkspaceId::from_uuid(uuid::Uuid::from_u128(1)));
        let new = |scope: &str, workspace_id, content: &str| NewInstruction {
            scope: scope.into(),
            workspace_id,
            content: content.into(),
            position: 0,
        };
        let long = "ü".repeat(LONGEST + 1);
        let rows = [
            (new("global", None, "x"), None),
            (new("workspace", one, &long[2..]), None),
            (new("", None, "x"), Some("scope must be global or workspace")),
            (new("team", one, "x"), Some("scope must be global or workspace")),
            (new("workspace", None, "x"), Some("workspace_id is required for the scope workspace")),
            (new("global", one, "x"), Some("workspace_id belongs to the scope workspace")),
            (new("global", None, " \n"), Some("content is required")),
            (new("global", None, &long), Some("content must be <= 16384 characters")),
        ];
        for (new, refusal) in rows {
            let refused = new.check().err();
            assert_eq!(refused.as_ref().map(Error::message), refusal, "{} {:?}", new.scope, new.workspace_id);
        }
    }

    #[test]
    fn a_text_has_all_of_them() {
        let at = DateTime::<Utc>::UNIX_EPOCH;
        let one = |content: &str| Instruction {
            id: InstructionId::from_uuid(uuid::Uuid::nil()),
            workspace_id: None,
            content: content.into(),
            position: 0,
            created_at: at,
            updated_at: at,
        };
        assert_eq!(joined(&[]), "");
        assert_eq!(joined(&[one("be kind\n"), one(" be\nbrief")]), "be kind\n\nbe\nbrief");
    }
}
