//! The folder where an agent keeps what must outlive it.

#[cfg(feature = "files")]
use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::secret_file::SecretFile;
use crate::error::{Error, Result};

/// Where a container finds its volume.
const CONTAINER: &str = "/configs";

/// Where everyone else keeps the state, below the home folder.
const HOME: &str = ".molecule-workspace";

/// The files in it.
const TOKEN: &str = ".auth_token";
const INBOUND: &str = ".platform_inbound_secret";
#[cfg(any(feature = "mcp", feature = "files"))]
const CURSOR: &str = ".mcp_inbox_cursor";

/// The folder that holds the secrets of one workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Picks the folder: `explicit`, else `/configs` when it is there and can be written to, else
    /// `.molecule-workspace` below `home`.
    ///
    /// The first and the last are made when they are missing, for their owner alone.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::error::ErrorKind::InvalidInput) when no folder is left to pick or the picked one cannot
    /// be made.
    pub fn resolve(explicit: Option<&Path>, home: Option<&Path>) -> Result<Self> {
        Self::resolve_among(explicit, Path::new(CONTAINER), home)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a file that is called `name` is, or is to take the place of, one that such a folder holds for its agent alone,
    /// also where the case of names does not count.
    #[cfg(feature = "files")]
    pub(super) fn is_for_the_agent_alone(name: &OsStr) -> bool {
        let begins = |known: &&str| {
            name.as_bytes().get(..known.len()).is_some_and(|name| name.eq_ignore_ascii_case(known.as_bytes()))
        };
        [TOKEN, INBOUND, CURSOR].iter().any(begins)
    }

    pub(super) fn auth_token(&self) -> SecretFile {
        SecretFile::new(self.path.join(TOKEN))
    }

    pub(super) fn inbound_secret(&self) -> SecretFile {
        SecretFile::new(self.path.join(INBOUND))
    }

    #[cfg(feature = "mcp")]
    pub(super) fn inbox_cursor(&self) -> SecretFile {
        SecretFile::new(self.path.join(CURSOR))
    }

    fn resolve_among(explicit: Option<&Path>, container: &Path, home: Option<&Path>) -> Result<Self> {
        if let Some(path) = explicit {
            create(path)?;
            return Ok(Self { path: path.to_owned() });
        }
        if is_writable(container) {
            return Ok(Self { path: container.to_owned() });
        }
        let home = home.ok_or_else(|| {
            Error::invalid(format!(
                "there is no folder for the state of this agent: {} cannot be written to and no home folder is known; \
                 name one with CONFIGS_DIR",
                container.display()
            ))
        })?;
        let path = home.join(HOME);
        create(&path)?;
        make_private(&path)?;
        Ok(Self { path })
    }
}

fn create(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| failed(path, error))
}

fn make_private(path: &Path) -> Result<()> {
    let mode = fs::metadata(path).map_err(|error| failed(path, error))?.mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(|error| failed(path, error))
}

/// Whether a file can be made in `path`. Mode bits do not tell: the mount may be read-only.
fn is_writable(path: &Path) -> bool {
    let probe = path.join(format!(".molecule-probe-{}", std::process::id()));
    let written = fs::File::create(&probe).is_ok();
    if written {
        // Best effort: an empty file that stays behind does no harm.
        let _ = fs::remove_file(&probe);
    }
    written
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::invalid(format!(
        "the state folder {} cannot be used ({}): name another with CONFIGS_DIR",
        path.display(),
        error.kind()
    ))
    .caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn an_explicit_folder_wins_and_is_made() {
        let root = tempfile::tempdir().unwrap();
        let explicit = root.path().join("a/b");
        let state = StateDir::resolve_among(Some(&explicit), root.path(), Some(root.path())).unwrap();
        assert_eq!(state.path(), explicit);
        assert_eq!(mode(&explicit), 0o700);
    }

    #[test]
    fn the_volume_of_a_container_comes_next() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::resolve_among(None, root.path(), Some(root.path())).unwrap();
        assert_eq!(state.path(), root.path());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "the probe is removed");
    }

    #[test]
    fn the_home_folder_comes_last_and_is_private() {
        let root = tempfile::tempdir().unwrap();
        let expected = root.path().join(".molecule-workspace");
        for _ in 0..2 {
            let state = StateDir::resolve_among(None, &root.path().join("none"), Some(root.path())).unwrap();
            assert_eq!(state.path(), expected);
            assert_eq!(mode(&expected), 0o700);
            fs::set_permissions(&expected, Permissions::from_mode(0o755)).unwrap();
        }
    }

    #[test]
    fn no_folder_at_all_is_an_error_that_helps() {
        let root = tempfile::tempdir().unwrap();
        let error = StateDir::resolve_among(None, &root.path().join("none"), None).unwrap_err();
        assert!(error.message().contains("CONFIGS_DIR"), "{error}");

        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let error = StateDir::resolve_among(Some(&file.join("below")), root.path(), None).unwrap_err();
        assert!(error.message().contains("below"), "{error}");
    }
}
