//! The parsers of what others send, and what must hold whatever comes: called by the fuzzers in `fuzz`, and by a test over
//! what those begin with.

use std::io::Cursor;

use molecule_core::testing::untrusted;
use tokio_tungstenite::tungstenite::{
    Error, WebSocket,
    protocol::{Role, WebSocketConfig},
};

use crate::gates;

/// The most that a listener may say at once, as the server has it.
const INBOUND_LIMIT: usize = 4096;

/// The most of a script that is read: its parser goes as deep as it is nested.
const SCRIPT_LIMIT: usize = 1024;

/// A parser of what others send.
#[derive(Debug, Clone, Copy)]
pub struct Parser {
    /// Names it, its fuzzer and the folder of what that begins with.
    pub name: &'static str,
    /// Has it read what came, and panics where something does not hold that must.
    pub read: fn(&[u8]),
}

/// Every parser.
pub const PARSERS: &[Parser] = &[
    Parser { name: "bearers", read: |data| as_text(data, untrusted::bearers) },
    Parser { name: "calls", read: untrusted::call },
    Parser { name: "events", read: untrusted::events },
    Parser { name: "images", read: |data| as_text(data, untrusted::image_reference) },
    Parser { name: "paths", read: |data| as_text(data, untrusted::path) },
    Parser { name: "shell", read: |data| as_text(data, script) },
    Parser { name: "templates", read: |data| as_text(data, untrusted::template) },
    Parser { name: "urls", read: |data| as_text(data, untrusted::url) },
    Parser { name: "websocket", read: frames },
];

/// Has the parser `name` read `data`.
///
/// # Panics
/// Where something does not hold that must, and where no parser is named so.
pub fn read(name: &str, data: &[u8]) {
    let parser = PARSERS.iter().find(|parser| parser.name == name);
    (parser.unwrap_or_else(|| panic!("no parser is named {name}")).read)(data);
}

/// What is no text never gets as far as a parser of text.
fn as_text(data: &[u8], read: fn(&str)) {
    if let Ok(text) = std::str::from_utf8(data) {
        read(text);
    }
}

/// The script that decides a provider: every line that is named of it is one of its lines.
fn script(text: &str) {
    if text.len() > SCRIPT_LIMIT {
        return;
    }
    let lines = text.lines().count().max(1);
    for (prefix, line) in gates::prefixes(text).unwrap_or_default() {
        assert!((1..=lines).contains(&line), "{prefix} is said to be in line {line} of {lines}");
    }
}

/// What a listener sends, read as the server reads it: to an end, and never more at once than it may say.
fn frames(data: &[u8]) {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(INBOUND_LIMIT);
    config.max_frame_size = Some(INBOUND_LIMIT);
    let peer = Peer { sent: Cursor::new(data), answered: 0 };
    let mut socket = WebSocket::from_raw_socket(peer, Role::Server, Some(config));
    let mut frames = 0;
    loop {
        match socket.read() {
            Ok(message) => assert!(message.len() <= INBOUND_LIMIT, "{} bytes at once", message.len()),
            Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
        frames += 1;
        assert!(frames <= data.len(), "there are more frames than bytes");
    }
    // Pings and closes are answered, with what they brought and no more.
    assert!(socket.get_ref().answered <= 2 * data.len() + 128, "{} bytes were answered", socket.get_ref().answered);
}

/// The other end of a connection: what it sent, and how much it was answered.
struct Peer<'a> {
    sent: Cursor<&'a [u8]>,
    answered: usize,
}

impl std::io::Read for Peer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.sent.read(buffer)
    }
}

impl std::io::Write for Peer<'_> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.answered += buffer.len();
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    fn names(folder: &str) -> BTreeSet<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(folder);
        let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name =
            |entry: fs::DirEntry| Path::new(&entry.file_name()).file_stem().unwrap().to_str().unwrap().to_owned();
        entries.map(|entry| name(entry.unwrap())).collect()
    }

    #[test]
    fn every_parser_has_a_fuzzer_and_something_to_begin_with() {
        let parsers: BTreeSet<String> = PARSERS.iter().map(|parser| parser.name.to_owned()).collect();
        assert_eq!(names("fuzz_targets"), parsers);
        assert_eq!(names("seeds"), parsers);
        let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/Cargo.toml")).unwrap();
        for name in parsers {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml does not build {name}");
        }
    }

    #[test]
    fn listeners_may_say_as_much_as_the_server_has_it() {
        let server = include_str!("../../molecule-http/src/serve/routes/socket.rs");
        assert!(
            server.contains(&format!("const INBOUND_LIMIT: usize = {INBOUND_LIMIT};")),
            "take over the server's limit"
        );
    }

    #[test]
    fn what_must_hold_holds_of_all_that_the_fuzzers_begin_with() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
        for parser in PARSERS {
            let mut read = 0;
            for entry in fs::read_dir(seeds.join(parser.name)).unwrap() {
                let data = fs::read(entry.unwrap().path()).unwrap();
                (parser.read)(&data);
                // Whatever is cut off of it, too.
                (0..data.len()).for_each(|end| (parser.read)(&data[..end]));
                read += 1;
            }
            assert!(read >= 3, "{} has {read} texts to begin with", parser.name);
        }
    }
}
