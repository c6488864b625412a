//! What happened, told to whoever listens and kept in the log.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::broadcast;

use crate::{
    id::{EventId, WorkspaceId},
    pulse::{Pulse, Pulses},
};

/// The most that a payload holds.
const PAYLOAD_LIMIT: usize = 1024 * 1024;

/// What is left of the members of one that holds more.
const MEMBER_LIMIT: usize = 1024;

/// How many events a listener may fall behind before it loses some and is told so.
const LISTENER_BUFFER: usize = 1024;

/// How many bytes of events are kept for listeners that are behind. Who is further behind loses some and is told so.
const LISTENER_BYTES: usize = 32 * 1024 * 1024;

macro_rules! event_kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal, $recorded:literal;)*) => {
        /// The kinds of events. Their names are part of the wire contract (`docs/events.md`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum EventKind {
            $($(#[$doc])* $kind,)*
        }

        impl EventKind {
            /// Every kind once.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The name on the wire and in the log.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            /// The kind that goes by `name`.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
            }

            /// Whether events of this kind are kept in the log, beside being told to listeners.
            pub const fn is_recorded(self) -> bool {
                match self {
                    $(Self::$kind => $recorded,)*
                }
            }
        }
    };
}

event_kinds! {
    /// A try at bringing the workspace up began.
    WorkspaceProvisioning = "WORKSPACE_PROVISIONING", true;
    /// The agent registered, or was heard from again.
    WorkspaceOnline = "WORKSPACE_ONLINE", true;
    /// An external workspace waits for its agent.
    WorkspaceAwaitingAgent = "WORKSPACE_AWAITING_AGENT", true;
    /// The agent was lost.
    WorkspaceOffline = "WORKSPACE_OFFLINE", true;
    /// The agent says that it is not well.
    WorkspaceDegraded = "WORKSPACE_DEGRADED", true;
    /// A try at bringing the workspace up failed.
    WorkspaceProvisionFailed = "WORKSPACE_PROVISION_FAILED", true;
    /// The workspace was stopped until somebody resumes it.
    WorkspacePaused = "WORKSPACE_PAUSED", true;
    /// The workspace was stopped until a message wakes it.
    WorkspaceHibernated = "WORKSPACE_HIBERNATED", true;
    /// The workspace was given a team.
    WorkspaceExpanded = "WORKSPACE_EXPANDED", true;
    /// All below the workspace was removed.
    WorkspaceCollapsed = "WORKSPACE_COLLAPSED", true;
    /// The workspace is gone for good.
    WorkspaceRemoved = "WORKSPACE_REMOVED", true;
    /// The agent replaced its card.
    AgentCardUpdated = "AGENT_CARD_UPDATED", true;
    /// The workspace was given an agent.
    AgentAssigned = "AGENT_ASSIGNED", true;
    /// The agent of the workspace became another.
    AgentReplaced = "AGENT_REPLACED", true;
    /// The workspace has no agent any more.
    AgentRemoved = "AGENT_REMOVED", true;
    /// The agent of one workspace became that of another.
    AgentMoved = "AGENT_MOVED", true;
    /// A heartbeat arrived.
    WorkspaceHeartbeat = "WORKSPACE_HEARTBEAT", false;
    /// The agent works on another task now.
    TaskUpdated = "TASK_UPDATED", false;
    /// An agent asks leave for something.
    ApprovalRequested = "APPROVAL_REQUESTED", true;
    /// An agent below the workspace asks leave for something.
    ApprovalEscalated = "APPROVAL_ESCALATED", true;
    /// The agent may do what it asked leave for.
    ApprovalApproved = "APPROVAL_APPROVED", true;
    /// The agent may not do what it asked leave for.
    ApprovalDenied = "APPROVAL_DENIED", true;
    /// The agent was asked for what a schedule holds.
    CronExecuted = "CRON_EXECUTED", true;
    /// The agent was not asked for what a schedule holds, since it had no time.
    CronSkipped = "CRON_SKIPPED", true;
    /// An agent answered a call that came from the canvas.
    A2aResponse = "A2A_RESPONSE", false;
    /// An agent handed a task to another.
    DelegationSent = "DELEGATION_SENT", true;
    /// The task is on its way, or waits for the agent to have time.
    DelegationStatus = "DELEGATION_STATUS", true;
    /// The agent that was given a task replied.
    DelegationComplete = "DELEGATION_COMPLETE", true;
    /// A task got no reply.
    DelegationFailed = "DELEGATION_FAILED", true;
    /// A row was written to the activity log.
    ActivityLogged = "ACTIVITY_LOGGED", false;
    /// An agent says something to its user.
    AgentMessage = "AGENT_MESSAGE", false;
}

/// Something that happened.
#[derive(Debug, Clone)]
pub struct Event {
    /// Names it in the log.
    pub id: EventId,
    /// What kind of thing.
    pub kind: EventKind,
    /// The workspace it happened to; none where it concerns the whole fleet.
    pub workspace_id: Option<WorkspaceId>,
    /// More about it, as `docs/events.md` lists for each kind.
    pub payload: Value,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// An event as it was told to listeners: serialised once, however many there are.
#[derive(Debug, Clone)]
pub struct Announcement {
    /// The event.
    pub event: Event,
    /// Its envelope as JSON, shared by all who are sent it: `event`, `workspace_id`, `timestamp`, `payload`.
    pub frame: Bytes,
    /// The payload as it stands in the envelope.
    pub payload: Bytes,
}

impl Announcement {
    fn of(event: Event) -> Self {
        #[derive(Serialize)]
        struct Envelope<'a> {
            event: &'static str,
            workspace_id: String,
            timestamp: String,
            payload: &'a Value,
        }
        let envelope = Envelope {
            event: event.kind.as_str(),
            workspace_id: event.workspace_id.map(|id| id.to_string()).unwrap_or_default(),
            timestamp: event.created_at.to_rfc3339_opts(SecondsFormat::Micros, true),
            payload: &Value::Null,
        };
        let mut frame = serde_json::to_vec(&envelope).expect("strings always serialise");
        // In place of the null and the brace after it.
        let payload = frame.len() - "null}".len();
        frame.truncate(payload);
        serde_json::to_writer(&mut frame, &event.payload).expect("JSON values always serialise");
        let end = frame.len();
        frame.push(b'}');
        let frame = Bytes::from(frame);
        Self { event, payload: frame.slice(payload..end), frame }
    }
}

/// Which events of the log to read.
#[derive(Debug, Clone, Default)]
pub struct Which {
    /// At most so many, the newest first.
    pub limit: u32,
    /// Only those that happened before.
    pub before: Option<DateTime<Utc>>,
    /// Only those whose kind goes by this name.
    pub event_type: Option<String>,
}

/// An event as it was read back from the log.
#[derive(Debug, Clone)]
pub struct RecordedEvent {
    /// Names it.
    pub id: EventId,
    /// The name of its kind; older logs may hold kinds that this build does not know.
    pub event_type: String,
    /// The workspace it happened to.
    pub workspace_id: Option<WorkspaceId>,
    /// More about it.
    pub payload: Option<Value>,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// `payload` within its limit: of one that is over it large members become null, and `truncated` says so.
pub(crate) fn capped(payload: Value) -> Value {
    let size = |value: &Value| {
        let mut counted = Counted(0);
        // Nothing here can fail but the count.
        serde_json::to_writer(&mut counted, value).map_or(usize::MAX, |()| counted.0)
    };
    if size(&payload) <= PAYLOAD_LIMIT {
        return payload;
    }
    let Value::Object(mut members) = payload else { return serde_json::json!({"truncated": true}) };
    members.values_mut().filter(|value| size(value) > MEMBER_LIMIT).for_each(|value| *value = Value::Null);
    members.insert("truncated".to_owned(), true.into());
    Value::Object(members)
}

/// Counts what is written to it.
struct Counted(usize);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// An announcement, until it is taken back.
type Slot = Mutex<Option<Arc<Announcement>>>;

/// What listeners hear; none where something was lost before it came here.
type Heard = Option<Arc<Slot>>;

/// Tells every listener of this process what happened.
#[derive(Debug)]
pub(crate) struct EventHub {
    listeners: broadcast::Sender<Heard>,
    kept: Mutex<Kept>,
    pulses: Pulses,
}

/// What may still be kept for listeners that are behind, the oldest first.
#[derive(Debug, Default)]
struct Kept {
    slots: VecDeque<(Weak<Slot>, usize)>,
    bytes: usize,
}

impl Kept {
    /// Takes note of `slot`, and takes back the oldest where that makes too much.
    fn add(&mut self, slot: &Arc<Slot>, bytes: usize) {
        self.slots.push_back((Arc::downgrade(slot), bytes));
        self.bytes += bytes;
        while self.bytes > LISTENER_BYTES || self.slots.len() > LISTENER_BUFFER {
            let Some((oldest, bytes)) = self.slots.pop_front() else { return };
            self.bytes -= bytes;
            if let Some(oldest) = oldest.upgrade() {
                oldest.lock().unwrap_or_else(PoisonError::into_inner).take();
            }
        }
    }
}

impl EventHub {
    pub(crate) fn new() -> Self {
        Self { listeners: broadcast::channel(LISTENER_BUFFER).0, kept: Mutex::default(), pulses: Pulses::default() }
    }

    /// Tells every listener; never waits for one.
    pub(crate) fn announce(&self, event: Event) {
        if let Some(id) = event.workspace_id {
            self.pulses.beat(id);
        }
        if self.has_listeners() {
            let announcement = Announcement::of(event);
            let bytes = announcement.frame.len();
            let slot = Arc::new(Mutex::new(Some(Arc::new(announcement))));
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).add(&slot, bytes);
            // An error only says that the last listener left meanwhile.
            let _ = self.listeners.send(Some(slot));
        }
    }

    /// Tells every listener that events of other replicas were lost.
    pub(crate) fn lost(&self) {
        self.pulses.beat_all();
        let _ = self.listeners.send(None);
    }

    /// A sign of life of `id`, where no event is made of it since nobody would hear that.
    pub(crate) fn beat(&self, id: WorkspaceId) {
        self.pulses.beat(id);
    }

    /// Watches for signs of life of `id`.
    pub(crate) fn watch(&self, id: WorkspaceId) -> Pulse {
        self.pulses.watch(id)
    }

    /// Whether this process wants to hear of what happens at others.
    pub(crate) fn wants_to_hear(&self) -> bool {
        self.has_listeners() || self.pulses.any()
    }

    /// Whether anybody of this process would hear an event that is not recorded.
    pub(crate) fn has_listeners(&self) -> bool {
        self.listeners.receiver_count() > 0
    }

    pub(crate) fn listen(&self) -> EventListener {
        EventListener { receiver: self.listeners.subscribe() }
    }
}

/// Hears the events of this process from the moment it was made. Delivery is best effort.
#[derive(Debug)]
pub struct EventListener {
    receiver: broadcast::Receiver<Heard>,
}

/// Why an [`EventListener`] has nothing more to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerEnd {
    /// It lost events, because it fell too far behind or another replica could not be heard: read the state anew and
    /// listen again.
    FellBehind,
    /// The control plane is gone.
    Closed,
}

impl EventListener {
    /// The next event, waiting for it.
    ///
    /// # Errors
    /// Says why none will come.
    pub async fn next(&mut self) -> Result<Arc<Announcement>, ListenerEnd> {
        match self.receiver.recv().await {
            Ok(heard) => {
                let kept = heard.and_then(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner).clone());
                kept.ok_or(ListenerEnd::FellBehind)
            }
            Err(broadcast::error::RecvError::Lagged(_)) => Err(ListenerEnd::FellBehind),
            Err(broadcast::error::RecvError::Closed) => Err(ListenerEnd::Closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(payload: Value) -> Event {
        Event {
            id: EventId::from_uuid(uuid::Uuid::nil()),
            kind: EventKind::WorkspaceOnline,
            workspace_id: Some(WorkspaceId::from_uuid(uuid::Uuid::nil())),
            payload,
            created_at: DateTime::from_timestamp(1_800_000_000, 123_456_000).unwrap(),
        }
    }

    #[test]
    fn the_envelope_is_what_clients_read() {
        insta::assert_snapshot!(
            std::str::from_utf8(&Announcement::of(event(json!({}))).frame).unwrap(),
            @r#"{"event":"WORKSPACE_ONLINE","workspace_id":"00000000-0000-0000-0000-000000000000","timestamp":"2027-01-15T08:00:00.123456Z","payload":{}}"#
        );
    }

    #[test]
    fn the_frames_of_older_versions_are_still_what_is_sent() {
        let recorded: Value = serde_json::from_str(include_str!("../../fixtures/wire/frames.json")).unwrap();
        let frames = recorded["feed"].as_array().unwrap();
        assert!(frames.len() >= 5);
        for frame in frames.iter().map(|frame| frame.as_str().unwrap()) {
            let sent: Value = serde_json::from_str(frame).unwrap();
            let text = |member: &str| sent[member].as_str().unwrap().to_owned();
            let event = Event {
                id: EventId::from_uuid(uuid::Uuid::nil()),
                kind: EventKind::named(&text("event")).unwrap_or_else(|| panic!("no version may forget {frame}")),
                workspace_id: Some(WorkspaceId::from_uuid(text("workspace_id").parse().unwrap())),
                payload: sent["payload"].clone(),
                created_at: text("timestamp").parse().unwrap(),
            };
            assert_eq!(Announcement::of(event).frame, frame);
        }
    }

    #[test]
    fn a_payload_over_the_limit_keeps_what_is_small() {
        let exact = json!({"body": "x".repeat(PAYLOAD_LIMIT - r#"{"body":""}"#.len())});
        assert_eq!(capped(exact.clone()), exact);
        let large = json!({"body": "x".repeat(PAYLOAD_LIMIT), "method": "m", "n": 1});
        assert_eq!(capped(large), json!({"body": null, "method": "m", "n": 1, "truncated": true}));
        assert_eq!(capped(json!(["x".repeat(PAYLOAD_LIMIT)])), json!({"truncated": true}));
    }

    #[tokio::test]
    async fn a_listener_that_falls_behind_is_told_so() {
        let hub = EventHub::new();
        let mut listener = hub.listen();
        for _ in 0..=LISTENER_BUFFER {
            hub.announce(event(json!({})));
        }
        assert_eq!(listener.next().await.unwrap_err(), ListenerEnd::FellBehind);
        assert!(listener.next().await.is_ok());
    }

    #[tokio::test]
    async fn a_listener_that_falls_behind_by_too_many_bytes_is_told_so_and_they_are_not_kept() {
        let hub = EventHub::new();
        let (mut slow, mut quick) = (hub.listen(), hub.listen());
        let mut told = Vec::new();
        for _ in 0..2 * LISTENER_BYTES / PAYLOAD_LIMIT {
            hub.announce(event(json!({"body": "x".repeat(PAYLOAD_LIMIT - 100)})));
            told.push(Arc::downgrade(&quick.next().await.unwrap()));
        }
        let kept = told.iter().filter_map(Weak::upgrade);
        assert!(kept.map(|kept| kept.frame.len()).sum::<usize>() <= LISTENER_BYTES);
        assert_eq!(slow.next().await.unwrap_err(), ListenerEnd::FellBehind);
        hub.announce(event(json!({})));
        assert_eq!(quick.next().await.unwrap().payload, "{}");
    }
}
