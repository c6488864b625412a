//! Which rows of the log a client asks for.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use uuid::Uuid;

use super::{Activity, Found};
use crate::{
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    id::{ActivityId, WorkspaceId},
    store,
    workspace::lifecycle::gone_is_not_found,
};

/// How many rows a page holds where nobody says, and at most.
const PAGE: u32 = 100;
const LONGEST_PAGE: u32 = 500;

/// How far back `since_secs` reaches at most.
const FURTHEST: i64 = 30 * 24 * 60 * 60;

/// The years that both databases keep in order.
const FIRST_YEAR: i32 = 1;
const LAST_YEAR: i32 = 9999;

/// How many found things an answer holds where nobody says, and at most.
const FOUND: u32 = 50;
const MOST_FOUND: u32 = 200;

/// How much of a search is looked for, in characters.
const LONGEST_SEARCH: usize = 1000;

/// Which rows to read, as the client wrote it. What is empty counts as left out; what is given must all hold.
#[derive(Debug, Clone, Default)]
pub struct ActivityQuery {
    /// Those of this type.
    pub activity_type: String,
    /// `canvas` for what came from the operator or the control plane, `agent` for the rest.
    pub source: String,
    /// Those to or from this workspace.
    pub peer_id: String,
    /// Those of the last so many seconds.
    pub since_secs: String,
    /// Those after this row, oldest first.
    pub since_id: String,
    /// Those before this time.
    pub before_ts: String,
    /// How many; what is no number above 0 counts as left out.
    pub limit: String,
}

/// Who did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The operator, or the control plane.
    Canvas,
    /// An agent.
    Agent,
}

/// Which rows to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) activity_type: Option<String>,
    pub(crate) source: Option<Source>,
    pub(crate) peer: Option<WorkspaceId>,
    /// Those after this place.
    pub(crate) after: (DateTime<Utc>, ActivityId),
    /// Those before this time.
    pub(crate) before: DateTime<Utc>,
    pub(crate) oldest_first: bool,
    pub(crate) limit: u32,
}

fn given(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !text.is_empty())
}

fn at_year(year: i32) -> DateTime<Utc> {
    chrono::NaiveDate::from_ymd_opt(year, 1, 1).unwrap_or_default().and_hms_opt(0, 0, 0).unwrap_or_default().and_utc()
}

/// The times that both databases keep in order.
pub(crate) fn all_time() -> (DateTime<Utc>, DateTime<Utc>) {
    (at_year(FIRST_YEAR), at_year(LAST_YEAR))
}

/// `time` up to the next microsecond, within the times that are kept in order: rows have no finer time, and those before
/// that microsecond are those before `time`.
pub(crate) fn micros_up(time: DateTime<Utc>) -> DateTime<Utc> {
    let micro = TimeDelta::microseconds(1);
    let cut = time.duration_trunc(micro).unwrap_or(time);
    let time = if cut < time { cut + micro } else { time };
    time.clamp(at_year(FIRST_YEAR), at_year(LAST_YEAR))
}

/// The place before every row of `time`.
fn start_of(time: DateTime<Utc>) -> (DateTime<Utc>, ActivityId) {
    (time, ActivityId::from_uuid(Uuid::nil()))
}

impl ActivityQuery {
    /// The page, without what depends on `since_id` and `source`, and that row's id.
    fn page(&self, now: DateTime<Utc>) -> Result<(Page, Option<ActivityId>)> {
        let peer = given(&self.peer_id).map(str::parse).transpose();
        let peer = peer.map_err(|_| Error::invalid("peer_id must be a UUID"))?;
        let before = match given(&self.before_ts) {
            None => at_year(LAST_YEAR),
            Some(text) => {
                let time = DateTime::parse_from_rfc3339(text).map_err(|_| {
                    Error::invalid("before_ts must be an RFC3339 timestamp (e.g. 2026-05-01T00:00:00Z)")
                })?;
                micros_up(time.to_utc())
            }
        };
        let since = match given(&self.since_secs) {
            None => at_year(FIRST_YEAR),
            Some(text) => {
                let digits = text.strip_prefix('+').unwrap_or(text);
                let number =
                    digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.bytes().any(|byte| byte != b'0');
                if !number {
                    return Err(Error::invalid("since_secs must be a positive integer"));
                }
                now - TimeDelta::seconds(digits.parse().unwrap_or(FURTHEST).min(FURTHEST))
            }
        };
        let cursor = given(&self.since_id).map(str::parse).transpose();
        let cursor = cursor.map_err(|_| Error::invalid("since_id must be a UUID"))?;
        let page = Page {
            activity_type: (!self.activity_type.is_empty()).then(|| self.activity_type.clone()),
            source: None,
            peer,
            after: start_of(since),
            before,
            oldest_first: cursor.is_some(),
            limit: limit(&self.limit, PAGE, LONGEST_PAGE),
        };
        Ok((page, cursor))
    }

    fn source(&self) -> Result<Option<Source>> {
        match self.source.as_str() {
            "" => Ok(None),
            "canvas" => Ok(Some(Source::Canvas)),
            "agent" => Ok(Some(Source::Agent)),
            _ => Err(Error::invalid("source must be 'canvas' or 'agent'")),
        }
    }
}

/// `text` as a number from 1 to `most`; `default` where it is none.
pub(crate) fn limit(text: &str, default: u32, most: u32) -> u32 {
    match text.trim().parse::<i64>() {
        Ok(number) if number > 0 => u32::try_from(number).unwrap_or(most).min(most),
        _ => default,
    }
}

impl ControlPlane {
    /// One page of the log of a workspace: newest first, or, after a row that the client has, oldest first.
    ///
    /// No row is lost between two pages, also where rows are written meanwhile.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a filter that cannot be read, [`ErrorKind::Removed`] where the client's row is no
    /// longer there, [`ErrorKind::NotFound`] for an unknown or removed workspace.
    pub async fn activity(&self, of: WorkspaceId, query: &ActivityQuery) -> Result<Vec<Activity>> {
        let (mut page, cursor) = query.page(self.now())?;
        self.existing(of).await.map_err(gone_is_not_found)?;
        self.notes_written().await;
        if let Some(cursor) = cursor {
            let time = self
                .inner
                .store
                .activity_time(of, cursor)
                .await
                .map_err(|error| failed(error, "cursor lookup failed"))?;
            let time = time.ok_or_else(|| {
                let text = "since_id cursor not found (row may have been pruned or belongs to a different workspace); \
                            omit since_id to reset";
                Error::new(ErrorKind::Removed, text)
            })?;
            page.after = page.after.max((time, cursor));
        }
        page.source = query.source()?;
        self.inner.store.activity(of, &page).await
    }

    /// What the session of a workspace holds of `text`, newest first.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace.
    pub async fn search_session(&self, of: WorkspaceId, text: &str, wanted: &str) -> Result<Vec<Found>> {
        self.existing(of).await.map_err(gone_is_not_found)?;
        self.notes_written().await;
        let (text, _) = super::preview(text.trim(), LONGEST_SEARCH);
        let found = self.inner.store.search_session(of, text, limit(wanted, FOUND, MOST_FOUND)).await;
        found.map_err(|error| failed(error, "session search failed"))
    }
}

/// A store that is away says so; for what else goes wrong the contract has a text.
fn failed(error: Error, text: &'static str) -> Error {
    if error.kind() == ErrorKind::Unavailable { store::away().caused_by(error) } else { error.with_message(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn refusal(query: &ActivityQuery) -> String {
        query.page(now()).and_then(|_| query.source()).unwrap_err().message().to_owned()
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let mut rows = Vec::new();
        for bad in ["x", "6f9619ff8b86d011b42d00cf4fc964ff", "{6f9619ff-8b86-d011-b42d-00cf4fc964ff}", "' OR 1=1"] {
            rows.push((ActivityQuery { peer_id: bad.into(), ..Default::default() }, "peer_id must be a UUID"));
            rows.push((ActivityQuery { since_id: bad.into(), ..Default::default() }, "since_id must be a UUID"));
        }
        for bad in ["yesterday", "2026-05-01", "1777593600", "2026-13-01T00:00:00Z"] {
            let said = "before_ts must be an RFC3339 timestamp (e.g. 2026-05-01T00:00:00Z)";
            rows.push((ActivityQuery { before_ts: bad.into(), ..Default::default() }, said));
        }
        for bad in ["0", "-1", "1.5", "x", "00", "+", "1e3"] {
            let said = "since_secs must be a positive integer";
            rows.push((ActivityQuery { since_secs: bad.into(), ..Default::default() }, said));
        }
        for bad in ["Canvas", "user", "agent "] {
            let said = "source must be 'canvas' or 'agent'";
            rows.push((ActivityQuery { source: bad.into(), ..Default::default() }, said));
        }
        for (query, said) in rows {
            assert_eq!(refusal(&query), said, "{query:?}");
        }
        // Of several the first in this order is named.
        let all = ActivityQuery {
            peer_id: "x".into(),
            before_ts: "x".into(),
            since_secs: "x".into(),
            since_id: "x".into(),
            source: "x".into(),
            ..Default::default()
        };
        assert_eq!(refusal(&all), "peer_id must be a UUID");
        assert!(refusal(&ActivityQuery { peer_id: String::new(), ..all.clone() }).starts_with("before_ts"));
        let later = ActivityQuery { peer_id: String::new(), before_ts: String::new(), ..all };
        assert!(refusal(&later).starts_with("since_secs"));
    }

    #[test]
    fn bounds_row_by_row() {
        let page = |query: ActivityQuery| query.page(now()).unwrap().0;
        let seconds =
            |text: &str| now() - page(ActivityQuery { since_secs: text.into(), ..Default::default() }).after.0;
        assert_eq!(seconds("60"), TimeDelta::seconds(60));
        assert_eq!(seconds("+60"), TimeDelta::seconds(60));
        for far in ["2592001", "99999999999999999999999"] {
            assert_eq!(seconds(far), TimeDelta::days(30));
        }
        let before = |text: &str| page(ActivityQuery { before_ts: text.into(), ..Default::default() }).before;
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        for (text, expected) in [
            ("2026-05-01T00:00:00Z", "2026-05-01T00:00:00Z"),
            ("2026-05-01T02:00:00+02:00", "2026-05-01T00:00:00Z"),
            ("2026-05-01T00:00:00.123456Z", "2026-05-01T00:00:00.123456Z"),
            ("2026-05-01T00:00:00.1234561Z", "2026-05-01T00:00:00.123457Z"),
            ("9999-12-31T23:59:59-12:00", "9999-01-01T00:00:00Z"),
            ("0000-01-01T00:00:00+12:00", "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(before(text), at(expected), "{text}");
        }
        for (text, expected) in
            [("", 100), ("x", 100), ("0", 100), ("-5", 100), ("7", 7), ("501", 500), ("99999999999", 500)]
        {
            assert_eq!(page(ActivityQuery { limit: text.into(), ..Default::default() }).limit, expected, "{text}");
        }
    }
}
