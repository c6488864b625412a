//! `molecule-mcp`, of which Python only sees the exit code.

use std::sync::Arc;

use molecule_core::{
    agent::mcp::{self, Options},
    clock::SystemEntropy,
};
use pyo3::prelude::*;

use crate::runtime::runtime;

/// Whether ``molecule-mcp`` is to log what happens and not only what is wrong.
#[pyfunction]
#[expect(clippy::disallowed_methods, reason = "this is the configuration of the command")]
pub(crate) fn is_mcp_verbose() -> bool {
    Options::read(|name| std::env::var(name).ok(), std::env::current_dir().ok()).is_verbose
}

/// Runs ``molecule-mcp`` until its client is gone, and returns the exit code and what there is to say about it.
///
/// With ``tools_alone`` it neither registers nor beats, and has no inbox.
#[pyfunction]
#[expect(clippy::disallowed_methods, reason = "this is the configuration of the command")]
pub(crate) fn run_mcp(py: Python<'_>, tools_alone: bool) -> (u8, String) {
    let read = Options::read(|name| std::env::var(name).ok(), std::env::current_dir().ok());
    let options =
        Options { no_heartbeat: read.no_heartbeat || tools_alone, no_inbox: read.no_inbox || tools_alone, ..read };
    let run = || runtime()?.block_on(mcp::run(&options, Arc::new(SystemEntropy), mcp::stdio));
    let ended: Result<(), mcp::Failure> = py.detach(run);
    ended.map_or_else(|failure| (failure.code, failure.message), |()| (0, String::new()))
}
