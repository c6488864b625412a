//! Which files of a workspace may be asked for.

use crate::error::{Error, Result};

/// The folders of a workspace that hold what may be read.
const ROOTS: [&str; 4] = ["/configs", "/workspace", "/home", "/plugins"];

/// Checks a path as it is written: the workspace has the last word on where it leads.
pub(crate) fn check(path: &str) -> Result<()> {
    if path.is_empty() {
        return Err(Error::invalid("path query required"));
    }
    if !path.starts_with('/') {
        return Err(Error::invalid("path must be absolute"));
    }
    let below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if !ROOTS.into_iter().any(below) {
        return Err(Error::invalid("path must be under /configs, /workspace, /home, or /plugins"));
    }
    let plain = |part: &str| !part.is_empty() && part != "." && !part.contains("..");
    if path[1..].split('/').all(plain) && !path.contains('\0') { Ok(()) } else { Err(Error::invalid("invalid path")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_row_by_row() {
        let crabs = format!("/workspace/{}", "🦀".repeat(300));
        let rows = [
            ("/workspace/a/b.txt", None),
            ("/configs", None),
            ("/home/agent/.profile", None),
            ("/workspace/a b#?&+%2e", None),
            (crabs.as_str(), None),
            ("", Some("path query required")),
            ("workspace/a", Some("path must be absolute")),
            ("file:///workspace/a", Some("path must be absolute")),
            ("/etc/passwd", Some("path must be under /configs, /workspace, /home, or /plugins")),
            ("/workspaces/a", Some("path must be under /configs, /workspace, /home, or /plugins")),
            ("/", Some("path must be under /configs, /workspace, /home, or /plugins")),
            ("//workspace/a", Some("path must be under /configs, /workspace, /home, or /plugins")),
            ("/workspace/../etc/passwd", Some("invalid path")),
            ("/workspace/..", Some("invalid path")),
            ("/workspace/a..b", Some("invalid path")),
            ("/workspace/./a", Some("invalid path")),
            ("/workspace//a", Some("invalid path")),
            ("/workspace/a/", Some("invalid path")),
            ("/workspace/a\0b", Some("invalid path")),
        ];
        for (path, expected) in rows {
            assert_eq!(check(path).err().map(|error| error.message().to_owned()).as_deref(), expected, "{path:?}");
        }
    }
}
