//! Since when agents could be heard: not before this process began, nor while the store was away, without which no token
//! can be looked up and no beat be kept.

use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};

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
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answered && state.store_away {
            tracing::warn!("the store answers again; everyone has until they are late once more");
            state.since = now;
        }
        state.store_away = !answered;
        state.since
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
}
