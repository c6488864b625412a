//! From the library's errors to HTTP: the only table there is.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use molecule_core::{Error, ErrorKind};
use serde_json::{Map, Value};

/// What a handler gives instead of an answer.
#[derive(Debug)]
pub(crate) struct ApiError(pub(crate) Error);

/// What a handler gives.
pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

/// The status that stands for `kind`. Kinds that this build does not know are defects of it.
pub(crate) fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::BudgetExceeded => StatusCode::PAYMENT_REQUIRED,
        ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Removed => StatusCode::GONE,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::LimitReached => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Upstream => StatusCode::BAD_GATEWAY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let status = status_of(error.kind());
        if status == StatusCode::NOT_IMPLEMENTED {
            tracing::info!(status = status.as_u16(), error = error.detail(), "a request was for something else");
        } else if status.is_server_error() {
            tracing::error!(status = status.as_u16(), error = error.detail(), "a request failed");
        }
        let mut body = Map::new();
        body.insert("error".to_owned(), error.message().into());
        for (name, value) in error.members() {
            body.insert((*name).to_owned(), value.clone());
        }
        let retry_after = body.get("retry_after").and_then(Value::as_u64).map(HeaderValue::from);
        let mut response = (status, Json(body)).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_status() {
        let table: Vec<u16> = ErrorKind::ALL.iter().map(|kind| status_of(*kind).as_u16()).collect();
        assert_eq!(table, [400, 401, 403, 402, 404, 410, 409, 413, 429, 501, 503, 502, 500]);
    }

    #[tokio::test]
    async fn callers_see_the_message_and_its_members_and_nothing_else() {
        let error = Error::new(ErrorKind::Unavailable, "workspace agent busy")
            .with_member("retry_after", 30)
            .caused_by(std::io::Error::other("secret path"));
        let response = ApiError(error).into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "30");
        let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
        assert_eq!(body, r#"{"error":"workspace agent busy","retry_after":30}"#);
    }
}
