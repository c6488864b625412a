//! What an agent writes, kept within bounds.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use super::folder;
use crate::error::{Error, Result};

/// A log larger than this is put aside at the next start, in the place of the one put aside before.
const ROTATE_OVER: u64 = 8 * 1024 * 1024;

/// The most that [`tail`] gives, however many lines were asked for. The first line is then cut.
const TAIL_LIMIT: u64 = 4 * 1024 * 1024;

const BLOCK: u64 = 64 * 1024;

/// Opens the log at `path` for a workload that is about to start.
pub(super) fn open(path: &Path) -> Result<File> {
    if fs::metadata(path).is_ok_and(|found| found.len() > ROTATE_OVER) {
        fs::rename(path, path.with_extension("log.1"))
            .map_err(|error| folder::failed("put the log of the workspace aside", path, error))?;
    }
    folder::append(path)
}

/// The last `lines` lines of the log at `path`, read from its end.
pub(super) fn tail(path: &Path, lines: usize) -> Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::not_found("the workspace has no workload to read a log of"));
        }
        Err(error) => return Err(folder::failed("read the log of the workspace", path, error)),
    };
    last_lines(&mut file, lines, TAIL_LIMIT)
        .map_err(|error| folder::failed("read the log of the workspace", path, error))
}

fn last_lines(file: &mut (impl Read + Seek), lines: usize, limit: u64) -> io::Result<Vec<u8>> {
    let end = file.seek(SeekFrom::End(0))?;
    let lowest = end.saturating_sub(limit);
    let (mut start, mut tail) = (end, Vec::new());
    while start > lowest && line_start(&tail, lines).is_none() {
        let size = BLOCK.min(start - lowest);
        start -= size;
        file.seek(SeekFrom::Start(start))?;
        let mut block = Vec::with_capacity((size as usize) + tail.len());
        file.by_ref().take(size).read_to_end(&mut block)?;
        block.append(&mut tail);
        tail = block;
    }
    Ok(tail.split_off(line_start(&tail, lines).unwrap_or(0)))
}

/// Where the last `lines` lines of `text` begin, if it is sure to hold the whole of them.
fn line_start(text: &[u8], lines: usize) -> Option<usize> {
    if lines == 0 {
        return Some(text.len());
    }
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let mut ends = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    ends.nth(lines - 1).map(|(end, _)| end + 1)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn last(text: &str, lines: usize, limit: u64) -> String {
        String::from_utf8(last_lines(&mut Cursor::new(text), lines, limit).unwrap()).unwrap()
    }

    #[test]
    fn gives_whole_lines_from_the_end() {
        for (text, lines, tail) in [
            ("", 3, ""),
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 2, "a\nb\n"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\n\n\n", 2, "\n\n"),
            ("a\nb\n", 0, ""),
        ] {
            assert_eq!(last(text, lines, TAIL_LIMIT), tail, "{lines} of {text:?}");
        }
    }

    #[test]
    fn reads_lines_that_span_blocks_and_stops_at_the_limit() {
        let long = "x".repeat(BLOCK as usize);
        let text = format!("first\n{long}\n{long}\nlast\n");
        assert_eq!(last(&text, 2, TAIL_LIMIT), format!("{long}\nlast\n"));
        assert_eq!(last(&text, 4, TAIL_LIMIT), text);
        assert_eq!(last(&text, 4, 7), "x\nlast\n");
    }

    #[test]
    fn a_large_log_is_put_aside() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("agent.log");
        open(&path).unwrap().set_len(ROTATE_OVER).unwrap();
        assert_eq!(open(&path).unwrap().metadata().unwrap().len(), ROTATE_OVER, "not yet over the limit");
        open(&path).unwrap().set_len(ROTATE_OVER + 1).unwrap();
        assert_eq!(open(&path).unwrap().metadata().unwrap().len(), 0);
        assert_eq!(fs::metadata(root.path().join("agent.log.1")).unwrap().len(), ROTATE_OVER + 1);
    }
}
