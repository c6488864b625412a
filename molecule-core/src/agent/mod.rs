//! The agent's side of the protocol: what a workspace does to belong to a control plane.
//!
//! A [`StateDir`] holds the two secrets of a workspace. [`TokenStore`] and [`InboundSecret`] read and keep them, a
//! [`PlatformClient`] registers and beats with them, and a [`HeartbeatLoop`] goes on beating until it is told to
//! stop. Nothing here reads the environment: whoever runs an agent passes its settings.
//!
//! The files are small and local, so they are read and written without leaving the async thread.

mod card;
mod client;
#[cfg(any(feature = "server", feature = "files"))]
pub(crate) mod file_path;
#[cfg(feature = "files")]
pub mod files;
mod headers;
pub mod heartbeat;
mod inbound_secret;
mod log_text;
#[cfg(feature = "mcp")]
pub mod mcp;
mod platform_url;
mod redact;
mod secret_file;
mod settings;
mod state_dir;
mod token_store;

pub use card::{AgentCard, CardCapabilities, PROTOCOL_VERSION, Skill};
pub use client::{Delivery, PlatformClient, RegisterOutcome};
pub use headers::{auth_headers, self_source_headers};
pub use heartbeat::{Beat, BeatOutcome, Beating, HeartbeatLoop, LoopStatus, Program, RuntimeMetadata};
pub use inbound_secret::InboundSecret;
pub use log_text::LogText;
pub use platform_url::PlatformUrl;
pub use redact::redact;
pub use reqwest::header::HeaderMap;
pub use settings::Settings;
pub use state_dir::StateDir;
pub use token_store::TokenStore;
