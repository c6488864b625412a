//! What agents tell the control plane: who they are, where they are, and that they live.

mod authenticate;
mod directory;
mod heartbeat;
mod org_tokens;
mod register;
mod runtime;
mod tokens;

pub(crate) use self::runtime::Runtime;
pub use self::{
    directory::Whereabouts,
    heartbeat::{Heartbeat, HeartbeatReply, RuntimeMetadata},
    register::{Register, Registered},
};
