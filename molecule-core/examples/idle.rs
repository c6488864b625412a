//! The smallest possible workload, for the tests of backends: one static binary that is a whole image.
//!
//! The first argument says what it does after its greeting:
//!
//! - `serve` (the default) answers every HTTP request on port 8000, or `$PORT`, with the text `idle`, but ends with
//!   code 7 when asked for `/crash`;
//! - `exit CODE` ends at once;
//! - `token` says mode, owner and length of `/configs/.auth_token` as the first instruction found them, then serves.

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::MetadataExt,
    process::exit,
};

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let mode = arguments.next().unwrap_or_default();
    if mode == "token" {
        say(&describe("/configs/.auth_token"));
    }
    say("idle: started");
    writeln!(io::stderr(), "idle: this line is on the error stream")?;
    if mode == "exit" {
        exit(arguments.next().and_then(|code| code.parse().ok()).unwrap_or(0));
    }
    serve()
}

fn describe(path: &str) -> String {
    match fs::metadata(path) {
        Ok(file) => format!("idle: token mode={:o} uid={} bytes={}", file.mode() & 0o7777, file.uid(), file.len()),
        Err(error) => format!("idle: no token: {error}"),
    }
}

#[expect(clippy::disallowed_methods, reason = "a program of its own, told its port by the backend")]
fn serve() -> io::Result<()> {
    let port = env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8000);
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    for stream in listener.incoming() {
        // A caller that hangs up early is no reason to end.
        let _ = answer(stream?);
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    if lines.next().transpose()?.is_some_and(|request| request.contains(" /crash ")) {
        exit(7);
    }
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nidle")
}

fn say(line: &str) {
    // Nobody reading is no reason to fail.
    let _ = writeln!(io::stdout(), "{line}");
}
