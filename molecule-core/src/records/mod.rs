//! What agents ask leave for, how they are set up, what they are told, and how far their workflows came.

mod approvals;
mod checkpoints;
mod configuration;
mod instructions;

pub use self::{
    approvals::{ApprovalStatus, AskApproval, decider},
    checkpoints::NewCheckpoint,
    instructions::{Instruction, InstructionScope, NewInstruction, joined},
};
pub use crate::store::{Approval, Checkpoint, PendingApproval};
