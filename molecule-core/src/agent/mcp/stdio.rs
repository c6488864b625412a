//! The streams that a client holds the other ends of.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileTypeExt,
    },
};

use tokio::io::{Stdin, Stdout};

use super::{EXIT_USAGE, Failure};

/// Standard input and output, when they are a pipe, a socket or a terminal.
///
/// # Errors
/// When one of them is something else: a file has no client at its other end.
pub fn stdio() -> Result<(Stdin, Stdout), Failure> {
    check("standard input", io::stdin().as_fd())?;
    check("standard output", io::stdout().as_fd())?;
    Ok((tokio::io::stdin(), tokio::io::stdout()))
}

fn check(name: &str, stream: BorrowedFd<'_>) -> Result<(), Failure> {
    let failure = |what: &str| Failure {
        code: EXIT_USAGE,
        message: format!("molecule-mcp: {name} {what}: it is started by an MCP client, which talks to it over pipes"),
    };
    let kind = stream
        .try_clone_to_owned()
        .and_then(|stream| File::from(stream).metadata())
        .map_err(|error| failure(&format!("cannot be used ({error})")))?
        .file_type();
    if kind.is_fifo() || kind.is_socket() || kind.is_char_device() { Ok(()) } else { Err(failure("is a file")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_no_client() {
        let file = tempfile::tempfile().unwrap();
        let failure = check("standard input", file.as_fd()).unwrap_err();
        assert_eq!(failure.code, 2);
        assert!(failure.message.contains("standard input is a file"), "{}", failure.message);
        let (reader, _writer) = io::pipe().unwrap();
        assert!(check("standard input", reader.as_fd()).is_ok());
        assert!(check("standard input", File::open("/dev/null").unwrap().as_fd()).is_ok());
    }
}
