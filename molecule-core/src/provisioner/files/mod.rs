//! The files that a backend keeps for a workspace, and the ways to name them.

#[cfg_attr(not(feature = "process"), allow(dead_code, reason = "templates need a part of it only"))]
pub(crate) mod host;

use std::{fmt, fmt::Debug, str::FromStr};

use async_trait::async_trait;

use super::ConfigFile;
use crate::{
    error::{Error, Result},
    id::WorkspaceId,
};

/// The most entries that one listing may have.
pub const LISTING_LIMIT: usize = 10_000;

/// What a listing leaves out, with all that is in it.
const UNLISTED: [&str; 4] = [".git", "__pycache__", "node_modules", ".DS_Store"];

/// The folders of a workspace in which files may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileRoot {
    /// Its configuration.
    Configs,
    /// Where it works.
    Workspace,
    /// The homes of its users.
    Home,
    /// Its plugins.
    Plugins,
}

impl FileRoot {
    /// Every root once.
    pub const ALL: &[Self] = &[Self::Configs, Self::Workspace, Self::Home, Self::Plugins];

    /// Its path, as the workload sees it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configs => "/configs",
            Self::Workspace => "/workspace",
            Self::Home => "/home",
            Self::Plugins => "/plugins",
        }
    }
}

impl fmt::Display for FileRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FileRoot {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|root| root.as_str() == text)
            .ok_or_else(|| Error::invalid("root must be one of: /configs, /workspace, /home, /plugins"))
    }
}

/// A path that stays below where it is put: one name or more, none of them `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilePath(String);

impl FilePath {
    /// Reads a relative path. Empty names and `.` are passed over, as file systems do.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a path that is empty, absolute, leads out of where
    /// it is put, or is longer than file systems take.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = || Error::invalid("invalid path");
        if text.starts_with('/') || text.contains('\0') || text.len() > 4096 {
            return Err(refuse());
        }
        let names: Vec<&str> = text.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        if names.is_empty() || names.iter().any(|name| *name == ".." || name.len() > 255) {
            return Err(refuse());
        }
        Ok(Self(names.join("/")))
    }

    /// The path, with `/` between its names.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its names, outermost first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl FromStr for FilePath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Below the folder that was listed.
    pub path: String,
    /// In bytes; 0 for a folder.
    pub size: u64,
    /// Whether it is a folder, and no file.
    pub dir: bool,
}

/// Whether an entry at `path` belongs into a listing of `depth` folders.
pub(crate) fn is_listed(path: &str, depth: usize) -> bool {
    path.split('/').count() <= depth && !path.split('/').any(|name| UNLISTED.contains(&name))
}

/// The error of a file that is not there.
pub(crate) fn no_file() -> Error {
    Error::not_found("file not found")
}

/// The error of a path on which a link, or a file in the place of a folder, would lead somewhere else.
pub(crate) fn leads_elsewhere() -> Error {
    Error::invalid("invalid path").with_member("detail", "there is a link on the way, or no folder")
}

/// The error of a file or folder over its limit.
pub(crate) fn too_large(text: String) -> Error {
    Error::new(crate::ErrorKind::TooLarge, text)
}

/// The files that a local backend keeps for its workspaces, whether they run or not.
///
/// Requires [`Capability::files`](super::Capability::files), all of it. No link is followed below a root: what it leads
/// to may be anybody's.
#[async_trait]
pub trait WorkspaceFiles: Debug + Send + Sync + 'static {
    /// What is below `folder` of `root`, or below all of `root`, down to `depth` folders; `None` where the backend keeps
    /// nothing there.
    ///
    /// # Behavior
    /// - A listing has regular files and folders, by their path, and neither links nor what nobody looks for.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) where there is no such folder,
    /// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) over [`LISTING_LIMIT`].
    async fn list_files(
        &self,
        id: WorkspaceId,
        root: FileRoot,
        folder: Option<&FilePath>,
        depth: usize,
    ) -> Result<Option<Vec<FileEntry>>>;

    /// The contents of a regular file of at most [`EXEC_READ_LIMIT`](super::EXEC_READ_LIMIT) bytes; `None` where the
    /// backend keeps nothing in `root`.
    ///
    /// # Behavior
    /// - Files are read byte by byte as they are, whether the workload runs or not.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) where there is no such file.
    async fn read_file(&self, id: WorkspaceId, root: FileRoot, path: &FilePath) -> Result<Option<Vec<u8>>>;

    /// Puts files into the configuration folder, making it where there is none.
    ///
    /// # Behavior
    /// - Files are written as they are, whether the workload runs or not, in the place of what was there.
    async fn write_files(&self, id: WorkspaceId, files: &[ConfigFile]) -> Result<()>;

    /// Deletes a file of the configuration folder.
    ///
    /// # Behavior
    /// - Deleting a file that is not there succeeds; a folder is refused.
    async fn delete_file(&self, id: WorkspaceId, path: &FilePath) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_below_where_it_is_put() {
        let long = format!("a/{}", "b".repeat(256));
        for (text, expected) in [
            ("config.yaml", Some("config.yaml")),
            ("skills/one/SKILL.md", Some("skills/one/SKILL.md")),
            ("a..b", Some("a..b")),
            ("...", Some("...")),
            ("a//b/./c/", Some("a/b/c")),
            (" ", Some(" ")),
            ("", None),
            (".", None),
            ("./", None),
            ("..", None),
            ("a/..", None),
            ("a/../b", None),
            ("/a", None),
            ("//a", None),
            ("a\0", None),
            (long.as_str(), None),
        ] {
            assert_eq!(FilePath::parse(text).ok().as_ref().map(FilePath::as_str), expected, "{text:?}");
        }
    }

    #[test]
    fn a_root_is_one_of_four() {
        for root in FileRoot::ALL {
            assert_eq!(root.as_str().parse::<FileRoot>().unwrap(), *root);
        }
        for other in ["", "configs", "/configs/", "/etc", "/configs-evil"] {
            let error = other.parse::<FileRoot>().unwrap_err();
            assert_eq!(error.message(), "root must be one of: /configs, /workspace, /home, /plugins", "{other:?}");
        }
    }

    #[test]
    fn a_listing_ends_at_its_depth_and_leaves_out_what_nobody_looks_for() {
        for (path, depth, listed) in [
            ("a", 1, true),
            ("a/b", 1, false),
            ("a/b", 2, true),
            (".git", 1, false),
            ("a/node_modules/b", 5, false),
            ("__pycache__", 1, false),
            (".DS_Store", 1, false),
            (".gitignore", 1, true),
        ] {
            assert_eq!(is_listed(path, depth), listed, "{path} at {depth}");
        }
    }
}
