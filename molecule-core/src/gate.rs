//! One gate for each workspace, so that two starts, or a start and a stop, never race.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

use crate::id::WorkspaceId;

/// The gates that somebody is in or waits at.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    open: Mutex<HashMap<WorkspaceId, Arc<tokio::sync::Mutex<()>>>>,
}

/// Keeps everybody else out until it is dropped.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    gates: &'a Gates,
    id: WorkspaceId,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Gates {
    /// Waits for its turn at the gate of `id`, first come, first served.
    pub(crate) async fn enter(&self, id: WorkspaceId) -> Entry<'_> {
        let gate = Arc::clone(self.open.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default());
        // Made before the wait, so that a caller that gives up waiting tidies the map as well.
        let mut entry = Entry { gates: self, id, guard: None };
        entry.guard = Some(gate.lock_owned().await);
        entry
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let mut open = self.gates.open.lock().unwrap_or_else(PoisonError::into_inner);
        self.guard = None;
        // The map's own reference is the last one when nobody is in and nobody waits.
        if open.get(&self.id).is_some_and(|gate| Arc::strong_count(gate) == 1) {
            open.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lets_one_in_at_a_time_and_keeps_nothing_afterwards() {
        let gates = Gates::default();
        let id = WorkspaceId::from_uuid(Uuid::from_u128(1));
        let other = WorkspaceId::from_uuid(Uuid::from_u128(2));
        let inside = gates.enter(id).await;
        let second = tokio::time::timeout(Duration::from_secs(1), gates.enter(id)).await;
        assert!(second.is_err(), "a second caller must wait");
        drop(gates.enter(other).await);
        drop(inside);
        drop(gates.enter(id).await);
        assert!(gates.open.lock().unwrap().is_empty());
    }
}
