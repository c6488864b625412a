//! Messages for agents that had no time: kept until a heartbeat says that they have, and sent once.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Answer, dispatch::Letter, sender::System, told::Kept};
use crate::{
    activity::kept_key,
    clock::random_uuid,
    control_plane::{Backend, ControlPlane},
    error::{Error, ErrorKind, Result},
    id::{ActivityId, QueueId, WorkspaceId},
    identity::{Credential, Exposure},
    store::pool::{row, text_enum},
    workspace::{Workspace, lifecycle::said},
};

/// How often a message is tried before it is given up.
pub(crate) const ATTEMPTS: i32 = 5;

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
        pub(crate) busy_tries: i32,
    }
}

/// What lets this process alone say how a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) item: QueueId,
    pub(crate) claim: Uuid,
    /// How often the message was tried, this time included.
    pub(crate) attempts: i32,
    /// How often its agent took it without an answer before.
    pub(crate) busy_tries: i32,
}

/// A message in the queue.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Enqueued {
    pub(crate) id: QueueId,
    /// It is not one that waited already.
    pub(crate) is_new: bool,
    /// For one that its agent has: whoever holds this settles it. Absent where another does.
    pub(crate) claim: Option<Claim>,
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
    /// Its agent has it, and whoever holds this waits for the answer.
    pub(crate) claim: Option<Uuid>,
}

/// How one try at sending a kept message ended.
#[derive(Debug)]
pub(crate) enum Settled {
    /// Answered, or known to have arrived.
    Completed(Option<Box<Kept>>),
    /// The agent still had no time: as if it had not been tried.
    PutBack(String),
    /// It went wrong; it is tried again.
    Missed(String),
    /// It was tried often enough.
    GivenUp(String),
}

/// What this process knows of queues: a hint which agents have messages, and how many it sends to each.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    pub(super) waiting: Mutex<HashSet<WorkspaceId>>,
    pub(super) draining: Mutex<HashMap<WorkspaceId, usize>>,
    /// By which heartbeat that came elsewhere their messages were sent last.
    pub(super) elsewhere: Mutex<HashMap<WorkspaceId, Option<DateTime<Utc>>>>,
}

pub(super) fn lock<T>(set: &Mutex<T>) -> MutexGuard<'_, T> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queues {
    pub(super) fn is_waiting(&self, id: WorkspaceId) -> bool {
        let waiting = lock(&self.waiting);
        !waiting.is_empty() && waiting.contains(&id)
    }
}

/// What the caller of a message that is kept is told.
#[derive(Debug)]
pub(super) struct InQueue {
    pub(super) answer: Answer,
    pub(super) claim: Option<Claim>,
}

impl ControlPlane {
    /// Keeps a message for an agent that has no time. One with the id of a message that waits already is that one. With a
    /// `claim` its agent has it, and whoever made that settles it once there is an answer.
    pub(super) async fn keep(
        &self,
        workspace: &Workspace,
        letter: &Letter,
        why: &str,
        claim: Option<Uuid>,
    ) -> Result<InQueue> {
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
            claim,
        };
        let mut row = self.letter_row(workspace, letter);
        // By this id the answer finds it.
        row.id = ActivityId::from_uuid(item.id.as_uuid());
        row.summary = row.summary.map(|summary| summary + " (queued)");
        row.status = "queued".to_owned();
        let Enqueued { id, is_new, claim } = self.inner.store.enqueue(&item, &row).await?;
        lock(&self.inner.queues.waiting).insert(workspace.id);
        tracing::info!(workspace.id = %workspace.id, queue.id = %id, why, "a message is kept");
        if is_new {
            self.tell_activity(&row);
        }
        Ok(InQueue { answer: self.queued(workspace.id, id).await?, claim })
    }

    async fn queued(&self, of: WorkspaceId, id: QueueId) -> Result<Answer> {
        let depth = self.inner.store.queue_depth(of).await?;
        let body = json!({
            "queued": true,
            "queue_id": id,
            "queue_depth": depth,
            "message": "workspace agent busy — request queued, will dispatch when capacity available",
        });
        Ok(Answer::own(202, &body))
    }

    /// What the caller is told of a message that waits already, or is on its way: it is not sent beside that.
    pub(super) async fn kept_already(&self, workspace: &Workspace, letter: &Letter) -> Result<Option<Answer>> {
        let message_id = letter.request["params"]["message"]["messageId"].as_str();
        let Some(key) = message_id.filter(|_| self.inner.queues.is_waiting(workspace.id)).map(kept_key) else {
            return Ok(None);
        };
        match self.inner.store.waiting_message(workspace.id, &key, letter.sender.workspace()).await? {
            Some(id) => self.queued(workspace.id, id).await.map(Some),
            None => Ok(None),
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
        let found = self.inner.store.queue_item(id).await.map_err(|error| said(error, "lookup failed"))?;
        let item = found.ok_or_else(hidden)?;
        let concerns = |id| item.workspace_id == id || item.caller_id == Some(id);
        let may_see = is_operator || matches!(credential, Credential::Workspace(owner) if concerns(owner.workspace_id));
        if may_see && concerns(workspace) { Ok(item) } else { Err(hidden()) }
    }

    /// Drops messages that have waited for longer than `age`, of one workspace or of all. How many there were.
    pub async fn drop_stale_messages(&self, age: Duration, of: Option<WorkspaceId>) -> Result<u64> {
        let age = TimeDelta::from_std(age).unwrap_or(TimeDelta::MAX);
        let Some(cutoff) = self.now().checked_sub_signed(age) else { return Ok(0) };
        let dropped = self.inner.store.drop_stale(cutoff, of).await;
        dropped.map_err(|error| said(error, "failed to drop stale items"))
    }
}
