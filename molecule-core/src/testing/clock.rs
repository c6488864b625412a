//! Time and chance under control of the test.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};

use crate::clock::{Clock, Entropy, to_micros};

/// A clock that stands still until it is moved. Clones show the same time.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Mutex<(DateTime<Utc>, Duration)>>);

impl ManualClock {
    /// A clock that shows `now`, cut to microseconds.
    pub fn new(now: DateTime<Utc>) -> Self {
        Self(Arc::new(Mutex::new((to_micros(now), Duration::ZERO))))
    }

    /// Moves it on by `by`.
    ///
    /// # Panics
    /// Past the end of the calendar.
    pub fn advance(&self, by: Duration) {
        let (now, uptime) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now = to_micros(*now + by);
        *uptime += by;
    }

    /// Makes it show `now`, which may be earlier than before, as when somebody sets it: no time passes.
    pub fn set(&self, now: DateTime<Utc>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = to_micros(now);
    }
}

impl Default for ManualClock {
    /// A clock that shows noon of 1 June 2026.
    fn default() -> Self {
        Self::new(DateTime::from_timestamp(1_780_315_200, 0).unwrap_or_default())
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn uptime(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

/// Bytes that look random and are the same for the same seed. Fit for no secret. Clones draw from one sequence.
#[derive(Debug, Clone)]
pub struct SeededEntropy(Arc<AtomicU64>);

impl SeededEntropy {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed)))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            // SplitMix64: a counter, and a function that spreads each count over all bits.
            let step = 0x9e37_79b9_7f4a_7c15_u64;
            let mut word = self.0.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^= word >> 31;
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::random_uuid;

    #[test]
    fn the_clock_moves_only_by_hand() {
        let clock = ManualClock::default();
        assert_eq!(clock.now().to_rfc3339(), "2026-06-01T12:00:00+00:00");
        clock.clone().advance(Duration::from_nanos(90_000_001_999));
        assert_eq!(clock.now().to_rfc3339(), "2026-06-01T12:01:30.000001+00:00");
        clock.set(DateTime::UNIX_EPOCH);
        assert_eq!(clock.now(), DateTime::UNIX_EPOCH);
    }

    #[test]
    fn the_same_seed_gives_the_same_ids_and_never_one_twice() {
        let draw = |seed| {
            let entropy = SeededEntropy::new(seed);
            [(); 100].map(|()| random_uuid(&entropy))
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let distinct: std::collections::HashSet<_> = draw(7).into();
        assert_eq!(distinct.len(), 100);
    }
}
