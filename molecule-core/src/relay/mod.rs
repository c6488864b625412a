//! Brings what happens on one replica to the listeners of the others, over the Postgres that they share
//! (`docs/decisions/0007`). Delivery is best effort: who may have missed something is told to read the state anew.

mod outbox;
mod wire;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use self::{
    outbox::Outbox,
    wire::{Assembly, Notice},
};
use crate::{
    control_plane::ControlPlane,
    error::Result,
    events::{Event, EventKind, RecordedEvent},
    id::EventId,
    store::Engine,
    sweep::Skew,
};

/// How long what happens is gathered before it is told: the most that it is late.
const GATHER: Duration = Duration::from_millis(50);

/// How long another replica counts as listening after it said so, and how often one says so.
const LISTENING_HOLDS: Duration = Duration::from_secs(30);
const LISTENING_EVERY: Duration = Duration::from_secs(10);

/// The pause after what could not be told.
const BACKOFF: Duration = Duration::from_secs(1);

/// How many notices wait to be read, and how many are read at once.
const INBOX: usize = 4096;
const AT_ONCE: usize = 500;

/// See the module. On SQLite, where there are no others, it does nothing.
#[derive(Debug)]
pub(crate) struct Relay {
    outbox: Mutex<Outbox>,
    /// Something is to be told, somebody began to listen here, or another asks whether anybody does.
    wake: Notify,
    /// This replica just began to hear the others, and does not know which of them have listeners.
    asks: AtomicBool,
    /// Another does not know whether this one has.
    is_asked: AtomicBool,
    began: Instant,
    /// Until when another replica has listeners, in milliseconds after `began`.
    listening_until: AtomicU64,
}

impl Relay {
    pub(crate) fn new() -> Self {
        Self {
            outbox: Mutex::default(),
            wake: Notify::new(),
            asks: AtomicBool::new(false),
            is_asked: AtomicBool::new(false),
            began: Instant::now(),
            listening_until: AtomicU64::new(0),
        }
    }

    /// Whether anybody listens at another replica.
    pub(crate) fn has_listeners(&self) -> bool {
        self.listening_until.load(Ordering::Relaxed) > self.millis(Duration::ZERO)
    }

    /// Somebody listens here from now on, which the others do not know yet.
    pub(crate) fn listens(&self) {
        self.wake.notify_one();
    }

    /// Tells the others of an event, if any of them has listeners. What is recorded they hear from the database.
    pub(crate) fn tell(&self, event: &Event) {
        if !event.kind.is_recorded() && self.has_listeners() {
            self.outbox.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
            self.wake.notify_one();
        }
    }

    fn another_listens(&self) {
        self.listening_until.fetch_max(self.millis(LISTENING_HOLDS), Ordering::Relaxed);
    }

    fn millis(&self, later: Duration) -> u64 {
        u64::try_from((self.began.elapsed() + later).as_millis()).unwrap_or(u64::MAX)
    }
}

impl ControlPlane {
    /// Tells the other replicas what happens here, and hears what happens there, until it is dropped.
    pub(crate) async fn relay(&self) {
        if self.inner.store.engine() == Engine::Sqlite {
            return;
        }
        let (sender, inbox) = mpsc::channel(INBOX);
        let hear = |notice: &str| {
            if sender.try_send(notice.to_owned()).is_err() {
                self.inner.hub.lost();
            }
        };
        let began = |again| {
            self.inner.relay.asks.store(true, Ordering::Relaxed);
            self.inner.relay.wake.notify_one();
            if again {
                self.inner.hub.lost();
            }
        };
        // Whoever does not hear is not there, whatever is told meanwhile.
        let skew = Skew::default();
        let pulse = |database, took| {
            skew.compare(self.now(), database, took);
            self.tick("broadcaster");
        };
        tokio::join!(self.inner.store.follow_peers(hear, began, pulse), self.tell(), self.hear(inbox));
    }

    async fn tell(&self) {
        let relay = &self.inner.relay;
        let origin = self.inner.store.origin();
        let mut said_so: Option<Instant> = None;
        // Something could not be told, and listeners elsewhere do not know of it yet.
        let mut lost = false;
        loop {
            let _ = tokio::time::timeout(LISTENING_EVERY, relay.wake.notified()).await;
            tokio::time::sleep(GATHER).await;
            let (batches, dropped) = relay.outbox.lock().unwrap_or_else(PoisonError::into_inner).take();
            if dropped > 0 {
                tracing::warn!(dropped, "other replicas are not told of some events: there are too many");
                lost = true;
            }
            let mut notices: Vec<String> = batches.iter().flat_map(|batch| wire::parts(origin, batch)).collect();
            if lost {
                notices.push(wire::lost(origin));
            }
            if relay.asks.swap(false, Ordering::Relaxed) {
                notices.push(wire::asking(origin));
            }
            let is_asked = relay.is_asked.swap(false, Ordering::Relaxed);
            let due = is_asked || said_so.is_none_or(|at| at.elapsed() >= LISTENING_EVERY);
            if due && self.inner.hub.wants_to_hear() {
                notices.push(wire::listening(origin));
                said_so = Some(Instant::now());
            }
            if let Err(error) = self.inner.store.notify_peers(&notices).await {
                tracing::warn!(error = error.detail(), "other replicas could not be told what happened here");
                said_so = None;
                lost = true;
                relay.wake.notify_one();
                tokio::time::sleep(BACKOFF).await;
            } else {
                lost = false;
            }
        }
    }

    async fn hear(&self, mut inbox: mpsc::Receiver<String>) {
        let mut assembly = Assembly::default();
        loop {
            let mut notices = Vec::new();
            if inbox.recv_many(&mut notices, AT_ONCE).await == 0 {
                return;
            }
            let heard = self.understand(&notices, &mut assembly);
            if let Err(error) = self.tell_listeners(heard).await {
                tracing::warn!(error = error.detail(), "events of other replicas could not be read");
                self.inner.hub.lost();
            }
        }
    }

    fn understand(&self, notices: &[String], assembly: &mut Assembly) -> Vec<Heard> {
        let own = self.inner.store.origin();
        let mut heard = Vec::new();
        for notice in notices {
            match Notice::parse(notice) {
                Some(Notice::Recorded { origin, id }) if origin != own => heard.push(Heard::Recorded(id)),
                Some(Notice::Listening { origin }) if origin != own => self.inner.relay.another_listens(),
                Some(Notice::Lost { origin }) if origin != own => self.inner.hub.lost(),
                Some(Notice::Asking) => {
                    self.inner.relay.is_asked.store(true, Ordering::Relaxed);
                    self.inner.relay.wake.notify_one();
                }
                Some(Notice::Part { origin, number, count, text }) if origin != own => {
                    let told = assembly.add(origin, number, count, text).unwrap_or_default();
                    heard.extend(told.into_iter().filter_map(|told| told.event()).map(Heard::Told));
                }
                Some(_) => {}
                None => tracing::warn!(length = notice.len(), "a notice that is none"),
            }
        }
        heard
    }

    /// Tells the listeners of this replica what was heard, in its order.
    async fn tell_listeners(&self, heard: Vec<Heard>) -> Result<()> {
        if !self.inner.hub.wants_to_hear() {
            return Ok(());
        }
        let ids: Vec<EventId> = heard.iter().filter_map(Heard::recorded).collect();
        let mut recorded = self.inner.store.recorded_events(&ids).await?;
        for heard in heard {
            let event = match heard {
                Heard::Told(event) => Some(event),
                Heard::Recorded(id) => recorded.remove(&id).and_then(event_of),
            };
            if let Some(event) = event {
                self.inner.hub.announce(event);
            }
        }
        Ok(())
    }
}

/// What was heard of another replica.
#[derive(Debug)]
enum Heard {
    Recorded(EventId),
    Told(Event),
}

impl Heard {
    fn recorded(&self) -> Option<EventId> {
        match self {
            Self::Recorded(id) => Some(*id),
            Self::Told(_) => None,
        }
    }
}

/// None where the kind is one of a newer replica.
fn event_of(recorded: RecordedEvent) -> Option<Event> {
    Some(Event {
        id: recorded.id,
        kind: EventKind::named(&recorded.event_type)?,
        workspace_id: recorded.workspace_id,
        payload: recorded.payload.unwrap_or_default(),
        created_at: recorded.created_at,
    })
}
