//! The server.

use molecule_core::error::{Error, ErrorKind};

/// Arguments of `molecule serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {}

/// Serves until it is told to stop.
pub(crate) async fn run(_args: ServeArgs) -> Result<(), Error> {
    Err(Error::new(ErrorKind::Unsupported, "this build has no server"))
}

/// The OpenAPI document of the server.
pub(crate) fn openapi() -> String {
    "{}".to_owned()
}
