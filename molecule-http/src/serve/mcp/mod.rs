//! The tools of the control plane for agents that speak the Model Context Protocol over HTTP.
//!
//! One address speaks two dialects. Clients of the protocol's streamable HTTP, which say that they take a stream, are
//! served by its [SDK](sdk); others are answered as [plain] JSON-RPC.

mod plain;
mod sdk;

use molecule_core::Error;

pub(crate) use self::{plain::answer, sdk::Sdk};
use super::error::status_of;

/// The name and the version under which clients know this server.
const SERVER: (&str, &str) = ("molecule-a2a", "1.0.0");

/// What a client is told of a tool that failed; what only its operator can mend is logged as well.
fn said(tool: &str, error: &Error) -> String {
    if status_of(error.kind()).is_server_error() {
        tracing::error!(tool, error = error.detail(), "a tool failed");
    }
    error.message().to_owned()
}
