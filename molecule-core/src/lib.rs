//! A control plane for fleets of AI-agent workspaces.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod agent;
pub mod clock;
pub mod error;
pub mod http_client;
pub mod id;

#[cfg(feature = "server")]
pub mod a2a;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod control_plane;
#[cfg(feature = "server")]
pub mod events;
#[cfg(feature = "server")]
mod gate;
#[cfg(feature = "server")]
pub mod identity;
#[cfg(feature = "server")]
pub mod net;
#[cfg(feature = "server")]
pub mod provisioner;
#[cfg(feature = "server")]
pub mod registry;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "server")]
mod sweep;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "server")]
pub mod workspace;

#[cfg(feature = "server")]
pub use control_plane::ControlPlane;
pub use error::{Error, ErrorKind, Result};
