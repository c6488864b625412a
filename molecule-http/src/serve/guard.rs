//! Extractors: they read a request, ask the library's gates, and refuse in the contract's words.

use std::{convert::Infallible, time::Duration};

use axum::{
    BoxError,
    body::{Bytes, HttpBody},
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{
        HeaderMap,
        header::{AUTHORIZATION, COOKIE},
        request::Parts,
    },
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use molecule_core::{
    Error, ErrorKind,
    id::WorkspaceId,
    identity::{self, Credential, Exposure},
};
use serde::de::DeserializeOwned;

use super::{edge::Recognised, error::ApiError, named::Named, origin, state::AppState};

/// How long a request body may take to come. What let the request in may be worth nothing by then.
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// The same where a route takes long ones.
const LONG_BODY_WITHIN: Duration = Duration::from_secs(5 * 60);

/// The most that a request body may hold, where its route says nothing else.
pub(crate) const BODY_LIMIT: usize = 1024 * 1024;

/// The text after `Bearer `, if any. Any other scheme is no credential.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    identity::bearer(headers.get(AUTHORIZATION)?.to_str().ok()?)
}

/// What the request presents, and from where it can have come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Presented {
    pub(crate) credential: Credential,
    pub(crate) exposure: Exposure,
}

impl FromRequestParts<AppState> for Presented {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        if let Some(presented) = parts.extensions.get() {
            return Ok(*presented);
        }
        let presented = Self { credential: credential(parts, state).await?, exposure: exposure(parts) };
        parts.extensions.insert(presented);
        Ok(presented)
    }
}

/// From where the request can have come. Without the listener's word nothing is taken for local, and neither is what
/// another site makes a browser do.
fn exposure(parts: &Parts) -> Exposure {
    let local = parts.extensions.get() == Some(&Exposure::Loopback) && origin::is_own(&parts.headers);
    if local { Exposure::Loopback } else { Exposure::Network }
}

/// From where the request can have come, where what it presents is judged by its route.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received(pub(crate) Exposure);

impl FromRequestParts<AppState> for Received {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Infallible> {
        Ok(Self(exposure(parts)))
    }
}

/// What a request shows: its bearer where it has one, whatever else it has; otherwise its cookies. Those that another
/// site had sent with a request that changes something did not get as far as here.
async fn credential(parts: &Parts, state: &AppState) -> Result<Credential, ApiError> {
    let control_plane = &state.control_plane;
    if let Some(bearer) = bearer(&parts.headers) {
        return match parts.extensions.get() {
            Some(Recognised(credential)) => Ok(*credential),
            None => Ok(control_plane.authenticate(Some(bearer)).await?),
        };
    }
    match parts.headers.get(COOKIE).and_then(|cookies| cookies.to_str().ok()) {
        Some(cookies) => Ok(control_plane.authenticate_session(cookies).await?),
        None => Ok(Credential::Absent),
    }
}

/// Proof that the caller may do what the operator may.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operator;

impl FromRequestParts<AppState> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let presented = Presented::from_request_parts(parts, state).await?;
        state.control_plane.admit_operator(presented.credential, presented.exposure).await?;
        Ok(Self)
    }
}

/// The workspace that the path names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Id(pub(crate) WorkspaceId);

impl FromRequestParts<AppState> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let Named(id) = Named::from_request_parts(parts, state).await?;
        Ok(Self(id))
    }
}

/// The workspace that the path names, and proof that the caller may act for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own(pub(crate) WorkspaceId);

impl FromRequestParts<AppState> for Own {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let Id(id) = Id::from_request_parts(parts, state).await?;
        let presented = Presented::from_request_parts(parts, state).await?;
        state.control_plane.admit_to_workspace(presented.credential, id, presented.exposure)?;
        Ok(Self(id))
    }
}

/// Which workspace the caller says it is; what cannot be read names none.
#[derive(Debug, Clone)]
pub(crate) struct Claimed(pub(crate) Option<String>);

impl FromRequestParts<AppState> for Claimed {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Infallible> {
        let claimed = parts.headers.get("x-workspace-id").map(|value| String::from_utf8_lossy(value.as_bytes()));
        Ok(Self(claimed.map(|claimed| claimed.trim().to_owned()).filter(|claimed| !claimed.is_empty())))
    }
}

/// The query of a request.
#[derive(Debug, Clone)]
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let Query(query) = Query::<T>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Error::invalid("invalid query").with_member("detail", rejection.body_text()))?;
        Ok(Self(query))
    }
}

/// The body of a request, within its limit.
#[derive(Debug, Clone)]
pub(crate) struct Body(pub(crate) Bytes);

impl FromRequest<AppState> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &AppState) -> Result<Self, ApiError> {
        Self::read(request.into_body()).await
    }
}

/// The body of a request whose route has a limit of its own, in bytes.
#[derive(Debug, Clone)]
pub(crate) struct BodyUpTo<const LIMIT: usize>(pub(crate) Bytes);

impl<const LIMIT: usize> FromRequest<AppState> for BodyUpTo<LIMIT> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &AppState) -> Result<Self, ApiError> {
        read_up_to(LIMIT, LONG_BODY_WITHIN, request.into_body()).await.map(Self)
    }
}

/// Reads all of `body`, which holds at most `limit` bytes and comes in time.
async fn read_up_to<B>(limit: usize, within: Duration, body: B) -> Result<Bytes, ApiError>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let Ok(read) = tokio::time::timeout(within, Limited::new(body, limit).collect()).await else {
        let text = format!("the request body did not come within {} seconds", within.as_secs());
        return Err(ApiError(Error::invalid(text)));
    };
    read.map(|body| body.to_bytes()).map_err(|error| {
        ApiError(if error.is::<LengthLimitError>() {
            Error::new(ErrorKind::TooLarge, format!("the request body is over the limit of {limit} bytes"))
        } else {
            Error::invalid("failed to read request body")
        })
    })
}

impl Body {
    /// Reads all of `body`.
    pub(crate) async fn read<B>(body: B) -> Result<Self, ApiError>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        read_up_to(BODY_LIMIT, BODY_WITHIN, body).await.map(Self)
    }

    /// The body as JSON. Anything else is refused with `message`; what was wrong goes beside it.
    pub(crate) fn parse<T: DeserializeOwned>(&self, message: &'static str) -> Result<T, ApiError> {
        let refuse = |detail: String| ApiError(Error::invalid(message).with_member("detail", detail));
        // Left to itself, serde takes a list for the members of an object in their order.
        if self.0.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
            return Err(refuse("the body must be a JSON object".to_owned()));
        }
        // Nor does it look at the text of members that it ignores.
        let text = std::str::from_utf8(&self.0).map_err(|error| refuse(error.to_string()))?;
        serde_json::from_str(text).map_err(|error| refuse(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let never = axum::body::Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let refused = read_up_to(4, Duration::from_millis(10), never).await.unwrap_err();
        assert_eq!(refused.0.message(), "the request body did not come within 0 seconds");
        let long = read_up_to(3, BODY_WITHIN, axum::body::Body::from("four")).await.unwrap_err();
        assert_eq!(long.0.kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn only_the_exact_scheme_is_a_bearer() {
        let rows = [
            ("Bearer abc", Some("abc")),
            ("Bearer  abc ", Some("abc")),
            ("Bearer ", None),
            ("Bearer", None),
            ("bearer abc", None),
            ("Basic abc", None),
            ("abc", None),
        ];
        for (value, expected) in rows {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
            assert_eq!(bearer(&headers), expected, "{value:?}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
