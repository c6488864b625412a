//! The parsers of what others send, and what must hold whatever comes: called by the fuzzers in `fuzz`, and by a test over
//! what those begin with.

use std::{fs, io::Cursor, path::Path, sync::Arc};

use futures_util::{StreamExt, stream};
use molecule_core::{
    agent::{
        InboundSecret, StateDir, TokenStore,
        files::{Bits, Files},
    },
    clock::SystemEntropy,
    testing::untrusted,
};
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
    Parser { name: "arguments", read: untrusted::arguments },
    Parser { name: "bearers", read: |data| as_text(data, untrusted::bearers) },
    Parser { name: "calls", read: untrusted::call },
    Parser { name: "cron", read: |data| as_text(data, untrusted::cron) },
    Parser { name: "events", read: untrusted::events },
    Parser { name: "forms", read: form },
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

/// A form with files for a workspace: all that it was told to have kept is there, and nothing else. What begins it is not
/// sent, its boundary is `B`.
fn form(data: &[u8]) {
    let root = tempfile::tempdir().expect("there is a place for files");
    let place = |name: &str| root.path().join(name);
    let (workspace, configs) = (place("workspace"), place("configs"));
    [&workspace, &configs].into_iter().for_each(|folder| fs::create_dir(folder).expect("it is not there yet"));
    let state = StateDir::resolve(Some(&configs), None).expect("there is a folder for it");
    // Not saved as an agent does it, which waits for the disk.
    fs::write(configs.join(".platform_inbound_secret"), "secret").expect("it can be kept");
    let inbound = InboundSecret::new(&state);
    let tokens = TokenStore::supplied_first(&state, None);
    let files = Files::new(root.path().to_owned(), inbound, tokens, Arc::new(SystemEntropy));

    // Cut anywhere, as it may come.
    let pieces: Vec<Vec<u8>> = data.chunks(7).map(<[u8]>::to_vec).collect();
    let body: Bits = stream::iter(pieces).map(|piece| Ok(piece.into())).boxed();
    let ingest = files.ingest(Some(b"Bearer secret"), Some("multipart/form-data; boundary=B"), None, body);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("there is a runtime");
    let answer = runtime.block_on(ingest);

    let kept = kept(&workspace, "");
    let Ok(answer) = answer else {
        assert!(kept.is_empty(), "refused, and kept nevertheless: {kept:?}");
        return;
    };
    let told = answer["files"].as_array().expect("files are a list");
    let mut told: Vec<(String, u64)> = told
        .iter()
        .map(|file| {
            let path = file["uri"].as_str().and_then(|uri| uri.strip_prefix("workspace:/workspace"));
            (path.expect("it is below the workspace").to_owned(), file["size"].as_u64().expect("it has a size"))
        })
        .collect();
    told.sort();
    assert_eq!(told, kept);
    assert!(kept.iter().all(|(path, _)| path.starts_with("/.molecule/chat-uploads/")), "{kept:?}");
    assert!(kept.iter().map(|(_, size)| size).sum::<u64>() <= data.len() as u64, "{kept:?} of {} bytes", data.len());
}

/// Every file below `folder`, which is at `path`, with its size, in order.
fn kept(folder: &Path, path: &str) -> Vec<(String, u64)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("it is a folder") {
        let entry = entry.expect("it can be read");
        let path = format!("{path}/{}", entry.file_name().to_string_lossy());
        match entry.metadata().expect("it is there") {
            found if found.is_dir() => files.extend(kept(&entry.path(), &path)),
            found => files.push((path, found.len())),
        }
    }
    files.sort();
    files
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
    use std::collections::BTreeSet;

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
