//! The reference agent.

use molecule_core::error::{Error, ErrorKind};

/// Arguments of `molecule agent`.
#[derive(Debug, clap::Args)]
pub(crate) struct AgentArgs {}

/// Runs the agent until it is told to stop.
pub(crate) async fn run(_args: AgentArgs) -> Result<(), Error> {
    Err(Error::new(ErrorKind::Unsupported, "this build has no agent"))
}
