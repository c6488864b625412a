//! Logs: for people or for machines, on standard error.

use std::backtrace::Backtrace;

use clap::ValueEnum;
use molecule_core::Error;
use tracing_subscriber::{EnvFilter, fmt};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Begins to log, and to log what panics say with their trace.
///
/// # Errors
/// Where `filter` cannot be understood.
pub(crate) fn start(format: LogFormat, filter: &str) -> Result<(), Error> {
    let filter = EnvFilter::builder().parse(filter).map_err(|error| {
        Error::invalid(format!("the log filter {filter:?} cannot be understood: {error}")).caused_by(error)
    })?;
    let logs = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second start in one process, as in tests, keeps the first.
    let _ = match format {
        LogFormat::Pretty => logs.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    std::panic::set_hook(Box::new(|panic| {
        let trace = Backtrace::force_capture();
        tracing::error!(%panic, %trace, "a task panicked");
    }));
    Ok(())
}
