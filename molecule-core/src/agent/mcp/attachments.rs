//! Files that an agent sends along with its words to the user.
//!
//! A model names the paths, and what it reads may talk it into naming any: only files below a few folders are sent, and
//! never the secrets of the workspace.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use super::tools::{REASON, Tools, post, start};
use crate::{agent::client::Call, clock::random_uuid, regular_file};

/// The longest file.
const LONGEST: u64 = 25 * 1024 * 1024;

/// How long all files of a message may be together, which is what the platform takes.
const LONGEST_TOGETHER: u64 = 50 * 1024 * 1024;

/// How long it may take to send them.
const TIMEOUT: Duration = Duration::from_secs(300);

/// How many files go with one message.
const MOST: usize = 64;

/// A file that was read.
#[derive(Debug)]
struct Attachment {
    name: String,
    contents: Vec<u8>,
}

/// Sends the files at `paths` to the platform, and gives what it calls them.
pub(super) async fn upload(tools: &Tools, paths: &[&str]) -> Result<Vec<Value>, String> {
    if paths.len() > MOST {
        return Err(format!("Error: at most {MOST} attachments go with one message"));
    }
    let (named, folders, secrets) =
        (paths.iter().map(|path| (*path).to_owned()).collect(), tools.folders.clone(), tools.secrets.clone());
    // A folder on a network may hold up whoever reads from it.
    let reading = tokio::task::spawn_blocking(move || read_all(named, &folders, &secrets));
    let files = reading.await.map_err(|_| "Error: the attachments cannot be read")??;
    let boundary = random_uuid(tools.entropy.as_ref()).simple().to_string();
    let path = tools.own("chat/uploads");
    let content_type = format!("multipart/form-data; boundary={boundary}");
    let body = Some(form(&files, &boundary));
    let call = Call { body, content_type: &content_type, timeout: TIMEOUT, ..post(&path, &Value::Null) };
    let answer = tools.ask(&call).await?;
    let failed =
        |reason: &str| format!("Error: chat/uploads returned {}: {}", answer.status.as_u16(), start(reason, REASON));
    if !answer.status.is_success() {
        return Err(failed(&answer.message()));
    }
    match answer.object().as_mut().and_then(|object| object.remove("files")) {
        Some(Value::Array(kept)) if kept.len() == files.len() => Ok(kept),
        _ => Err(failed("it does not tell where the files are")),
    }
}

/// Reads the files at `paths`, if they are not too long together.
fn read_all(paths: Vec<String>, folders: &[PathBuf], secrets: &Path) -> Result<Vec<Attachment>, String> {
    let mut together = 0;
    let mut files = Vec::new();
    for path in paths {
        let file = read(&path, folders, secrets)?;
        together += file.contents.len() as u64;
        if together > LONGEST_TOGETHER {
            return Err(format!("Error: attachments too large: with {path} they are over 50 MB together"));
        }
        files.push(file);
    }
    Ok(files)
}

/// Reads the file at `path`, if it lies below one of `folders` and not below `secrets`.
fn read(path: &str, folders: &[PathBuf], secrets: &Path) -> Result<Attachment, String> {
    let missing = || format!("Error: attachment not found: {path}");
    // What links lead to counts.
    let file = Path::new(path).canonicalize().map_err(|_| missing())?;
    let is_below = |folder: &Path| folder.canonicalize().is_ok_and(|folder| file.starts_with(folder));
    if !Path::new(path).is_absolute() || is_below(secrets) || !folders.iter().any(|folder| is_below(folder)) {
        let names: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        return Err(format!("Error: attachment not allowed: {path} (only files below {} are sent)", names.join(", ")));
    }
    let unreadable = |error: io::Error| format!("Error: attachment cannot be read: {path} ({error})");
    let (file, _) = regular_file::open(&file).map_err(unreadable)?.ok_or_else(missing)?;
    let mut contents = Vec::new();
    let read = file.take(LONGEST + 1).read_to_end(&mut contents).map_err(unreadable)?;
    if read as u64 > LONGEST {
        return Err(format!("Error: attachment too large: {path} (at most 25 MB)"));
    }
    let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Attachment { name, contents })
}

/// `files` as a form with the field `files` for each.
fn form(files: &[Attachment], boundary: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for file in files {
        // As browsers write names.
        let name = file.name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A");
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"files\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&file.contents);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    body
}

/// What the user is told beside `message`: where the files are.
pub(super) fn notification(message: &str, files: Vec<Value>) -> Value {
    let mut body = json!({"message": message});
    if !files.is_empty() {
        body["attachments"] = files.into();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_below_the_folders_are_read_and_never_secrets() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["work", "work/secrets", "other"] {
            std::fs::create_dir(at(folder)).unwrap();
        }
        for file in ["work/a.txt", "work/secrets/.auth_token", "other/b.txt"] {
            std::fs::write(at(file), "contents").unwrap();
        }
        std::os::unix::fs::symlink(at("other/b.txt"), at("work/link")).unwrap();
        let large = std::fs::File::create(at("work/large")).unwrap();
        large.set_len(LONGEST + 1).unwrap();
        let read = |name: &str| {
            let path = at(name).to_str().unwrap().to_owned();
            read(&path, &[at("work"), at("none")], &at("work/secrets")).map_err(|text| text.replace(&path, "PATH"))
        };
        let file = read("work/a.txt").unwrap();
        assert_eq!((file.name.as_str(), file.contents.as_slice()), ("a.txt", b"contents".as_slice()));
        for (name, said) in [
            ("work/none", "Error: attachment not found: PATH"),
            ("work", "Error: attachment not found: PATH"),
            ("work/secrets/.auth_token", "Error: attachment not allowed: PATH"),
            ("work/../other/b.txt", "Error: attachment not allowed: PATH"),
            ("work/link", "Error: attachment not allowed: PATH"),
            ("other/b.txt", "Error: attachment not allowed: PATH"),
            ("work/large", "Error: attachment too large: PATH"),
        ] {
            let error = read(name).unwrap_err();
            assert!(error.starts_with(said), "{name}: {error}");
        }
        assert!(super::read("Cargo.toml", &[PathBuf::from(".")], &at("none")).is_err(), "a path is absolute");
    }

    #[test]
    fn a_form_has_a_part_for_each_file() {
        let files = [("a\"b", "1"), ("c", "2")]
            .map(|(name, contents)| Attachment { name: name.to_owned(), contents: contents.into() });
        let text = String::from_utf8(form(&files, "B")).unwrap();
        let part = |name: &str, contents: &str| {
            format!(
                "--B\r\nContent-Disposition: form-data; name=\"files\"; filename=\"{name}\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n{contents}\r\n"
            )
        };
        assert_eq!(text, format!("{}{}--B--\r\n", part("a%22b", "1"), part("c", "2")));
    }
}
