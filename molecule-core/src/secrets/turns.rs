//! Of many requests to bring a workspace up anew that come while one is served, one more is served.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::id::WorkspaceId;

/// The workspaces that are being brought up anew, each with whether it was asked for again meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<WorkspaceId, bool>>);

/// Whoever has it brings the workspace up anew, for all who ask. Ends when it is dropped, however that comes.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    id: WorkspaceId,
    held: bool,
}

impl Turns {
    /// The turn for `id`; none where somebody has it, who then goes once more.
    pub(super) fn take(&self, id: WorkspaceId) -> Option<Turn<'_>> {
        match self.lock().entry(id) {
            std::collections::hash_map::Entry::Occupied(mut again) => {
                again.insert(true);
                None
            }
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(false);
                Some(Turn { turns: self, id, held: true })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WorkspaceId, bool>> {
        // Nothing in here can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Goes on with the turn where it was asked for again since it began, or since the last time; ends it otherwise.
    pub(super) fn once_more(mut self) -> Option<Self> {
        let mut turns = self.turns.lock();
        if turns.get_mut(&self.id).is_some_and(mem::take) {
            drop(turns);
            return Some(self);
        }
        turns.remove(&self.id);
        drop(turns);
        self.held = false;
        None
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.held {
            self.turns.lock().remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn however_many_ask_meanwhile_it_goes_once_more() {
        let (turns, id) = (Turns::default(), WorkspaceId::from_uuid(Uuid::from_u128(1)));
        let turn = turns.take(id).expect("nobody has it");
        assert!((0..10).all(|_| turns.take(id).is_none()));
        assert!(turns.take(WorkspaceId::from_uuid(Uuid::from_u128(2))).is_some(), "each by itself");
        let turn = turn.once_more().expect("it was asked for again");
        assert!(turn.once_more().is_none());
        assert!(turns.lock().is_empty());
    }

    #[test]
    fn a_turn_that_breaks_off_is_free_again() {
        let (turns, id) = (Turns::default(), WorkspaceId::from_uuid(Uuid::from_u128(1)));
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _turn = turns.take(id);
            panic!("in the middle of it");
        }));
        assert!(broken.is_err() && turns.take(id).is_some());
    }
}
