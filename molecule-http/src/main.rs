//! The Molecule server and its command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use molecule_core::error::ErrorKind;

mod agent;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Agent(agent::AgentArgs),
}

#[tokio::main]
#[expect(clippy::print_stderr, reason = "the command line speaks to its user")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let Command::Agent(args) = cli.command;
    match agent::run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("molecule: {error}");
            ExitCode::from(if error.kind() == ErrorKind::InvalidInput { 2 } else { 1 })
        }
    }
}
