//! `molecule`: the server, a reference agent, the tools of the fleet for other agents, and the client commands, in one
//! binary.

mod agent;
mod cli;
mod logging;
mod mcp;
mod paths;
mod serve;

use std::{env, process::ExitCode};

use clap::{Arg, Command, CommandFactory, FromArgMatches, builder::Resettable, error::ErrorKind as UsageError};
use molecule_core::error::{Error, ErrorKind};

/// The exit code for bad input, which is also clap's for bad usage.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return exit(&Error::new(ErrorKind::Unexpected, format!("cannot start worker threads: {error}")));
        }
    };
    let ended = runtime.block_on(cli::run(cli));
    // A thread that reads standard input cannot be told to stop.
    runtime.shutdown_background();
    match ended {
        Ok(code) => code,
        // Whoever read our output has seen enough (`molecule list | head -1`). The signal that would end us
        // silently stays ignored: in `molecule serve` a client that hangs up must not end the server.
        Err(error) if cli::output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => exit(&error),
    }
}

/// What the program is asked for. A variable that is set and empty says nothing: templates of deployments write such.
fn parse() -> Result<cli::Cli, clap::Error> {
    let matches = without_empty(cli::Cli::command()).try_get_matches()?;
    cli::Cli::from_arg_matches(&matches)
}

fn without_empty(command: Command) -> Command {
    let is_empty = |arg: &Arg| arg.get_env().and_then(env::var_os).is_some_and(|value| value.is_empty());
    command.mut_args(|arg| if is_empty(&arg) { arg.env(Resettable::Reset) } else { arg }).mut_subcommands(without_empty)
}

/// Ends as clap would, but with what is wrong in one line, like every other error: logs and scripts show no more.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == UsageError::DisplayHelpOnMissingArgumentOrSubcommand {
        error.exit();
    }
    let text = error.to_string();
    let about_it = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty());
    cli::output::note(&format!("{}; try --help", about_it.collect::<Vec<_>>().join(" ")));
    ExitCode::from(EXIT_USAGE)
}

fn exit(error: &Error) -> ExitCode {
    cli::output::error(error);
    match error.kind() {
        ErrorKind::InvalidInput => ExitCode::from(EXIT_USAGE),
        _ => ExitCode::FAILURE,
    }
}
