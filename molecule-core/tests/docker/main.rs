//! The Docker backend on a real engine, named by `DOCKER_HOST`. Every promise of the traits has its test.
#![cfg(feature = "docker")]

mod bench;
mod cut;
mod deadlines;
mod faults;
mod lifecycle;
mod looking;
mod orphans;
mod proxy;
mod registry;
mod suite;
#[path = "../support/mod.rs"]
mod support;
mod tiers;
mod volumes;
mod workspace_files;
