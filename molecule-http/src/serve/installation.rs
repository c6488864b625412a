//! The name of an installation: made once, kept in its data folder, and on everything that it makes on an engine that
//! others use as well.

use std::{fs::OpenOptions, io, io::Write, path::Path};

use molecule_core::{
    Error, ErrorKind,
    clock::{SystemEntropy, random_uuid},
};
use uuid::Uuid;

const FILE: &str = "installation";

/// The name of the installation in `data_dir`, made where it has none yet.
///
/// # Errors
/// [`ErrorKind::Unavailable`] where the file cannot be used or holds no name.
pub(crate) fn ensure(data_dir: &Path) -> Result<String, Error> {
    let path = data_dir.join(FILE);
    let failed = |error: io::Error| {
        Error::new(ErrorKind::Unavailable, format!("{} cannot be used: {error}", path.display())).caused_by(error)
    };
    let name = random_uuid(&SystemEntropy).to_string();
    match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(mut file) => {
            file.write_all(name.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
            Ok(name)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let kept = std::fs::read_to_string(&path).map_err(failed)?;
            // Another name would make strangers of everything that was made so far.
            let kept = kept.trim().parse::<Uuid>().map_err(|error| {
                let advice = format!("{} holds no name; remove it to have a new one made", path.display());
                Error::new(ErrorKind::Unavailable, advice).caused_by(error)
            })?;
            Ok(kept.to_string())
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_made_once_and_a_broken_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let name = ensure(folder.path()).unwrap();
        assert_eq!(ensure(folder.path()).unwrap(), name);
        std::fs::write(folder.path().join(FILE), "").unwrap();
        assert!(ensure(folder.path()).unwrap_err().message().contains("holds no name"));
    }
}
