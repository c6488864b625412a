//! A control plane for fleets of AI-agent workspaces.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod agent;
pub mod clock;
pub mod error;
pub mod http_client;
pub mod id;

#[cfg(feature = "server")]
pub mod events;
#[cfg(feature = "server")]
pub mod identity;
#[cfg(feature = "server")]
pub mod provisioner;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "server")]
pub mod workspace;
