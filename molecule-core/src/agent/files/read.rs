//! Gives back a file of the workspace.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use tokio::io::AsyncReadExt;

use super::{Bits, Files, Opened, Refusal, name};
use crate::{
    agent::{StateDir, file_path},
    regular_file,
};

/// How much is read at once.
const CHUNK: usize = 64 * 1024;

impl Files {
    /// Opens the file that the workspace knows as `path`.
    ///
    /// # Errors
    /// 401 where `authorization`, the whole header, is wrong; 400 for a path that may not be read, or leads to no file;
    /// 404 where there is none, and for the secrets of this agent and of others; 500 where it cannot be read.
    pub async fn read(&self, authorization: Option<&[u8]>, path: &str) -> Result<Opened, Refusal> {
        self.admit(authorization)?;
        file_path::check(path).map_err(|error| Refusal::new(400, error.message()))?;
        let (root, asked) = (self.root.clone(), PathBuf::from(path));
        // A folder on a network may hold up whoever reads from it.
        let opened = tokio::task::spawn_blocking(move || open(&root, &asked)).await;
        let (file, length) = opened.unwrap_or_else(|_| Err(unreadable()))?;
        let name = path.rsplit('/').next().unwrap_or_default();
        Ok(Opened {
            length,
            content_type: mime_guess::from_path(name).first_or_octet_stream().to_string(),
            content_disposition: name::disposition(name),
            body: bits(tokio::fs::File::from_std(file), length),
        })
    }
}

fn open(root: &Path, asked: &Path) -> Result<(File, u64), Refusal> {
    let missing = || Refusal::new(404, "file not found");
    let inner = asked.strip_prefix("/").map_err(|_| missing())?;
    let place = root.join(inner);
    let (Some(folder), Some(name)) = (place.parent(), place.file_name()) else { return Err(missing()) };
    let Some(top) = inner.components().next() else { return Err(missing()) };
    // A folder may be a link, as long as it leads nowhere else.
    let folder = folder.canonicalize().map_err(|error| refused(&error))?;
    let is_top = inner.components().count() == 1;
    let allowed = if is_top { root.canonicalize() } else { root.join(top).canonicalize() };
    if !folder.starts_with(allowed.map_err(|error| refused(&error))?) {
        return Err(Refusal::new(400, "invalid path"));
    }
    // In any folder: where all files of a host are below the root, so are those of other agents.
    if StateDir::is_for_the_agent_alone(name) {
        return Err(missing());
    }
    let file = folder.join(name);
    let opened = regular_file::open(&file).map_err(|error| refused(&error))?;
    let (file, metadata) = opened.ok_or_else(|| Refusal::new(400, "path is not a regular file"))?;
    Ok((file, metadata.len()))
}

fn refused(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename => {
            Refusal::new(404, "file not found")
        }
        _ => {
            tracing::error!(error = %error, "a file cannot be read");
            unreadable()
        }
    }
}

fn unreadable() -> Refusal {
    Refusal::new(500, "failed to read file")
}

/// `length` bytes of `file`, and an error where it has fewer.
fn bits(file: tokio::fs::File, length: u64) -> Bits {
    let chunks = stream::try_unfold((file, length), async |(mut file, left)| {
        if left == 0 {
            return Ok(None);
        }
        let mut chunk = BytesMut::with_capacity(CHUNK.min(usize::try_from(left).unwrap_or(CHUNK)));
        if (&mut file).take(left).read_buf(&mut chunk).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let chunk: Bytes = chunk.freeze();
        let left = left - chunk.len() as u64;
        Ok(Some((chunk, (file, left))))
    });
    chunks.boxed()
}
