//! The headers that an agent's calls to its platform carry.

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use secrecy::{ExposeSecret, SecretString};

use super::PlatformUrl;
use crate::{
    error::{Error, Result},
    id::WorkspaceId,
};

const WORKSPACE_ID: HeaderName = HeaderName::from_static("x-workspace-id");

/// `Origin`, which some edges demand, when the platform is known, and `Authorization` when a token is.
///
/// # Errors
/// [`InvalidInput`](crate::error::ErrorKind::InvalidInput) when the token cannot stand in a header.
pub fn auth_headers(platform: Option<&PlatformUrl>, token: Option<&SecretString>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    if let Some(platform) = platform {
        let origin = HeaderValue::from_str(platform.as_str())
            .map_err(|_| Error::invalid("the platform URL cannot be sent in a header"))?;
        headers.insert(ORIGIN, origin);
    }
    if let Some(token) = token {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret())).map_err(|_| {
            Error::invalid("the token of this workspace holds characters that cannot be sent: issue a new one")
        })?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
    }
    Ok(headers)
}

/// [`auth_headers`] and who speaks.
///
/// Every message a workspace sends for itself carries these; without them it is recorded as typed by the user.
///
/// # Errors
/// As [`auth_headers`].
pub fn self_source_headers(
    platform: Option<&PlatformUrl>,
    token: Option<&SecretString>,
    id: &WorkspaceId,
) -> Result<HeaderMap> {
    let mut headers = auth_headers(platform, token)?;
    let id = HeaderValue::from_str(&id.to_string()).expect("a UUID is made of digits, letters and hyphens");
    headers.insert(WORKSPACE_ID, id);
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform() -> PlatformUrl {
        "http://platform:8080/".parse().unwrap()
    }

    #[test]
    fn origin_is_always_there_and_the_bearer_when_known() {
        let headers = auth_headers(Some(&platform()), None).unwrap();
        assert_eq!(headers[ORIGIN], "http://platform:8080");
        assert!(!headers.contains_key(AUTHORIZATION));

        let headers = auth_headers(Some(&platform()), Some(&"t0ken".into())).unwrap();
        assert_eq!(headers[AUTHORIZATION], "Bearer t0ken");
        assert!(!format!("{headers:?}").contains("t0ken"));
    }

    #[test]
    fn own_messages_name_their_sender() {
        let id: WorkspaceId = "6f9619ff-8b86-d011-b42d-00cf4fc964ff".parse().unwrap();
        let headers = self_source_headers(Some(&platform()), Some(&"t0ken".into()), &id).unwrap();
        assert_eq!(headers["X-Workspace-ID"], id.to_string().as_str());
        assert_eq!(headers[AUTHORIZATION], "Bearer t0ken");
    }

    #[test]
    fn a_token_that_cannot_be_sent_is_refused_without_being_shown() {
        let error = auth_headers(Some(&platform()), Some(&"t0\nken".into())).unwrap_err();
        assert!(!error.detail().contains("t0"), "{error:?}");
    }
}
