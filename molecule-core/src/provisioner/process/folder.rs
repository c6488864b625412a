//! The folder of a workspace: where its files are, and that nothing is written or read outside of it.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

use crate::{
    error::{Error, ErrorKind, Result},
    provisioner::{ConfigFile, EXEC_READ_LIMIT},
    regular_file,
};

/// The file that an agent finds its token in.
pub(super) const TOKEN_FILE: &str = ".auth_token";

/// The paths of one workspace.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) configs: PathBuf,
    pub(super) workspace: PathBuf,
    pub(super) log: PathBuf,
    pub(super) record: PathBuf,
    /// The program that was named for the agent, where one was.
    pub(super) command: PathBuf,
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            configs: path.join("configs"),
            workspace: path.join("workspace"),
            log: path.join("agent.log"),
            record: path.join("process.json"),
            command: path.join("command.json"),
            path,
        }
    }

    /// Makes the folders that are not there, all for their owner alone.
    pub(super) fn create(&self) -> Result<()> {
        for path in [&self.path, &self.configs, &self.workspace] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|error| failed("create a folder of the workspace", path, error))?;
        }
        Ok(())
    }

    /// Writes `files` under the configuration folder: all of them, or none where a path leaves it.
    pub(super) fn write_configs(&self, files: &[ConfigFile]) -> Result<()> {
        let paths = files.iter().map(|file| Ok((relative(&file.path)?, file))).collect::<Result<Vec<_>>>()?;
        for (path, file) in paths {
            let path = self.make_parents(&path)?;
            replace(&path, &file.contents, if file.private { 0o600 } else { 0o644 })?;
        }
        Ok(())
    }

    /// Whether the configuration folder holds the file `path`.
    pub(super) fn has_config(&self, path: &str) -> Result<bool> {
        let path = self.configs.join(relative(path)?);
        Ok(inside(&path, &[&self.configs]).is_ok_and(|path| path.is_file()))
    }

    /// Removes everything but what the agent worked on; where that is nothing, the folder as well.
    pub(super) fn remove_but_work(&self) -> Result<()> {
        let is_empty = fs::read_dir(&self.workspace).map_or(true, |mut entries| entries.next().is_none());
        if is_empty {
            return self.remove();
        }
        let remove = || -> io::Result<()> {
            for entry in fs::read_dir(&self.path)? {
                let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
                match kind {
                    _ if path == self.workspace => {}
                    kind if kind.is_dir() => fs::remove_dir_all(path)?,
                    _ => fs::remove_file(path)?,
                }
            }
            Ok(())
        };
        remove().map_err(|error| failed("remove the files of the workspace", &self.path, error))
    }

    /// Whether nothing is left but what the agent worked on.
    pub(super) fn holds_only_work(&self) -> bool {
        let mut entries = fs::read_dir(&self.path).into_iter().flatten().flatten().peekable();
        entries.peek().is_some() && entries.all(|entry| entry.path() == self.workspace)
    }

    /// Removes the folder and everything in it.
    pub(super) fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove the folder of the workspace", &self.path, error))
            }
            _ => Ok(()),
        }
    }

    /// Makes the folders above the configuration file `path`, following no link that was put in their place.
    fn make_parents(&self, path: &Path) -> Result<PathBuf> {
        let mut parent = self.configs.clone();
        for part in path.parent().into_iter().flat_map(Path::components) {
            parent.push(part);
            match DirBuilder::new().mode(0o755).create(&parent) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed("create a folder of the workspace", &parent, error));
                }
                _ => {}
            }
            let found = fs::symlink_metadata(&parent)
                .map_err(|error| failed("look at a folder of the workspace", &parent, error))?;
            if !found.is_dir() {
                return Err(Error::invalid("a configuration file has a path that leads through what is no folder")
                    .context("path", path.display()));
            }
        }
        Ok(self.configs.join(path))
    }
}

/// Reads the file that a workload knows as `path`: under one of its two folders, by their real paths or as
/// `/configs/…` and `/workspace/…`.
pub(super) fn read(configs: &Path, workspace: &Path, path: &str) -> Result<Vec<u8>> {
    let asked = Path::new(path);
    if !asked.is_absolute() {
        return Err(Error::invalid(format!("{path:?} is not an absolute path")));
    }
    let real = [("/configs", configs), ("/workspace", workspace)]
        .into_iter()
        .find_map(|(name, folder)| Some(folder.join(asked.strip_prefix(name).ok()?)))
        .unwrap_or_else(|| asked.to_owned());
    let real = inside(&real, &[configs, workspace])?;

    let missing = || Error::not_found(format!("there is no file {path}"));
    let opened = regular_file::open(&real).map_err(|error| missing().caused_by(error))?;
    let (file, _) = opened.ok_or_else(missing)?;
    let mut contents = Vec::new();
    let limit = EXEC_READ_LIMIT as u64;
    file.take(limit + 1)
        .read_to_end(&mut contents)
        .map_err(|error| failed("read a file of the workspace", &real, error))?;
    if contents.len() > EXEC_READ_LIMIT {
        let message = format!("{path} is larger than the {EXEC_READ_LIMIT} bytes that can be read at once");
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    Ok(contents)
}

/// Puts a file with `contents` and `mode` in the place of whatever file is at `path`, in one step.
pub(super) fn replace(path: &Path, contents: &[u8], mode: u32) -> Result<()> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".partial");
    let temporary = path.with_file_name(name);
    let write = || -> io::Result<()> {
        // Left behind by a server that died here; opening it anew would keep its mode, or follow a link.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(contents)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        // The first failure is the one to tell; what is left is replaced by the next try.
        let _ = fs::remove_file(&temporary);
        failed("write a file of the workspace", path, error)
    })
}

/// Opens the file at `path` for appending, readable by its owner alone.
pub(super) fn append(path: &Path) -> Result<File> {
    let open = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    open.map_err(|error| failed("open a file of the workspace", path, error))
}

/// The error of an operation on a file. Which file that is goes to the log: the message is shown to everyone.
pub(super) fn failed(what: &'static str, path: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::Unexpected, format!("the process backend cannot {what}: {}", error.kind()))
        .context("path", path.display())
        .caused_by(error)
}

/// `path` as a path that stays below where it is put.
fn relative(path: &str) -> Result<PathBuf> {
    let parts = Path::new(path).components();
    if path.is_empty() || path.contains('\0') || !parts.clone().all(|part| matches!(part, Component::Normal(_))) {
        return Err(Error::invalid("a configuration file has a path that leaves the configuration folder")
            .context("path", path));
    }
    Ok(parts.collect())
}

/// The real path of what is at `path`, all links followed, where it is within one of `folders`.
fn inside(path: &Path, folders: &[&Path]) -> Result<PathBuf> {
    let missing = |error| Error::not_found(format!("there is no file {}", path.display())).caused_by(error);
    let outside = || Error::invalid(format!("{} is outside the folders of the workspace", path.display()));
    let within = |path: &Path, folder: &Path| path.starts_with(folder);
    // Not even whether a file is there is told of the rest of the host.
    let leaves = path.components().any(|part| part == Component::ParentDir);
    if leaves || !folders.iter().any(|folder| within(path, folder)) {
        return Err(outside());
    }
    let real = path.canonicalize().map_err(missing)?;
    let allowed = folders.iter().filter_map(|folder| folder.canonicalize().ok()).any(|folder| within(&real, &folder));
    if allowed { Ok(real) } else { Err(outside()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path().join("w"));
        folder.create().unwrap();
        (root, folder)
    }

    fn file(path: &str, private: bool) -> ConfigFile {
        ConfigFile { path: path.to_owned(), contents: path.into(), private }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn files_get_their_modes_also_when_they_were_there() {
        let (_root, folder) = folder();
        folder.write_configs(&[file("a", false), file("skills/x/b", true)]).unwrap();
        assert_eq!((mode(&folder.configs.join("a")), mode(&folder.configs.join("skills/x/b"))), (0o644, 0o600));
        assert_eq!(mode(&folder.path), 0o700);
        folder.write_configs(&[file("a", true)]).unwrap();
        assert_eq!(mode(&folder.configs.join("a")), 0o600);
    }

    #[test]
    fn nothing_is_written_outside_the_folder() {
        let (root, folder) = folder();
        symlink(root.path(), folder.configs.join("link")).unwrap();
        for path in ["", "../x", "/x", "a/../../x", ".", "a\0b", "link/x"] {
            let error = folder.write_configs(&[file("fine", false), file(path, false)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path:?}");
        }
        assert!(!root.path().join("x").exists());

        // A link in the place of the file itself is replaced, not followed.
        let outside = root.path().join("outside");
        fs::write(&outside, "kept").unwrap();
        symlink(&outside, folder.configs.join("config.yaml")).unwrap();
        folder.write_configs(&[file("config.yaml", false)]).unwrap();
        assert_eq!(fs::read_to_string(&outside).unwrap(), "kept");
    }

    #[test]
    fn nothing_is_read_outside_the_folders() {
        let (root, folder) = folder();
        fs::write(root.path().join("secret"), "s").unwrap();
        fs::write(folder.workspace.join("notes"), "n").unwrap();
        symlink(root.path().join("secret"), folder.configs.join("link")).unwrap();
        let read = |path: &str| read(&folder.configs, &folder.workspace, path);

        assert_eq!(read("/workspace/notes").unwrap(), b"n");
        assert_eq!(read(folder.workspace.join("notes").to_str().unwrap()).unwrap(), b"n");
        for path in [
            "/etc/passwd",
            "/configs/../../secret",
            "/configs/link",
            "notes",
            "/configsx",
            folder.record.to_str().unwrap(),
        ] {
            assert_eq!(read(path).unwrap_err().kind(), ErrorKind::InvalidInput, "{path}");
        }
        for path in ["/configs/none", "/configs", "/workspace/"] {
            assert_eq!(read(path).unwrap_err().kind(), ErrorKind::NotFound, "{path}");
        }
        assert!(!folder.has_config("link").unwrap());
    }
}
