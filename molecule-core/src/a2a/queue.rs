//! Messages for agents that had no time: kept until a heartbeat says that they have, and sent once.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

use super::{
    Answer,
    dispatch::{Failure, Letter},
    ledger::millis,
    sender::{Sender, System},
    told::Kept,
};
use crate::{
    activity::{NewActivity, kept_key},
    clock::random_uuid,
    control_plane::{Backend, ControlPlane},
    delegation::Outcome,
    error::{Error, ErrorKind, Result},
    id::{ActivityId, QueueId, WorkspaceId},
    identity::{Credential, Exposure},
    store::pool::{row, text_enum},
    workspace::{DeliveryMode, Status, Workspace, lifecycle::gone_is_not_found},
};

/// How often a message is tried before it is given up.
pub(crate) const ATTEMPTS: i32 = 5;

/// An agent that was heard here less long ago beats here.
const BEATS_HERE: TimeDelta = TimeDelta::seconds(60);

/// How urgent a message is, where nobody says.
const PRIORITY: i32 = 50;

text_enum! {
    /// What became of a message.
    pub enum QueueStatus {
        /// It waits for its agent.
        Queued = "queued",
        /// It is on its way.
        Dispatched = "dispatched",
        /// It was answered.
        Completed = "completed",
        /// It was not sent: it waited too long, or its agent is gone.
        Dropped = "dropped",
        /// It was tried as often as is sensible.
        Failed = "failed",
    }
}

row! {
    /// A kept message, without what it says.
    #[derive(Debug, Clone, PartialEq)]
    pub struct QueueItem {
        /// Names it.
        pub id: QueueId,
        /// Whose agent it is for.
        pub workspace_id: WorkspaceId,
        /// The workspace that sent it; none where the operator did.
        pub caller_id: Option<WorkspaceId>,
        /// What became of it.
        pub status: QueueStatus,
        /// Higher ones go first.
        pub priority: i32,
        /// How often it was tried.
        pub attempts: i32,
        /// Why it is not answered yet.
        pub last_error: Option<String>,
        /// The answer.
        pub response_body: Option<Value>,
        /// When it was kept.
        pub enqueued_at: DateTime<Utc>,
        /// When it was last known to be on its way.
        pub dispatched_at: Option<DateTime<Utc>>,
        /// When it was answered.
        pub completed_at: Option<DateTime<Utc>>,
        /// When it is of no use any more.
        pub expires_at: Option<DateTime<Utc>>,
    }
}

row! {
    /// A message that this process alone may send now.
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) struct Claimed {
        pub(crate) id: QueueId,
        pub(crate) caller_id: Option<WorkspaceId>,
        pub(crate) sender: Option<System>,
        pub(crate) protocol: Option<String>,
        pub(crate) body: Value,
        pub(crate) method: String,
        pub(crate) attempts: i32,
    }
}

/// A message to be kept.
#[derive(Debug, Clone)]
pub(crate) struct NewItem {
    pub(crate) id: QueueId,
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) caller_id: Option<WorkspaceId>,
    pub(crate) sender: Option<System>,
    pub(crate) protocol: Option<String>,
    pub(crate) priority: i32,
    pub(crate) body: Value,
    pub(crate) method: String,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) enqueued_at: DateTime<Utc>,
    pub(crate) expires_at: Option<DateTime<Utc>>,
}

/// How one try at sending a kept message ended.
#[derive(Debug)]
pub(crate) enum Settled {
    /// Answered, or known to have arrived.
    Completed(Option<Box<Kept>>),
    /// The agent still had no time: as if it had not been tried.
    PutBack(String),
    /// It went wrong; it is tried again unless it was tried often enough.
    Missed(String),
}

/// What this process knows of queues: a hint which agents have messages, and whose it is sending.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    waiting: Mutex<HashSet<WorkspaceId>>,
    draining: Mutex<HashSet<WorkspaceId>>,
    /// By which heartbeat that came elsewhere their messages were sent last.
    elsewhere: Mutex<HashMap<WorkspaceId, Option<DateTime<Utc>>>>,
}

fn lock<T>(set: &Mutex<T>) -> MutexGuard<'_, T> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queues {
    fn is_waiting(&self, id: WorkspaceId) -> bool {
        let waiting = lock(&self.waiting);
        !waiting.is_empty() && waiting.contains(&id)
    }
}

/// One at a time sends the messages of an agent, in this process; dropped, it lets the next one.
#[derive(Debug)]
struct Draining<'a>(&'a Queues, WorkspaceId);

impl<'a> Draining<'a> {
    fn begin(queues: &'a Queues, id: WorkspaceId) -> Option<Self> {
        let first = lock(&queues.draining).insert(id);
        first.then(|| Self(queues, id))
    }
}

impl Drop for Draining<'_> {
    fn drop(&mut self) {
        lock(&self.0.draining).remove(&self.1);
    }
}

/// Whether the agent of `workspace` can take another message.
fn has_capacity(workspace: &Workspace) -> bool {
    let reachable = !workspace.url.is_empty() || workspace.delivery_mode == DeliveryMode::Poll;
    matches!(workspace.status, Status::Online | Status::Degraded)
        && reachable
        && workspace.active_tasks < workspace.max_concurrent_tasks.max(1)
}

/// What a finished try means for its message.
fn settle(outcome: Result<Answer, Failure>) -> Settled {
    match outcome {
        Ok(answer) if answer.status < 300 => Settled::Completed(Some(Box::new(Kept::of(&answer)))),
        Ok(answer) => Settled::Missed(match Kept::of(&answer).body.get("error").and_then(Value::as_str) {
            Some(said) => format!("{}: {said}", answer.status),
            None => answer.status.to_string(),
        }),
        Err(Failure::Busy(why)) => Settled::PutBack(format!("busy: {why}")),
        // It must not be sent again.
        Err(Failure::Failed { delivered: true, .. }) => Settled::Completed(None),
        Err(Failure::Failed { error, .. }) => Settled::Missed(error.message().to_owned()),
    }
}

/// Whether a message that went wrong `attempts` times is given up.
pub(crate) fn is_given_up(attempts: i32) -> bool {
    attempts >= ATTEMPTS
}

impl ControlPlane {
    /// Keeps a message for an agent that has no time. One with the id of a message that waits already is that one.
    pub(super) async fn enqueue(&self, workspace: &Workspace, letter: &Letter, why: &str) -> Result<Answer> {
        let now = self.now();
        let params = &letter.request["params"];
        let lives = params["expires_in_seconds"].as_i64().filter(|seconds| *seconds > 0);
        let item = NewItem {
            id: QueueId::from_uuid(random_uuid(&*self.inner.entropy)),
            workspace_id: workspace.id,
            caller_id: letter.sender.workspace(),
            sender: letter.sender.system(),
            protocol: letter.protocol.clone(),
            priority: PRIORITY,
            body: letter.request.clone(),
            method: letter.method.clone(),
            idempotency_key: params["message"]["messageId"].as_str().map(kept_key),
            enqueued_at: now,
            expires_at: lives.and_then(|seconds| now.checked_add_signed(TimeDelta::try_seconds(seconds)?)),
        };
        let mut row = self.letter_row(workspace, letter);
        // By this id the answer finds it.
        row.id = ActivityId::from_uuid(item.id.as_uuid());
        row.summary = row.summary.map(|summary| summary + " (queued)");
        row.status = "queued".to_owned();
        let (id, fresh) = self.inner.store.enqueue(&item, &row).await?;
        lock(&self.inner.queues.waiting).insert(workspace.id);
        tracing::info!(workspace.id = %workspace.id, queue.id = %id, why, "an agent is busy; its message is kept");
        if fresh {
            self.tell_activity(&row);
        }
        let depth = self.inner.store.queue_depth(workspace.id).await?;
        let body = json!({
            "queued": true,
            "queue_id": id,
            "queue_depth": depth,
            "message": "workspace agent busy — request queued, will dispatch when capacity available",
        });
        Ok(Answer::own(202, &body))
    }

    /// Sends kept messages to an agent that was just heard, in a task of its own.
    ///
    /// Where none is known to wait, nothing is asked of the database.
    pub(crate) fn drain_soon(&self, id: WorkspaceId) {
        if !self.inner.queues.is_waiting(id) || self.inner.stop.is_cancelled() {
            return;
        }
        let this = self.clone();
        self.inner.tasks.spawn(async move {
            let Some(_draining) = Draining::begin(&this.inner.queues, id) else { return };
            if let Err(error) = this.drain(id).await {
                tracing::warn!(workspace.id = %id, error = error.detail(), "kept messages could not be sent");
            }
        });
    }

    /// Sends kept messages one after the other, as long as the agent answers and has time.
    async fn drain(&self, id: WorkspaceId) -> Result<()> {
        while !self.inner.stop.is_cancelled() {
            let workspace = self.existing(id).await.map_err(gone_is_not_found)?;
            if !has_capacity(&workspace) || !self.brings_to(&workspace) {
                return Ok(());
            }
            let claim = random_uuid(&*self.inner.entropy);
            let Some(item) = self.inner.store.claim_item(id, claim, self.now()).await? else {
                lock(&self.inner.queues.waiting).remove(&id);
                return Ok(());
            };
            if !self.deliver(&workspace, item, claim).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether a message gets to the agent from here.
    fn brings_to(&self, workspace: &Workspace) -> bool {
        workspace.delivery_mode == DeliveryMode::Poll || self.reaches(workspace)
    }

    /// Sends the messages of agents that this control plane runs and that beat at another, which cannot call them: one try
    /// for each heartbeat that is known of, as if it had come here.
    async fn drain_for_others(&self, waiting: &HashSet<WorkspaceId>) -> Result<()> {
        let seen = &self.inner.queues.elsewhere;
        lock(seen).retain(|id, _| waiting.contains(id));
        let now = self.now();
        for id in waiting {
            if self.inner.store.memory().last_heard(*id).is_some_and(|at| now - at < BEATS_HERE) {
                continue;
            }
            let Some(workspace) = self.workspace(*id).await?.filter(|workspace| !workspace.is_external()) else {
                continue;
            };
            let heard = workspace.last_heartbeat_at;
            if lock(seen).insert(*id, heard) != Some(heard) {
                self.drain_soon(*id);
            }
        }
        Ok(())
    }

    /// Sends one message. Whether it was answered.
    async fn deliver(&self, workspace: &Workspace, item: Claimed, claim: Uuid) -> Result<bool> {
        let began = Instant::now();
        let sender = Sender::of_kept(item.caller_id, item.sender);
        let letter =
            Letter { sender, method: item.method.clone(), request: item.body.clone(), protocol: item.protocol.clone() };
        let outcome = if workspace.delivery_mode == DeliveryMode::Poll {
            // It asks for its messages since: there it finds this one.
            let kept = self.keep_for_poll(workspace, &letter).await;
            kept.map_err(|error| Failure::Failed { error, delivered: false })
        } else {
            self.attempt_under_claim(workspace, &letter, item.id, claim).await
        };
        let settled = settle(outcome);
        let mut row = NewActivity { duration_ms: Some(millis(began.elapsed())), ..self.letter_row(workspace, &letter) };
        row.id = ActivityId::from_uuid(item.id.as_uuid());
        if let Settled::Completed(answer) = &settled {
            row.tool_trace = answer.as_ref().and_then(|kept| kept.tool_trace.clone());
            row.response_body = answer.as_ref().map(|kept| kept.body.clone());
        }
        let ours = self.inner.store.settle_item(item.id, claim, item.attempts, &settled, &row, self.now()).await?;
        if !ours {
            tracing::warn!(workspace.id = %workspace.id, queue.id = %item.id, "a message was taken over by another");
            return Ok(false);
        }
        let answer = match settled {
            Settled::Completed(answer) => answer,
            Settled::Missed(why) if is_given_up(item.attempts) => {
                self.end_queued_delegation(item.caller_id, workspace.id, &item.body, Outcome::Failed(why)).await;
                return Ok(false);
            }
            Settled::PutBack(_) | Settled::Missed(_) => return Ok(false),
        };
        if workspace.delivery_mode != DeliveryMode::Poll {
            let outcome = match &answer {
                Some(kept) => Outcome::of_reply(&kept.body, kept.body.to_string().as_bytes()),
                None => Outcome::Failed("failed to read agent response".to_owned()),
            };
            self.end_queued_delegation(item.caller_id, workspace.id, &item.body, outcome).await;
        }
        self.tell_activity(&row);
        if let Some(kept) = &answer {
            self.tell_canvas(workspace, &letter, &kept.body, began.elapsed());
            self.note_usage(workspace.id, kept.used).await;
        }
        self.touch_sender(letter.sender.workspace()).await;
        Ok(true)
    }

    /// Sends a message, saying again and again that it is on its way.
    async fn attempt_under_claim(
        &self,
        workspace: &Workspace,
        letter: &Letter,
        item: QueueId,
        claim: Uuid,
    ) -> Result<Answer, Failure> {
        let lease = self.inner.config.queue_lease;
        let mut renew = tokio::time::interval_at(Instant::now() + lease / 4, lease / 4);
        renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut attempt = std::pin::pin!(self.attempt(workspace, letter, Some(self.inner.config.a2a_ceiling), None));
        loop {
            tokio::select! {
                outcome = &mut attempt => return outcome,
                _ = renew.tick() => {
                    if let Err(error) = self.inner.store.renew_item(item, claim, self.now()).await {
                        tracing::warn!(queue.id = %item, error = error.detail(), "a claim could not be renewed");
                    }
                }
            }
        }
    }

    /// Takes back what a process that died had claimed, drops what is of no use any more, and learns who has messages.
    pub(crate) async fn sweep_queue(&self) -> Result<()> {
        let now = self.now();
        let lease = TimeDelta::from_std(self.inner.config.queue_lease).unwrap_or(TimeDelta::MAX);
        let orphaned = now.checked_sub_signed(lease).unwrap_or(DateTime::UNIX_EPOCH);
        if self.inner.store.queue_is_untidy(now, orphaned).await? {
            let (reclaimed, dropped) = self.inner.store.tidy_queue(now, orphaned).await?;
            if reclaimed > 0 {
                tracing::warn!(queue.reclaimed = reclaimed, "messages whose sender died wait again");
            }
            if dropped > 0 {
                tracing::info!(queue.dropped = dropped, "messages that waited too long were dropped");
            }
        }
        let waiting: HashSet<WorkspaceId> = self.inner.store.waiting_workspaces().await?.into_iter().collect();
        lock(&self.inner.queues.waiting).clone_from(&waiting);
        if matches!(self.inner.backend, Backend::Local { .. }) {
            self.drain_for_others(&waiting).await?;
        }
        Ok(())
    }

    /// A kept message, for those it concerns: who sent it, whom it is for, and the operator.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for everybody else as well.
    pub async fn queue_item(
        &self,
        workspace: WorkspaceId,
        id: QueueId,
        credential: Credential,
        exposure: Exposure,
    ) -> Result<QueueItem> {
        let hidden = || Error::not_found("queue item not found");
        let is_operator = match self.admit_operator(credential, exposure).await {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::Unauthenticated => false,
            Err(error) => return Err(error),
        };
        let item = self.inner.store.queue_item(id).await?.ok_or_else(hidden)?;
        let concerns = |id| item.workspace_id == id || item.caller_id == Some(id);
        let may_see = is_operator || matches!(credential, Credential::Workspace(owner) if concerns(owner.workspace_id));
        if may_see && concerns(workspace) { Ok(item) } else { Err(hidden()) }
    }

    /// Drops messages that have waited for longer than `age`, of one workspace or of all. How many there were.
    pub async fn drop_stale_messages(&self, age: Duration, of: Option<WorkspaceId>) -> Result<u64> {
        let age = TimeDelta::from_std(age).unwrap_or(TimeDelta::MAX);
        let Some(cutoff) = self.now().checked_sub_signed(age) else { return Ok(0) };
        let dropped = self.inner.store.drop_stale(cutoff, of).await;
        dropped.map_err(|error| match error.kind() {
            ErrorKind::Unavailable => error,
            _ => error.with_message("failed to drop stale items"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_finished_try_means() {
        let answer = |status, body: &'static str| Ok(Answer { status, body: body.as_bytes().into(), is_events: false });
        let failed = |delivered| Err(Failure::Failed { error: Error::invalid("why"), delivered });
        let rows = [
            (
                answer(200, r#"{"result":1}"#),
                r#"Completed(Some(Kept { body: Object {"result": Number(1)}, tool_trace: None, used: None }))"#,
            ),
            (answer(500, r#"{"error":"no"}"#), r#"Missed("500: no")"#),
            (answer(301, ""), r#"Missed("301")"#),
            (Err(Failure::Busy("late".to_owned())), r#"PutBack("busy: late")"#),
            (failed(true), "Completed(None)"),
            (failed(false), r#"Missed("why")"#),
        ];
        for (outcome, expected) in rows {
            assert_eq!(format!("{:?}", settle(outcome)), expected);
        }
        let given_up: Vec<i32> = (1..=6).filter(|attempts| is_given_up(*attempts)).collect();
        assert_eq!(given_up, [5, 6]);
    }
}
