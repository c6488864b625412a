//! Calls to the server: what goes out, and what every answer and failure means.

use std::{error::Error as StdError, time::Duration};

use molecule_core::{
    error::{Error, ErrorKind, Result},
    http_client::{self, Timeouts},
};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::{profile::Target, spinner::short, text::clean};
use crate::paths;

/// For any call but those to an agent.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Each call sets how long it may take in all.
const TIMEOUTS: Timeouts = Timeouts { connect: Duration::from_secs(5), total: None };

/// Room for the list of a very large fleet; more than that is a server gone mad.
const LARGEST_ANSWER: usize = 128 * 1024 * 1024;

/// How much of a text by the server is shown in an error.
const LONGEST_REASON: usize = 500;

/// A client of one server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    target: Target,
    /// The organisation whose server it is, by which a router between finds the way.
    org_id: Option<String>,
}

/// An answer in JSON.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// What the server sent, to the letter.
    pub(crate) text: String,
    /// The same, parsed.
    pub(crate) value: Value,
}

impl Answer {
    /// The answer as a `T`.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.value).map_err(|error| {
            let what = clean(&error.to_string());
            Error::new(ErrorKind::Upstream, format!("the server's answer is not what was asked for: {what}"))
        })
    }
}

impl Client {
    /// A client that does not connect yet.
    pub(crate) fn new(target: Target) -> Result<Self> {
        let http = http_client::build(TIMEOUTS)?;
        let org_id = paths::environment("MOLECULE_ORG_ID").map(|org_id| org_id.trim().to_owned());
        Ok(Self { http, target, org_id: org_id.filter(|org_id| !org_id.is_empty()) })
    }

    /// The server, as it is shown.
    pub(crate) fn server(&self) -> &str {
        self.target.server.as_str().trim_end_matches('/')
    }

    /// Reads from `path`.
    pub(crate) async fn get(&self, path: &[&str]) -> Result<Answer> {
        self.success(self.call(self.request(Method::GET, path), REQUEST_TIMEOUT).await?)
    }

    /// Posts `body` to `path` and waits at most `timeout` for the answer.
    pub(crate) async fn post(&self, path: &[&str], body: &Value, timeout: Duration) -> Result<Answer> {
        self.post_with(path, &[], body, timeout).await
    }

    /// As [`Client::post`], with a query.
    pub(crate) async fn post_with(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        body: &Value,
        timeout: Duration,
    ) -> Result<Answer> {
        self.success(self.call(self.request_with(Method::POST, path, query).json(body), timeout).await?)
    }

    /// Deletes `path`. What the server refuses is an answer too: the caller looks at the status.
    pub(crate) async fn delete(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Answer> {
        self.json(self.call(self.request_with(Method::DELETE, path, query), REQUEST_TIMEOUT).await?)
    }

    /// Reads plain text from `path`.
    pub(crate) async fn get_text(&self, path: &[&str], query: &[(&str, &str)]) -> Result<String> {
        let raw = self.call(self.request_with(Method::GET, path, query), REQUEST_TIMEOUT).await?;
        match raw.status.is_success() && raw.content_type.starts_with("text/plain") {
            true => Ok(raw.text),
            false => Err(self.refusal(raw.status, serde_json::from_str(&raw.text).ok().as_ref())),
        }
    }

    /// The answer, or what it says went wrong.
    fn success(&self, raw: Raw) -> Result<Answer> {
        let answer = self.json(raw)?;
        match answer.status.is_success() {
            true => Ok(answer),
            false => Err(self.refusal(answer.status, Some(&answer.value))),
        }
    }

    /// A request to `path`, with the token.
    pub(crate) fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        self.request_with(method, path, &[])
    }

    fn request_with(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = self.url(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.request(method, url);
        if let Some(org_id) = &self.org_id {
            request = request.header("x-molecule-org-id", org_id);
        }
        match &self.target.token {
            // Marks the header as sensitive.
            Some((token, _)) => request.bearer_auth(token.expose_secret()),
            None => request,
        }
    }

    /// Sends `request` and waits for the head of the answer.
    pub(crate) async fn send(&self, request: RequestBuilder, timeout: Duration) -> Result<Response> {
        request.timeout(timeout).send().await.map_err(|error| self.no_answer(&error, timeout))
    }

    /// What the server means by `status`, with the JSON that it sent, if it did.
    pub(crate) fn refusal(&self, status: StatusCode, body: Option<&Value>) -> Error {
        let said = |member: &str| Some(shorten(body?.get(member)?.as_str()?)).filter(|text| !text.is_empty());
        let Some(mut reason) = said("error").or_else(|| said("message")) else {
            let message = match status.is_success() {
                true => self.foreign(status, "other text"),
                false if body.is_some() => format!("{} answered {status} without saying why", self.server()),
                false => self.foreign(status, "no JSON"),
            };
            return Error::new(kind_of(status), message);
        };
        if let Some(detail) = said("detail") {
            reason = format!("{reason}: {detail}");
        }
        match (status, reason.as_str()) {
            (StatusCode::UNAUTHORIZED, _) => reason = self.unauthenticated(&reason),
            (StatusCode::NOT_FOUND, "workspace not found") => {
                reason.push_str(&format!("; see: {} list", paths::program()))
            }
            (StatusCode::GONE, _) => {
                if let Some(time) = said("removed_at") {
                    reason = format!("{reason} at {time}");
                }
            }
            _ => {
                if let Some(hint) = said("hint") {
                    reason = format!("{reason} ({hint})");
                }
            }
        }
        Error::new(kind_of(status), reason)
    }

    /// The failure that `response`, which should have been another, stands for.
    pub(crate) async fn failure(&self, response: Response) -> Error {
        match self.read(response, REQUEST_TIMEOUT).await.and_then(|raw| self.json(raw)) {
            Ok(answer) => self.refusal(answer.status, Some(&answer.value)),
            Err(error) => error,
        }
    }

    async fn call(&self, request: RequestBuilder, timeout: Duration) -> Result<Raw> {
        let response = self.send(request, timeout).await?;
        self.read(response, timeout).await
    }

    async fn read(&self, mut response: Response, timeout: Duration) -> Result<Raw> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.no_answer(&error, timeout))? {
            if body.len() + chunk.len() > LARGEST_ANSWER {
                let limit = LARGEST_ANSWER / 1024 / 1024;
                let message = format!("the answer of {} is larger than {limit} MiB", self.server());
                return Err(Error::new(ErrorKind::Upstream, message));
            }
            body.extend_from_slice(&chunk);
        }
        let content_type = response.headers().get(header::CONTENT_TYPE);
        Ok(Raw {
            status: response.status(),
            content_type: content_type.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned(),
            text: String::from_utf8(body)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        })
    }

    fn json(&self, raw: Raw) -> Result<Answer> {
        match serde_json::from_str(&raw.text) {
            Ok(value) => Ok(Answer { status: raw.status, text: raw.text, value }),
            Err(_) if raw.text.trim().is_empty() => Err(self.refusal(raw.status, Some(&Value::Null))),
            Err(_) if raw.status == StatusCode::UNAUTHORIZED => {
                Err(Error::new(ErrorKind::Unauthenticated, self.unauthenticated("not authorized")))
            }
            Err(_) => Err(Error::new(kind_of(raw.status), self.foreign(raw.status, &clean(&raw.content_type)))),
        }
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.target.server.clone();
        // Only a URL that cannot be a base has no segments, and such a server is refused when it is parsed.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    fn unauthenticated(&self, reason: &str) -> String {
        let login = format!("{} login {} --token-stdin", paths::program(), self.server());
        match &self.target.token {
            Some((_, source)) => format!(
                "the server refused the token from {source} ({reason}); give another with --token or MOLECULE_TOKEN, \
                 or save it with: {login}"
            ),
            None => format!(
                "the server asks for a token ({reason}); give it with --token or MOLECULE_TOKEN, or save it with: \
                 {login}"
            ),
        }
    }

    fn foreign(&self, status: StatusCode, content_type: &str) -> String {
        let server = self.server();
        let what = if content_type.is_empty() { "no content type" } else { content_type };
        format!("{server} answered {status} with {what}, unlike a Molecule server; check --server")
    }

    fn no_answer(&self, error: &reqwest::Error, timeout: Duration) -> Error {
        let server = self.server();
        let message = if error.is_connect() {
            let hint = match self.target.is_loopback() {
                true => format!("is it running? start it with: {} serve", paths::program()),
                false => "is the address right, and does the network reach it?".to_owned(),
            };
            format!("cannot reach {server} ({}); {hint}", root_cause(error))
        } else if error.is_timeout() {
            format!("{server} did not answer within {}", short(timeout))
        } else {
            format!("the connection to {server} broke: {}", root_cause(error))
        };
        Error::new(ErrorKind::Unavailable, message)
    }
}

/// An answer of any form.
#[derive(Debug)]
struct Raw {
    status: StatusCode,
    content_type: String,
    text: String,
}

fn kind_of(status: StatusCode) -> ErrorKind {
    match status.as_u16() {
        400 | 422 => ErrorKind::InvalidInput,
        401 => ErrorKind::Unauthenticated,
        402 | 403 => ErrorKind::PermissionDenied,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        410 => ErrorKind::Removed,
        413 => ErrorKind::TooLarge,
        501 => ErrorKind::Unsupported,
        429 | 503 => ErrorKind::Unavailable,
        500 => ErrorKind::Unexpected,
        _ => ErrorKind::Upstream,
    }
}

fn shorten(text: &str) -> String {
    let text = clean(text);
    match text.char_indices().nth(LONGEST_REASON) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn root_cause(error: &dyn StdError) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let text = clean(&cause.to_string());
    // "(os error 111)" says nothing to a person.
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}
