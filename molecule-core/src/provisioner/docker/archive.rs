//! The archives that files travel in, to and from containers: pure.

use std::{collections::BTreeSet, io::Read};

use tar::{Archive, Builder, EntryType, Header};

use crate::{
    error::{Error, ErrorKind, Result},
    provisioner::ConfigFile,
};

/// Who a file in a container belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Owner {
    pub(super) uid: u64,
    pub(super) gid: u64,
}

/// An archive of `files` and the folders they are in, named relative to where it is extracted.
pub(super) fn pack(files: &[ConfigFile], owner: Owner) -> Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    for folder in folders(files)? {
        append(&mut archive, EntryType::Directory, &format!("{folder}/"), 0o755, owner, &[])?;
    }
    for file in files {
        let mode = if file.private { 0o600 } else { 0o644 };
        append(&mut archive, EntryType::Regular, &file.path, mode, owner, &file.contents)?;
    }
    archive.into_inner().map_err(unwritable)
}

/// The contents of the one file that `archive` holds.
pub(super) fn unpack_one(archive: &[u8]) -> Result<Vec<u8>> {
    let broken = |error| Error::new(ErrorKind::Upstream, "the docker engine sent a broken archive").caused_by(error);
    let mut archive = Archive::new(archive);
    let mut entries = archive.entries().map_err(broken)?;
    let mut entry = match entries.next() {
        Some(entry) => entry.map_err(broken)?,
        None => return Err(Error::new(ErrorKind::Upstream, "the docker engine sent an empty archive")),
    };
    let mut contents = Vec::new();
    entry.read_to_end(&mut contents).map_err(broken)?;
    Ok(contents)
}

/// Refuses a path that leaves the folder it is relative to.
pub(super) fn check_relative(path: &str) -> Result<()> {
    let inside = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if inside && !path.contains('\0') {
        Ok(())
    } else {
        Err(Error::invalid("a configuration file has a path that leaves the configuration folder")
            .context("path", path))
    }
}

fn folders(files: &[ConfigFile]) -> Result<BTreeSet<&str>> {
    let mut folders = BTreeSet::new();
    for file in files {
        check_relative(&file.path)?;
        // Sorted, every folder comes after the one it is in.
        folders.extend(file.path.match_indices('/').map(|(end, _)| &file.path[..end]));
    }
    Ok(folders)
}

fn append(
    archive: &mut Builder<Vec<u8>>,
    kind: EntryType,
    path: &str,
    mode: u32,
    owner: Owner,
    contents: &[u8],
) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner.uid);
    header.set_gid(owner.gid);
    header.set_size(contents.len() as u64);
    archive.append_data(&mut header, path, contents).map_err(unwritable)
}

fn unwritable(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unexpected, "could not pack the configuration files").caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, contents: &str, private: bool) -> ConfigFile {
        ConfigFile { path: path.to_owned(), contents: contents.as_bytes().to_vec(), private }
    }

    #[test]
    fn packs_folders_before_files_with_the_right_modes() {
        let files = [
            file("skills/a/run.sh", "one\r\ntwo\n", false),
            file(".auth_token", "secret", true),
            file("data.txt", "kept\r\n", false),
        ];
        let packed = pack(&files, Owner { uid: 1000, gid: 1001 }).unwrap();
        let mut archive = Archive::new(packed.as_slice());
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut contents = String::new();
                entry.read_to_string(&mut contents).unwrap();
                let header = entry.header();
                assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (1000, 1001));
                (entry.path().unwrap().to_string_lossy().into_owned(), header.mode().unwrap(), contents)
            })
            .collect();
        let expected = [
            ("skills/", 0o755, ""),
            ("skills/a/", 0o755, ""),
            ("skills/a/run.sh", 0o644, "one\r\ntwo\n"),
            (".auth_token", 0o600, "secret"),
            ("data.txt", 0o644, "kept\r\n"),
        ];
        assert_eq!(entries, expected.map(|(path, mode, text)| (path.to_owned(), mode, text.to_owned())));
    }

    #[test]
    fn packs_names_longer_than_a_plain_header_holds() {
        let path = format!("{}/{}", "d".repeat(120), "f".repeat(120));
        let packed = pack(&[file(&path, "x", false)], Owner::default()).unwrap();
        let mut archive = Archive::new(packed.as_slice());
        let last = archive.entries().unwrap().last().unwrap().unwrap();
        assert_eq!(last.path().unwrap().to_string_lossy(), path);
    }

    #[test]
    fn refuses_paths_that_leave_the_folder() {
        for path in ["", "/etc/passwd", "../x", "a/../x", "a//b", "./a", "a/", "a\0b"] {
            let error = pack(&[file(path, "x", false)], Owner::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path:?}");
        }
    }
}
