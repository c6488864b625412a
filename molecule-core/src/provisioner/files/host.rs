//! Files in folders of this host, past no link.

use std::{
    fs, io,
    io::Read,
    path::{Path, PathBuf},
};

use super::{FileEntry, FilePath, LISTING_LIMIT, is_listed, leads_elsewhere, no_file, too_large};
use crate::{
    error::{Error, ErrorKind, Result},
    provisioner::EXEC_READ_LIMIT,
};

/// Where `path` is below `base`, once no link is on the way. What it names itself may be missing, or a link.
pub(crate) fn place(base: &Path, path: &FilePath) -> Result<PathBuf> {
    let mut place = base.to_owned();
    let mut names = path.names().peekable();
    while let Some(name) = names.next() {
        place.push(name);
        if names.peek().is_none() {
            break;
        }
        match fs::symlink_metadata(&place) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(leads_elsewhere()),
            Err(error) if is_missing(&error) => return Err(no_file()),
            Err(error) => return Err(unreadable(&place, error)),
        }
    }
    Ok(place)
}

/// What is below a folder of `base`, as [`WorkspaceFiles::list_files`](super::WorkspaceFiles::list_files) tells it.
pub(crate) fn list(base: &Path, folder: Option<&FilePath>, depth: usize) -> Result<Option<Vec<FileEntry>>> {
    if !base.is_dir() {
        return Ok(None);
    }
    let start = match folder {
        Some(folder) => place(base, folder)?,
        None => base.to_owned(),
    };
    if folder.is_some() {
        match fs::symlink_metadata(&start) {
            Ok(found) if found.is_dir() => {}
            Ok(found) if found.is_symlink() => return Err(leads_elsewhere()),
            _ => return Err(no_file()),
        }
    }
    let mut entries = Vec::new();
    collect(&start, "", depth, &mut entries)?;
    entries.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(Some(entries))
}

fn collect(folder: &Path, prefix: &str, depth: usize, entries: &mut Vec<FileEntry>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|error| unreadable(folder, error))? {
        let Ok(entry) = entry else { continue };
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = format!("{prefix}{name}");
        if !is_listed(&path, depth) {
            continue;
        }
        // It may have gone meanwhile.
        let Ok(found) = entry.metadata() else { continue };
        if found.is_dir() {
            entries.push(FileEntry { path: path.clone(), size: 0, dir: true });
            if path.split('/').count() < depth {
                collect(&entry.path(), &format!("{path}/"), depth, entries)?;
            }
        } else if found.is_file() {
            entries.push(FileEntry { path, size: found.len(), dir: false });
        }
        if entries.len() > LISTING_LIMIT {
            return Err(too_large(format!("the folder holds more than {LISTING_LIMIT} files")));
        }
    }
    Ok(())
}

/// The file at `path` below `base`, as [`WorkspaceFiles::read_file`](super::WorkspaceFiles::read_file) reads it.
pub(crate) fn read(base: &Path, path: &FilePath) -> Result<Option<Vec<u8>>> {
    if !base.is_dir() {
        return Ok(None);
    }
    let place = place(base, path)?;
    match fs::symlink_metadata(&place) {
        Ok(found) if found.is_file() => {}
        Ok(found) if found.is_symlink() => return Err(leads_elsewhere()),
        Ok(_) => return Err(no_file()),
        Err(error) if is_missing(&error) => return Err(no_file()),
        Err(error) => return Err(unreadable(&place, error)),
    }
    let file = fs::File::open(&place).map_err(|error| unreadable(&place, error))?;
    let mut contents = Vec::new();
    let most = EXEC_READ_LIMIT as u64;
    file.take(most + 1).read_to_end(&mut contents).map_err(|error| unreadable(&place, error))?;
    if contents.len() > EXEC_READ_LIMIT {
        return Err(too_large(format!("{path} is larger than {EXEC_READ_LIMIT} bytes")));
    }
    Ok(Some(contents))
}

/// Deletes the file at `path` below `base`, as
/// [`WorkspaceFiles::delete_file`](super::WorkspaceFiles::delete_file) does.
pub(crate) fn delete(base: &Path, path: &FilePath) -> Result<()> {
    let place = match place(base, path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        place => place?,
    };
    if fs::symlink_metadata(&place).is_ok_and(|found| found.is_dir()) {
        return Err(Error::invalid("it is a folder"));
    }
    match fs::remove_file(&place) {
        Err(error) if !is_missing(&error) => Err(unreadable(&place, error)),
        _ => Ok(()),
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Which file that is goes to the log: the message is shown to everyone.
fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::Unexpected, format!("the files cannot be reached: {}", error.kind()))
        .context("path", path.display())
        .caused_by(error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn path(text: &str) -> FilePath {
        FilePath::parse(text).unwrap()
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        for file in ["a", "b/c", "b/d/e", ".git/config", "b/node_modules/x"] {
            let file = base.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "text").unwrap();
        }
        fs::write(dir.path().join("secret"), "secret").unwrap();
        symlink(dir.path().join("secret"), base.join("file-link")).unwrap();
        symlink(dir.path(), base.join("folder-link")).unwrap();
        (dir, base)
    }

    #[test]
    fn lists_what_is_there_and_no_link() {
        let (_dir, base) = folder();
        let list = |folder: Option<&str>, depth| {
            let entries = list(&base, folder.map(path).as_ref(), depth).unwrap().unwrap();
            entries.into_iter().map(|entry| (entry.path, entry.size, entry.dir)).collect::<Vec<_>>()
        };
        let rows = |rows: &[(&str, u64, bool)]| {
            rows.iter().map(|(path, size, dir)| ((*path).to_owned(), *size, *dir)).collect::<Vec<_>>()
        };
        assert_eq!(list(None, 1), rows(&[("a", 4, false), ("b", 0, true)]));
        assert_eq!(list(Some("b"), 1), rows(&[("c", 4, false), ("d", 0, true)]));
        let all = rows(&[("a", 4, false), ("b", 0, true), ("b/c", 4, false), ("b/d", 0, true), ("b/d/e", 4, false)]);
        assert_eq!(list(None, 3), all);
        assert_eq!(super::list(&base.join("none"), None, 1).unwrap(), None);
    }

    #[test]
    fn leads_nowhere_else() {
        let (dir, base) = folder();
        assert_eq!(read(&base, &path("b/c")).unwrap().unwrap(), b"text");
        for (text, kind) in [
            ("file-link", ErrorKind::InvalidInput),
            ("folder-link/secret", ErrorKind::InvalidInput),
            ("a/x", ErrorKind::InvalidInput),
            ("b", ErrorKind::NotFound),
            ("none", ErrorKind::NotFound),
            ("none/x", ErrorKind::NotFound),
        ] {
            assert_eq!(read(&base, &path(text)).unwrap_err().kind(), kind, "{text}");
        }
        for (text, kind) in [("folder-link", ErrorKind::InvalidInput), ("a", ErrorKind::NotFound)] {
            assert_eq!(list(&base, Some(&path(text)), 1).unwrap_err().kind(), kind, "{text}");
        }
        assert_eq!(delete(&base, &path("folder-link/secret")).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(delete(&base, &path("b")).unwrap_err().kind(), ErrorKind::InvalidInput);
        for text in ["a", "a", "none/x", "file-link"] {
            delete(&base, &path(text)).unwrap();
        }
        assert!(!base.join("a").exists() && !base.join("file-link").is_symlink());
        assert!(dir.path().join("secret").exists(), "a link goes, and not what it leads to");
    }

    #[test]
    fn a_file_over_the_limit_is_refused() {
        let (_dir, base) = folder();
        fs::write(base.join("full"), vec![b'x'; EXEC_READ_LIMIT]).unwrap();
        fs::write(base.join("over"), vec![b'x'; EXEC_READ_LIMIT + 1]).unwrap();
        assert_eq!(read(&base, &path("full")).unwrap().unwrap().len(), EXEC_READ_LIMIT);
        assert_eq!(read(&base, &path("over")).unwrap_err().kind(), ErrorKind::TooLarge);
    }
}
