//! The tools of the fleet, which agents call over the Model Context Protocol.
//!
//! They are served in two places: beside the agent by [`agent::mcp`](crate::agent), which calls the control plane like
//! any agent does, and at the control plane, by [`ControlPlane::call_tool`](crate::ControlPlane::call_tool). What they
//! are called and take is [defined](Definition) once, for both.

mod arguments;
#[cfg(feature = "server")]
mod bridge;
mod definitions;
pub(crate) mod newer;
pub(crate) mod reply;

pub(crate) use self::arguments::Arguments;
pub use self::definitions::{Definition, Parameter, Place};
