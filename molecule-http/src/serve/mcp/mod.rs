//! The tools of the control plane for agents that speak the Model Context Protocol over HTTP.
//!
//! One address speaks two dialects. Clients of the protocol's streamable HTTP, which say that they take a stream, are
//! served by its [SDK](sdk); others are answered as [plain] JSON-RPC.

mod plain;
mod sdk;

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use molecule_core::Error;

pub(crate) use self::{plain::answer, sdk::Sdk};
use super::error::status_of;

/// The name and the version under which clients know this server.
const SERVER: (&str, &str) = ("molecule-a2a", "1.0.0");

/// What `answer`, of the tool `name`, comes to; where it panics, what to tell the client.
async fn contained<T>(name: &str, answer: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(answer).catch_unwind().await.map_err(|_| format!("internal error in the tool {name}"))
}

/// What a client is told of a tool that failed; what only its operator can mend is logged as well.
fn said(tool: &str, error: &Error) -> String {
    if status_of(error.kind()).is_server_error() {
        tracing::error!(tool, error = error.detail(), "a tool failed");
    }
    error.message().to_owned()
}

#[cfg(test)]
mod tests {
    use super::contained;

    #[tokio::test]
    async fn a_tool_that_panics_is_named_and_tells_nothing() {
        assert_eq!(contained("a", async { 1 }).await, Ok(1));
        let panics = contained("a", async { panic!("secret detail") }).await;
        assert_eq!(panics.map(|()| 0), Err("internal error in the tool a".to_owned()));
    }
}
