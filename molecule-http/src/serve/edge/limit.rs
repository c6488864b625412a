//! How often somebody may ask: so many times in a window that begins with the first time.
//!
//! The answers promise how many are left and when the window ends, which a bucket that fills up evenly has no words for.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher, Hash},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How many locks share the load.
const SHARDS: usize = 64;

/// Where somebody stands in their window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) allowed: bool,
    pub(crate) limit: u32,
    pub(crate) remaining: u32,
    /// How many seconds are left of the window, at least one.
    pub(crate) reset: u64,
}

/// Counts, for each of those who ask, how often they did. It remembers so many of them and no more, whoever asks.
#[derive(Debug)]
pub(crate) struct Windows {
    limit: u32,
    period: Duration,
    began: Instant,
    /// Whoever asks is remembered by a hash: two may only meet by a chance of one in 2^64.
    hasher: RandomState,
    room: usize,
    shards: Box<[Mutex<Shard>]>,
}

#[derive(Debug, Default)]
struct Shard {
    windows: HashMap<u64, Window>,
    /// When those that ended were last cleared away.
    cleared: u32,
}

/// Small, because there may be very many.
#[derive(Debug, Clone, Copy)]
struct Window {
    /// In milliseconds since the count began.
    opened: u32,
    count: u32,
}

impl Windows {
    /// Allows `limit` in each `period`, and remembers at most `room` who ask.
    pub(crate) fn new(limit: u32, period: Duration, room: usize, now: Instant) -> Self {
        Self {
            limit,
            period,
            began: now,
            hasher: RandomState::new(),
            room: room.div_ceil(SHARDS),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Counts that `who` asks once more.
    pub(crate) fn take(&self, who: impl Hash, now: Instant) -> Standing {
        let key = self.hasher.hash_one(who);
        let period = millis(self.period);
        // It comes round after seven weeks; then some windows end early, which nobody is the worse for.
        let now = millis(now.saturating_duration_since(self.began));
        // Nothing in here can panic half-way through a change.
        let mut shard = self.shards[shard_of(key)].lock().unwrap_or_else(PoisonError::into_inner);
        if !shard.windows.contains_key(&key) && shard.windows.len() >= self.room {
            shard.make_room(now, period);
        }
        let window = shard.windows.entry(key).or_insert(Window { opened: now, count: 0 });
        if now.wrapping_sub(window.opened) >= period {
            *window = Window { opened: now, count: 0 };
        }
        let allowed = window.count < self.limit;
        window.count = window.count.saturating_add(1).min(self.limit);
        self.standing(allowed, window.count, period - now.wrapping_sub(window.opened))
    }

    /// Where `who` stands, without that being counted.
    pub(crate) fn look(&self, who: impl Hash, now: Instant) -> Standing {
        let key = self.hasher.hash_one(who);
        let period = millis(self.period);
        let now = millis(now.saturating_duration_since(self.began));
        let shard = self.shards[shard_of(key)].lock().unwrap_or_else(PoisonError::into_inner);
        let window = shard.windows.get(&key).copied().filter(|window| now.wrapping_sub(window.opened) < period);
        let Window { opened, count } = window.unwrap_or(Window { opened: now, count: 0 });
        self.standing(count < self.limit, count, period - now.wrapping_sub(opened))
    }

    fn standing(&self, allowed: bool, count: u32, left: u32) -> Standing {
        let reset = u64::from(left.div_ceil(1000)).max(1);
        Standing { allowed, limit: self.limit, remaining: self.limit - count, reset }
    }

    /// Whether `who` asked before, as far as that is remembered.
    pub(crate) fn remembers(&self, who: impl Hash) -> bool {
        let key = self.hasher.hash_one(who);
        let shard = &self.shards[shard_of(key)];
        shard.lock().unwrap_or_else(PoisonError::into_inner).windows.contains_key(&key)
    }

    #[cfg(test)]
    fn remembered(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().windows.len()).sum()
    }
}

impl Shard {
    /// Clears away windows that ended, at most once a second; where that helps nothing, any one.
    fn make_room(&mut self, now: u32, period: u32) {
        if now.wrapping_sub(self.cleared) >= 1000 {
            self.cleared = now;
            let before = self.windows.len();
            self.windows.retain(|_, window| now.wrapping_sub(window.opened) < period);
            if self.windows.len() < before {
                return;
            }
        }
        if let Some(any) = self.windows.keys().next().copied() {
            self.windows.remove(&any);
        }
    }
}

fn shard_of(key: u64) -> usize {
    usize::try_from(key % 64).unwrap_or_default()
}

/// Only the low bits, as far as differences go.
fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis() & u128::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_window_begins_with_the_first_and_ends_for_all() {
        let start = Instant::now();
        let windows = Windows::new(3, MINUTE, 1000, start);
        let take = |who: u32, after: u64| {
            let Standing { allowed, remaining, reset, .. } = windows.take(who, start + Duration::from_secs(after));
            (allowed, remaining, reset)
        };
        assert_eq!(take(1, 10), (true, 2, 60));
        assert_eq!(take(1, 11), (true, 1, 59));
        assert_eq!(take(2, 12), (true, 2, 60), "others have a window of their own");
        assert_eq!(take(1, 69), (true, 0, 1));
        assert_eq!(take(1, 69), (false, 0, 1));
        assert_eq!(take(1, 70), (true, 2, 60));
        assert!(windows.remembers(2_u32) && !windows.remembers(3_u32));
        let look = |who: u32, after: u64| {
            let Standing { allowed, remaining, reset, .. } = windows.look(who, start + Duration::from_secs(after));
            (allowed, remaining, reset)
        };
        assert_eq!(look(1, 71), (true, 2, 59));
        assert_eq!((look(1, 130), look(3, 71)), ((true, 3, 60), (true, 3, 60)));
        assert!(!windows.remembers(3_u32));
    }

    #[test]
    fn a_fraction_of_a_second_is_a_second_to_wait() {
        let start = Instant::now();
        let windows = Windows::new(1, Duration::from_secs(2), 1000, start);
        windows.take(1, start);
        let late = windows.take(1, start + Duration::from_millis(1999));
        assert_eq!((late.allowed, late.reset), (false, 1));
        assert!(windows.take(1, start + Duration::from_secs(2)).allowed);
    }

    #[test]
    fn however_many_ask_no_more_are_remembered_than_there_is_room_for() {
        let start = Instant::now();
        let windows = Windows::new(2, MINUTE, 6400, start);
        for who in 0..100_000_u32 {
            assert!(windows.take(who, start).allowed, "whoever comes first is let in");
        }
        assert!(windows.remembered() <= 6400, "{}", windows.remembered());
        // Those who are gone for a minute make room, and who is there then keeps their count.
        let later = start + 2 * MINUTE;
        for who in 0..64_u32 {
            windows.take(who, later);
            windows.take(who, later);
            assert!(!windows.take(who, later).allowed);
        }
        assert!(windows.remembered() <= 6400);
    }
}
