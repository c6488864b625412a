//! A control plane for fleets of AI-agent workspaces, as a library.
//!
//! A *workspace* is the home of one agent. A [`ControlPlane`] brings workspaces up on a backend, takes in agents that run
//! elsewhere, hears whether they live, carries calls between those that may talk, and tells what happens. It is built
//! from a [`Store`](store::Store), which is SQLite or Postgres, and a backend:
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//!
//! use molecule_core::{
//!     ControlPlane,
//!     registry::Register,
//!     store::Store,
//!     testing::{Operation, ScriptedProvisioner},
//!     workspace::{CreateWorkspace, Status},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> molecule_core::Result<()> {
//! // A backend without machines; one of your own goes in its place.
//! let backend = ScriptedProvisioner::new();
//! let control_plane = ControlPlane::builder(Store::connect("sqlite::memory:").await?)
//!     .local_backend(Arc::new(backend.clone()))
//!     .build()?;
//! control_plane.start();
//!
//! // The answer does not wait for the backend, which is called in a task of its own.
//! let hello = CreateWorkspace { name: "hello".to_owned(), ..CreateWorkspace::default() };
//! let id = control_plane.create(hello).await?.workspace.id;
//! assert_eq!(control_plane.existing(id).await?.status, Status::Provisioning);
//! backend.called(Operation::Start, 1).await;
//!
//! // What the agent does then: it finds its token in a file, and reports in.
//! let files = &backend.starts()[0].files;
//! let token = files.iter().find(|file| file.path == ".auth_token").expect("every agent is given a token");
//! let token = String::from_utf8_lossy(&token.contents).into_owned();
//! let credential = control_plane.authenticate(Some(&token)).await?;
//! let agent_card = serde_json::json!({"name": "hello"});
//! let register = Register { id, url: String::new(), agent_card, delivery_mode: None };
//! control_plane.register(&register, credential).await?;
//! assert_eq!(control_plane.existing(id).await?.status, Status::Online);
//!
//! assert!(control_plane.shut_down(Duration::from_secs(10)).await);
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//!
//! | module | what it holds |
//! |---|---|
//! | [`control_plane`] | the facade and its builder: everything an embedding program calls |
//! | [`config`] | how a control plane behaves; nothing is read from the environment |
//! | [`workspace`] | what a workspace is, what one is made from, and which status may follow which |
//! | [`provisioner`] | the traits of a backend, with Docker and child processes as two of them |
//! | [`registry`] | what agents say: register and heartbeat |
//! | [`a2a`] | calls to agents |
//! | [`activity`] | what agents did |
//! | [`delegation`] | tasks that agents hand to one another |
//! | [`events`] | what is told as it happens |
//! | [`files`] | files on their way to an agent and back |
//! | [`workspace_files`] | the files that a workspace keeps |
//! | [`memory`] | what agents remember: values by key, and memories that others may find |
//! | [`identity`] | credentials, and who they make the caller |
//! | [`records`] | what agents ask leave for, how they are set up, how far their workflows came |
//! | [`schedules`] | what agents are asked for at set times |
//! | [`net`] | which addresses of agents may be called |
//! | [`secrets`] | what agents are given in their environment, and how it is kept |
//! | [`store`] | the database |
//! | [`error`] | the one error type |
//! | [`tools`] | what agents may call over the Model Context Protocol |
//! | [`templates`] | what workspaces are made from, and which provider serves which model |
//! | [`clock`], [`id`] | time, randomness and ids, which are parameters |
//! | [`http_client`] | the one HTTP client |
//! | [`agent`] | the other side: what an agent does to belong to a fleet |
//! | `testing` | a scripted backend, clocks, and the suites that every backend and store passes |
//!
//! # Features
//!
//! `server` is the control plane; without it only [`agent`] and what it needs are built. `docker` and `process` are the two
//! backends. All three are on by default. `mcp` adds the tools of the fleet for
//! agents that speak the Model Context Protocol. `testing` is for tests, also of programs that build on this.
//!
//! # What a caller can lean on
//!
//! - [`ControlPlane::create`] and [`ControlPlane::restart`] wait for the database and never for a backend.
//! - Of changes that race one wins, and its event is recorded in the same transaction.
//! - A panic of a backend fails the try it belongs to and nothing else.
//! - A heartbeat that changes nothing costs the database nothing.
//! - Stopping a control plane stops no workspace; the next one over the same store finds them again.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may ask the system, for which they stand in"))]

pub mod agent;
pub mod clock;
pub mod error;
pub mod http_client;
pub mod id;

#[cfg(feature = "server")]
pub mod a2a;
#[cfg(feature = "server")]
pub mod activity;
#[cfg(feature = "server")]
pub mod audit;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod control_plane;
#[cfg(feature = "server")]
pub mod delegation;
#[cfg(feature = "server")]
pub mod events;
#[cfg(feature = "server")]
pub mod files;
#[cfg(feature = "server")]
mod gate;
#[cfg(feature = "server")]
pub mod identity;
#[cfg(feature = "server")]
pub mod memory;
#[cfg(feature = "server")]
pub mod net;
#[cfg(feature = "server")]
pub mod provisioner;
#[cfg(feature = "server")]
mod pulse;
#[cfg(feature = "server")]
pub mod records;
#[cfg(feature = "server")]
pub mod registry;
#[cfg(any(feature = "files", feature = "mcp", feature = "process"))]
mod regular_file;
#[cfg(feature = "server")]
mod relay;
#[cfg(feature = "server")]
mod renewal;
#[cfg(feature = "server")]
pub mod schedules;
#[cfg(feature = "server")]
pub mod secrets;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "server")]
pub mod sweep;
#[cfg(feature = "server")]
pub mod templates;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(any(feature = "server", feature = "mcp"))]
pub mod tools;
#[cfg(feature = "server")]
pub mod workspace;
#[cfg(feature = "server")]
pub mod workspace_files;

#[cfg(feature = "server")]
pub use control_plane::ControlPlane;
pub use error::{Error, ErrorKind, Result};
