//! Who sends messages to agents.

use crate::{id::WorkspaceId, identity::Caller, store::pool::text_enum};

text_enum! {
    /// A part of the platform that calls agents by itself. Nobody else may use these names.
    pub enum System {
        /// Asks at set times.
        Scheduler = "system:scheduler",
    }
}

/// Who sends a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The operator, or the canvas on the operator's behalf.
    Operator,
    /// The agent of a workspace.
    Workspace(WorkspaceId),
    /// The platform itself.
    System(System),
}

impl From<Caller> for Sender {
    fn from(caller: Caller) -> Self {
        match caller {
            Caller::Operator => Self::Operator,
            Caller::Workspace(id) => Self::Workspace(id),
        }
    }
}

impl Sender {
    /// The workspace, where one sends.
    pub(super) fn workspace(self) -> Option<WorkspaceId> {
        match self {
            Self::Workspace(id) => Some(id),
            Self::Operator | Self::System(_) => None,
        }
    }

    /// The part of the platform, where one sends.
    pub(super) fn system(self) -> Option<System> {
        match self {
            Self::System(system) => Some(system),
            Self::Operator | Self::Workspace(_) => None,
        }
    }

    /// Who sent a message that was kept.
    pub(super) fn of_kept(workspace: Option<WorkspaceId>, system: Option<System>) -> Self {
        match (workspace, system) {
            (Some(id), _) => Self::Workspace(id),
            (None, Some(system)) => Self::System(system),
            (None, None) => Self::Operator,
        }
    }
}
