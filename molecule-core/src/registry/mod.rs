//! What agents tell the control plane: who they are, where they are, and that they live.

mod authenticate;
mod directory;
mod heartbeat;
mod hierarchy;
mod org_tokens;
mod register;
mod runtime;
mod tokens;

pub use self::{
    directory::Whereabouts,
    heartbeat::{Heartbeat, HeartbeatReply, RuntimeMetadata},
    hierarchy::Hierarchy,
    register::{Register, Registered},
};
pub(crate) use self::{hierarchy::Known, runtime::Runtime};
