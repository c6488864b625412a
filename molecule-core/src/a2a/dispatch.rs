//! Carries one call to an agent and its answer back.

use std::{sync::OnceLock, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::payload;
use crate::{
    clock::random_uuid,
    control_plane::{Backend, ControlPlane},
    error::{Error, ErrorKind, Result},
    events::{EventKind, EventListener, ListenerEnd},
    http_client::{self, Timeouts},
    id::WorkspaceId,
    identity::Caller,
    net,
    workspace::{DeliveryMode, Status, Workspace, lifecycle::gone_is_not_found},
};

/// The most of an agent's answer that is carried back.
const ANSWER_LIMIT: usize = 10 * 1024 * 1024;

/// How long a connection to an agent may take. What comes after it is bounded by signs of life.
const TIMEOUTS: Timeouts = Timeouts { connect: Duration::from_secs(10), total: None };

/// The client for agents whose address the backend assigned.
pub(crate) fn client() -> Result<reqwest::Client> {
    http_client::build(TIMEOUTS)
}

/// The most of an answer that listeners are told: it is kept until the slowest of them has heard it.
const ANNOUNCED_LIMIT: usize = 1024 * 1024;

/// A call to an agent.
#[derive(Debug, Clone)]
pub struct Call {
    /// Whose agent is called.
    pub target: WorkspaceId,
    /// Who calls.
    pub caller: Caller,
    /// The JSON-RPC request, in any of the shapes that `docs/a2a.md` lists.
    pub body: Bytes,
    /// How long the call may take, where the caller says so: `Some(None)` is for ever.
    pub deadline: Option<Option<Duration>>,
}

/// An agent's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its HTTP status.
    pub status: u16,
    /// Its body: verbatim for success, `{"error": …}` for anything else.
    pub body: Bytes,
}

/// Why there is no answer.
enum Silence {
    /// The agent could not be reached at all.
    Unreachable(reqwest::Error),
    /// The connection was made and nothing came of it in time, or it broke.
    Busy(String),
    /// The head of the answer came and its body did not.
    BodyLost { status: u16 },
}

impl ControlPlane {
    /// Calls an agent and waits for its answer. The call goes on when the caller leaves.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace, [`ErrorKind::Unavailable`] while it has no address
    /// or its agent is busy or being restarted, [`ErrorKind::Upstream`] where its agent can't be reached or answers
    /// wrongly.
    pub async fn call(&self, call: Call) -> Result<Answer> {
        let workspace = self.existing(call.target).await.map_err(gone_is_not_found)?;
        if workspace.budget_limit.is_some_and(|limit| workspace.monthly_spend >= limit) {
            return Err(Error::new(ErrorKind::BudgetExceeded, "workspace budget limit exceeded"));
        }
        let (request, method) = payload::normalise(&call.body, || random_uuid(&*self.inner.entropy))?;
        if workspace.delivery_mode == DeliveryMode::Poll {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "this workspace asks for its messages; they cannot be kept for it yet",
            ));
        }
        if matches!(workspace.status, Status::Hibernated | Status::Hibernating) {
            return Err(self.wake(workspace).await?);
        }
        if workspace.url.is_empty() {
            return Err(Error::new(ErrorKind::Unavailable, "workspace has no URL")
                .with_member("status", workspace.status.as_str()));
        }
        let this = self.clone();
        // A task of its own: what the agent was asked to do is done whether or not the asker waits.
        let task = self.inner.tasks.spawn(async move { this.carry(call, workspace, request, method).await });
        task.await.map_err(|error| Error::new(ErrorKind::Unexpected, "the call ended early").caused_by(error))?
    }

    async fn carry(&self, call: Call, workspace: Workspace, request: Value, method: String) -> Result<Answer> {
        let began = Instant::now();
        let client = self.client_for(&workspace).await?;
        let body = serde_json::to_vec(&request)
            .map_err(|error| Error::new(ErrorKind::Unexpected, "failed to create proxy request").caused_by(error))?;
        let ceiling = match (call.deadline, call.caller) {
            (Some(deadline), _) => deadline,
            (None, Caller::Workspace(_)) => Some(self.inner.config.a2a_ceiling),
            (None, Caller::Operator) => None,
        };
        let listener = self.listen();
        let head = OnceLock::new();
        let exchange = exchange(&client, &workspace.url, body, &head);
        let outcome = within(exchange, listener, call.target, self.inner.config.a2a_idle, ceiling).await;
        // Whoever began to answer has the request: it must not be sent again.
        let outcome = outcome.map_err(|silence| match (silence, head.get()) {
            (Silence::Busy(_), Some(status)) => Silence::BodyLost { status: *status },
            (silence, _) => silence,
        });
        match outcome {
            Ok(answer) if answer.status < 300 => {
                self.account(&call, &answer, &method, began.elapsed()).await;
                Ok(answer)
            }
            Ok(answer) => self.refused(&workspace, &answer).await,
            Err(silence) => Err(self.silent(&workspace, silence).await),
        }
    }

    /// The client that may call the workspace: an address that an agent named is checked again and pinned.
    async fn client_for(&self, workspace: &Workspace) -> Result<reqwest::Client> {
        let assigned = !workspace.is_external() && self.inner.backend.assigns_urls();
        if assigned {
            return Ok(self.inner.http.clone());
        }
        let checked = net::check_url(&workspace.url, self.inner.config.address_policy).await.map_err(|error| {
            Error::new(ErrorKind::Upstream, "workspace URL is not publicly routable").caused_by(error)
        })?;
        let host = checked.url.host_str().unwrap_or_default();
        http_client::builder(TIMEOUTS)
            .resolve_to_addrs(host, &checked.addresses)
            .build()
            .map_err(|error| Error::new(ErrorKind::Unexpected, "failed to create proxy request").caused_by(error))
    }

    async fn account(&self, call: &Call, answer: &Answer, method: &str, took: Duration) {
        match call.caller {
            Caller::Operator => {
                let whole = answer.body.len() <= ANNOUNCED_LIMIT;
                let body =
                    if whole { serde_json::from_slice(&answer.body).unwrap_or(Value::Null) } else { Value::Null };
                let mut payload = json!({
                    "response_body": body,
                    "method": method,
                    "duration_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                });
                if !whole {
                    payload["truncated"] = true.into();
                }
                self.announce(self.event(EventKind::A2aResponse, call.target, payload));
            }
            Caller::Workspace(id) => {
                if let Err(error) = self.inner.store.touch_outbound(id, self.now()).await {
                    tracing::warn!(workspace.id = %id, error = error.detail(), "a call could not be noted");
                }
            }
        }
    }

    /// What the caller is told when the agent answered with something else than success.
    async fn refused(&self, workspace: &Workspace, answer: &Answer) -> Result<Answer> {
        let gateway = matches!(answer.status, 502 | 503 | 504 | 521..=524);
        if gateway && self.found_dead(workspace).await {
            return Err(restarting().with_member("retry_after", 15));
        }
        let said = serde_json::from_slice::<Value>(&answer.body)
            .ok()
            .and_then(|body| body.get("error")?.as_str().map(str::to_owned))
            .unwrap_or_else(|| format!("the agent answered with status {}", answer.status));
        Ok(Answer { status: answer.status, body: json!({"error": said}).to_string().into() })
    }

    async fn silent(&self, workspace: &Workspace, silence: Silence) -> Error {
        match silence {
            Silence::BodyLost { status } => Error::new(ErrorKind::Upstream, "failed to read agent response")
                .with_member("delivery_confirmed", status < 400),
            _ if self.found_dead(workspace).await => restarting(),
            Silence::Busy(why) => {
                Error::new(ErrorKind::Unavailable, "workspace agent busy — retry after a short backoff")
                    .with_member("busy", true)
                    .with_member("retry_after", 30)
                    .context("why", why)
            }
            Silence::Unreachable(error) => {
                Error::new(ErrorKind::Upstream, "failed to reach workspace agent").caused_by(error)
            }
        }
    }

    /// Whether the workload is gone and is being brought up again.
    async fn found_dead(&self, workspace: &Workspace) -> bool {
        if workspace.is_external() {
            return false;
        }
        let running = match (&self.inner.backend, &workspace.instance_id) {
            (Backend::Local { provisioner, .. }, _) => provisioner.is_running(workspace.id).await,
            (Backend::ControlPlane(provisioner), Some(instance)) => {
                provisioner.is_running(workspace.id, instance).await
            }
            _ => return false,
        };
        match running {
            Ok(false) => {}
            Ok(true) => return false,
            Err(error) => {
                tracing::warn!(workspace.id = %workspace.id, error = error.detail(), "cannot tell whether it runs");
                return false;
            }
        }
        self.lose_dead(workspace.id).await.unwrap_or_else(|error| {
            tracing::error!(workspace.id = %workspace.id, error = error.detail(), "a dead workspace stays as it is");
            false
        })
    }

    /// Marks a dead workspace lost and brings it up again. Whether that is under way, by whomever it was begun.
    async fn lose_dead(&self, id: WorkspaceId) -> Result<bool> {
        let Some(row) = self.inner.store.workspace(id).await? else { return Ok(false) };
        if matches!(row.status, Status::Online | Status::Degraded) {
            let event = self.event(EventKind::WorkspaceOffline, id, json!({}));
            if self.inner.store.step(id, row.status.to(Status::Offline)?, &event).await? {
                self.announce(event);
            }
        }
        Ok(self.auto_restart(id).await? || self.inner.attempts.is_running(id))
    }
}

fn restarting() -> Error {
    Error::new(ErrorKind::Unavailable, "workspace agent unreachable — container restart triggered")
        .with_member("restarting", true)
}

async fn exchange(client: &reqwest::Client, url: &str, body: Vec<u8>, head: &OnceLock<u16>) -> Result<Answer, Silence> {
    let sent = client.post(url).header(reqwest::header::CONTENT_TYPE, "application/json").body(body).send().await;
    let response = sent.map_err(|error| match error.is_connect() || error.is_builder() {
        true => Silence::Unreachable(error),
        // The request may have arrived: a slow agent is not a dead one.
        false => Silence::Busy(error.without_url().to_string()),
    })?;
    let status = *head.get_or_init(|| response.status().as_u16());
    let mut body = BytesMut::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Silence::BodyLost { status })?;
        if body.len() + chunk.len() > ANSWER_LIMIT {
            return Err(Silence::BodyLost { status });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, body: body.freeze() })
}

/// Waits for `exchange` as long as the target shows signs of life, and never past `ceiling`.
async fn within(
    exchange: impl Future<Output = Result<Answer, Silence>>,
    mut listener: EventListener,
    target: WorkspaceId,
    idle: Duration,
    ceiling: Option<Duration>,
) -> Result<Answer, Silence> {
    // Further away than the clock can count is no limit.
    let end = ceiling.and_then(|ceiling| Instant::now().checked_add(ceiling));
    let mut last_sign = Instant::now();
    let mut exchange = std::pin::pin!(exchange);
    loop {
        let limit = end.map_or(last_sign + idle, |end| end.min(last_sign + idle));
        tokio::select! {
            outcome = &mut exchange => return outcome,
            () = tokio::time::sleep_until(limit) => {
                return Err(Silence::Busy("no answer in time".to_owned()));
            }
            heard = listener.next() => match heard {
                Ok(announcement) if announcement.event.workspace_id != Some(target) => {}
                // What was lost may have been a sign of life.
                Ok(_) | Err(ListenerEnd::FellBehind) => last_sign = Instant::now(),
                Err(ListenerEnd::Closed) => return exchange.await,
            },
        }
    }
}
