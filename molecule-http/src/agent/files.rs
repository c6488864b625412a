//! The files of the reference agent's workspace, over HTTP.

use axum::{
    Json, Router,
    body::Body,
    extract::{RawQuery, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{StreamExt, TryStreamExt};
use molecule_core::agent::files::{Files, Refusal};
use url::form_urlencoded;

use super::transcript::Transcript;

/// The routes of `files`, and of what was said.
pub(super) fn router<S>(files: Files, transcript: Transcript) -> Router<S> {
    Router::new()
        .route("/internal/chat/uploads/ingest", post(ingest))
        .route("/internal/file/read", get(read))
        .route("/transcript", get(show_transcript))
        .with_state(Shared { files, transcript })
}

#[derive(Clone)]
struct Shared {
    files: Files,
    transcript: Transcript,
}

async fn ingest(State(Shared { files, .. }): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let text = |name| parts.headers.get(name)?.to_str().ok();
    let length = text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let body = body.into_data_stream().map_err(std::io::Error::other).boxed();
    match files.ingest(authorization(&parts.headers), text(header::CONTENT_TYPE), length, body).await {
        Ok(kept) => Json(kept).into_response(),
        Err(refusal) => refused(refusal),
    }
}

async fn read(State(Shared { files, .. }): State<Shared>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let path = first(query.as_deref(), "path").unwrap_or_default();
    match files.read(authorization(&headers), &path).await {
        Ok(opened) => {
            let headers = [
                (header::CONTENT_TYPE, opened.content_type),
                (header::CONTENT_LENGTH, opened.length.to_string()),
                (header::CONTENT_DISPOSITION, opened.content_disposition),
            ];
            (headers, Body::from_stream(opened.body)).into_response()
        }
        Err(refusal) => refused(refusal),
    }
}

async fn show_transcript(
    State(Shared { files, transcript }): State<Shared>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let asked = |name| first(query.as_deref(), name);
    match files.transcript_page(authorization(&headers), asked("since").as_deref(), asked("limit").as_deref()) {
        Ok(page) => Json(transcript.show(page)).into_response(),
        Err(refusal) => refused(refusal),
    }
}

/// What `query` says `name` is, the first time it does. Nothing in it is judged before whoever asks has proved itself.
fn first(query: Option<&str>, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

fn authorization(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(header::AUTHORIZATION).map(|value| value.as_bytes())
}

fn refused(refusal: Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(refusal.body)).into_response()
}
