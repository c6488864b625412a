//! The command line: what can be typed, and where each command goes.

mod ask;
mod client;
mod create;
mod delete;
mod events;
mod halt;
mod json;
mod list;
mod login;
mod logs;
mod names;
pub(crate) mod output;
mod profile;
mod restart;
mod show;
mod spinner;
mod stream;
mod text;
mod wait;
mod workspace;

use std::{convert::Infallible, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use molecule_core::error::Result;
use secrecy::SecretString;

use self::client::Client;
use crate::{agent, mcp, paths, serve};

const AFTER_HELP: &str = "\
The server and the token are taken from the flags, else from the environment, else from the profile saved by \
`molecule login`. A profile named with --profile counts as a flag. Without any of these the server is \
http://127.0.0.1:8080, and for a server on this host the token that `molecule serve` left in the data folder is used.

Exit codes:
  0  done
  1  failed: the server refused, could not be reached, or a workspace did not come up
  2  wrong usage or bad input";

/// Runs and talks to a control plane for fleets of AI-agent workspaces.
#[derive(Debug, Parser)]
#[command(name = "molecule", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// What every client command takes.
#[derive(Debug, Default, Args)]
pub(crate) struct GlobalArgs {
    /// The server to talk to [env: MOLECULE_SERVER]
    #[arg(long, global = true, value_name = "URL", help_heading = "Connection")]
    server: Option<String>,
    /// The token to show; other users of this host can see arguments, so prefer the environment or a profile
    /// [env: MOLECULE_TOKEN, then ADMIN_TOKEN]
    #[arg(long, global = true, value_parser = secret, help_heading = "Connection")]
    token: Option<SecretString>,
    /// The saved profile to use [env: MOLECULE_PROFILE] [default: default]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Connection")]
    profile: Option<String>,
    /// The folder of a server on this host [env: MOLECULE_DATA_DIR] [default: ~/.local/share/molecule]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Connection")]
    data_dir: Option<PathBuf>,
    /// Print what the server answers, as JSON, and nothing else
    #[arg(long, global = true)]
    json: bool,
}

fn secret(text: &str) -> Result<SecretString, Infallible> {
    Ok(text.into())
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(Box<serve::ServeArgs>),
    /// Run the reference agent, which answers by repeating what it is told
    Agent(agent::AgentArgs),
    /// Give an agent the tools of the fleet over the Model Context Protocol, and keep it alive meanwhile
    #[command(after_help = mcp::AFTER_HELP)]
    Mcp,
    /// Print the OpenAPI document of the server
    Openapi,
    /// Create a workspace and wait until it is online
    Create(create::CreateArgs),
    /// List the workspaces
    List,
    /// Show one workspace
    Show(show::ShowArgs),
    /// Send a message to the agent of a workspace and print its reply
    Ask(ask::AskArgs),
    /// Print the last lines that a workspace wrote
    Logs(logs::LogsArgs),
    /// Restart a workspace and wait until it is online
    Restart(restart::RestartArgs),
    /// Stop a workspace and all below it until they are resumed
    Pause(halt::PauseArgs),
    /// Bring a paused workspace and all below it back
    Resume(halt::ResumeArgs),
    /// Stop a workspace until a message wakes it
    Hibernate(halt::HibernateArgs),
    /// Remove a workspace for good
    Delete(delete::DeleteArgs),
    /// Print what happened, or follow what happens
    Events(events::EventsArgs),
    /// Save a server and its token as a profile
    Login(login::LoginArgs),
}

/// What a client command works with.
#[derive(Debug)]
struct Session {
    client: Client,
    json: bool,
}

/// Runs what was typed.
pub(crate) async fn run(cli: Cli) -> Result<ExitCode> {
    let Cli { global, command } = cli;
    let session = |global: &GlobalArgs| -> Result<Session> {
        let target = profile::resolve(global, &paths::environment)?;
        Ok(Session { client: Client::new(target)?, json: global.json })
    };
    let done = match command {
        // Its exit codes are a promise of its own.
        Command::Mcp => return Ok(mcp::run().await),
        Command::Serve(args) => serve::run(*args, global.data_dir).await,
        Command::Agent(args) => agent::run(args).await,
        Command::Openapi => output::line(serve::openapi().trim_end()),
        Command::Create(args) => create::run(args, &session(&global)?).await,
        Command::List => list::run(&session(&global)?).await,
        Command::Show(args) => show::run(args, &session(&global)?).await,
        Command::Ask(args) => ask::run(args, &session(&global)?).await,
        Command::Logs(args) => logs::run(args, &session(&global)?).await,
        Command::Restart(args) => restart::run(args, &session(&global)?).await,
        Command::Pause(args) => halt::pause(args, &session(&global)?).await,
        Command::Resume(args) => halt::resume(args, &session(&global)?).await,
        Command::Hibernate(args) => halt::hibernate(args, &session(&global)?).await,
        Command::Delete(args) => delete::run(args, &session(&global)?).await,
        Command::Events(args) => events::run(args, &session(&global)?).await,
        Command::Login(args) => login::run(args, &global).await,
    };
    done.map(|()| ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
