//! Messages that were kept, on their way: sent when a heartbeat says that their agent has time, and settled once.

use std::{collections::HashSet, time::Duration};

use chrono::TimeDelta;
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Answer,
    dispatch::{Failure, Letter},
    exchange::Signs,
    ledger::millis,
    queue::{ATTEMPTS, Claim, Claimed, Settled, lock},
    sender::Sender,
    told::Kept,
};
use crate::{
    activity::NewActivity,
    clock::random_uuid,
    control_plane::ControlPlane,
    delegation::Outcome,
    error::{Error, Result},
    id::{ActivityId, WorkspaceId},
    renewal::while_renewing,
    workspace::{DeliveryMode, Status, Workspace, lifecycle::gone_is_not_found},
};

/// An agent that was heard here less long ago beats here.
const BEATS_HERE: TimeDelta = TimeDelta::seconds(60);

/// How often a message is tried on an agent that takes it and gives no answer: it may be the message that is wrong.
const BUSY_TRIES: i32 = 20;

/// How long to wait before an answer that could not be kept is kept after all.
const KEEP_AGAIN: Duration = Duration::from_secs(1);

/// Sends messages of an agent, one at a time; dropped, it makes room for another.
#[derive(Debug)]
struct Draining(ControlPlane, WorkspaceId);

impl Draining {
    /// As many as the agent has time for, beside those that are at it.
    fn begin(control_plane: &ControlPlane, workspace: &Workspace) -> Vec<Self> {
        let mut draining = lock(&control_plane.inner.queues.draining);
        let at_it = draining.entry(workspace.id).or_default();
        let more = places(workspace).saturating_sub(*at_it).min(spare(workspace, *at_it));
        *at_it += more;
        if *at_it == 0 {
            draining.remove(&workspace.id);
        }
        (0..more).map(|_| Self(control_plane.clone(), workspace.id)).collect()
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        let mut draining = lock(&self.0.inner.queues.draining);
        if let Some(at_it) = draining.get_mut(&self.1) {
            *at_it -= 1;
            if *at_it == 0 {
                draining.remove(&self.1);
            }
        }
    }
}

fn places(workspace: &Workspace) -> usize {
    usize::try_from(workspace.max_concurrent_tasks).unwrap_or_default().max(1)
}

/// How many more messages the agent has time for, while `at_it` of this process are with it: of the tasks that it tells of,
/// these may be some.
fn spare(workspace: &Workspace, at_it: usize) -> usize {
    let others = usize::try_from(workspace.active_tasks).unwrap_or_default().saturating_sub(at_it);
    places(workspace).saturating_sub(others + at_it)
}

/// Whether the agent of `workspace` can take another message.
fn has_capacity(workspace: &Workspace) -> bool {
    let reachable = !workspace.url.is_empty() || workspace.delivery_mode == DeliveryMode::Poll;
    matches!(workspace.status, Status::Online | Status::Degraded)
        && reachable
        && !workspace.has_spent_its_budget()
        && workspace.active_tasks < workspace.max_concurrent_tasks.max(1)
}

/// What a finished try means for its message. `told` is what an answer said that came bit by bit.
fn settle(outcome: Result<Answer, Failure>, told: Option<Kept>, claim: Claim) -> Settled {
    let missed = |why: String| if is_given_up(claim.attempts) { Settled::GivenUp(why) } else { Settled::Missed(why) };
    match outcome {
        Ok(answer) if answer.status < 300 => {
            Settled::Completed(Some(Box::new(told.unwrap_or_else(|| Kept::of(&answer)))))
        }
        Ok(answer) => missed(match Kept::of(&answer).body.get("error").and_then(Value::as_str) {
            Some(said) => format!("{}: {said}", answer.status),
            None => answer.status.to_string(),
        }),
        Err(Failure::Busy(why)) if claim.busy_tries + 1 >= BUSY_TRIES => Settled::GivenUp(format!("busy: {why}")),
        Err(Failure::Busy(why)) => Settled::PutBack(format!("busy: {why}")),
        // It must not be sent again.
        Err(Failure::Failed { delivered: true, .. }) => Settled::Completed(None),
        Err(Failure::Failed { error, .. }) => missed(error.message().to_owned()),
    }
}

/// Whether a message that went wrong `attempts` times is given up.
fn is_given_up(attempts: i32) -> bool {
    attempts >= ATTEMPTS
}

impl ControlPlane {
    /// Sends kept messages to an agent that was just heard, in tasks of their own.
    ///
    /// Where none is known to wait, nothing is asked of the database.
    pub(crate) fn drain_soon(&self, id: WorkspaceId) {
        if !self.inner.queues.is_waiting(id) || self.inner.stop.is_cancelled() {
            return;
        }
        let this = self.clone();
        self.inner.tasks.spawn(async move {
            let workspace = match this.existing(id).await.map_err(gone_is_not_found) {
                Ok(workspace) => workspace,
                Err(error) => return cannot_send(id, &error),
            };
            for draining in Draining::begin(&this, &workspace) {
                let this = this.clone();
                this.clone().inner.tasks.spawn(async move {
                    let _draining = draining;
                    if let Err(error) = this.drain(id).await {
                        cannot_send(id, &error);
                    }
                });
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
    pub(super) async fn drain_for_others(&self, waiting: &HashSet<WorkspaceId>) -> Result<()> {
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
        let claim = Claim { item: item.id, claim, attempts: item.attempts, busy_tries: item.busy_tries };
        let sender = Sender::of_kept(item.caller_id, item.sender);
        let size = item.body.to_string().len();
        let letter = Letter { sender, method: item.method, request: item.body, protocol: item.protocol, size };
        if workspace.delivery_mode == DeliveryMode::Poll {
            return self.give_to_poller(workspace, &letter, claim).await;
        }
        let (signs, ceiling) = (Signs::new(), Some(self.inner.config.a2a_ceiling));
        let attempt = std::pin::pin!(self.attempt(workspace, &letter, ceiling, None, &signs));
        let outcome = self.under_claim(claim, attempt).await;
        self.settle_late(workspace, &letter, claim, outcome, None, began).await
    }

    /// Keeps how a try at a message ended whose caller does not wait. Whether it was answered.
    pub(super) async fn settle_late(
        &self,
        workspace: &Workspace,
        letter: &Letter,
        claim: Claim,
        outcome: Result<Answer, Failure>,
        told: Option<Kept>,
        began: Instant,
    ) -> Result<bool> {
        let settled = settle(outcome, told, claim);
        let mut row = NewActivity { duration_ms: Some(millis(began.elapsed())), ..self.letter_row(workspace, letter) };
        row.id = ActivityId::from_uuid(claim.item.as_uuid());
        if let Settled::Completed(answer) = &settled {
            row.tool_trace = answer.as_ref().and_then(|kept| kept.tool_trace.clone());
            row.response_body = answer.as_ref().map(|kept| kept.body.clone());
        }
        if !self.settle_surely(claim, &settled, &row).await? {
            tracing::warn!(workspace.id = %workspace.id, queue.id = %claim.item, "a message was taken over by another");
            return Ok(false);
        }
        let source = letter.sender.workspace();
        let answer = match settled {
            Settled::Completed(answer) => answer,
            Settled::GivenUp(why) => {
                self.end_queued_delegation(source, workspace.id, &letter.request, Outcome::Failed(why)).await;
                return Ok(false);
            }
            Settled::PutBack(_) | Settled::Missed(_) => return Ok(false),
        };
        let outcome = match &answer {
            Some(kept) => Outcome::of_reply(&kept.body, kept.body.to_string().as_bytes()),
            None => Outcome::Failed("failed to read agent response".to_owned()),
        };
        self.end_queued_delegation(source, workspace.id, &letter.request, outcome).await;
        self.tell_activity(&row);
        if let Some(kept) = &answer {
            self.tell_canvas(workspace, letter, &kept.body, began.elapsed());
            self.note_usage(workspace.id, kept.used).await;
        }
        self.touch_sender(source).await;
        Ok(true)
    }

    /// Keeps how a try ended, again and again while the claim is held for sure: what is not kept is done once more.
    async fn settle_surely(&self, claim: Claim, settled: &Settled, row: &NewActivity) -> Result<bool> {
        let end = Instant::now() + self.inner.config.queue_lease / 2;
        loop {
            let error = match self.inner.store.settle_item(claim, settled, row, self.now()).await {
                Ok(ours) => return Ok(ours),
                Err(error) => error,
            };
            if Instant::now() + KEEP_AGAIN > end {
                return Err(error);
            }
            tracing::warn!(queue.id = %claim.item, error = error.detail(), "an answer is not kept yet");
            tokio::time::sleep(KEEP_AGAIN).await;
        }
    }

    /// Puts a message for an agent that asks for its messages by now where it finds it: in its log, behind all that it saw.
    async fn give_to_poller(&self, workspace: &Workspace, letter: &Letter, claim: Claim) -> Result<bool> {
        let (row, told) = self.poll_row(workspace, letter);
        let given = self.inner.store.give_to_poller(claim, &row, &told, self.now()).await?;
        if given {
            self.tell_activity(&row);
            self.touch_sender(letter.sender.workspace()).await;
        }
        Ok(given)
    }

    /// Waits for an attempt, saying again and again that the message is on its way.
    pub(super) async fn under_claim(
        &self,
        claim: Claim,
        attempt: impl Future<Output = Result<Answer, Failure>>,
    ) -> Result<Answer, Failure> {
        let renew = || async {
            if let Err(error) = self.inner.store.renew_item(claim, self.now()).await {
                tracing::warn!(queue.id = %claim.item, error = error.detail(), "a claim could not be renewed");
            }
            true
        };
        while_renewing(self.inner.config.queue_lease, renew, attempt).await
    }
}

fn cannot_send(id: WorkspaceId, error: &Error) {
    tracing::warn!(workspace.id = %id, error = error.detail(), "kept messages could not be sent");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::QueueId;

    fn claim(attempts: i32, busy_tries: i32) -> Claim {
        let item = QueueId::from_uuid(Uuid::nil());
        Claim { item, claim: Uuid::nil(), attempts, busy_tries }
    }

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
            assert_eq!(format!("{:?}", settle(outcome, None, claim(4, 18))), expected);
        }
        let busy = |tries| settle(Err(Failure::Busy("late".to_owned())), None, claim(1, tries));
        assert_eq!(format!("{:?}", busy(19)), r#"GivenUp("busy: late")"#);
        assert_eq!(format!("{:?}", settle(failed(false), None, claim(5, 0))), r#"GivenUp("why")"#);
        let given_up: Vec<i32> = (1..=6).filter(|attempts| is_given_up(*attempts)).collect();
        assert_eq!(given_up, [5, 6]);
    }
}
