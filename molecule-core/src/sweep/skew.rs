//! Says when the clock of this server is not in step with that of the database: servers compare what others wrote with
//! their own, and would find agents late that are not.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};

/// How far apart the clocks may be.
const BEARABLE: TimeDelta = TimeDelta::seconds(5);

/// Whether it was said already.
#[derive(Debug, Default)]
pub(crate) struct Skew(AtomicBool);

impl Skew {
    /// Compares `own` with what the clock of the database said, which took `took` to get here. Says so once, until they were
    /// in step again.
    pub(crate) fn compare(&self, own: DateTime<Utc>, database: DateTime<Utc>, took: Duration) {
        let ahead = ahead(own, database, took);
        if !self.0.swap(ahead.is_some(), Ordering::Relaxed)
            && let Some(ahead) = ahead
        {
            let seconds = ahead.num_seconds();
            let (apart, way) = (seconds.abs(), if seconds < 0 { "behind" } else { "ahead of" });
            tracing::warn!("the clock of this server is {apart} s {way} that of the database: keep them in step");
        }
    }
}

/// How far `own` is ahead, where that is too much. `database` was said at some time within `took`.
fn ahead(own: DateTime<Utc>, database: DateTime<Utc>, took: Duration) -> Option<TimeDelta> {
    let unsure = TimeDelta::from_std(took / 2).unwrap_or(TimeDelta::MAX);
    let ahead = own.signed_duration_since(database).checked_sub(&unsure)?;
    (ahead.abs().checked_sub(&unsure)? > BEARABLE).then_some(ahead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Logged;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn what_an_answer_took_is_no_difference() {
        for (own, took, expected) in [
            (0, 0, None),
            (5, 0, None),
            (6, 0, Some(6)),
            (-5, 0, None),
            (-6, 0, Some(-6)),
            // It may have been said when it was asked for, or just now.
            (4, 4, None),
            (9, 4, None),
            (10, 4, Some(8)),
            (-5, 4, None),
            (-6, 4, Some(-8)),
            (0, u64::MAX, None),
        ] {
            let ahead = ahead(at(own), at(0), Duration::from_secs(took));
            assert_eq!(ahead.map(|ahead| ahead.num_seconds()), expected, "{own} {took}");
        }
    }

    #[test]
    fn it_is_said_once_until_they_were_in_step_again() {
        let (logged, _guard) = Logged::here();
        let skew = Skew::default();
        for own in [0, 60, 61, 0, -60] {
            skew.compare(at(own), at(0), Duration::ZERO);
        }
        let said = |what| format!("the clock of this server is 60 s {what} that of the database: keep them in step");
        assert_eq!(logged.with("the clock of this server"), [said("ahead of"), said("behind")]);
    }
}
