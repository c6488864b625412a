//! Notices when somebody sets the clock of this host, or the host slept: what was noted before says nothing about how
//! long ago it was.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};

use crate::clock::Clock;

/// By how much the time of day may get ahead of, or fall behind, the time that passed between two looks.
const TOLERANCE: TimeDelta = TimeDelta::seconds(10);

/// Since when the time of day can be relied on.
#[derive(Debug)]
pub(crate) struct Jumps(Mutex<Seen>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    now: DateTime<Utc>,
    uptime: Duration,
    jumped_at: Option<DateTime<Utc>>,
}

/// What is seen now, after `before`.
fn judge(before: Seen, now: DateTime<Utc>, uptime: Duration) -> Seen {
    let passed = TimeDelta::from_std(uptime.saturating_sub(before.uptime)).unwrap_or(TimeDelta::MAX);
    let jumped = ((now - before.now) - passed).abs() > TOLERANCE;
    Seen { now, uptime, jumped_at: if jumped { Some(now) } else { before.jumped_at } }
}

impl Jumps {
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        Self(Mutex::new(Seen { now: clock.now(), uptime: clock.uptime(), jumped_at: None }))
    }

    /// When the clock was last seen to have jumped, by the time that it showed then. Looks at it first.
    pub(super) fn last(&self, clock: &dyn Clock) -> Option<DateTime<Utc>> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *seen;
        *seen = judge(before, clock.now(), clock.uptime());
        if seen.jumped_at != before.jumped_at {
            tracing::warn!(from = %before.now, to = %seen.now, "the clock jumped; everyone has until they are late once more");
        }
        seen.jumped_at
    }
}

/// How long ago `then` was, where it may be from before a jump: never longer than since that, and never less than
/// nothing.
pub(super) fn age(then: DateTime<Utc>, jumped_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> TimeDelta {
    // From the future, seen from here: it was noted before the clock went back.
    let then = if then > now { jumped_at.unwrap_or(now) } else { then.max(jumped_at.unwrap_or(then)) };
    (now - then).max(TimeDelta::zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ManualClock;

    const HOUR: TimeDelta = TimeDelta::hours(1);

    #[test]
    fn a_clock_that_is_set_is_noticed_either_way_and_time_that_passes_is_not() {
        let clock = ManualClock::default();
        let jumps = Jumps::new(&clock);
        clock.advance(Duration::from_secs(86_400));
        assert_eq!(jumps.last(&clock), None);
        for by in [HOUR, -HOUR] {
            clock.set(clock.now() + by);
            let at = Some(clock.now());
            assert_eq!(jumps.last(&clock), at, "{by}");
            clock.advance(Duration::from_secs(15));
            assert_eq!(jumps.last(&clock), at);
        }
        let at = jumps.last(&clock);
        clock.set(clock.now() + TimeDelta::seconds(9));
        assert_eq!(jumps.last(&clock), at, "clocks are corrected all the time");
    }

    #[test]
    fn what_is_from_before_a_jump_is_as_old_as_the_jump() {
        let now = ManualClock::default().now();
        let ago = |seconds| now - TimeDelta::seconds(seconds);
        for (then, jumped_at, expected) in [
            (ago(100), None, 100),
            (ago(100), Some(ago(30)), 30),
            (ago(20), Some(ago(30)), 20),
            (ago(-3600), Some(ago(30)), 30),
            (ago(-3600), None, 0),
            (ago(100), Some(ago(-3600)), 0),
        ] {
            assert_eq!(age(then, jumped_at, now).num_seconds(), expected, "{then} {jumped_at:?}");
        }
    }
}
