//! Files on their way to an agent and back: streamed, never held as a whole.

mod stream;

use std::{fmt, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use reqwest::{RequestBuilder, Response, header};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use self::stream::{Begun, Counted};
use crate::{
    agent::file_path,
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    id::WorkspaceId,
    workspace::{Workspace, lifecycle::gone_is_not_found},
};

/// The most that one upload may hold, in bytes.
pub const UPLOAD_LIMIT: u64 = 50 * 1024 * 1024;

/// What is no longer than this is sent once more where the workspace has another secret by now.
const SENT_AGAIN: usize = 1024 * 1024;

/// How long nothing may move before a transfer is given up.
const IDLE: Duration = Duration::from_secs(120);

/// The bytes of a file, or of several in one form, as they come.
pub type Bits = BoxStream<'static, std::io::Result<Bytes>>;

/// Files that somebody sends to an agent, as one form.
pub struct Upload {
    /// What kind of form it is, verbatim.
    pub content_type: Option<String>,
    /// How many bytes there are, where that is known before.
    pub content_length: Option<u64>,
    /// The form.
    pub body: Bits,
}

/// What a workspace answered: its status and body, unchanged.
pub struct Passed {
    /// The HTTP status.
    pub status: u16,
    /// What the body is.
    pub content_type: Option<String>,
    /// How many bytes there are.
    pub content_length: Option<u64>,
    /// What the file is called.
    pub content_disposition: Option<String>,
    /// The body.
    pub body: Bits,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("content_length", &self.content_length).finish_non_exhaustive()
    }
}

impl fmt::Debug for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passed").field("status", &self.status).finish_non_exhaustive()
    }
}

impl ControlPlane {
    /// Sends files to the agent of a workspace, and gives its answer.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace; [`ErrorKind::TooLarge`] over [`UPLOAD_LIMIT`], also
    /// where that is seen on the way only; [`ErrorKind::Unavailable`] while the workspace has no address, or does not
    /// know its inbound secret yet; [`ErrorKind::Upstream`] where it cannot be reached.
    pub async fn upload(&self, id: WorkspaceId, upload: Upload) -> Result<Passed> {
        if upload.content_length.is_some_and(|length| length > UPLOAD_LIMIT) {
            return Err(too_large());
        }
        let workspace = self.reachable(id).await?;
        let secret = self.file_secret(id, "upload").await?;
        let url = address(&workspace.url, "/internal/chat/uploads/ingest", &[])?;
        let client = self.client_for(&workspace).await.map_err(not_reached)?;
        let request = |secret: &SecretString| {
            let request = client.post(url.clone()).bearer_auth(secret.expose_secret());
            match &upload.content_type {
                Some(content_type) => request.header(header::CONTENT_TYPE, content_type),
                None => request,
            }
        };
        let (counted, count) = Counted::new(upload.body, UPLOAD_LIMIT);
        let begun = count.watch(stream::begin(counted.boxed(), SENT_AGAIN), IDLE).await;
        let answer = match (count.end(), begun) {
            (None, Ok(Begun::Whole(form))) => {
                self.asked(id, "upload", secret, |secret| request(secret).body(form.clone())).await
            }
            (None, Ok(Begun::Long(form))) => {
                let mut request = request(&secret).body(reqwest::Body::wrap_stream(form));
                if let Some(length) = upload.content_length {
                    request = request.header(header::CONTENT_LENGTH, length);
                }
                count.watch(send(request), IDLE).await
            }
            (_, begun) => begun.and(Err(unreachable_workspace())),
        };
        let answer = match (count.end(), answer) {
            (Some(stream::End::TooLarge), _) => return Err(too_large()),
            (Some(stream::End::Broken), _) => return Err(Error::invalid("failed to read request body")),
            (None, answer) => answer?,
        };
        if answer.status().as_u16() == 401 {
            // It may have another one by now, for the next try: what was sent is gone.
            self.forget_inbound_secret(id);
        }
        pass(answer)
    }

    /// Reads a file of a workspace.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a path that may not be asked for; otherwise as [`ControlPlane::upload`].
    pub async fn download(&self, id: WorkspaceId, path: &str) -> Result<Passed> {
        file_path::check(path)?;
        let workspace = self.reachable(id).await?;
        let url = address(&workspace.url, "/internal/file/read", &[("path", path)])?;
        let client = self.client_for(&workspace).await.map_err(not_reached)?;
        let secret = self.file_secret(id, "download").await?;
        pass(
            self.asked(id, "download", secret, |secret| client.get(url.clone()).bearer_auth(secret.expose_secret()))
                .await?,
        )
    }

    /// What a workspace answers to `request`; made once more where it refuses `secret` and has another one by now.
    async fn asked(
        &self,
        id: WorkspaceId,
        operation: &str,
        secret: SecretString,
        request: impl Fn(&SecretString) -> RequestBuilder + Send + Sync,
    ) -> Result<Response> {
        let ask = async |secret: &SecretString| {
            let answer = tokio::time::timeout(IDLE, send(request(secret))).await;
            answer.unwrap_or_else(|_| Err(unreachable_workspace()))
        };
        let answer = ask(&secret).await?;
        if answer.status().as_u16() != 401 {
            return Ok(answer);
        }
        self.forget_inbound_secret(id);
        let again = self.file_secret(id, operation).await?;
        if again.expose_secret() == secret.expose_secret() { Ok(answer) } else { ask(&again).await }
    }

    async fn reachable(&self, id: WorkspaceId) -> Result<Workspace> {
        let workspace = self.existing(id).await.map_err(gone_is_not_found)?;
        if workspace.url.is_empty() {
            return Err(Error::new(ErrorKind::Unavailable, "workspace url not registered yet"));
        }
        Ok(workspace)
    }

    /// The secret that the workspace knows this platform by.
    async fn file_secret(&self, id: WorkspaceId, operation: &str) -> Result<SecretString> {
        match self.inbound_secret(id).await {
            Ok(found) if !found.minted => Ok(found.secret),
            Ok(_) => {
                let text = "workspace re-registering — please retry in 30 seconds";
                let detail = "Inbound secret was just minted. Workspace will pick it up on its next heartbeat.";
                let error = Error::new(ErrorKind::Unavailable, text).with_member("detail", detail);
                Err(error.with_member("retry_after_seconds", 30))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Err(error),
            Err(error) => {
                let text = format!("workspace not yet enrolled in v2 {operation} (RFC #2312)");
                let detail = "Failed to mint inbound secret. Reprovision the workspace if this persists.";
                Err(Error::new(ErrorKind::Unavailable, text).with_member("detail", detail).caused_by(error))
            }
        }
    }
}

fn too_large() -> Error {
    Error::new(ErrorKind::TooLarge, "request body exceeds total limit (50 MB)")
}

fn unreachable_workspace() -> Error {
    Error::new(ErrorKind::Upstream, "workspace unreachable")
}

/// An address that may not be called is one where nobody is reached.
fn not_reached(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Upstream => unreachable_workspace().caused_by(error),
        _ => error,
    }
}

/// Where a workspace answers at `path`. What follows the path of the address that it gave is no part of it: it would make
/// something else of this path.
fn address(registered: &str, path: &str, query: &[(&str, &str)]) -> Result<Url> {
    let failed = || Error::new(ErrorKind::Unexpected, "failed to construct forward request");
    let mut url = Url::parse(registered).map_err(|error| failed().caused_by(error))?;
    url.set_query(None);
    url.set_fragment(None);
    let parts = path.split('/').filter(|part| !part.is_empty());
    url.path_segments_mut().map_err(|()| failed())?.pop_if_empty().extend(parts);
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Ok(url)
}

async fn send(request: RequestBuilder) -> Result<Response> {
    let answer = request.send().await.map_err(|error| unreachable_workspace().caused_by(error.without_url()))?;
    if answer.status().is_redirection() {
        return Err(unreachable_workspace().context("status", answer.status()));
    }
    Ok(answer)
}

fn pass(answer: Response) -> Result<Passed> {
    let text = |name| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (content_type, content_disposition) = (text(header::CONTENT_TYPE), text(header::CONTENT_DISPOSITION));
    let content_length = text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let status = answer.status().as_u16();
    let broken = |error: reqwest::Error| std::io::Error::other(error.without_url());
    let body = answer.bytes_stream().map(move |chunk| chunk.map_err(broken));
    Ok(Passed { status, content_type, content_length, content_disposition, body: stream::alive(body.boxed(), IDLE) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_makes_something_else_of_a_path() {
        for (registered, expected) in [
            ("http://a:1", "http://a:1/internal/file/read?path=%2Fworkspace%2Fa"),
            ("http://a:1/", "http://a:1/internal/file/read?path=%2Fworkspace%2Fa"),
            ("http://a:1/agent/", "http://a:1/agent/internal/file/read?path=%2Fworkspace%2Fa"),
            ("http://a:1/containers/json?x=", "http://a:1/containers/json/internal/file/read?path=%2Fworkspace%2Fa"),
            ("http://a:1/containers/json#", "http://a:1/containers/json/internal/file/read?path=%2Fworkspace%2Fa"),
            ("http://a:1/x?y#z", "http://a:1/x/internal/file/read?path=%2Fworkspace%2Fa"),
        ] {
            let url = address(registered, "/internal/file/read", &[("path", "/workspace/a")]).unwrap();
            assert_eq!(url.as_str(), expected, "{registered}");
        }
    }
}
