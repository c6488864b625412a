//! What replicas say to each other about events: notices of at most [`NOTICE_LIMIT`] bytes.
//!
//! Recorded events are named by their id and read from the log. Others travel in batches: a JSON array, in as many
//! parts as it takes.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    events::{Event, EventKind},
    id::{EventId, WorkspaceId},
};

/// Postgres refuses notices of 8000 bytes and more.
const NOTICE_LIMIT: usize = 7900;

/// The most that one part of a batch holds, beside what says whose it is.
const PART_LIMIT: usize = NOTICE_LIMIT - 200;

/// The most that the parts of one batch hold together: more is no batch of ours.
pub(super) const BATCH_LIMIT: usize = 4 * 1024 * 1024;

/// An event that is in no log, as replicas tell it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Told {
    id: EventId,
    event: String,
    workspace_id: Option<WorkspaceId>,
    timestamp: DateTime<Utc>,
    payload: Value,
}

impl From<Event> for Told {
    fn from(event: Event) -> Self {
        Self {
            id: event.id,
            event: event.kind.as_str().to_owned(),
            workspace_id: event.workspace_id,
            timestamp: event.created_at,
            payload: event.payload,
        }
    }
}

impl Told {
    /// The event; none where its kind is not known here.
    pub(super) fn event(self) -> Option<Event> {
        Some(Event {
            id: self.id,
            kind: EventKind::named(&self.event)?,
            workspace_id: self.workspace_id,
            payload: self.payload,
            created_at: self.timestamp,
        })
    }
}

/// One notice.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Notice<'a> {
    /// `origin` recorded an event.
    Recorded { origin: &'a str, id: EventId },
    /// Somebody listens at `origin`.
    Listening { origin: &'a str },
    /// `origin` begins to hear, and asks who listens.
    Asking,
    /// `origin` could not tell all that happened there.
    Lost { origin: &'a str },
    /// A part of a batch: which of how many, from 0.
    Part { origin: &'a str, number: usize, count: usize, text: &'a str },
}

impl<'a> Notice<'a> {
    /// None for what is no notice.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (word, rest) = text.split_once(' ')?;
        match word {
            "recorded" => {
                let (origin, id) = rest.rsplit_once(' ')?;
                Some(Self::Recorded { origin, id: id.parse().ok()? })
            }
            "listening" => Some(Self::Listening { origin: rest }),
            "asking" => Some(Self::Asking),
            "lost" => Some(Self::Lost { origin: rest }),
            "part" => {
                let mut fields = rest.splitn(4, ' ');
                let origin = fields.next()?;
                let (number, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
                Some(Self::Part { origin, number, count, text: fields.next()? })
            }
            _ => None,
        }
    }
}

/// The notice that somebody listens at `origin`.
pub(super) fn listening(origin: &str) -> String {
    format!("listening {origin}")
}

/// The question who listens.
pub(super) fn asking(origin: &str) -> String {
    format!("asking {origin}")
}

/// The notice that `origin` could not tell all that happened there.
pub(super) fn lost(origin: &str) -> String {
    format!("lost {origin}")
}

/// The notices that carry `batch`, to be sent in their order and in one transaction.
pub(super) fn parts(origin: &str, batch: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut rest = batch;
    while rest.len() > PART_LIMIT {
        let (text, after) = rest.split_at(rest.floor_char_boundary(PART_LIMIT));
        texts.push(text);
        rest = after;
    }
    texts.push(rest);
    let count = texts.len();
    texts.into_iter().enumerate().map(|(number, text)| format!("part {origin} {number} {count} {text}")).collect()
}

/// Puts the parts of batches together. Those of one batch come one after the other.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    origin: String,
    next: usize,
    text: String,
}

impl Assembly {
    /// The batch that this part completes, if it does; what does not follow is dropped.
    pub(super) fn add(&mut self, origin: &str, number: usize, count: usize, text: &str) -> Option<Vec<Told>> {
        if number == 0 {
            *self = Self { origin: origin.to_owned(), ..Self::default() };
        }
        let follows = self.origin == origin && self.next == number && number < count;
        if !follows || self.text.len() + text.len() > BATCH_LIMIT {
            tracing::warn!(origin, number, count, "a part of what another replica told is out of place");
            *self = Self::default();
            return None;
        }
        self.text.push_str(text);
        self.next += 1;
        if self.next < count {
            return None;
        }
        let batch = std::mem::take(self).text;
        serde_json::from_str(&batch)
            .inspect_err(|error| tracing::warn!(origin, %error, "what another replica told cannot be read"))
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn event(payload: Value) -> Event {
        Event {
            id: EventId::from_uuid(Uuid::from_u128(1)),
            kind: EventKind::TaskUpdated,
            workspace_id: Some(WorkspaceId::from_uuid(Uuid::from_u128(2))),
            payload,
            created_at: DateTime::from_timestamp(1_800_000_000, 123_456_000).unwrap(),
        }
    }

    fn assemble(notices: &[String]) -> Option<Vec<Told>> {
        let mut assembly = Assembly::default();
        let mut whole = None;
        for notice in notices {
            let Some(Notice::Part { origin, number, count, text }) = Notice::parse(notice) else { panic!("{notice}") };
            whole = assembly.add(origin, number, count, text);
        }
        whole
    }

    #[test]
    fn a_batch_of_any_size_arrives_as_it_was_told() {
        for size in [0, 10, PART_LIMIT, 3 * PART_LIMIT, 1024 * 1024] {
            // Two bytes each, so that a cut can come between them.
            let payload = json!({"current_task": "ü".repeat(size / 2)});
            let batch = serde_json::to_string(&[Told::from(event(payload.clone()))]).unwrap();
            let notices = parts("molecule-1", &batch);
            assert!(notices.iter().all(|notice| notice.len() <= NOTICE_LIMIT));
            let told = assemble(&notices).expect("it is complete").pop().unwrap();
            let heard = told.event().unwrap();
            assert_eq!((heard.kind, heard.payload), (EventKind::TaskUpdated, payload));
            assert_eq!(heard.created_at, event(json!({})).created_at);
        }
    }

    #[test]
    fn parts_out_of_place_are_dropped() {
        let batch = serde_json::to_string(&[Told::from(event(json!({"t": "x".repeat(3 * PART_LIMIT)})))]).unwrap();
        let notices = parts("one", &batch);
        assert!(notices.len() > 3);
        assert!(assemble(&notices[1..]).is_none());
        assert!(assemble(&[&notices[..1], &notices[2..]].concat()).is_none());
        // The next batch is whole again.
        assert!(assemble(&[&notices[..2], &notices[..]].concat()).is_some());
        assert!(Assembly::default().add("one", 0, 0, "[]").is_none());
        assert!(Assembly::default().add("one", 0, 1, "no JSON").is_none());
    }

    #[test]
    fn notices_read_back_and_nonsense_is_none() {
        let id = EventId::from_uuid(Uuid::from_u128(7));
        assert_eq!(Notice::parse(&format!("recorded a b {id}")), Some(Notice::Recorded { origin: "a b", id }));
        assert_eq!(Notice::parse(&listening("one")), Some(Notice::Listening { origin: "one" }));
        assert_eq!(Notice::parse(&asking("one")), Some(Notice::Asking));
        assert_eq!(Notice::parse(&lost("one")), Some(Notice::Lost { origin: "one" }));
        for nonsense in ["", "x", "recorded", "recorded one two", "part one x 1 []", "part one 0 1", "hello world"] {
            assert_eq!(Notice::parse(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_kind_of_a_newer_replica_is_none() {
        let told = Told { event: "NEWER".to_owned(), ..Told::from(event(json!({}))) };
        assert!(told.event().is_none());
    }
}
