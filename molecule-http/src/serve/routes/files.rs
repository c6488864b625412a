//! Files on their way to an agent and back, streamed.

use axum::{
    body::Body as RawBody,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, Response,
        header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    },
};
use futures_util::{StreamExt, TryStreamExt};
use molecule_core::{
    Error, ErrorKind,
    files::{Passed, Upload},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::ErrorView;
use crate::serve::{
    error::{ApiError, ApiResult},
    guard::{Own, Params},
    state::AppState,
};

/// What an agent keeps in a file is no page of this server, whatever it says to be: its scripts would be the operator's.
const NO_PAGE: HeaderValue = HeaderValue::from_static("sandbox; default-src 'none'");

/// Which file to read.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct DownloadQuery {
    /// Where it is in the workspace, from the root on.
    path: Option<String>,
}

/// Sends files to the agent of a workspace, as a form with the field `files` once or more.
#[utoipa::path(post, path = "/workspaces/{id}/chat/uploads", tag = "files", operation_id = "upload_files",
    params(("id" = Uuid, Path)),
    request_body(content = Vec<u8>, content_type = "multipart/form-data", description = "At most 50 MiB."),
    responses((status = 200, body = Value, description = "The answer of the workspace, unchanged."),
        (status = 400, body = ErrorView), (status = 401, body = ErrorView), (status = 404, body = ErrorView),
        (status = 413, body = ErrorView), (status = 500, body = ErrorView), (status = 502, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn upload(
    State(app): State<AppState>,
    Own(id): Own,
    headers: HeaderMap,
    request: Request,
) -> ApiResult<Response<RawBody>> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (content_type, content_length) = (header(CONTENT_TYPE), header(CONTENT_LENGTH));
    let upload = Upload {
        content_type,
        content_length: content_length.and_then(|length| length.parse().ok()),
        body: request.into_body().into_data_stream().map_err(std::io::Error::other).boxed(),
    };
    passed(app.control_plane.upload(id, upload).await?)
}

/// Reads a file of a workspace.
#[utoipa::path(get, path = "/workspaces/{id}/chat/download", tag = "files", operation_id = "download_file",
    params(DownloadQuery, ("id" = Uuid, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 400, body = ErrorView), (status = 401, body = ErrorView), (status = 404, body = ErrorView),
        (status = 500, body = ErrorView), (status = 502, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn download(
    State(app): State<AppState>,
    Own(id): Own,
    Params(query): Params<DownloadQuery>,
) -> ApiResult<Response<RawBody>> {
    let mut answer = app.control_plane.download(id, &query.path.unwrap_or_default()).await?;
    answer.content_disposition.get_or_insert_with(|| "attachment".to_owned());
    let mut response = passed(answer)?;
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, NO_PAGE);
    Ok(response)
}

fn passed(answer: Passed) -> ApiResult<Response<RawBody>> {
    let mut response = Response::builder().status(answer.status);
    for (name, value) in [
        (CONTENT_TYPE, answer.content_type),
        (CONTENT_LENGTH, answer.content_length.map(|length| length.to_string())),
        (CONTENT_DISPOSITION, answer.content_disposition),
    ] {
        if let Some(value) = value {
            response = response.header(name, value);
        }
    }
    response
        .body(RawBody::from_stream(answer.body))
        .map_err(|error| ApiError(Error::new(ErrorKind::Upstream, "workspace unreachable").caused_by(error)))
}
