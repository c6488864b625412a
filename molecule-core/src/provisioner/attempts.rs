//! The tries at bringing workspaces up that this process has under way, so that what is overtaken is given up.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use crate::id::{AttemptId, WorkspaceId};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    running: Mutex<HashMap<WorkspaceId, Running>>,
}

#[derive(Debug)]
struct Running {
    attempt: AttemptId,
    given_up: CancellationToken,
    /// Cancelled when nothing is asked of the backend for it any more.
    asked: CancellationToken,
    /// Cancelled when it is no longer under way.
    over: CancellationToken,
}

impl Attempts {
    /// Begins `attempt`, giving up an earlier one of the workspace. The token tells when this one is to be given up.
    pub(crate) fn begin(&self, id: WorkspaceId, attempt: AttemptId) -> CancellationToken {
        let given_up = CancellationToken::new();
        let running = Running {
            attempt,
            given_up: given_up.clone(),
            asked: CancellationToken::new(),
            over: CancellationToken::new(),
        };
        if let Some(earlier) = self.lock().insert(id, running) {
            earlier.given_up.cancel();
            earlier.asked.cancel();
            earlier.over.cancel();
        }
        given_up
    }

    /// Gives up what is under way for the workspace.
    pub(crate) fn give_up(&self, id: WorkspaceId) {
        if let Some(running) = self.lock().get(&id) {
            running.given_up.cancel();
        }
    }

    /// Notes that `attempt` is over.
    pub(crate) fn end(&self, id: WorkspaceId, attempt: AttemptId) {
        let mut running = self.lock();
        if running.get(&id).is_some_and(|current| current.attempt == attempt)
            && let Some(ended) = running.remove(&id)
        {
            ended.asked.cancel();
            ended.over.cancel();
        }
    }

    /// Notes that nothing is asked of the backend for `attempt` any more: its agent is waited for.
    pub(crate) fn asked(&self, id: WorkspaceId, attempt: AttemptId) {
        if let Some(running) = self.lock().get(&id).filter(|running| running.attempt == attempt) {
            running.asked.cancel();
        }
    }

    /// Whether anything is under way for the workspace.
    pub(crate) fn is_running(&self, id: WorkspaceId) -> bool {
        self.lock().contains_key(&id)
    }

    /// Whether it is `attempt` that is under way for the workspace.
    pub(crate) fn carries(&self, id: WorkspaceId, attempt: AttemptId) -> bool {
        self.lock().get(&id).is_some_and(|running| running.attempt == attempt)
    }

    /// Waits until what is under way for the workspace now is over or overtaken.
    pub(crate) async fn until_over(&self, id: WorkspaceId) {
        let over = self.lock().get(&id).map(|running| running.over.clone());
        if let Some(over) = over {
            over.cancelled().await;
        }
    }

    /// Waits until nothing is asked of the backend any more for what is under way for the workspace now.
    pub(crate) async fn until_asked(&self, id: WorkspaceId) {
        let asked = self.lock().get(&id).map(|running| running.asked.clone());
        if let Some(asked) = asked {
            asked.cancelled().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WorkspaceId, Running>> {
        // Nothing in here can panic half-way through a change.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn waits_until_the_backend_has_done_its_part_and_no_longer() {
        let attempts = Attempts::default();
        let id = WorkspaceId::from_uuid(Uuid::from_u128(1));
        let [first, second] = [1, 2].map(|n| AttemptId::from_uuid(Uuid::from_u128(n)));
        attempts.until_asked(id).await;
        attempts.begin(id, first);
        {
            let overtaken = attempts.until_asked(id);
            tokio::pin!(overtaken);
            assert!(overtaken.as_mut().now_or_never().is_none());
            attempts.begin(id, second);
            overtaken.await;
        }
        attempts.asked(id, first);
        assert!(attempts.until_asked(id).now_or_never().is_none(), "that was an earlier one");
        attempts.asked(id, second);
        attempts.until_asked(id).await;
        assert!(attempts.until_over(id).now_or_never().is_none(), "its agent is waited for");
        let third = AttemptId::from_uuid(Uuid::from_u128(3));
        attempts.begin(id, third);
        let (asked, over) = (attempts.until_asked(id), attempts.until_over(id));
        attempts.end(id, third);
        asked.await;
        over.await;
    }

    #[test]
    fn a_later_try_ends_an_earlier_one_and_only_itself() {
        let attempts = Attempts::default();
        let id = WorkspaceId::from_uuid(Uuid::from_u128(1));
        let [first, second] = [1, 2].map(|n| AttemptId::from_uuid(Uuid::from_u128(n)));
        let earlier = attempts.begin(id, first);
        let later = attempts.begin(id, second);
        assert!(earlier.is_cancelled() && !later.is_cancelled());
        assert!(attempts.carries(id, second) && !attempts.carries(id, first));
        attempts.end(id, first);
        assert!(attempts.is_running(id));
        attempts.give_up(id);
        assert!(later.is_cancelled());
        attempts.end(id, second);
        assert!(!attempts.is_running(id));
    }
}
