//! A stand-in for an agent, for the tests of backends: it stays up, and answers every HTTP request with 200, but ends
//! with code 7 when asked for `/crash`. Linked statically, it is all that an image needs.
//!
//! Called `rm`, it removes the files that are named after `--`: images of tests have no other tool.
//!
//! It listens on `PORT` (8000 by default) of every address. Before that, when set:
//! - `MOLECULE_TEST_SHOW`: prints `file <path> <mode> <contents>` for this file of its configuration folder;
//! - `MOLECULE_TEST_ENV`: prints its arguments and environment, one `arg …` or `env …` a line;
//! - `MOLECULE_TEST_LINES`: prints that many lines, `line 1` and so on;
//! - `MOLECULE_TEST_ERRORS`: prints `error line` on the error stream;
//! - `MOLECULE_TEST_STUBBORN`: starts a child that ignores SIGTERM, and prints `stubborn <pid>`;
//! - `MOLECULE_TEST_EXIT`: ends with this exit code.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it has no other parameters and no other voice"
)]

use std::{
    env, fs, io,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Command, ExitCode, exit},
    thread,
    time::Duration,
};

fn main() -> io::Result<ExitCode> {
    if env::args().next().is_some_and(|name| name.rsplit('/').next() == Some("rm")) {
        env::args().skip_while(|argument| argument != "--").skip(1).try_for_each(fs::remove_file)?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("workload starts");
    if let Ok(path) = env::var("MOLECULE_TEST_SHOW") {
        println!("{}", describe(&path));
    }
    if env::var_os("MOLECULE_TEST_ENV").is_some() {
        env::args().for_each(|argument| println!("arg {argument}"));
        env::vars().for_each(|(name, value)| println!("env {name}={value}"));
    }
    if let Some(lines) = number("MOLECULE_TEST_LINES") {
        (1..=lines).for_each(|line| println!("line {line}"));
    }
    if env::var_os("MOLECULE_TEST_ERRORS").is_some() {
        eprintln!("error line");
    }
    if env::var_os("MOLECULE_TEST_STUBBORN").is_some() {
        println!("stubborn {}", start_stubborn_child()?);
    }
    if let Some(code) = number("MOLECULE_TEST_EXIT") {
        return Ok(ExitCode::from(code));
    }

    let port = env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8000);
    for stream in TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?.incoming() {
        let stream = stream?;
        // A caller that says nothing, or leaves early, must not hold up the others.
        thread::spawn(move || answer(&stream));
    }
    Ok(ExitCode::SUCCESS)
}

fn number(name: &str) -> Option<u8> {
    env::var(name).ok()?.parse().ok()
}

fn describe(path: &str) -> String {
    let folder = env::var("WORKSPACE_CONFIG_PATH").unwrap_or_else(|_| "/configs".to_owned());
    let file = format!("{folder}/{path}");
    match (mode(&file), fs::read_to_string(&file)) {
        (Ok(mode), Ok(contents)) => format!("file {path} {mode:o} {contents}"),
        (Err(error), _) | (_, Err(error)) => format!("file {path} missing: {error}"),
    }
}

#[cfg(unix)]
fn mode(path: &str) -> io::Result<u32> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::metadata(path)?.permissions().mode() & 0o7777)
}

#[cfg(not(unix))]
fn mode(path: &str) -> io::Result<u32> {
    fs::metadata(path).map(|_| 0o600)
}

fn start_stubborn_child() -> io::Result<u32> {
    // The shell leaves the ignored signal to what it becomes.
    let child = Command::new("/bin/sh").args(["-c", "trap '' TERM; exec sleep 3600"]).spawn()?;
    // Give the shell time to set its trap: whoever waits for the line below may send the signal at once.
    while child_command(child.id())?.is_some_and(|command| !command.starts_with("sleep")) {
        thread::sleep(Duration::from_millis(2));
    }
    Ok(child.id())
}

/// The command line of a child, where the system tells.
fn child_command(pid: u32) -> io::Result<Option<String>> {
    match fs::read_to_string(format!("/proc/{pid}/cmdline")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

fn answer(stream: &TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    if lines.next().transpose()?.is_some_and(|request| request.contains(" /crash ")) {
        exit(7);
    }
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let mut stream = stream;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok\n")
}
