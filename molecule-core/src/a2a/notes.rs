//! What is noted of calls once they are answered: some at once, since each write by itself waits for the disk.

use std::{
    collections::VecDeque,
    mem,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::Used;
use crate::{activity::NewActivity, control_plane::ControlPlane, error::ErrorKind, id::WorkspaceId};

/// How long a note waits for others to come, unless somebody wants to read it or there are enough.
const LINGER: Duration = Duration::from_millis(20);

/// How long whoever reads what notes become waits for those that came before.
const READ_PATIENCE: Duration = Duration::from_secs(2);

/// How many are written at once.
const AT_ONCE: usize = 64;

/// How long writing so many may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many may wait, and how many bytes make one count as several. Beyond that calls wait before they are answered.
const PLACES: u32 = 1024;
const BYTES: usize = 64 * 1024;

/// What is noted of a call.
#[derive(Debug)]
pub(crate) struct Note {
    /// For the log of the workspace that was called.
    pub(crate) row: NewActivity,
    /// Which workspace called, where that was with success.
    pub(crate) sender: Option<WorkspaceId>,
    /// What the answer used.
    pub(crate) used: Option<Used>,
}

/// The notes that wait to be written.
#[derive(Debug)]
pub(crate) struct Notes {
    places: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
    /// How many were written so far, or given up.
    done: watch::Sender<u64>,
    /// Those that wait should be written now.
    hurry: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    notes: VecDeque<(Note, OwnedSemaphorePermit)>,
    /// How many there were so far.
    added: u64,
    /// Somebody writes them.
    at_work: bool,
}

impl Default for Notes {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(PLACES as usize)),
            waiting: Mutex::default(),
            done: watch::Sender::default(),
            hurry: Notify::new(),
        }
    }
}

impl Notes {
    /// A place for a note of about so many bytes.
    async fn place(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let places = u32::try_from(bytes / BYTES).map_or(PLACES, |more| more.saturating_add(1).min(PLACES));
        // It is never closed.
        Arc::clone(&self.places).acquire_many_owned(places).await.ok()
    }

    /// True where nobody is at work yet, and whoever adds it is to see to that.
    fn add(&self, note: Note, place: OwnedSemaphorePermit) -> bool {
        let mut waiting = self.lock();
        waiting.notes.push_back((note, place));
        waiting.added += 1;
        if waiting.notes.len() >= AT_ONCE {
            self.hurry.notify_one();
        }
        !mem::replace(&mut waiting.at_work, true)
    }

    /// Those that are written next, after a while in which others may come; where there are none, whoever wrote is done.
    async fn take(&self) -> Vec<(Note, OwnedSemaphorePermit)> {
        // Nobody is in a hurry any more where that passes.
        let _ = tokio::time::timeout(LINGER, self.hurry.notified()).await;
        let mut waiting = self.lock();
        let many = waiting.notes.len().min(AT_ONCE);
        waiting.at_work = many > 0;
        if waiting.notes.len() >= many + AT_ONCE {
            self.hurry.notify_one();
        }
        waiting.notes.drain(..many).collect()
    }

    /// Waits until those that are there by now are written.
    async fn written(&self) {
        let before = self.lock().added;
        let mut done = self.done.subscribe();
        if *done.borrow_and_update() < before {
            self.hurry.notify_one();
        }
        let written = done.wait_for(|done| *done >= before);
        // Its sender is never gone; and what takes too long is read without.
        let _ = tokio::time::timeout(READ_PATIENCE, written).await;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ControlPlane {
    /// Writes `note`, of about so many bytes, soon. Waits only where too many are to be written before.
    pub(super) async fn note(&self, note: Note, bytes: usize) {
        let Some(place) = self.inner.notes.place(bytes).await else { return };
        if self.inner.notes.add(note, place) {
            let this = self.clone();
            self.inner.tasks.spawn(async move { this.write_notes().await });
        }
    }

    /// Waits until what was noted of calls that were answered before can be read.
    pub(crate) async fn notes_written(&self) {
        self.inner.notes.written().await;
    }

    /// Writes until none are left.
    async fn write_notes(&self) {
        loop {
            let (notes, places): (Vec<Note>, Vec<_>) = self.inner.notes.take().await.into_iter().unzip();
            if notes.is_empty() {
                return;
            }
            let many = u64::try_from(notes.len()).unwrap_or(u64::MAX);
            // A panic over some must not keep the others from being written.
            let writing = AssertUnwindSafe(self.write_some(&notes)).catch_unwind();
            if !matches!(tokio::time::timeout(PATIENCE, writing).await, Ok(Ok(()))) {
                // At most: some of them may be there.
                self.inner.activity_lost.fetch_add(many, Ordering::Relaxed);
                tracing::error!(rows = many, "what calls left could not be kept in time, or not all of it");
            }
            drop(places);
            self.inner.notes.done.send_modify(|done| *done += many);
        }
    }

    async fn write_some(&self, notes: &[Note]) {
        match self.inner.store.insert_notes(notes, self.now()).await {
            Ok(()) => notes.iter().for_each(|note| self.tell_activity(&note.row)),
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                let lost = u64::try_from(notes.len()).unwrap_or(u64::MAX);
                self.inner.activity_lost.fetch_add(lost, Ordering::Relaxed);
                tracing::error!(rows = lost, error = error.detail(), "what calls left could not be kept");
            }
            // One of them cannot be kept, as where its workspace was purged meanwhile.
            Err(_) => {
                for note in notes {
                    self.log_or_count(&note.row).await;
                    self.touch_sender(note.sender).await;
                    self.note_usage(note.row.workspace_id, note.used).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        activity::ActivityQuery,
        clock::{SystemEntropy, random_uuid},
        store::Store,
        testing::heard_fleet,
    };

    async fn control_plane() -> (ControlPlane, WorkspaceId) {
        let control_plane = ControlPlane::builder(Store::connect("sqlite::memory:").await.unwrap()).build().unwrap();
        let (id, _) = heard_fleet(&control_plane, 1).await.remove(0);
        (control_plane, id)
    }

    fn note(control_plane: &ControlPlane, id: WorkspaceId, method: String) -> Note {
        let row = NewActivity { method: Some(method), ..control_plane.new_activity(id, "a2a_receive") };
        let used = Used { input_tokens: 2, output_tokens: 1 };
        Note { row, sender: Some(id), used: Some(used) }
    }

    #[tokio::test]
    async fn notes_are_kept_in_their_order_and_one_that_cannot_be_kept_takes_no_other_along() {
        let (control_plane, id) = control_plane().await;
        let unknown = WorkspaceId::from_uuid(random_uuid(&SystemEntropy));
        for n in 0..3 * AT_ONCE {
            let of = if n == AT_ONCE + 7 { unknown } else { id };
            control_plane.note(note(&control_plane, of, n.to_string()), 0).await;
        }
        // What was answered before is there to be read.
        let query = ActivityQuery { limit: "500".to_owned(), ..ActivityQuery::default() };
        let log = control_plane.activity(id, &query).await.unwrap();
        let kept: Vec<_> = log.iter().rev().map(|row| row.method.clone().unwrap()).collect();
        let expected: Vec<_> = (0..3 * AT_ONCE).filter(|n| *n != AT_ONCE + 7).map(|n| n.to_string()).collect();
        assert_eq!(kept, expected);
        assert_eq!(control_plane.activity_lost(), 1);
        let usage = control_plane.inner.store.usage(id, super::super::day_of(control_plane.now())).await.unwrap();
        let calls = i64::try_from(expected.len()).unwrap();
        assert_eq!(usage, (2 * calls, calls, calls));
        assert!(control_plane.existing(id).await.unwrap().last_outbound_at.is_some());
    }

    #[tokio::test]
    async fn who_would_make_too_many_wait_waits() {
        let notes = Notes::default();
        let all = notes.place(usize::MAX).await;
        assert!(all.is_some() && notes.place(1).now_or_never().is_none());
        drop(all);
        let mut places = Vec::new();
        for _ in 0..PLACES / 2 {
            places.push(notes.place(BYTES).await.expect("there is one"));
        }
        assert!(notes.place(0).now_or_never().is_none());
    }
}
