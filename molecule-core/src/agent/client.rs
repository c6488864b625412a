//! The two calls that make a workspace part of its platform: register and heartbeat.

mod exchange;

use std::{fmt, time::Duration};

use reqwest::{Client, Method, StatusCode};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::{Map, Value};

pub(super) use self::exchange::{Answer, Call, Silence};
use super::{Beat, BeatOutcome, InboundSecret, PlatformUrl, TokenStore};
use crate::{
    error::{Error, ErrorKind, Result, Retry},
    http_client::{self, Way},
    id::WorkspaceId,
};

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(10);

const TIMEOUTS: http_client::Timeouts = http_client::Timeouts { connect: TIMEOUT, total: None };

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
    /// A client for workspace `id` on `platform`, which goes this `way` there.
    ///
    /// # Errors
    /// As [`http_client::build_for`].
    pub fn new(
        platform: PlatformUrl,
        id: WorkspaceId,
        tokens: TokenStore,
        inbound: InboundSecret,
        way: &Way,
    ) -> Result<Self> {
        let http = http_client::build_for(TIMEOUTS, way)?;
        Ok(Self { http, platform, id, tokens, inbound, timeout: TIMEOUT })
    }

    /// Gives up on a call after `timeout` instead of ten seconds.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The platform this client calls.
    pub fn platform(&self) -> &PlatformUrl {
        &self.platform
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
            Err(silence) => RegisterOutcome::Unreachable(silence.into()),
            Ok(answer) => self.registered(answer),
        }
    }

    /// Says that the workspace lives, and how it is.
    ///
    /// An answer of 200 counts whatever its body is: liveness goes before everything else.
    pub async fn heartbeat(&self, beat: &Beat) -> BeatOutcome {
        let beat = Beat { error_rate: if beat.error_rate.is_finite() { beat.error_rate } else { 0.0 }, ..beat.clone() };
        match self.post("/registry/heartbeat", &HeartbeatRequest { workspace_id: &self.id, beat: &beat }).await {
            Err(silence) => BeatOutcome::Unreachable(silence.into()),
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

    async fn post<T: Serialize + Sync>(&self, path: &str, body: &T) -> Result<Answer, Silence> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Error::invalid(format!("what was to be sent is no JSON: {error}")))?;
        self.exchange(&Call { body: Some(body), timeout: self.timeout, ..Call::to(Method::POST, path) }).await
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

/// The member `name`, when it is a text that says something.
pub(super) fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    object.get(name)?.as_str().map(str::trim).filter(|text| !text.is_empty())
}

fn seconds(value: Option<&Value>) -> Option<Duration> {
    let seconds = value?.as_f64().filter(|seconds| *seconds > 0.0)?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests;
