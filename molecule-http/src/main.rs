//! `molecule`: the server, a reference agent, and the client commands, in one binary.

mod agent;
mod cli;
mod logging;
mod paths;
mod serve;

use std::process::ExitCode;

use clap::Parser;
use molecule_core::error::{Error, ErrorKind};

/// The exit code for bad input, which is also clap's for bad usage.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return exit(&Error::new(ErrorKind::Unexpected, format!("cannot start worker threads: {error}")));
        }
    };
    match runtime.block_on(cli::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough (`molecule list | head -1`). The signal that would end us
        // silently stays ignored: in `molecule serve` a client that hangs up must not end the server.
        Err(error) if cli::output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => exit(&error),
    }
}

fn exit(error: &Error) -> ExitCode {
    cli::output::error(error);
    match error.kind() {
        ErrorKind::InvalidInput => ExitCode::from(EXIT_USAGE),
        _ => ExitCode::FAILURE,
    }
}
