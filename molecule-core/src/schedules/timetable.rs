//! When a schedule is due: pure, and told the time.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};

use crate::error::{Error, Result};

/// Times by the clock of a place.
#[derive(Debug, Clone)]
pub(crate) struct Timetable {
    cron: Cron,
    zone: Tz,
}

impl Timetable {
    /// The times that `expression` names, five fields of cron, by the clocks of `zone`, a name of the IANA database.
    pub(crate) fn parse(expression: &str, zone: &str) -> Result<Self> {
        let zone = zone.parse().map_err(|_| Error::invalid(format!("invalid timezone: {zone}")))?;
        if expression.split_whitespace().count() != 5 || expression.contains('@') {
            return Err(Error::invalid(
                "invalid cron_expr: it must have the five fields minute hour day month weekday",
            ));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(expression).map_err(|error| Error::invalid(format!("invalid cron_expr: {error}")))?;
        let timetable = Self { cron, zone };
        // Such as the 30th of February.
        match timetable.next_after(DateTime::UNIX_EPOCH) {
            Some(_) => Ok(timetable),
            None => Err(Error::invalid("invalid cron_expr: it names no time")),
        }
    }

    /// The first time after `time`; none where there is none left.
    ///
    /// A time that the clocks leave out counts as the moment they jump to; one that they show twice counts once.
    pub(crate) fn next_after(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let local = time.with_timezone(&self.zone);
        let next = self.cron.find_next_occurrence(&local, false).ok()?.with_timezone(&Utc);
        (next > time).then_some(next)
    }

    /// How far the next two times after `time` are apart.
    pub(crate) fn interval(&self, time: DateTime<Utc>) -> Option<TimeDelta> {
        let first = self.next_after(time)?;
        Some(self.next_after(first)? - first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn the_next_time_by_the_clock_of_a_place() {
        let rows = [
            ("* * * * *", "UTC", "2026-11-24T12:00:00Z", "2026-11-24T12:01:00Z"),
            ("*/15 * * * *", "UTC", "2026-11-24T12:01:30Z", "2026-11-24T12:15:00Z"),
            ("0 9 * * 1-5", "UTC", "2026-11-27T09:00:00Z", "2026-11-30T09:00:00Z"),
            ("0 9 * * *", "Europe/Berlin", "2026-01-10T00:00:00Z", "2026-01-10T08:00:00Z"),
            ("0 9 * * *", "Europe/Berlin", "2026-07-10T00:00:00Z", "2026-07-10T07:00:00Z"),
            ("0 9 * * *", "Asia/Kolkata", "2026-07-10T00:00:00Z", "2026-07-10T03:30:00Z"),
            // The clocks of Berlin go from 2 to 3 on 29 March, and from 3 to 2 on 25 October.
            ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"),
            ("30 2 * * *", "Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"),
            ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),
            ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
            ("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
        ];
        for (expression, zone, time, expected) in rows {
            let timetable = Timetable::parse(expression, zone).unwrap();
            assert_eq!(timetable.next_after(at(time)), Some(at(expected)), "{expression} {zone} after {time}");
        }
    }

    #[test]
    fn hours_that_the_clocks_show_twice_fire_no_storm() {
        let hourly = Timetable::parse("0 * * * *", "Europe/Berlin").unwrap();
        let mut time = at("2026-10-24T22:30:00Z");
        for _ in 0..6 {
            let next = hourly.next_after(time).unwrap();
            assert!(next - time <= TimeDelta::hours(2) && next > time, "{time} {next}");
            time = next;
        }
    }

    #[test]
    fn what_is_no_time_is_named() {
        let rows = [
            ("0 9 * * *", "Mars/Olympus", "invalid timezone: Mars/Olympus"),
            ("0 9 * * *", "", "invalid timezone: "),
            ("@daily", "UTC", "invalid cron_expr: it must have the five fields minute hour day month weekday"),
            ("0 0 9 * * *", "UTC", "invalid cron_expr: it must have the five fields minute hour day month weekday"),
            ("", "UTC", "invalid cron_expr: it must have the five fields minute hour day month weekday"),
            ("0 0 30 2 *", "UTC", "invalid cron_expr: it names no time"),
        ];
        for (expression, zone, expected) in rows {
            assert_eq!(Timetable::parse(expression, zone).unwrap_err().message(), expected, "{expression} {zone}");
        }
        for expression in ["61 * * * *", "x * * * *", "0 25 * * *", "* * * * 9", "' OR 1=1 --"] {
            let error = Timetable::parse(expression, "UTC").unwrap_err();
            assert!(error.message().starts_with("invalid cron_expr: "), "{expression}: {error}");
        }
    }

    #[test]
    fn intervals() {
        let rows = [("*/5 * * * *", 5 * 60), ("0 * * * *", 3600), ("0 0 * * *", 86400)];
        for (expression, seconds) in rows {
            let timetable = Timetable::parse(expression, "UTC").unwrap();
            assert_eq!(timetable.interval(at("2026-11-24T12:00:00Z")), Some(TimeDelta::seconds(seconds)));
        }
    }
}
