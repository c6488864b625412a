//! Takes in files that are sent to the workspace: all of a form, or none.

use std::{fs::File, io, os::fd::OwnedFd, path::PathBuf, sync::Arc};

use multer::{Constraints, Field, Multipart, SizeLimit};
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, open, openat, unlinkat};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{Bits, Files, Refusal, name};

/// The most that one form may hold, in bytes.
const TOTAL: u64 = 50 * 1024 * 1024;

/// The longest file, in bytes.
const LONGEST: u64 = 25 * 1024 * 1024;

/// How many files, and how many other fields, a form may have.
const FILES: usize = 64;
const FIELDS: usize = 32;

/// Where files are kept, below the workspace.
const FOLDER: [&str; 2] = [".molecule", "chat-uploads"];

/// The same, as agents know it.
const PLACE: &str = "/workspace/.molecule/chat-uploads";

/// What a file is that nobody says anything of.
const UNKNOWN: &str = "application/octet-stream";

impl Files {
    /// Keeps the files in the field `files` of a form, and answers where they are: `{"files": […]}`.
    ///
    /// `body` is read to its end also where a file in it is too long, so that whoever sends it hears why.
    ///
    /// # Errors
    /// 401 where `authorization`, the whole header, is wrong; 413 for too much; 400 for what is no form, or one without
    /// files; 500 where they cannot be kept. No file of the form is left behind.
    pub async fn ingest(
        &self,
        authorization: Option<&[u8]>,
        content_type: Option<&str>,
        content_length: Option<u64>,
        body: Bits,
    ) -> Result<Value, Refusal> {
        self.admit(authorization)?;
        if content_length.is_some_and(|length| length > TOTAL) {
            return Err(Refusal::new(413, "request body exceeds total limit (50 MB)"));
        }
        let boundary = content_type.and_then(|kind| multer::parse_boundary(kind).ok()).ok_or_else(no_form)?;
        let limits = Constraints::new().size_limit(SizeLimit::new().whole_stream(TOTAL));
        let mut form = Multipart::with_constraints(body, boundary, limits);
        let mut kept: Option<Kept> = None;
        let mut refused = None;
        let mut files = Vec::new();
        let (mut seen_files, mut seen_fields) = (0, 0);
        while let Some(field) = form.next_field().await.map_err(|error| broken(&error))? {
            let seen = if field.file_name().is_some() { &mut seen_files } else { &mut seen_fields };
            *seen += 1;
            if seen_files > FILES || seen_fields > FIELDS {
                return Err(no_form());
            }
            if refused.is_some() || field.file_name().is_none() || field.name() != Some("files") {
                skip(field).await?;
                continue;
            }
            if kept.is_none() {
                kept = Some(self.prepare().await?);
            }
            let Some(kept) = &mut kept else { continue };
            match self.keep(kept, field).await? {
                Ok(file) => files.push(file),
                Err(refusal) => refused = Some(refusal),
            }
        }
        if let Some(refusal) = refused {
            return Err(refusal);
        }
        let Some(mut kept) = kept else { return Err(Refusal::new(400, "expected at least one 'files' field")) };
        kept.names.clear();
        Ok(json!({"files": files}))
    }

    /// The folder that files are kept in.
    async fn prepare(&self) -> Result<Kept, Refusal> {
        let workspace = self.root.join("workspace");
        let prepared = tokio::task::spawn_blocking(move || folder(workspace)).await.map_err(io::Error::other);
        match prepared.and_then(|folder| folder) {
            Ok(folder) => Ok(Kept { folder: Arc::new(folder), names: Vec::new() }),
            Err(error) => {
                tracing::error!(error = %error, "the folder for files that are sent cannot be prepared");
                let mut refusal = Refusal::new(500, "failed to prepare uploads dir");
                refusal.body["path"] = PLACE.into();
                refusal.body["errno"] = json!(error.raw_os_error());
                refusal.body["detail"] = error.kind().to_string().into();
                Err(refusal)
            }
        }
    }

    /// Writes one file. The outer error ends the whole form, the inner one is told at its end.
    async fn keep(&self, kept: &mut Kept, mut field: Field<'static>) -> Result<Result<Value, Refusal>, Refusal> {
        let name = name::safe(field.file_name().unwrap_or_default());
        let kind = field.content_type().map(ToString::to_string).unwrap_or_else(|| UNKNOWN.to_owned());
        let mut random = [0; 16];
        self.entropy.fill(&mut random);
        let stored = format!("{:032x}-{name}", u128::from_be_bytes(random));
        let mut file = kept.create(&stored).await.map_err(|error| not_written(&error))?;
        let mut size = 0;
        while let Some(chunk) = field.chunk().await.map_err(|error| broken(&error))? {
            size += chunk.len() as u64;
            if size > LONGEST {
                skip(field).await?;
                return Ok(Err(Refusal::new(413, &format!("{name} exceeds per-file limit (25 MB)"))));
            }
            file.write_all(&chunk).await.map_err(|error| not_written(&error))?;
        }
        file.flush().await.map_err(|error| not_written(&error))?;
        Ok(Ok(json!({"uri": format!("workspace:{PLACE}/{stored}"), "name": name, "mimeType": kind, "size": size})))
    }
}

/// The files of a form that were written so far. They are removed with it: also where whoever sends them went away.
struct Kept {
    folder: Arc<OwnedFd>,
    names: Vec<String>,
}

impl Kept {
    /// A new file called `name`, for its owner alone. What is in its place already stays as it is, links included.
    async fn create(&mut self, name: &str) -> io::Result<tokio::fs::File> {
        // Before it is there, so that none stays behind where this wait is given up.
        self.names.push(name.to_owned());
        let (folder, name) = (self.folder.clone(), name.to_owned());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = tokio::task::spawn_blocking(move || openat(&*folder, name, flags, Mode::RUSR | Mode::WUSR));
        match file.await.map_err(io::Error::other)? {
            Ok(file) => Ok(tokio::fs::File::from_std(File::from(file))),
            Err(error) => {
                self.names.pop();
                Err(error.into())
            }
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        for name in &self.names {
            // Best effort: it was refused already, and whoever asked is told so.
            let _ = unlinkat(&*self.folder, name, AtFlags::empty());
        }
    }
}

/// The folder for files, made if need be. A link in its place is no such folder.
fn folder(workspace: PathBuf) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut folder = open(workspace, flags, Mode::empty())?;
    for name in FOLDER {
        match mkdirat(&folder, name, Mode::RWXU) {
            Err(error) if error != rustix::io::Errno::EXIST => return Err(error.into()),
            _ => {}
        }
        folder = openat(&folder, name, flags | OFlags::NOFOLLOW, Mode::empty())?;
    }
    Ok(folder)
}

async fn skip(mut field: Field<'_>) -> Result<(), Refusal> {
    while field.chunk().await.map_err(|error| broken(&error))?.is_some() {}
    Ok(())
}

fn no_form() -> Refusal {
    Refusal::new(400, "failed to parse multipart form")
}

fn broken(error: &multer::Error) -> Refusal {
    match error {
        multer::Error::StreamSizeExceeded { .. } => Refusal::new(413, "total request body exceeds limit (50 MB)"),
        _ => no_form(),
    }
}

fn not_written(error: &io::Error) -> Refusal {
    tracing::error!(error = %error, "a file that was sent cannot be kept");
    Refusal::new(500, "failed to write file")
}
