//! The files that a workspace keeps.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use base64::{Engine, engine::general_purpose::STANDARD};
use molecule_core::{
    Error,
    provisioner::{FileEntry, FilePath, FileRoot},
    workspace_files::SharedFile,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{Body, BodyUpTo, Own, Params},
    named::Named,
    state::AppState,
};

/// The most that one call may write, in bytes of its body.
const WRITE_LIMIT: usize = 16 * 1024 * 1024;

/// Which folder to list.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct ListFilesQuery {
    /// `/configs` (which it is when left out), `/workspace`, `/home` or `/plugins`.
    root: Option<String>,
    /// A folder below the root.
    path: Option<String>,
    /// How deep to go: 1 to 5, or 1 when left out.
    depth: Option<String>,
}

/// Below which folder a file is.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct FileQuery {
    /// `/configs` (which it is when left out), `/workspace`, `/home` or `/plugins`.
    root: Option<String>,
}

/// What is in a folder.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FileEntryView {
    /// Below the folder that was listed.
    path: String,
    /// In bytes; 0 for a folder.
    size: u64,
    /// Whether it is a folder.
    dir: bool,
}

/// A file.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WorkspaceFileView {
    path: String,
    /// What it holds, as it is.
    content: String,
    /// In bytes.
    size: usize,
    /// `base64` where the file is no text; left out otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
}

/// What a file is to hold.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct WriteFileRequest {
    content: String,
}

/// What files are to hold.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct WriteFilesRequest {
    /// By path below the configuration folder; at most 200.
    files: BTreeMap<String, String>,
}

/// What was done with a file.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FileDoneView {
    /// `saved` or `deleted`.
    status: &'static str,
    path: String,
}

/// What was done with files.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReplacedFilesView {
    /// `replaced`.
    status: &'static str,
    /// The name of the workspace.
    workspace: String,
    /// How many.
    files: usize,
    /// `container` where the workload runs, else `volume`.
    source: &'static str,
}

/// A file that is shared.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SharedFileView {
    path: String,
    content: String,
}

impl From<FileEntry> for FileEntryView {
    fn from(FileEntry { path, size, dir }: FileEntry) -> Self {
        Self { path, size, dir }
    }
}

impl From<SharedFile> for SharedFileView {
    fn from(SharedFile { path, content }: SharedFile) -> Self {
        Self { path, content }
    }
}

impl FileQuery {
    fn root(&self) -> Result<FileRoot, Error> {
        root_of(self.root.as_deref())
    }

    /// Only the configuration folder can be changed.
    fn demand_configs(&self) -> Result<(), Error> {
        match self.root()? {
            FileRoot::Configs => Ok(()),
            _ => Err(Error::invalid("only files below /configs can be changed")),
        }
    }
}

fn root_of(root: Option<&str>) -> Result<FileRoot, Error> {
    root.unwrap_or("/configs").parse()
}

/// Lists the files of a workspace: of its container, else of its volume, else of the template that is called like it.
#[utoipa::path(get, path = "/workspaces/{id}/files", tag = "files", operation_id = "list_files",
    params(ListFilesQuery, ("id" = Uuid, Path)),
    responses((status = 200, body = [FileEntryView]), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 413, body = ErrorView), (status = 501, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn list(
    State(app): State<AppState>,
    Own(id): Own,
    Params(query): Params<ListFilesQuery>,
) -> ApiResult<Json<Vec<FileEntryView>>> {
    let root = root_of(query.root.as_deref())?;
    let folder = query.path.as_deref().filter(|path| !path.is_empty()).map(FilePath::parse).transpose()?;
    // What is no number is no depth there is.
    let depth = query.depth.as_deref().filter(|depth| !depth.is_empty()).map_or(1, |depth| depth.parse().unwrap_or(0));
    let files = app.control_plane.list_files(id, root, folder.as_ref(), depth).await?;
    Ok(Json(files.into_iter().map(FileEntryView::from).collect()))
}

/// Reads a file of a workspace.
#[utoipa::path(get, path = "/workspaces/{id}/files/{*path}", tag = "files", operation_id = "read_file",
    params(FileQuery, ("id" = Uuid, Path), ("*path" = String, Path)),
    responses((status = 200, body = WorkspaceFileView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 413, body = ErrorView), (status = 501, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn read(
    State(app): State<AppState>,
    Own(id): Own,
    Named(path): Named<FilePath>,
    Params(query): Params<FileQuery>,
) -> ApiResult<Json<WorkspaceFileView>> {
    let contents = app.control_plane.read_file(id, query.root()?, &path).await?;
    let size = contents.len();
    let (content, encoding) = match String::from_utf8(contents) {
        Ok(text) => (text, None),
        Err(no_text) => (STANDARD.encode(no_text.into_bytes()), Some("base64")),
    };
    Ok(Json(WorkspaceFileView { path: path.to_string(), content, size, encoding }))
}

/// Writes a file into the configuration folder of a workspace.
#[utoipa::path(put, path = "/workspaces/{id}/files/{*path}", tag = "files", operation_id = "write_file",
    params(FileQuery, ("id" = Uuid, Path), ("*path" = String, Path)), request_body = WriteFileRequest,
    responses((status = 200, body = FileDoneView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 413, body = ErrorView), (status = 500, body = ErrorView),
        (status = 501, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn write(
    State(app): State<AppState>,
    Own(id): Own,
    Named(path): Named<FilePath>,
    Params(query): Params<FileQuery>,
    BodyUpTo(body): BodyUpTo<WRITE_LIMIT>,
) -> ApiResult<Json<FileDoneView>> {
    query.demand_configs()?;
    let WriteFileRequest { content } = Body(body).parse("invalid request body")?;
    app.control_plane.write_file(id, path.clone(), content).await?;
    Ok(Json(FileDoneView { status: "saved", path: path.to_string() }))
}

/// Deletes a file from the configuration folder of a workspace.
#[utoipa::path(delete, path = "/workspaces/{id}/files/{*path}", tag = "files", operation_id = "delete_file",
    params(FileQuery, ("id" = Uuid, Path), ("*path" = String, Path)),
    responses((status = 200, body = FileDoneView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 501, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn delete(
    State(app): State<AppState>,
    Own(id): Own,
    Named(path): Named<FilePath>,
    Params(query): Params<FileQuery>,
) -> ApiResult<Json<FileDoneView>> {
    query.demand_configs()?;
    app.control_plane.delete_file(id, &path).await?;
    Ok(Json(FileDoneView { status: "deleted", path: path.to_string() }))
}

/// Writes files into the configuration folder of a workspace, all that can be checked before the first is written.
#[utoipa::path(put, path = "/workspaces/{id}/files", tag = "files", operation_id = "write_files",
    params(FileQuery, ("id" = Uuid, Path)), request_body = WriteFilesRequest,
    responses((status = 200, body = ReplacedFilesView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 413, body = ErrorView), (status = 500, body = ErrorView),
        (status = 501, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn replace(
    State(app): State<AppState>,
    Own(id): Own,
    Params(query): Params<FileQuery>,
    BodyUpTo(body): BodyUpTo<WRITE_LIMIT>,
) -> ApiResult<Json<ReplacedFilesView>> {
    query.demand_configs()?;
    let WriteFilesRequest { files } = Body(body).parse("invalid request body")?;
    let files =
        files.into_iter().map(|(path, text)| Ok((FilePath::parse(&path)?, text))).collect::<Result<_, Error>>()?;
    let done = app.control_plane.write_files(id, files).await?;
    Ok(Json(ReplacedFilesView {
        status: "replaced",
        workspace: done.workspace,
        files: done.files,
        source: done.source,
    }))
}

/// Lists the files that the configuration of a workspace shares, and what they hold.
#[utoipa::path(get, path = "/workspaces/{id}/shared-context", tag = "files", params(("id" = Uuid, Path)),
    responses((status = 200, body = [SharedFileView]), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 501, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn shared_context(State(app): State<AppState>, Own(id): Own) -> ApiResult<Json<Vec<SharedFileView>>> {
    let shared = app.control_plane.shared_context(id).await?;
    Ok(Json(shared.into_iter().map(SharedFileView::from).collect()))
}
