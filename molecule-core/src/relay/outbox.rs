//! What is still to be told to other replicas: bounded, and the oldest goes first when there is too much.

use std::collections::{HashSet, VecDeque};

use super::wire::{BATCH_LIMIT, Told};
use crate::{
    events::{Event, EventKind},
    id::WorkspaceId,
};

/// How many events wait at most. What is recorded never waits here: it is in the log.
const EVENTS: usize = 8192;

/// How many bytes they have at most.
const BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug)]
struct Waiting {
    /// Whose heartbeat it is: of several, the last says all.
    beat: Option<WorkspaceId>,
    text: String,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    dropped: u64,
}

impl Outbox {
    pub(super) fn push(&mut self, event: Event) {
        let beat = event.workspace_id.filter(|_| event.kind == EventKind::WorkspaceHeartbeat);
        let Ok(text) = serde_json::to_string(&Told::from(event)) else { return };
        self.bytes += text.len();
        self.waiting.push_back(Waiting { beat, text });
        while self.waiting.len() > EVENTS || self.bytes > BYTES {
            let Some(oldest) = self.waiting.pop_front() else { break };
            self.bytes -= oldest.text.len();
            self.dropped += 1;
        }
    }

    /// Everything that waits, oldest first, as batches; and how many were dropped since the last time.
    pub(super) fn take(&mut self) -> (Vec<String>, u64) {
        let waiting = std::mem::take(self);
        let mut beats = HashSet::new();
        let mut texts: Vec<String> = waiting
            .waiting
            .into_iter()
            .rev()
            .filter(|waiting| waiting.beat.is_none_or(|id| beats.insert(id)))
            .map(|waiting| waiting.text)
            .collect();
        texts.reverse();
        let mut batches: Vec<String> = Vec::new();
        for text in texts {
            match batches.last_mut() {
                Some(batch) if batch.len() + text.len() + 2 <= BATCH_LIMIT => {
                    batch.push(',');
                    batch.push_str(&text);
                }
                _ => batches.push(format!("[{text}")),
            }
        }
        batches.iter_mut().for_each(|batch| batch.push(']'));
        (batches, waiting.dropped)
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::id::EventId;

    fn event(kind: EventKind, of: u128, payload: Value) -> Event {
        Event {
            id: EventId::from_uuid(Uuid::nil()),
            kind,
            workspace_id: Some(WorkspaceId::from_uuid(Uuid::from_u128(of))),
            payload,
            created_at: DateTime::UNIX_EPOCH,
        }
    }

    fn told(batches: &[String]) -> Vec<Value> {
        let all = |batch: &String| serde_json::from_str::<Vec<Value>>(batch).unwrap();
        batches.iter().flat_map(all).map(|event| event["payload"]["n"].clone()).collect()
    }

    #[test]
    fn of_several_beats_the_last_is_told_in_its_place() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.take(), (vec![], 0));
        let rows = [
            (EventKind::WorkspaceHeartbeat, 1, 1),
            (EventKind::TaskUpdated, 1, 2),
            (EventKind::WorkspaceHeartbeat, 2, 3),
            (EventKind::TaskUpdated, 1, 4),
            (EventKind::WorkspaceHeartbeat, 1, 5),
        ];
        for (kind, of, n) in rows {
            outbox.push(event(kind, of, json!({"n": n})));
        }
        let (batches, dropped) = outbox.take();
        assert_eq!(told(&batches), [2, 3, 4, 5]);
        assert_eq!(dropped, 0);
        assert_eq!(outbox.take().0.len(), 0);
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let mut outbox = Outbox::default();
        for n in 0..EVENTS + 3 {
            outbox.push(event(EventKind::TaskUpdated, 1, json!({"n": n})));
        }
        let (batches, dropped) = outbox.take();
        let told = told(&batches);
        assert_eq!((told.len(), &told[0], dropped), (EVENTS, &json!(3), 3));
    }

    #[test]
    fn memory_is_bounded_and_batches_are_too() {
        let mut outbox = Outbox::default();
        let large = "x".repeat(1024 * 1024);
        for n in 0..40 {
            outbox.push(event(EventKind::A2aResponse, 1, json!({"n": n, "body": large})));
        }
        assert!(outbox.bytes <= BYTES);
        let (batches, dropped) = outbox.take();
        assert!(batches.iter().all(|batch| batch.len() <= BATCH_LIMIT));
        let told = told(&batches);
        assert_eq!(told.last(), Some(&json!(39)));
        assert_eq!(told.len() as u64 + dropped, 40);
    }
}
