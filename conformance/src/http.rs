//! A server as its clients see it.

use std::{error::Error, sync::Arc, time::Duration};

use reqwest::{Client, Method, RequestBuilder, redirect};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use serde_json::Value;
use uuid::Uuid;

use crate::case::Verdict;

/// How long the server may take to answer one request.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that is known by its base URL and, perhaps, a credential for it.
#[derive(Debug)]
pub struct Server {
    client: Client,
    base_url: String,
    token: Option<String>,
}

/// An answer whose body was read to its end.
#[derive(Debug)]
pub struct Answer {
    request: String,
    status: u16,
    body: String,
}

impl Server {
    /// The server at `base_url`. `token` is sent as a bearer by the cases that need to be let in, by no others.
    ///
    /// # Errors
    /// Where the client of this host cannot be set up.
    pub fn new(base_url: &str, token: Option<String>) -> Result<Self, Box<dyn Error + Send + Sync>> {
        // Certificates come along, since the program may run where none are installed.
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(redirect::Policy::none())
            .timeout(PATIENCE)
            .build()?;
        Ok(Self { client, base_url: base_url.trim_end_matches('/').to_owned(), token })
    }

    /// Asks for `path` without a credential.
    pub async fn get(&self, path: &str) -> Result<Answer, Verdict> {
        self.send(Method::GET, path, |request| request).await
    }

    /// Asks for `path` with the credential; skips the case where there is none.
    pub async fn get_as_admin(&self, path: &str) -> Result<Answer, Verdict> {
        let Some(token) = &self.token else {
            return Err(Verdict::Skipped("no token was given".to_owned()));
        };
        self.send(Method::GET, path, |request| request.bearer_auth(token)).await
    }

    /// Posts `body` to `path` as JSON, whatever it is, without a credential.
    pub async fn post(&self, path: &str, body: &'static str) -> Result<Answer, Verdict> {
        self.send(Method::POST, path, |request| request.header("content-type", "application/json").body(body)).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        dress: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Answer, Verdict> {
        let request = format!("{method} {path}");
        let unanswered =
            |error: reqwest::Error| Verdict::Failed(format!("{request}: {}", causes(&error.without_url())));
        let response =
            dress(self.client.request(method, format!("{}{path}", self.base_url))).send().await.map_err(&unanswered)?;
        let status = response.status().as_u16();
        let body = response.text().await.map_err(&unanswered)?;
        Ok(Answer { request, status, body })
    }
}

/// The text of an error and of all that is behind it, in one line.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

impl Answer {
    /// Demands the status, and a body in JSON, which it gives.
    pub fn json(&self, status: u16) -> Result<Value, Verdict> {
        if self.status != status {
            return Err(self.wrong(&format!("the status {status}")));
        }
        serde_json::from_str(&self.body).map_err(|_| self.wrong("a body in JSON"))
    }

    /// Demands the status and exactly this body.
    pub fn is(&self, status: u16, body: &Value) -> Result<(), Verdict> {
        if &self.json(status)? == body { Ok(()) } else { Err(self.wrong(&format!("the body {body}"))) }
    }

    /// The verdict that something else was `expected` of this answer.
    pub fn wrong(&self, expected: &str) -> Verdict {
        const SHOWN: usize = 300;
        // In one line, whatever came.
        let body: String = self.body.escape_debug().take(SHOWN).collect();
        Verdict::Failed(format!("{}: expected {expected}, got {} with \"{body}\"", self.request, self.status))
    }
}

/// A random id, which names no workspace.
pub(crate) fn unknown_id() -> Result<Uuid, Verdict> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Verdict::Skipped(format!("no randomness: {error}")))?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}
