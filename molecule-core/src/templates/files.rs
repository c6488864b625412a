//! The files of a template, as a workspace is given them.

use std::{fs, path::Path};

use crate::{
    error::{Error, ErrorKind, Result},
    provisioner::ConfigFile,
};

/// How many files a template may have, and how many bytes in all.
const FILES_LIMIT: usize = 2_000;
const BYTES_LIMIT: usize = 32 * 1024 * 1024;

/// What the control plane puts there itself.
const OWN: [&str; 2] = [".auth_token", ".platform_inbound_secret"];

/// Whether the file at `path` of a configuration folder is the control plane's own.
pub(crate) fn is_own_file(path: &str) -> bool {
    OWN.contains(&path)
}

/// Every file below `folder`, by path. Links are passed over: they could lead anywhere on this host.
pub(super) fn read(folder: &Path) -> Result<Vec<ConfigFile>> {
    let mut files = Vec::new();
    let mut bytes = 0;
    collect(folder, "", &mut files, &mut bytes)?;
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

fn collect(folder: &Path, prefix: &str, files: &mut Vec<ConfigFile>, bytes: &mut usize) -> Result<()> {
    let unreadable = |error: std::io::Error| {
        let error = Error::new(ErrorKind::Unexpected, "the template cannot be read").caused_by(error);
        error.context("path", folder.display())
    };
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let kind = entry.file_type().map_err(unreadable)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = format!("{prefix}{name}");
        if kind.is_dir() && name != ".git" {
            collect(&entry.path(), &format!("{path}/"), files, bytes)?;
        } else if kind.is_file() && !is_own_file(&path) {
            let contents = fs::read(entry.path()).map_err(unreadable)?;
            *bytes += contents.len();
            files.push(ConfigFile { contents: with_unix_lines(&name, contents), path, private: false });
            if files.len() > FILES_LIMIT || *bytes > BYTES_LIMIT {
                let text = format!("the template is over the limit of {FILES_LIMIT} files or {BYTES_LIMIT} bytes");
                return Err(Error::new(ErrorKind::TooLarge, text));
            }
        }
    }
    Ok(())
}

/// Shells and interpreters in a container stumble over the line ends of Windows.
fn with_unix_lines(name: &str, contents: Vec<u8>) -> Vec<u8> {
    let concerned = [".sh", ".py", ".md"].iter().any(|extension| name.ends_with(extension));
    if !concerned || !contents.contains(&b'\r') {
        return contents;
    }
    let followed = |at: usize| contents.get(at + 1) == Some(&b'\n');
    contents.iter().enumerate().filter(|(at, byte)| **byte != b'\r' || !followed(*at)).map(|(_, byte)| *byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_every_file_and_no_link() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("secret"), "x").unwrap();
        for (path, text) in [
            ("config.yaml", "a: 1\r\n"),
            ("skills/one/SKILL.md", "a\r\nb\rc\n"),
            ("start.sh", "#!/bin/sh\r\n"),
            (".auth_token", "forged"),
            (".git/config", "x"),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        std::os::unix::fs::symlink(outside.path().join("secret"), dir.path().join("file-link")).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("folder-link")).unwrap();
        let files = read(dir.path()).unwrap();
        let files: Vec<(&str, &str)> =
            files.iter().map(|file| (file.path.as_str(), std::str::from_utf8(&file.contents).unwrap())).collect();
        assert_eq!(
            files,
            [("config.yaml", "a: 1\r\n"), ("skills/one/SKILL.md", "a\nb\rc\n"), ("start.sh", "#!/bin/sh\n"),]
        );
        fs::write(dir.path().join("large"), vec![0; BYTES_LIMIT + 1]).unwrap();
        assert_eq!(read(dir.path()).unwrap_err().kind(), ErrorKind::TooLarge);
        assert!(read(&dir.path().join("nowhere")).is_err());
    }
}
