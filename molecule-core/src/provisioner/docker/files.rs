//! Files in containers, through the engine's archive calls: no process runs for them, and the image needs no tools.
//!
//! Paths are seen as the container sees them, volumes and host folders included. What only its processes see is not
//! there: `/proc`, and the temporary file system of tier 1.

use bollard::{
    body_full,
    errors::Error as EngineError,
    query_parameters::{
        ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder,
    },
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use super::{DockerProvisioner, archive, archive::Owner, container::CONFIG_DIR, errors};
use crate::{
    error::{Error, ErrorKind, Result},
    provisioner::{ConfigFile, EXEC_READ_LIMIT, FilePath, files::leads_elsewhere},
};

/// The file types of Go's `fs.FileMode`: any of these bits means that it is no regular file.
const NOT_REGULAR: u32 = 0x8f28_0000;
const SYMLINK: u32 = 1 << 27;
const FOLDER: u32 = 1 << 31;
/// Headers and padding around the one file of an archive, long names included.
const ARCHIVE_OVERHEAD: usize = 64 * 1024;

impl DockerProvisioner {
    /// Reads a regular file of at most [`EXEC_READ_LIMIT`] bytes, following links.
    pub(super) async fn read_file(&self, container: &str, path: &str) -> Result<Vec<u8>> {
        let Some(file) = self.regular_file(container, path).await? else {
            return Err(Error::not_found(format!("there is no file {path}")));
        };
        if usize::try_from(file.size).map_or(true, |size| size > EXEC_READ_LIMIT) {
            return Err(too_large(path));
        }
        let mut chunks = Box::pin(self.download(container, &file.path));
        let mut packed = Vec::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(errors::failed("read a file")).map_err(|error| error.context("path", path))?;
            // The file may have grown since it was measured.
            if packed.len() + chunk.len() > EXEC_READ_LIMIT + ARCHIVE_OVERHEAD {
                return Err(too_large(path));
            }
            packed.extend_from_slice(&chunk);
        }
        let contents = archive::unpack_one(&packed)?;
        if contents.len() > EXEC_READ_LIMIT { Err(too_large(path)) } else { Ok(contents) }
    }

    /// Whether `path` is a regular file, following links.
    pub(super) async fn has_file(&self, container: &str, path: &str) -> Result<bool> {
        Ok(self.regular_file(container, path).await?.is_some())
    }

    /// Puts `files` below the configuration folder.
    pub(super) async fn put_files(&self, container: &str, files: &[ConfigFile], owner: Owner) -> Result<()> {
        let packed = archive::pack(files, owner)?;
        let options = UploadToContainerOptionsBuilder::new().path(CONFIG_DIR).build();
        self.docker
            .upload_to_container(container, Some(options), body_full(packed.into()))
            .await
            .map_err(errors::failed("copy files into the configuration volume"))
    }

    async fn regular_file(&self, container: &str, path: &str) -> Result<Option<File>> {
        let Some(mut found) = self.stat(container, path).await? else { return Ok(None) };
        let mut path = path.to_owned();
        if found.mode & SYMLINK != 0 {
            // The engine gives the end of the whole chain of links, within the container.
            path = found.link_target;
            found = match self.stat(container, &path).await? {
                Some(found) => found,
                None => return Ok(None),
            };
        }
        Ok((found.mode & NOT_REGULAR == 0).then_some(File { path, size: found.size }))
    }

    /// What there is at `path`, in an archive.
    pub(super) fn download(
        &self,
        container: &str,
        path: &str,
    ) -> impl Stream<Item = std::result::Result<Bytes, EngineError>> + use<> {
        let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
        self.docker.download_from_container(container, Some(options))
    }

    /// What is at `path` below the folder `root`, past no link; `None` where there is nothing.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where a link, or no folder, is on the way, or at its end.
    pub(super) async fn look(&self, container: &str, root: &str, path: &FilePath) -> Result<Option<Looked>> {
        let mut place = root.to_owned();
        let mut names = path.names().peekable();
        while let Some(name) = names.next() {
            place = format!("{place}/{name}");
            let Some(found) = self.stat(container, &place).await? else { return Ok(None) };
            let folder = found.mode & FOLDER != 0;
            if found.mode & SYMLINK != 0 || (names.peek().is_some() && !folder) {
                return Err(leads_elsewhere());
            }
            if names.peek().is_none() {
                let regular = found.mode & NOT_REGULAR == 0;
                return Ok(Some(Looked { path: place, folder, regular }));
            }
        }
        Ok(None)
    }

    /// Refuses a path below `root` on which anything would lead elsewhere: a link, or what is no folder.
    pub(super) async fn refuse_links(&self, container: &str, root: &str, path: &FilePath) -> Result<()> {
        self.look(container, root, path).await.map(|_| ())
    }

    /// Where the folder `root` of a container really is; `None` where it is not there.
    pub(super) async fn real_root(&self, container: &str, root: &str) -> Result<Option<String>> {
        let Some(found) = self.stat(container, root).await? else { return Ok(None) };
        Ok(Some(if found.mode & SYMLINK != 0 { found.link_target } else { root.to_owned() }))
    }

    async fn stat(&self, container: &str, path: &str) -> Result<Option<Stat>> {
        let options = ContainerArchiveInfoOptionsBuilder::new().path(path).build();
        let answer = errors::found(self.docker.get_container_archive_info(container, Some(options)).await)
            .map_err(errors::failed("look for a file"))
            .map_err(|error| error.context("path", path))?;
        Ok(answer.map(|stat| Stat { mode: stat.file_mode, size: stat.size, link_target: stat.link_target }))
    }
}

/// What was found at a path, which is no link.
pub(super) struct Looked {
    pub(super) path: String,
    pub(super) folder: bool,
    pub(super) regular: bool,
}

struct File {
    path: String,
    size: i64,
}

struct Stat {
    mode: u32,
    size: i64,
    link_target: String,
}

fn too_large(path: &str) -> Error {
    Error::new(ErrorKind::TooLarge, format!("{path} is larger than {EXEC_READ_LIMIT} bytes"))
}
