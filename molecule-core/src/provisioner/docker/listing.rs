//! What is in a folder of a container, read off the archive that the engine makes of it: no process runs for it, and
//! the image needs no tools.

use std::io::{self, Read};

use bollard::errors::Error as EngineError;
use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;

use super::errors;
use crate::{
    error::{Error, ErrorKind, Result},
    provisioner::{
        FileEntry, LISTING_LIMIT,
        files::{is_listed, too_large},
    },
};

/// How many bytes of a folder are looked through for its names.
const BYTES_LIMIT: u64 = 1024 * 1024 * 1024;

/// The entries of the folder that `archive` was made of, down to `depth`.
pub(super) async fn entries(
    archive: impl Stream<Item = std::result::Result<Bytes, EngineError>> + Send,
    depth: usize,
) -> Result<Vec<FileEntry>> {
    let (send, receive) = mpsc::channel(8);
    let reading = tokio::task::spawn_blocking(move || read(Chunks { receive, rest: Bytes::new(), bytes: 0 }, depth));
    let mut archive = std::pin::pin!(archive);
    let mut broken = None;
    while let Some(chunk) = archive.next().await {
        match chunk {
            Ok(chunk) => {
                if send.send(chunk).await.is_err() {
                    // Whoever reads has had enough.
                    break;
                }
            }
            Err(error) => {
                broken = Some(error);
                break;
            }
        }
    }
    drop(send);
    let read = reading.await.map_err(|error| {
        Error::new(ErrorKind::Unexpected, "the listing broke off because of a defect").caused_by(error)
    })?;
    match broken {
        Some(error) => Err(errors::failed("list files")(error)),
        None => read,
    }
}

fn read(mut chunks: Chunks, depth: usize) -> Result<Vec<FileEntry>> {
    let mut listed = Vec::new();
    match collect(&mut chunks, depth, &mut listed) {
        _ if listed.len() > LISTING_LIMIT => {
            Err(too_large(format!("the folder holds more than {LISTING_LIMIT} files")))
        }
        _ if chunks.bytes > BYTES_LIMIT => Err(too_large("the folder holds too much to be listed".to_owned())),
        Err(error) => Err(Error::new(ErrorKind::Upstream, "the docker engine sent a broken archive").caused_by(error)),
        Ok(()) => {
            listed.sort_by(|one, other| one.path.cmp(&other.path));
            Ok(listed)
        }
    }
}

fn collect(chunks: &mut Chunks, depth: usize, listed: &mut Vec<FileEntry>) -> io::Result<()> {
    for entry in tar::Archive::new(chunks).entries()? {
        let entry = entry?;
        let kind = entry.header().entry_type();
        let path = entry.path()?;
        // The first name is that of the folder itself.
        let below = path.to_str().map(|path| path.trim_end_matches('/')).and_then(|path| path.split_once('/'));
        let Some((_, below)) = below.filter(|(_, below)| is_listed(below, depth)) else { continue };
        if kind.is_dir() || kind.is_file() {
            listed.push(FileEntry {
                path: below.to_owned(),
                size: if kind.is_dir() { 0 } else { entry.size() },
                dir: kind.is_dir(),
            });
        }
        if listed.len() > LISTING_LIMIT {
            break;
        }
    }
    Ok(())
}

/// The chunks of an archive as one reader.
#[derive(Debug)]
struct Chunks {
    receive: mpsc::Receiver<Bytes>,
    rest: Bytes,
    bytes: u64,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.receive.blocking_recv() {
                Some(chunk) => self.rest = chunk,
                None => return Ok(0),
            }
        }
        let some = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..some]);
        self.bytes += some as u64;
        if self.bytes > BYTES_LIMIT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(some)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use tar::{Builder, EntryType, Header};

    use super::*;

    fn archive(entries: &[(&str, EntryType, usize)]) -> Vec<u8> {
        let mut archive = Builder::new(Vec::new());
        for (path, kind, size) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_size(*size as u64);
            if kind.is_symlink() {
                archive.append_link(&mut header, path, "/etc/passwd").unwrap();
            } else {
                archive.append_data(&mut header, path, vec![b'x'; *size].as_slice()).unwrap();
            }
        }
        archive.into_inner().unwrap()
    }

    async fn listed(packed: Vec<u8>, depth: usize) -> Result<Vec<FileEntry>> {
        let chunks: Vec<_> = packed.chunks(100).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        entries(stream::iter(chunks), depth).await
    }

    #[tokio::test]
    async fn names_come_off_the_archive_without_its_links() {
        let packed = archive(&[
            ("configs/", EntryType::Directory, 0),
            ("configs/b", EntryType::Regular, 700),
            ("configs/link", EntryType::Symlink, 0),
            ("configs/a/", EntryType::Directory, 0),
            ("configs/a/c", EntryType::Regular, 3),
            ("configs/.git/", EntryType::Directory, 0),
            ("configs/.git/config", EntryType::Regular, 3),
        ]);
        let rows = |entries: Vec<FileEntry>| {
            entries.into_iter().map(|entry| (entry.path, entry.size, entry.dir)).collect::<Vec<_>>()
        };
        let expected = [("a".to_owned(), 0, true), ("b".to_owned(), 700, false)];
        assert_eq!(rows(listed(packed.clone(), 1).await.unwrap()), expected);
        assert_eq!(listed(packed, 2).await.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn what_is_no_archive_or_too_much_is_refused() {
        assert_eq!(listed(vec![b'x'; 2000], 1).await.unwrap_err().kind(), ErrorKind::Upstream);
        let names: Vec<String> = (0..=LISTING_LIMIT).map(|n| format!("configs/{n}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), EntryType::Regular, 0)).collect();
        assert_eq!(listed(archive(&many), 1).await.unwrap_err().kind(), ErrorKind::TooLarge);
        let broken: Vec<std::result::Result<Bytes, EngineError>> = vec![Err(EngineError::RequestTimeoutError)];
        assert_eq!(entries(stream::iter(broken), 1).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}
