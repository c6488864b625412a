//! When something of a workspace was told last, for those who wait for its agent: what it does elsewhere shows that it lives.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::time::Instant;

use crate::id::WorkspaceId;

/// The workspaces that somebody watches. An event of any other costs one look at a number.
#[derive(Debug, Default)]
pub(crate) struct Pulses(Arc<Watched>);

#[derive(Debug, Default)]
struct Watched {
    count: AtomicUsize,
    by: Mutex<HashMap<WorkspaceId, Seen>>,
}

#[derive(Debug)]
struct Seen {
    watchers: usize,
    last: Instant,
}

impl Watched {
    fn lock(&self) -> MutexGuard<'_, HashMap<WorkspaceId, Seen>> {
        // Nothing in here can panic half-way through a change.
        self.by.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pulses {
    /// Notes a sign of life of `id`.
    pub(crate) fn beat(&self, id: WorkspaceId) {
        if self.any()
            && let Some(seen) = self.0.lock().get_mut(&id)
        {
            seen.last = Instant::now();
        }
    }

    /// Signs of life were lost: each may have been of anyone.
    pub(crate) fn beat_all(&self) {
        let now = Instant::now();
        self.0.lock().values_mut().for_each(|seen| seen.last = now);
    }

    /// Whether anyone is watched.
    pub(crate) fn any(&self) -> bool {
        self.0.count.load(Ordering::Relaxed) > 0
    }

    /// Watches `id` until it is dropped, to begin with as alive.
    pub(crate) fn watch(&self, id: WorkspaceId) -> Pulse {
        self.0.count.fetch_add(1, Ordering::Relaxed);
        let last = Instant::now();
        self.0.lock().entry(id).or_insert(Seen { watchers: 0, last }).watchers += 1;
        Pulse { watched: Arc::clone(&self.0), id }
    }
}

/// One workspace that is watched.
#[derive(Debug)]
pub(crate) struct Pulse {
    watched: Arc<Watched>,
    id: WorkspaceId,
}

impl Pulse {
    /// When something of it was told last, since anyone watches it.
    pub(crate) fn last(&self) -> Option<Instant> {
        self.watched.lock().get(&self.id).map(|seen| seen.last)
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        let mut by = self.watched.lock();
        if let Some(seen) = by.get_mut(&self.id) {
            seen.watchers -= 1;
            if seen.watchers == 0 {
                by.remove(&self.id);
            }
        }
        self.watched.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_hears_of_the_workspace_it_watches_and_nothing_is_left() {
        let pulses = Pulses::default();
        let [one, other] = [1, 2].map(|n| WorkspaceId::from_uuid(Uuid::from_u128(n)));
        pulses.beat(one);
        assert!(!pulses.any());
        let began = Instant::now();
        let (first, second, third) = (pulses.watch(one), pulses.watch(one), pulses.watch(other));
        let later = |pulse: &Pulse| pulse.last().unwrap() - began;
        tokio::time::advance(Duration::from_secs(1)).await;
        pulses.beat(one);
        assert_eq!([&first, &second, &third].map(later), [1, 1, 0].map(Duration::from_secs));
        drop(first);
        tokio::time::advance(Duration::from_secs(1)).await;
        pulses.beat_all();
        assert_eq!([&second, &third].map(later), [2, 2].map(Duration::from_secs));
        drop((second, third));
        assert!(!pulses.any() && pulses.0.lock().is_empty());
    }
}
