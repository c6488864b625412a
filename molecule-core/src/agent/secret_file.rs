//! A file that holds one secret and is nobody else's to read.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::PathBuf,
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use secrecy::{ExposeSecret, SecretString};

use crate::error::{Error, ErrorKind, Result};

/// More than any token or secret needs; what is longer is some other file.
const LONGEST: u64 = 4096;

/// How many left-over temporary files are stepped over before a write gives up.
const ATTEMPTS: usize = 64;

/// One secret in a file of mode 0600, without a newline at its end.
#[derive(Debug, Clone)]
pub(super) struct SecretFile {
    path: PathBuf,
}

/// Tells one content of a file from the next without reading it.
///
/// Every replacement is a new inode, so that two writes within one tick of the file system's clock differ too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl SecretFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The secret, trimmed; `None` when there is no file or nothing in it.
    ///
    /// A file that others can read is made private first, with a warning.
    pub(super) fn read(&self) -> Result<Option<SecretString>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("cannot be read", error)),
        };
        self.make_private(&file)?;
        let mut text = String::new();
        file.take(LONGEST + 1).read_to_string(&mut text).map_err(|error| self.failed("cannot be read", error))?;
        if text.len() as u64 > LONGEST {
            return Err(Error::invalid(format!("{} is too long to hold a secret", self.path.display())));
        }
        let secret = text.trim();
        Ok((!secret.is_empty()).then(|| secret.into()))
    }

    /// Replaces the content by `secret`, trimmed, in one step; writes nothing when it holds that already.
    pub(super) fn write(&self, secret: &SecretString) -> Result<()> {
        let secret = checked(secret)?;
        // What cannot be read is replaced.
        if let Ok(Some(current)) = self.read()
            && current.expose_secret() == secret
        {
            return Ok(());
        }
        let (temporary, mut file) = self.create_temporary().map_err(|error| self.failed("cannot be written", error))?;
        let written = file
            .write_all(secret.as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&temporary, &self.path));
        written.map_err(|error| {
            // Best effort: the write has failed already, and that is what the caller hears of.
            let _ = fs::remove_file(&temporary);
            self.failed("cannot be written", error)
        })
    }

    /// Removes the file, if it is there.
    #[cfg(feature = "mcp")]
    pub(super) fn remove(&self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed("cannot be removed", error)),
            _ => Ok(()),
        }
    }

    /// What tells this content from the next; `None` when there is no file.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        let metadata = fs::metadata(&self.path).ok()?;
        Some(Stamp {
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }

    fn make_private(&self, file: &File) -> Result<()> {
        let mode = file.metadata().map_err(|error| self.failed("cannot be read", error))?.mode();
        if mode & 0o077 == 0 {
            return Ok(());
        }
        file.set_permissions(Permissions::from_mode(0o600)).map_err(|error| {
            Error::new(
                ErrorKind::Unexpected,
                format!("others can read {0}: run `chmod 600 {0}` as its owner", self.path.display()),
            )
            .caused_by(error)
        })?;
        tracing::warn!(path = %self.path.display(), "others could read a file that holds a secret; it is private now");
        Ok(())
    }

    /// A private file beside this one. Its name may be taken by a process that died before it could rename it.
    fn create_temporary(&self) -> io::Result<(PathBuf, File)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut taken = None;
        for _ in 0..ATTEMPTS {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{}-{}.tmp", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
            let path = PathBuf::from(name);
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => return Ok((path, file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(taken.unwrap_or_else(|| io::ErrorKind::AlreadyExists.into()))
    }

    fn failed(&self, what: &str, error: io::Error) -> Error {
        Error::new(ErrorKind::Unexpected, format!("{} {what}: {}", self.path.display(), error.kind())).caused_by(error)
    }
}

/// `secret` without blanks around it, as long as it can be kept in one line and sent in a header.
pub(super) fn checked(secret: &SecretString) -> Result<&str> {
    let secret = secret.expose_secret().trim();
    if secret.is_empty() {
        return Err(Error::invalid("an empty secret is not saved"));
    }
    if secret.len() as u64 > LONGEST || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::invalid("a secret that is too long or not plain text is not saved"));
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn file(folder: &tempfile::TempDir) -> SecretFile {
        SecretFile::new(folder.path().join(".auth_token"))
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn names(folder: &tempfile::TempDir) -> Vec<String> {
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn writes_trimmed_private_and_without_leaving_anything_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder);
        assert!(file.read().unwrap().is_none());
        file.write(&" s3cret\n".into()).unwrap();
        assert_eq!(fs::read(&file.path).unwrap(), b"s3cret");
        assert_eq!(mode(&file.path), 0o600);
        file.write(&"another".into()).unwrap();
        assert_eq!(file.read().unwrap().unwrap().expose_secret(), "another");
        assert_eq!(names(&folder), [".auth_token"]);
    }

    #[test]
    fn writes_nothing_when_nothing_changes() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder);
        file.write(&"s3cret".into()).unwrap();
        let before = file.stamp().unwrap();
        file.write(&"s3cret ".into()).unwrap();
        assert_eq!(file.stamp().unwrap(), before);
        file.write(&"s3cres".into()).unwrap();
        assert_ne!(file.stamp().unwrap(), before);
    }

    #[test]
    fn refuses_what_is_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder);
        for secret in ["", " \n", "two lines\nof it", "umläut", &"x".repeat(5000)] {
            assert!(file.write(&secret.into()).is_err(), "{secret}");
        }
        assert!(file.read().unwrap().is_none());
    }

    #[test]
    fn makes_a_readable_file_private() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder);
        fs::write(&file.path, "s3cret\n").unwrap();
        fs::set_permissions(&file.path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(file.read().unwrap().unwrap().expose_secret(), "s3cret");
        assert_eq!(mode(&file.path), 0o600);
    }

    #[test]
    fn a_file_that_is_no_secret_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder);
        for content in [vec![b'x'; 5000], vec![0xff, 0xfe]] {
            fs::write(&file.path, content).unwrap();
            assert!(file.read().unwrap_err().message().contains(".auth_token"));
        }
        fs::write(&file.path, " \n").unwrap();
        assert!(file.read().unwrap().is_none());
    }

    #[test]
    fn a_left_over_temporary_file_is_stepped_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder);
        let (left_over, _) = file.create_temporary().unwrap();
        file.write(&"s3cret".into()).unwrap();
        assert!(left_over.exists());
        assert_eq!(file.read().unwrap().unwrap().expose_secret(), "s3cret");
    }

    #[test]
    fn a_folder_that_is_gone_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = SecretFile::new(folder.path().join("gone").join(".auth_token"));
        let error = file.write(&"s3cret".into()).unwrap_err();
        assert!(error.message().contains(".auth_token cannot be written"), "{error}");
        assert!(!error.detail().contains("s3cret"));
    }
}
