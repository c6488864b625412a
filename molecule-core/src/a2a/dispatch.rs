//! Carries one call to an agent and its answer back.

use std::{fmt, time::Duration};

use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::{
    carry::{Limits, heard},
    dead::restarting,
    exchange::{Signs, Silence, exchange, within},
    live::{Bits, Live, live},
    payload,
    sender::Sender,
};
use crate::{
    clock::random_uuid,
    control_plane::{Backend, ControlPlane},
    error::{Error, ErrorKind, Result},
    id::WorkspaceId,
    workspace::{DeliveryMode, Status, Workspace, lifecycle::gone_is_not_found},
};

/// Says which version of the protocol a request is of. Without it agents take it for one from before it was said.
pub const PROTOCOL: &str = "a2a-version";

/// A call to an agent.
#[derive(Debug, Clone)]
pub struct Call {
    /// Whose agent is called.
    pub target: WorkspaceId,
    /// Who calls.
    pub sender: Sender,
    /// The JSON-RPC request, in any of the shapes that `docs/a2a.md` lists.
    pub body: Bytes,
    /// Which version of the protocol the request is of, where the caller says so: agents are told the same.
    pub protocol: Option<String>,
    /// How long the caller waits, where it says so: `Some(None)` is for ever. What the agent has by then it goes on with;
    /// the answer is kept.
    pub deadline: Option<Option<Duration>>,
}

/// What a call was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its HTTP status.
    pub status: u16,
    /// Its body: the agent's verbatim for success, `{"error": …}` where it refused. With status 202 the message is kept
    /// until the agent has time.
    pub body: Bytes,
    /// The body is server-sent events and not JSON.
    pub is_events: bool,
}

/// What a call was answered, as far as it is there.
pub enum Reply {
    /// All of it.
    Whole(Answer),
    /// Server-sent events, as the agent sends them.
    Live {
        /// The HTTP status.
        status: u16,
        /// The events, verbatim. They end with an error where the agent breaks off.
        bits: Bits,
    },
}

impl Answer {
    /// What the control plane itself says.
    pub(super) fn own(status: u16, body: &Value) -> Self {
        Self { status, body: body.to_string().into(), is_events: false }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(answer) => f.debug_tuple("Whole").field(answer).finish(),
            Self::Live { status, .. } => f.debug_struct("Live").field("status", status).finish_non_exhaustive(),
        }
    }
}

/// Why an agent gave no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// It took the connection and did not answer: it may have time later.
    Busy(String),
    /// Anything else.
    Failed {
        error: Error,
        /// The agent is known to have the message: it must not be sent again.
        delivered: bool,
    },
}

impl Failure {
    fn undelivered(error: Error) -> Self {
        Self::Failed { error, delivered: false }
    }
}

/// A call before the agent is called.
enum Prepared {
    /// It need not be.
    Answered(Answer),
    Ready {
        workspace: Box<Workspace>,
        letter: Letter,
        limits: Limits,
    },
}

/// A request on its way, with what is said of it in the log.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) sender: Sender,
    pub(super) method: String,
    pub(super) request: Value,
    pub(super) protocol: Option<String>,
    /// About how many bytes it has.
    pub(super) size: usize,
}

impl ControlPlane {
    /// Calls an agent and waits for its answer. The call goes on when the caller leaves.
    ///
    /// A message to an agent that asks for its messages, or that has no time, is kept and answered 200 or 202.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace, [`ErrorKind::Unavailable`] while it has no address
    /// or its agent is busy or being restarted, [`ErrorKind::Upstream`] where its agent can't be reached or answers
    /// wrongly.
    pub async fn call(&self, call: Call) -> Result<Answer> {
        match self.prepare_call(call).await? {
            Prepared::Answered(answer) => Ok(answer),
            Prepared::Ready { workspace, letter, limits } => {
                heard(self.begin_call(workspace, letter, limits, None)).await
            }
        }
    }

    /// As [`ControlPlane::call`], but events are given on as they come.
    ///
    /// # Errors
    /// As [`ControlPlane::call`].
    pub async fn call_live(&self, call: Call) -> Result<Reply> {
        match self.prepare_call(call).await? {
            Prepared::Answered(answer) => Ok(Reply::Whole(answer)),
            Prepared::Ready { workspace, letter, limits } => {
                let (live, reader) = live();
                let answered = self.begin_call(workspace, letter, limits, Some(live));
                tokio::select! {
                    biased;
                    Some((status, bits)) = reader.begun() => Ok(Reply::Live { status, bits }),
                    answer = heard(answered) => answer.map(Reply::Whole),
                }
            }
        }
    }

    /// As [`ControlPlane::call`], but a message to an agent that is being brought up is kept until it is there.
    pub(crate) async fn call_or_keep(&self, call: Call) -> Result<Answer> {
        match self.call(call.clone()).await {
            Err(error) if is_coming_up(&error) => {
                let workspace = self.existing(call.target).await.map_err(gone_is_not_found)?;
                let (request, method) = payload::normalise(&call.body, || random_uuid(&*self.inner.entropy))?;
                let size = call.body.len();
                let letter = Letter { sender: call.sender, method, request, protocol: call.protocol, size };
                self.keep(&workspace, &letter, error.message(), None).await.map(|kept| kept.answer)
            }
            called => called,
        }
    }

    /// All that comes before the agent is called.
    async fn prepare_call(&self, call: Call) -> Result<Prepared> {
        let workspace = self.existing(call.target).await.map_err(|error| match error.kind() {
            ErrorKind::Unexpected => error.with_message("lookup failed"),
            _ => gone_is_not_found(error),
        })?;
        if workspace.has_spent_its_budget() {
            return Err(Error::new(ErrorKind::BudgetExceeded, "workspace budget limit exceeded"));
        }
        let (request, method) = payload::normalise(&call.body, || random_uuid(&*self.inner.entropy))?;
        let size = call.body.len();
        let letter = Letter { sender: call.sender, method, request, protocol: call.protocol, size };
        if workspace.delivery_mode == DeliveryMode::Poll {
            return self.keep_for_poll(&workspace, &letter).await.map(Prepared::Answered);
        }
        if matches!(workspace.status, Status::Hibernated | Status::Hibernating) {
            // A caller that hangs up does not come between the decision and the start.
            let this = self.clone();
            let woken = self.inner.tasks.spawn(async move { this.wake(workspace).await });
            let ended = |error| Error::new(ErrorKind::Unexpected, "the call ended early").caused_by(error);
            return Err(woken.await.map_err(ended)??);
        }
        if workspace.url.is_empty() {
            return Err(Error::new(ErrorKind::Unavailable, "workspace has no URL")
                .with_member("status", workspace.status.as_str()));
        }
        if !self.reaches(&workspace) {
            let kept = self.keep(&workspace, &letter, "it runs on another server", None).await?;
            return Ok(Prepared::Answered(kept.answer));
        }
        if let Some(answer) = self.kept_already(&workspace, &letter).await? {
            return Ok(Prepared::Answered(answer));
        }
        let longest = match call.sender {
            Sender::Workspace(_) | Sender::System(_) => Some(self.inner.config.a2a_ceiling),
            Sender::Operator => None,
        };
        Ok(Prepared::Ready { workspace: Box::new(workspace), letter, limits: Limits::of(call.deadline, longest) })
    }

    /// Sends one request and waits for its answer; what the agent refused is an answer as well.
    pub(super) async fn attempt(
        &self,
        workspace: &Workspace,
        letter: &Letter,
        ceiling: Option<Duration>,
        live: Option<&mut Live>,
        signs: &Signs,
    ) -> Result<Answer, Failure> {
        let client = self.client_for(workspace).await.map_err(Failure::undelivered)?;
        let body = serde_json::to_vec(&letter.request).map_err(|error| {
            let text = "failed to create proxy request";
            Failure::undelivered(Error::new(ErrorKind::Unexpected, text).caused_by(error))
        })?;
        let own_idle = workspace.idle_timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let idle = own_idle.filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let exchange = exchange(request_to(&client, workspace, letter, body), signs, live);
        let idle = idle.unwrap_or(self.inner.config.a2a_idle);
        let outcome = within(exchange, signs, &self.watch_pulse(workspace.id), idle, ceiling).await;
        match outcome {
            Ok(answer) if answer.status < 300 => Ok(answer),
            Ok(answer) => self.refused(workspace, &answer).await,
            // Whoever began to answer has the request: it must not be sent again.
            Err(silence) => match (silence, signs.head()) {
                (Silence::Busy(_), Some(status)) => Err(body_lost(status)),
                (silence, _) => Err(self.silent(workspace, silence).await),
            },
        }
    }

    /// Whether this control plane can call the workspace at all. One without a backend knows no way to those that the
    /// backend of another runs.
    pub(crate) fn reaches(&self, workspace: &Workspace) -> bool {
        let runs_nothing = matches!(self.inner.backend, Backend::None);
        !runs_nothing || workspace.is_external() || workspace.instance_id.is_some()
    }

    /// The client that may call the workspace: an address that an agent named is checked again and pinned.
    pub(crate) async fn client_for(&self, workspace: &Workspace) -> Result<reqwest::Client> {
        let assigned = !workspace.is_external() && self.inner.backend.assigns_urls();
        if assigned {
            return Ok(self.inner.clients.assigned());
        }
        if !self.reaches(workspace) {
            return Err(Error::new(ErrorKind::Unavailable, "workspace runs on another server"));
        }
        let checked = self.check_url(&workspace.url).await.map_err(|error| {
            Error::new(ErrorKind::Upstream, "workspace URL is not publicly routable").caused_by(error)
        })?;
        self.inner.clients.pinned(checked).await
    }

    /// What the caller is told when the agent answered with something else than success.
    async fn refused(&self, workspace: &Workspace, answer: &Answer) -> Result<Answer, Failure> {
        let gateway = matches!(answer.status, 502 | 503 | 504 | 521..=524);
        if gateway && self.found_dead(workspace).await {
            return Err(Failure::undelivered(restarting().with_member("retry_after", 15)));
        }
        let said = serde_json::from_slice::<Value>(&answer.body)
            .ok()
            .and_then(|body| body.get("error")?.as_str().map(str::to_owned))
            .unwrap_or_else(|| format!("the agent answered with status {}", answer.status));
        Ok(Answer::own(answer.status, &json!({"error": said})))
    }

    async fn silent(&self, workspace: &Workspace, silence: Silence) -> Failure {
        match silence {
            Silence::BodyLost { status } => body_lost(status),
            _ if self.found_dead(workspace).await => Failure::undelivered(restarting()),
            Silence::Busy(why) => Failure::Busy(why),
            Silence::Unreachable(error) => {
                let text = "failed to reach workspace agent";
                Failure::undelivered(Error::new(ErrorKind::Upstream, text).caused_by(error))
            }
        }
    }
}

/// What is sent says nothing of who calls: that is between the caller and this control plane.
fn request_to(
    client: &reqwest::Client,
    workspace: &Workspace,
    letter: &Letter,
    body: Vec<u8>,
) -> reqwest::RequestBuilder {
    let request = client.post(&workspace.url).header(CONTENT_TYPE, "application/json").body(body);
    match &letter.protocol {
        Some(version) => request.header(PROTOCOL, version),
        None => request,
    }
}

/// Whether a call failed because its agent is not there yet.
fn is_coming_up(error: &Error) -> bool {
    error.members().iter().any(|(name, value)| match *name {
        "waking" => value == true,
        "status" => [Status::Provisioning, Status::Offline].iter().any(|status| value == status.as_str()),
        _ => false,
    })
}

pub(super) fn body_lost(status: u16) -> Failure {
    let delivered = status < 400;
    let error = Error::new(ErrorKind::Upstream, "failed to read agent response");
    Failure::Failed { error: error.with_member("delivery_confirmed", delivered), delivered }
}
