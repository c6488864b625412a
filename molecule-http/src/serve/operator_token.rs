//! The token that clients on this host use: made once, kept in a file that only this user can read.

use std::{
    fs::OpenOptions,
    io::{ErrorKind as IoErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use molecule_core::{Error, ErrorKind, clock::SystemEntropy, identity};
use secrecy::{ExposeSecret, SecretString};

use crate::paths;

/// The token in `data_dir`, made where there is none yet.
pub(crate) fn ensure(data_dir: &Path) -> Result<SecretString, Error> {
    let path = paths::operator_token_file(data_dir);
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Unavailable, format!("{} cannot be used: {error}", path.display())).caused_by(error)
    };
    let token = identity::random_token(&SystemEntropy);
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            file.write_all(token.expose_secret().as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
            Ok(token)
        }
        Err(error) if error.kind() == IoErrorKind::AlreadyExists => {
            let kept = std::fs::read_to_string(&path).map_err(failed)?.trim().to_owned();
            if kept.len() < 32 {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("{} holds no token; remove it to have a new one made", path.display()),
                ));
            }
            Ok(kept.into())
        }
        Err(error) => Err(failed(error)),
    }
}
