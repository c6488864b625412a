//! Calls from one agent, or from the operator, to another agent.

mod dispatch;
mod payload;

pub(crate) use self::dispatch::client;
pub use self::dispatch::{Answer, Call};
