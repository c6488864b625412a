//! `molecule mcp`: an agent's membership and its tools, for a client of the Model Context Protocol.

use std::{fmt, io, process::ExitCode, sync::Arc};

use molecule_core::{
    agent::{
        LogText,
        mcp::{self, Options},
    },
    clock::SystemEntropy,
};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::{cli::output, paths};

pub(crate) const AFTER_HELP: &str = "\
The client of the protocol starts it and talks to it over its standard input and output. It is told by the environment: \
WORKSPACE_ID, PLATFORM_URL, MOLECULE_WORKSPACE_TOKEN, and what it tells of when one of them is missing.

Exit codes:
  0  the client closed its end
  2  a setting is missing or wrong, or no client is there
  3  the platform rejects the token, or has deleted the workspace";

/// Runs until the client closes its end; the exit codes are those of `molecule-mcp`.
pub(crate) async fn run() -> ExitCode {
    let options = Options::read(paths::environment, std::env::current_dir().ok());
    let level = if options.is_verbose { Level::INFO } else { Level::WARN };
    // A second start in one process, as in tests, keeps the first.
    let _ = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).event_format(Prefixed).try_init();
    match mcp::run(&options, Arc::new(SystemEntropy), mcp::stdio).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.message.lines() {
                output::note(line);
            }
            ExitCode::from(failure.code)
        }
    }
}

/// Lines that tell whose they are among those of the client. There is one workspace, so that none is named beside the words.
struct Prefixed;

impl<S, N> FormatEvent<S, N> for Prefixed
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        writeln!(writer, "[molecule-mcp] {}", LogText::of(event))
    }
}
