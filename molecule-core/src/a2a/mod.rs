//! Calls from one agent, or from the operator, to another agent.

mod dispatch;
mod payload;

pub use self::dispatch::{Answer, Call};
