//! What agents ask leave for, how they are set up, and how far their workflows came.

mod approvals;
mod checkpoints;
mod configuration;

pub use self::{
    approvals::{ApprovalStatus, AskApproval, decider},
    checkpoints::NewCheckpoint,
};
pub use crate::store::{Approval, Checkpoint, PendingApproval};
