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
    /// `body` is read to its end also where a file in it is too long, so that whoever sends it hears why. What is there of it
    /// is taken at once, so that all of it may be in memory where it comes faster than it is written.
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
        let mut folder: Option<Arc<OwnedFd>> = None;
        let mut begun = Vec::new();
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
            let folder = match &folder {
                Some(folder) => folder,
                None => folder.insert(self.prepare().await?),
            };
            match self.keep(folder, &mut begun, field).await? {
                Ok(file) => files.push(file),
                Err(refusal) => refused = Some(refusal),
            }
        }
        if let Some(refusal) = refused {
            return Err(refusal);
        }
        if files.is_empty() {
            return Err(Refusal::new(400, "expected at least one 'files' field"));
        }
        begun.into_iter().for_each(Begun::keep);
        Ok(json!({"files": files}))
    }

    /// The folder that files are kept in.
    async fn prepare(&self) -> Result<Arc<OwnedFd>, Refusal> {
        let workspace = self.root.join("workspace");
        let prepared = tokio::task::spawn_blocking(move || folder(workspace)).await.map_err(io::Error::other);
        match prepared.and_then(|folder| folder) {
            Ok(folder) => Ok(Arc::new(folder)),
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
    async fn keep(
        &self,
        folder: &Arc<OwnedFd>,
        begun: &mut Vec<Begun>,
        mut field: Field<'static>,
    ) -> Result<Result<Value, Refusal>, Refusal> {
        let name = name::safe(field.file_name().unwrap_or_default());
        let kind = field.content_type().map(ToString::to_string).unwrap_or_else(|| UNKNOWN.to_owned());
        let mut random = [0; 16];
        self.entropy.fill(&mut random);
        let stored = format!("{:032x}-{name}", u128::from_be_bytes(random));
        let (place, called) = (folder.clone(), stored.clone());
        // Where nobody waits for it any more, it goes with what this gives.
        let creating = tokio::task::spawn_blocking(move || Begun::create(place, called));
        let created = creating.await.map_err(io::Error::other).and_then(|created| created);
        let (file, new) = created.map_err(|error| not_written(&error))?;
        begun.push(new);
        let mut file = tokio::fs::File::from_std(file);
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

/// A file of a form that is not whole yet. It is removed with this: also where whoever sends it went away.
struct Begun {
    folder: Arc<OwnedFd>,
    name: String,
    is_kept: bool,
}

impl Begun {
    /// A new file called `name`, for its owner alone. What is in its place already stays as it is, links included.
    fn create(folder: Arc<OwnedFd>, name: String) -> io::Result<(File, Self)> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&*folder, &name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok((File::from(file), Self { folder, name, is_kept: false }))
    }

    fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.is_kept {
            // Best effort: it was refused already, and whoever asked is told so.
            let _ = unlinkat(&*self.folder, &self.name, AtFlags::empty());
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
