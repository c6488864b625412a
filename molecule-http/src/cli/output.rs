//! The one place that writes to standard output and standard error.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use molecule_core::{
    error::{Error, ErrorKind, Result},
    workspace::Status,
};

use super::{json, text};
use crate::paths;

/// Writes `text` and a line end to standard output, at once. The text must be clean already.
pub(crate) fn line(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .map_err(|error| Error::new(ErrorKind::Unexpected, "cannot write to standard output").caused_by(error))
}

/// Writes text of others to standard output, cleaned, with a line end only where it has none.
pub(crate) fn foreign(text: &str) -> Result<()> {
    match text.strip_suffix('\n').unwrap_or(text) {
        "" => Ok(()),
        text => line(&text::clean_lines(text)),
    }
}

/// Writes valid JSON text to standard output, laid out for reading.
pub(crate) fn json(json: &str) -> Result<()> {
    line(&json::pretty(json))
}

/// Writes a line about what goes on to standard error; nobody reading it is no failure.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", text::clean(text));
}

/// Writes the one line about a failure to standard error.
pub(crate) fn error(error: &Error) {
    note(&format!("error: {error}"));
}

/// Whether `error` only says that nobody reads our output any more.
pub(crate) fn is_broken_pipe(error: &Error) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Whether a person watches standard error.
pub(crate) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// A table without frames: easy to read and to cut into columns.
pub(crate) fn table<'a>(header: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if !colours() {
        table.force_no_tty();
    }
    let cells: Vec<Cell> = header.into_iter().map(|title| Cell::new(title).add_attribute(Attribute::Bold)).collect();
    if !cells.is_empty() {
        table.set_header(cells);
    }
    table
}

/// Writes `table`, its columns two blanks apart.
pub(crate) fn print_table(mut table: Table) -> Result<()> {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    line(&table.trim_fmt())
}

/// A cell with text of others.
pub(crate) fn cell(text: &str) -> Cell {
    Cell::new(text::clean(text))
}

/// A cell with a number or the like, aligned to the right.
pub(crate) fn number(value: impl ToString) -> Cell {
    Cell::new(value).set_alignment(CellAlignment::Right)
}

/// A cell with a status, in a colour that says whether it is good.
pub(crate) fn status(status: &str) -> Cell {
    let cell = cell(status);
    match status.parse::<Status>() {
        Ok(Status::Online) => cell.fg(Color::Green),
        Ok(Status::Failed | Status::Offline) => cell.fg(Color::Red),
        Ok(Status::Provisioning | Status::Degraded | Status::AwaitingAgent) => cell.fg(Color::Yellow),
        _ => cell,
    }
}

fn colours() -> bool {
    io::stdout().is_terminal() && paths::environment("NO_COLOR").is_none()
}
