//! The folder that a server keeps everything in, and that it is nobody else's.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use molecule_core::{Error, ErrorKind};

const LOCK: &str = "serve.lock";

/// Makes the folder where it is missing and takes it for this process, until the file given back is closed.
///
/// Two servers on one folder would supervise the same child processes without knowing of one another. Servers that
/// share a Postgres database each have a folder of their own.
///
/// # Errors
/// [`ErrorKind::Unavailable`] where the folder cannot be used, or another server uses it.
pub(crate) fn take(dir: &Path) -> Result<File, Error> {
    let failed = |error: io::Error| {
        Error::new(ErrorKind::Unavailable, format!("the data folder {} cannot be used: {error}", dir.display()))
            .caused_by(error)
    };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let lock =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(dir.join(LOCK)).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "another server uses the data folder {} — stop it, or name another folder with --data-dir",
                dir.display()
            ),
        )),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
