//! Since when agents could be heard: not before this process began, nor while it was stopped, nor while the store was away,
//! without which no token can be looked up and no beat be kept.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

/// How much later than it was to a loop may come round. Beyond that the process did not run, or hardly.
const LATE: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(crate) struct Hearing(Mutex<State>);

#[derive(Debug)]
struct State {
    since: DateTime<Utc>,
    store_away: bool,
}

impl Hearing {
    pub(crate) fn new(started_at: DateTime<Utc>) -> Self {
        Self(Mutex::new(State { since: started_at, store_away: false }))
    }

    /// Since when, now that the store just answered, or did not.
    pub(super) fn since(&self, answered: bool, now: DateTime<Utc>) -> DateTime<Utc> {
        let mut state = self.lock();
        if answered && state.store_away {
            tracing::warn!("the store answers again; everyone has until they are late once more");
            state.since = now;
        }
        state.store_away = !answered;
        state.since
    }

    /// Since when, as far as is known.
    pub(super) fn known_since(&self) -> DateTime<Utc> {
        self.lock().since
    }

    /// Notes that a loop which was to come round at `due` does so now.
    pub(super) fn came_round(&self, due: Instant, now: DateTime<Utc>) {
        if due.elapsed() <= LATE {
            return;
        }
        let mut state = self.lock();
        // Other loops may have said so already.
        if (now - state.since).to_std().is_ok_and(|ago| ago > LATE) {
            tracing::warn!("this process did not run for a while; everyone has until they are late once more");
            state.since = now;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_answers_again_is_as_good_as_a_start() {
        let at = |seconds: i64| DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap();
        let hearing = Hearing::new(at(0));
        for (now, answered, since) in
            [(10, true, 0), (20, false, 0), (30, false, 0), (200, true, 200), (300, true, 200), (310, false, 200)]
        {
            assert_eq!(hearing.since(answered, at(now)), at(since), "{now}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_stopped_and_goes_on_is_as_good_as_a_start() {
        let at = |seconds: i64| DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap();
        let (hearing, began) = (Hearing::new(at(0)), Instant::now());
        let due = |seconds| began + Duration::from_secs(seconds);
        for (passes, due, since) in [(45, due(15), 0), (55, due(99), 0), (0, due(60), 100), (10, due(75), 100)] {
            tokio::time::advance(Duration::from_secs(passes)).await;
            hearing.came_round(due, at(began.elapsed().as_secs().try_into().unwrap()));
            assert_eq!(hearing.known_since(), at(since), "{passes} {due:?}");
        }
    }
}
