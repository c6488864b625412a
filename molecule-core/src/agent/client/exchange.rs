//! One call to the platform, whatever it is for.

use std::{
    fmt,
    time::{Duration, Instant},
};

use reqwest::{
    Method, StatusCode,
    header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER},
};
use secrecy::SecretString;
use serde_json::{Map, Value};
use url::Url;

use super::{MESSAGE_LIMIT, PlatformClient, TIMEOUT, text};
use crate::{
    agent::{auth_headers, self_source_headers},
    error::Error,
    http_client,
};

/// The longest answer that is looked at when nothing else is said.
pub(in crate::agent) const BODY_LIMIT: usize = 64 * 1024;

const JSON: &str = "application/json";

/// What to ask.
pub(in crate::agent) struct Call<'a> {
    pub(in crate::agent) method: Method,
    /// Starts with a slash.
    pub(in crate::agent) path: &'a str,
    pub(in crate::agent) query: &'a [(&'a str, String)],
    pub(in crate::agent) body: Option<Vec<u8>>,
    /// What the body is.
    pub(in crate::agent) content_type: &'a str,
    /// Whether the workspace speaks for itself, and says so.
    pub(in crate::agent) is_own: bool,
    pub(in crate::agent) timeout: Duration,
    /// How long the platform itself is to wait for another agent: after that it answers that the message is kept.
    pub(in crate::agent) patience: Option<Duration>,
    /// The version of A2A that is spoken, where that has to be said.
    pub(in crate::agent) protocol: Option<&'a str>,
    /// The longest answer that is looked at.
    pub(in crate::agent) limit: usize,
}

impl<'a> Call<'a> {
    /// A call without a body, for a short answer.
    pub(in crate::agent) fn to(method: Method, path: &'a str) -> Self {
        Self {
            method,
            path,
            query: &[],
            body: None,
            content_type: JSON,
            is_own: false,
            timeout: TIMEOUT,
            patience: None,
            protocol: None,
            limit: BODY_LIMIT,
        }
    }
}

/// Why there was no answer.
#[derive(Debug)]
pub(in crate::agent) struct Silence {
    reason: String,
    /// Nothing can have reached the platform.
    #[cfg_attr(not(feature = "mcp"), expect(dead_code, reason = "only the tools send again"))]
    pub(in crate::agent) was_not_sent: bool,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl From<Silence> for String {
    fn from(silence: Silence) -> Self {
        silence.reason
    }
}

impl From<Error> for Silence {
    fn from(error: Error) -> Self {
        Self { reason: error.message().to_owned(), was_not_sent: true }
    }
}

/// What came back.
pub(in crate::agent) struct Answer {
    pub(in crate::agent) status: StatusCode,
    pub(in crate::agent) retry_after: Option<Duration>,
    /// `None` when it was too long or broke off.
    body: Option<Vec<u8>>,
}

impl Answer {
    /// The body as a JSON object.
    pub(in crate::agent) fn object(&self) -> Option<Map<String, Value>> {
        serde_json::from_slice(self.body.as_deref()?).ok()
    }

    /// Whether the body was too long, or broke off.
    #[cfg(feature = "mcp")]
    pub(in crate::agent) fn is_cut(&self) -> bool {
        self.body.is_none()
    }

    /// The body as JSON.
    #[cfg(feature = "mcp")]
    pub(in crate::agent) fn json(&self) -> Option<Value> {
        serde_json::from_slice(self.body.as_deref()?).ok()
    }

    /// What the platform gave as the reason, in one line.
    pub(in crate::agent) fn message(&self) -> String {
        let object = self.object().unwrap_or_default();
        let said = match text(&object, "error") {
            Some(error) => error.into(),
            None => String::from_utf8_lossy(self.body.as_deref().unwrap_or_default()),
        };
        let line: String =
            said.trim().chars().take(MESSAGE_LIMIT).map(|c| if c.is_control() { ' ' } else { c }).collect();
        if line.is_empty() { "no reason was given".to_owned() } else { line }
    }
}

impl PlatformClient {
    /// Makes `call`, and once more when the token was rejected and there is another one by now. That something is not
    /// allowed (403) says nothing against the token.
    pub(in crate::agent) async fn exchange(&self, call: &Call<'_>) -> Result<Answer, Silence> {
        let token = self.tokens.get()?;
        let answer = self.exchange_once(call, token.as_ref()).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        // That the token was rejected matters more than that no other one can be had.
        let told =
            |error: Error| tracing::warn!(error = error.detail(), "the token was rejected, and no other is found");
        let Ok(Some(other)) = self.tokens.instead_of(token.as_ref()).map_err(told) else { return Ok(answer) };
        let again = self.exchange_once(call, Some(&other)).await?;
        if again.status == StatusCode::UNAUTHORIZED {
            // Neither is good; the next call starts again with the one that has precedence.
            let _ = self.tokens.refresh().map_err(told);
        }
        Ok(again)
    }

    async fn exchange_once(&self, call: &Call<'_>, token: Option<&SecretString>) -> Result<Answer, Silence> {
        let headers = if call.is_own {
            self_source_headers(Some(&self.platform), token, &self.id)
        } else {
            auth_headers(Some(&self.platform), token)
        };
        let mut url = Url::parse(&self.platform.endpoint(call.path))
            .map_err(|error| Error::invalid(format!("no address of the platform: {error}")))?;
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(call.query);
        }
        let mut request = self.http.request(call.method.clone(), url).timeout(call.timeout).headers(headers?);
        if let Some(patience) = call.patience {
            request = request.header("x-timeout", patience.as_secs());
        }
        if let Some(version) = call.protocol {
            request = request.header("a2a-version", version);
        }
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, call.content_type).body(body.clone());
        }
        let started = Instant::now();
        let response = request.send().await.map_err(|error| silence(&error))?;
        let status = response.status();
        let retry_after = retry_after(response.headers());
        // The status has been given; what the body lacks only leaves out what it might have brought.
        let body = http_client::read_body(response, call.limit).await.ok();
        let (path, duration_ms) = (call.path, started.elapsed().as_millis());
        tracing::debug!(workspace.id = %self.id, path, status = status.as_u16(), duration_ms, "called the platform");
        Ok(Answer { status, retry_after, body })
    }
}

/// The form in seconds; the form with a date would need a clock that agrees with the platform's.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The whole chain in one line: the outermost error only says that something was being sent.
fn silence(error: &reqwest::Error) -> Silence {
    let was_not_sent = error.is_connect() || error.is_builder();
    let reason = if error.is_timeout() { "no answer in time".to_owned() } else { chain(error) };
    Silence { reason, was_not_sent }
}

fn chain(error: &reqwest::Error) -> String {
    let mut line = String::new();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = cause {
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&error.to_string());
        cause = error.source();
    }
    if line.is_empty() { "the request failed".to_owned() } else { line }
}
