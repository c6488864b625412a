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
    running: Mutex<HashMap<WorkspaceId, (AttemptId, CancellationToken)>>,
}

impl Attempts {
    /// Begins `attempt`, giving up an earlier one of the workspace. The token tells when this one is to be given up.
    pub(crate) fn begin(&self, id: WorkspaceId, attempt: AttemptId) -> CancellationToken {
        let given_up = CancellationToken::new();
        if let Some((_, earlier)) = self.lock().insert(id, (attempt, given_up.clone())) {
            earlier.cancel();
        }
        given_up
    }

    /// Gives up what is under way for the workspace.
    pub(crate) fn give_up(&self, id: WorkspaceId) {
        if let Some((_, given_up)) = self.lock().get(&id) {
            given_up.cancel();
        }
    }

    /// Notes that `attempt` is over.
    pub(crate) fn end(&self, id: WorkspaceId, attempt: AttemptId) {
        let mut running = self.lock();
        if running.get(&id).is_some_and(|(current, _)| *current == attempt) {
            running.remove(&id);
        }
    }

    /// Whether anything is under way for the workspace.
    pub(crate) fn is_running(&self, id: WorkspaceId) -> bool {
        self.lock().contains_key(&id)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WorkspaceId, (AttemptId, CancellationToken)>> {
        // Nothing in here can panic half-way through a change.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_later_try_ends_an_earlier_one_and_only_itself() {
        let attempts = Attempts::default();
        let id = WorkspaceId::from_uuid(Uuid::from_u128(1));
        let [first, second] = [1, 2].map(|n| AttemptId::from_uuid(Uuid::from_u128(n)));
        let earlier = attempts.begin(id, first);
        let later = attempts.begin(id, second);
        assert!(earlier.is_cancelled() && !later.is_cancelled());
        attempts.end(id, first);
        assert!(attempts.is_running(id));
        attempts.give_up(id);
        assert!(later.is_cancelled());
        attempts.end(id, second);
        assert!(!attempts.is_running(id));
    }
}
