//! Carries a call out beside its caller, who may wait for less than the work lasts.

use std::time::Duration;

use tokio::{sync::oneshot, time::Instant};

use super::{
    Answer,
    dispatch::{Failure, Letter, body_lost},
    exchange::Signs,
    live::Live,
    queue::Claim,
    told::Kept,
};
use crate::{
    clock::random_uuid,
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    workspace::Workspace,
};

/// How long a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// How long its caller waits. The call itself goes on.
    patience: Option<Duration>,
    /// When the agent is taken for one without time.
    ceiling: Option<Duration>,
}

impl Limits {
    /// What `deadline`, where the caller says so, and the usual longest time mean. A caller that waits for less does not
    /// take that from the agent.
    pub(super) fn of(deadline: Option<Option<Duration>>, longest: Option<Duration>) -> Self {
        match deadline {
            None => Self { patience: None, ceiling: longest },
            Some(None) => Self { patience: None, ceiling: None },
            Some(Some(patience)) => {
                Self { patience: Some(patience), ceiling: longest.map(|longest| longest.saturating_add(patience)) }
            }
        }
    }
}

impl ControlPlane {
    /// Calls the agent in a task of its own: what it was asked to do is done whether or not the asker waits.
    pub(super) fn begin_call(
        &self,
        workspace: Box<Workspace>,
        letter: Letter,
        limits: Limits,
        live: Option<Live>,
    ) -> oneshot::Receiver<Result<Answer>> {
        let (caller, answered) = oneshot::channel();
        let this = self.clone();
        self.inner.tasks.spawn(async move { this.carry(&workspace, letter, limits, live, caller).await });
        answered
    }

    async fn carry(
        &self,
        workspace: &Workspace,
        letter: Letter,
        limits: Limits,
        mut live: Option<Live>,
        caller: oneshot::Sender<Result<Answer>>,
    ) {
        let (began, signs) = (Instant::now(), Signs::new());
        // Boxed: it ends before what it borrows is looked at.
        let mut attempt = Box::pin(self.attempt(workspace, &letter, limits.ceiling, live.as_mut(), &signs));
        let in_time = tokio::select! {
            outcome = &mut attempt => Some(outcome),
            () = passed(limits.patience) => None,
        };
        let (outcome, caller) = match (in_time, signs.head()) {
            (Some(outcome), _) => (outcome, Some(caller)),
            // The caller has the beginning: what breaks off was delivered.
            (None, Some(status)) => (Err(body_lost(status)), Some(caller)),
            (None, None) => {
                let held = self.keep_underway(workspace, &letter, caller).await;
                let outcome = match held {
                    Some(claim) => self.under_claim(claim, &mut attempt).await,
                    None => attempt.as_mut().await,
                };
                if let Some(claim) = held {
                    drop(attempt);
                    let told = live.filter(Live::has_begun).map(|live| live.told.into_kept());
                    if let Err(error) = self.settle_late(workspace, &letter, claim, outcome, told, began).await {
                        tracing::error!(queue.id = %claim.item, error = error.detail(), "an answer could not be kept");
                    }
                    return;
                }
                (outcome, None)
            }
        };
        drop(attempt);
        let told = live.filter(Live::has_begun).map(|live| live.told.into_kept());
        let answer = self.note_outcome(workspace, letter, outcome, told, began).await;
        if let Some(caller) = caller {
            // Nobody may wait any more.
            drop(caller.send(answer));
        }
    }

    /// Keeps how a call ended, and gives what its caller is told.
    async fn note_outcome(
        &self,
        workspace: &Workspace,
        letter: Letter,
        outcome: Result<Answer, Failure>,
        told: Option<Kept>,
        began: Instant,
    ) -> Result<Answer> {
        match outcome {
            Ok(answer) => {
                let kept = told.unwrap_or_else(|| Kept::of(&answer));
                self.note_answer(workspace, &letter, &answer, kept, began.elapsed()).await;
                Ok(answer)
            }
            Err(Failure::Busy(why)) if workspace.native_session => {
                let error = native_session(why);
                self.note_failure(workspace, &letter, &error, None, began.elapsed()).await;
                Err(error)
            }
            Err(Failure::Busy(why)) => match self.keep(workspace, &letter, &why, None).await {
                Ok(kept) => Ok(kept.answer),
                Err(error) if error.kind() == ErrorKind::NotFound => Err(error),
                Err(cause) => {
                    let error = not_kept(why).caused_by(cause);
                    self.note_failure(workspace, &letter, &error, None, began.elapsed()).await;
                    Err(error)
                }
            },
            Err(Failure::Failed { error, delivered }) => {
                let delivered = delivered.then(|| told.unwrap_or_default());
                self.note_failure(workspace, &letter, &error, delivered, began.elapsed()).await;
                Err(error)
            }
        }
    }

    /// Tells a caller that waits no longer what becomes of a message which its agent has. The claim on it, where it is
    /// kept and this process alone may settle it.
    async fn keep_underway(
        &self,
        workspace: &Workspace,
        letter: &Letter,
        caller: oneshot::Sender<Result<Answer>>,
    ) -> Option<Claim> {
        let why = "the caller waits no longer".to_owned();
        let (said, held) = if workspace.native_session {
            (Err(native_session(why)), None)
        } else {
            let claim = random_uuid(&*self.inner.entropy);
            match self.keep(workspace, letter, &why, Some(claim)).await {
                Ok(kept) => (Ok(kept.answer), kept.claim),
                Err(error) if error.kind() == ErrorKind::NotFound => (Err(error), None),
                Err(cause) => (Err(not_kept(why).caused_by(cause)), None),
            }
        };
        drop(caller.send(said));
        held
    }
}

pub(super) async fn heard(answered: oneshot::Receiver<Result<Answer>>) -> Result<Answer> {
    answered.await.map_err(|error| Error::new(ErrorKind::Unexpected, "the call ended early").caused_by(error))?
}

async fn passed(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

fn native_session(why: String) -> Error {
    busy("workspace agent busy — adapter handles retry (native_session)", why).with_member("native_session", true)
}

fn not_kept(why: String) -> Error {
    busy("workspace agent busy — retry after a short backoff", why)
}

fn busy(text: &'static str, why: String) -> Error {
    Error::new(ErrorKind::Unavailable, text)
        .with_member("busy", true)
        .with_member("retry_after", 30)
        .context("why", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_less_takes_nothing_from_the_agent() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let rows = [
            (None, Some(minutes(30)), None, Some(minutes(30))),
            (None, None, None, None),
            (Some(None), Some(minutes(30)), None, None),
            (Some(Some(minutes(5))), Some(minutes(30)), Some(minutes(5)), Some(minutes(35))),
            (Some(Some(minutes(5))), None, Some(minutes(5)), None),
            (Some(Some(Duration::MAX)), Some(minutes(30)), Some(Duration::MAX), Some(Duration::MAX)),
        ];
        for (deadline, longest, patience, ceiling) in rows {
            assert_eq!(Limits::of(deadline, longest), Limits { patience, ceiling });
        }
    }
}
