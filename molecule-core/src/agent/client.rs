//! The two calls that make a workspace part of its platform: register and heartbeat.

use std::{
    fmt,
    time::{Duration, Instant},
};

use reqwest::{
    Client, StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Beat, BeatOutcome, InboundSecret, PlatformUrl, TokenStore, auth_headers};
use crate::{
    error::{Error, ErrorKind, Result, Retry},
    http_client,
    id::WorkspaceId,
};

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer that is looked at.
const BODY_LIMIT: usize = 64 * 1024;

/// How many characters of a refusal are passed on.
const MESSAGE_LIMIT: usize = 200;

/// How messages reach an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The platform calls the agent at `url`.
    Push {
        /// Where the agent answers.
        url: String,
    },
    /// The agent asks for them.
    Poll,
}

/// What came of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegisterOutcome {
    /// The platform knows the agent.
    Accepted {
        /// How the platform delivers messages, as far as it said.
        delivery_mode: Option<String>,
    },
    /// The token is missing or wrong: 401 or 403.
    Unauthorized(StatusCode),
    /// The workspace was removed for good: 410.
    Removed(StatusCode),
    /// Too many calls: 429.
    RateLimited {
        /// When to come back, as far as the platform said.
        retry_after: Option<Duration>,
    },
    /// The platform refused for a reason of its own; redirects, which are not followed, are among these.
    Refused {
        /// The status of the answer.
        status: StatusCode,
        /// The start of what the platform said, in one line.
        message: String,
    },
    /// The platform failed: 5xx.
    ServerError(StatusCode),
    /// The answer said success and was not a JSON object: something else than a platform answered.
    NotAPlatform,
    /// There was no answer.
    Unreachable(String),
}

impl RegisterOutcome {
    /// The delivery mode, as far as the platform said, or what is wrong, for a caller that does not try again itself.
    ///
    /// # Errors
    /// Every outcome but [`RegisterOutcome::Accepted`].
    pub fn into_result(self) -> Result<Option<String>> {
        let message = format!("the registration failed: {self}");
        let error = match self {
            Self::Accepted { delivery_mode } => return Ok(delivery_mode),
            Self::Unauthorized(_) => Error::new(ErrorKind::Unauthenticated, message),
            Self::Removed(_) => Error::new(ErrorKind::Removed, message),
            Self::RateLimited { retry_after } => {
                let error = Error::new(ErrorKind::LimitReached, message).with_retry(Retry::Maybe);
                match retry_after {
                    Some(pause) => error.with_member("retry_after", pause.as_secs()),
                    None => error,
                }
            }
            Self::Refused { .. } => Error::invalid(message),
            Self::ServerError(_) | Self::Unreachable(_) => Error::new(ErrorKind::Unavailable, message),
            Self::NotAPlatform => Error::new(ErrorKind::Upstream, message).with_retry(Retry::Never),
        };
        Err(error)
    }
}

impl fmt::Display for RegisterOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted { .. } => f.write_str("accepted"),
            Self::Unauthorized(status) => write!(
                f,
                "HTTP {}: the token of this workspace is missing, wrong or revoked, as when the workspace was removed; issue a new one",
                status.as_u16()
            ),
            Self::Removed(status) => write!(f, "HTTP {}: this workspace was removed on the platform", status.as_u16()),
            Self::RateLimited { .. } => f.write_str("HTTP 429: too many calls"),
            Self::Refused { status, message } => write!(f, "HTTP {}: {message}", status.as_u16()),
            Self::ServerError(status) => write!(f, "HTTP {}: the platform failed", status.as_u16()),
            Self::NotAPlatform => {
                f.write_str("the answer is not a JSON object: the platform URL leads to something else")
            }
            Self::Unreachable(reason) => write!(f, "the platform cannot be reached: {reason}"),
        }
    }
}

/// Calls the platform in the name of one workspace.
///
/// A clone shares the connections and the secrets. Secrets that an answer brings are kept in the stores given to
/// [`PlatformClient::new`]. A call that is rejected for its token is repeated once when the file holds another one.
#[derive(Debug, Clone)]
pub struct PlatformClient {
    http: Client,
    platform: PlatformUrl,
    id: WorkspaceId,
    tokens: TokenStore,
    inbound: InboundSecret,
    timeout: Duration,
}

impl PlatformClient {
    /// A client for workspace `id` on `platform`.
    ///
    /// # Errors
    /// As [`http_client::build`].
    pub fn new(platform: PlatformUrl, id: WorkspaceId, tokens: TokenStore, inbound: InboundSecret) -> Result<Self> {
        let http = http_client::build(http_client::Timeouts { connect: TIMEOUT, total: None })?;
        Ok(Self { http, platform, id, tokens, inbound, timeout: TIMEOUT })
    }

    /// Gives up on a call after `timeout` instead of ten seconds.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The workspace this client speaks for.
    pub fn workspace_id(&self) -> &WorkspaceId {
        &self.id
    }

    /// Makes the workspace known with `card`, an [`AgentCard`](super::AgentCard) or any other JSON object, and where its
    /// messages go.
    ///
    /// Repeating it is safe.
    pub async fn register<C: Serialize + Sync>(&self, card: &C, delivery: &Delivery) -> RegisterOutcome {
        let (url, delivery_mode) = match delivery {
            Delivery::Push { url } => (url.as_str(), "push"),
            Delivery::Poll => ("", "poll"),
        };
        let request = RegisterRequest { id: &self.id, url, agent_card: card, delivery_mode };
        match self.post("/registry/register", &request).await {
            Err(reason) => RegisterOutcome::Unreachable(reason),
            Ok(answer) => self.registered(answer),
        }
    }

    /// Says that the workspace lives, and how it is.
    ///
    /// An answer of 200 counts whatever its body is: liveness goes before everything else.
    pub async fn heartbeat(&self, beat: &Beat) -> BeatOutcome {
        let beat = Beat { error_rate: if beat.error_rate.is_finite() { beat.error_rate } else { 0.0 }, ..beat.clone() };
        match self.post("/registry/heartbeat", &HeartbeatRequest { workspace_id: &self.id, beat: &beat }).await {
            Err(reason) => BeatOutcome::Unreachable(reason),
            Ok(answer) => self.beaten(answer),
        }
    }

    fn registered(&self, answer: Answer) -> RegisterOutcome {
        match answer.status {
            StatusCode::OK => match answer.object() {
                None => RegisterOutcome::NotAPlatform,
                Some(object) => {
                    self.keep_secrets(&object);
                    let delivery_mode = text(&object, "delivery_mode").map(str::to_owned);
                    RegisterOutcome::Accepted { delivery_mode }
                }
            },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegisterOutcome::Unauthorized(answer.status),
            StatusCode::GONE => RegisterOutcome::Removed(answer.status),
            StatusCode::TOO_MANY_REQUESTS => RegisterOutcome::RateLimited { retry_after: answer.retry_after },
            status if status.is_server_error() => RegisterOutcome::ServerError(status),
            status if status.is_redirection() => RegisterOutcome::Refused {
                status,
                message: "the platform redirects, which is not followed: its URL must be the final one".to_owned(),
            },
            status => RegisterOutcome::Refused { status, message: answer.message() },
        }
    }

    fn beaten(&self, answer: Answer) -> BeatOutcome {
        match answer.status {
            StatusCode::OK => {
                let object = answer.object().unwrap_or_default();
                self.keep_secrets(&object);
                BeatOutcome::Ok { next_heartbeat: seconds(object.get("next_heartbeat_secs")) }
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => BeatOutcome::Unauthorized(answer.status),
            StatusCode::GONE | StatusCode::NOT_FOUND => BeatOutcome::Removed(answer.status),
            StatusCode::TOO_MANY_REQUESTS => BeatOutcome::RateLimited { retry_after: answer.retry_after },
            status => BeatOutcome::ServerError(status),
        }
    }

    /// Keeps what the platform sends to be kept. A full disk must not stop an agent that is alive.
    fn keep_secrets(&self, object: &Map<String, Value>) {
        let kept = |what: &str, result: Result<()>| {
            if let Err(error) = result {
                tracing::error!(
                    workspace.id = %self.id,
                    error = error.detail(),
                    "the {what} that the platform sent could not be kept"
                );
            }
        };
        if let Some(token) = text(object, "auth_token") {
            kept("token", self.tokens.save(&SecretString::from(token)));
        }
        if let Some(secret) = text(object, "platform_inbound_secret") {
            kept("inbound secret", self.inbound.save(&SecretString::from(secret)));
        }
    }

    /// Posts `body`, and once more when the token was rejected and the file holds another one.
    async fn post<T: Serialize + Sync>(&self, path: &str, body: &T) -> Result<Answer, String> {
        let answer = self.post_once(path, body).await?;
        let rejected = matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if !rejected || !self.tokens.adopt_file().map_err(|error| error.message().to_owned())? {
            return Ok(answer);
        }
        let again = self.post_once(path, body).await?;
        if matches!(again.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            // Neither is good; the next call starts again with the one that has precedence.
            self.tokens.refresh().map_err(|error| error.message().to_owned())?;
        }
        Ok(again)
    }

    async fn post_once<T: Serialize + Sync>(&self, path: &str, body: &T) -> Result<Answer, String> {
        let token = self.tokens.get().map_err(|error| error.message().to_owned())?;
        let headers = auth_headers(Some(&self.platform), token.as_ref()).map_err(|error| error.message().to_owned())?;
        let started = Instant::now();
        let response = self
            .http
            .post(self.platform.endpoint(path))
            .timeout(self.timeout)
            .headers(headers)
            .json(body)
            .send()
            .await
            .map_err(|error| reason(&error))?;
        let status = response.status();
        let retry_after = retry_after(response.headers());
        // The status has been given; what the body lacks only leaves out what it might have brought.
        let body = http_client::read_body(response, BODY_LIMIT).await.ok();
        let duration_ms = started.elapsed().as_millis();
        tracing::debug!(workspace.id = %self.id, path, status = status.as_u16(), duration_ms, "called the platform");
        Ok(Answer { status, retry_after, body })
    }
}

#[derive(Serialize)]
struct RegisterRequest<'a, C> {
    id: &'a WorkspaceId,
    url: &'a str,
    agent_card: &'a C,
    delivery_mode: &'a str,
}

#[derive(Serialize)]
struct HeartbeatRequest<'a> {
    workspace_id: &'a WorkspaceId,
    #[serde(flatten)]
    beat: &'a Beat,
}

struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    /// `None` when it was too long or broke off.
    body: Option<Vec<u8>>,
}

impl Answer {
    fn object(&self) -> Option<Map<String, Value>> {
        serde_json::from_slice(self.body.as_deref()?).ok()
    }

    /// What the platform gave as the reason, in one line.
    fn message(&self) -> String {
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

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    object.get(name)?.as_str().map(str::trim).filter(|text| !text.is_empty())
}

fn seconds(value: Option<&Value>) -> Option<Duration> {
    let seconds = value?.as_f64().filter(|seconds| *seconds > 0.0)?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// The form in seconds; the form with a date would need a clock that agrees with the platform's.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The whole chain in one line: the outermost error only says that something was being sent.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
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

#[cfg(test)]
mod tests;
