//! The facade: everything a frontend or an embedding program needs hangs on [`ControlPlane`].

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    a2a,
    clock::{Clock, Entropy, SystemClock, SystemEntropy, random_uuid},
    config::Config,
    error::Result,
    events::{self, Event, EventHub, EventKind, EventListener, RecordedEvent, Which},
    gate::Gates,
    id::{AttemptId, EventId, WorkspaceId},
    identity::{Sessions, Unreadable},
    net::{Names, Resolver},
    provisioner::{
        ControlPlaneProvisioner, Images, LocalProvisioner, WorkloadInspector, WorkspaceFiles, attempts::Attempts,
        env::EnvMutator,
    },
    pulse::Pulse,
    registry,
    relay::Relay,
    schedules,
    secrets::{Cipher, Turns},
    store::Store,
    sweep::{self, Hearing, Jumps, Ticks},
};

/// A control plane over one store and one backend.
///
/// Cloning clones the handle. Tasks that outlive a call are tracked: [`ControlPlane::shut_down`] waits for them.
#[derive(Clone)]
pub struct ControlPlane {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) cipher: Cipher,
    pub(crate) env_mutators: Vec<Arc<dyn EnvMutator>>,
    pub(crate) backend: Backend,
    /// What workloads are made of, where the backend has such.
    pub(crate) images: Option<Arc<dyn Images>>,
    pub(crate) hub: EventHub,
    pub(crate) relay: Relay,
    pub(crate) gates: Gates,
    /// Those who ask for the same inbound secret at once take turns.
    pub(crate) secret_gates: Gates,
    pub(crate) attempts: Attempts,
    /// Whoever brings a workspace up anew for a change does so for all changes.
    pub(crate) turns: Turns,
    /// A place for each run of a schedule that may be under way.
    pub(crate) runs: Arc<Semaphore>,
    pub(crate) clients: a2a::Clients,
    pub(crate) notes: a2a::Notes,
    pub(crate) unreadable: Unreadable,
    /// Who is where, for those who are told of many workspaces.
    pub(crate) hierarchy: registry::Known,
    /// The hosts that agents name.
    pub(crate) names: Names,
    /// Who is signed in elsewhere, where that counts here.
    pub(crate) sessions: Option<Sessions>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) ticks: Ticks,
    pub(crate) jumps: Jumps,
    pub(crate) hearing: Hearing,
    /// When the newest event of this process happened, in microseconds.
    newest_event: AtomicI64,
    /// Messages that are kept for agents.
    pub(crate) queues: a2a::Queues,
    /// How many rows of the activity log could not be written.
    pub(crate) activity_lost: AtomicU64,
}

/// Where workspaces run.
#[derive(Debug, Clone)]
pub(crate) enum Backend {
    None,
    Local {
        provisioner: Arc<dyn LocalProvisioner>,
        inspector: Arc<dyn WorkloadInspector>,
        files: Arc<dyn WorkspaceFiles>,
    },
    ControlPlane(Arc<dyn ControlPlaneProvisioner>),
}

impl Backend {
    /// The name in logs.
    pub(crate) fn mode(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Local { provisioner, .. } => provisioner.capability().name,
            Self::ControlPlane(_) => "cp",
        }
    }

    /// Whether its workloads reach what listens on this host as any other program on it.
    pub(crate) fn shares_host(&self) -> bool {
        matches!(self, Self::Local { provisioner, .. } if !provisioner.capability().isolation)
    }

    /// Whether the backend tells where an agent is called, so that the agent's own word on it is not used.
    pub(crate) fn assigns_urls(&self) -> bool {
        matches!(self, Self::Local { provisioner, .. } if provisioner.capability().assigns_url)
    }
}

/// Takes the parts of a [`ControlPlane`].
#[derive(Debug)]
pub struct Builder {
    store: Store,
    config: Config,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    cipher: Cipher,
    env_mutators: Vec<Arc<dyn EnvMutator>>,
    backend: Backend,
    images: Option<Arc<dyn Images>>,
    names: Names,
}

impl Builder {
    /// How it behaves; [`Config::default`] otherwise.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Runs workspaces on this host.
    #[must_use]
    pub fn local_backend<B: LocalProvisioner + WorkloadInspector + WorkspaceFiles>(mut self, backend: Arc<B>) -> Self {
        self.backend = Backend::Local { provisioner: backend.clone(), inspector: backend.clone(), files: backend };
        self
    }

    /// Brings newer images to the local backend when asked to, and by itself where [`Config::image_tick`] says.
    #[must_use]
    pub fn images(mut self, images: Arc<dyn Images>) -> Self {
        self.images = Some(images);
        self
    }

    /// Runs workspaces on machines that another control plane owns.
    #[must_use]
    pub fn control_plane_backend(mut self, backend: Arc<dyn ControlPlaneProvisioner>) -> Self {
        self.backend = Backend::ControlPlane(backend);
        self
    }

    /// Tells the time; the system's otherwise.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Finds the addresses of the hosts that agents name; the system's otherwise.
    #[must_use]
    pub fn resolver(mut self, resolver: Arc<dyn Resolver>) -> Self {
        self.names = Names::new(resolver);
        self
    }

    /// Gives randomness; the system's otherwise.
    #[must_use]
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = entropy;
        self
    }

    /// Encrypts what is secret where it is kept; otherwise it is kept as it is.
    #[must_use]
    pub fn cipher(mut self, cipher: Cipher) -> Self {
        self.cipher = cipher;
        self
    }

    /// Has a say in the environment of every agent, after those that were given before.
    #[must_use]
    pub fn env_mutator(mut self, mutator: Arc<dyn EnvMutator>) -> Self {
        self.env_mutators.push(mutator);
        self
    }

    /// The control plane. Nothing runs until [`ControlPlane::start`].
    ///
    /// # Errors
    /// Where the client for calls to agents can't be made, or the control plane that signs people in can't be called.
    pub fn build(self) -> Result<ControlPlane> {
        let hearing = Hearing::new(self.clock.now());
        let sessions = self.config.sessions.clone().map(Sessions::new).transpose()?;
        let jumps = Jumps::new(&*self.clock);
        Ok(ControlPlane {
            inner: Arc::new(Inner {
                store: self.store,
                config: self.config,
                clock: self.clock,
                entropy: self.entropy,
                cipher: self.cipher,
                env_mutators: self.env_mutators,
                backend: self.backend,
                images: self.images,
                hub: EventHub::new(),
                relay: Relay::new(),
                gates: Gates::default(),
                secret_gates: Gates::default(),
                attempts: Attempts::default(),
                turns: Turns::default(),
                runs: Arc::new(Semaphore::new(schedules::RUNS_AT_ONCE)),
                clients: a2a::Clients::new()?,
                notes: a2a::Notes::default(),
                unreadable: Unreadable::default(),
                hierarchy: registry::Known::default(),
                names: self.names,
                sessions,
                tasks: TaskTracker::new(),
                stop: CancellationToken::new(),
                ticks: Ticks::default(),
                jumps,
                hearing,
                newest_event: AtomicI64::new(0),
                queues: a2a::Queues::default(),
                activity_lost: AtomicU64::new(0),
            }),
        })
    }
}

impl ControlPlane {
    /// A control plane over `store`, to be given its other parts.
    pub fn builder(store: Store) -> Builder {
        Builder {
            store,
            config: Config::default(),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            cipher: Cipher::default(),
            env_mutators: Vec::new(),
            backend: Backend::None,
            images: None,
            names: Names::of_this_host(),
        }
    }

    /// Begins to supervise the fleet: the sweeps run until [`ControlPlane::shut_down`].
    pub fn start(&self) {
        sweep::start(self);
    }

    /// Stops supervising and waits, at most `patience`, for tasks under way. False when some were left behind.
    ///
    /// Workspaces go on: the next control plane over the same store finds them again.
    pub async fn shut_down(&self, patience: Duration) -> bool {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        let ended = tokio::time::timeout(patience, self.inner.tasks.wait()).await.is_ok();
        if let Err(error) = self.save_telemetry().await {
            tracing::warn!(error = error.detail(), "the last heartbeats could not be saved");
        }
        ended
    }

    /// Saves what heartbeats left in memory, as is done every [`Config::telemetry_tick`] and on the way down.
    pub async fn save_telemetry(&self) -> Result<()> {
        self.inner.store.save_telemetry(self.now()).await
    }

    /// How it behaves.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The store it keeps everything in.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The name of the backend: `docker`, `process`, `cp`, `none`, or that of an embedded one.
    pub fn backend_name(&self) -> &'static str {
        self.inner.backend.mode()
    }

    /// Hears what happens from now on, here and, within a moment, at other replicas on the same database.
    pub fn listen(&self) -> EventListener {
        let listener = self.inner.hub.listen();
        self.inner.relay.listens();
        listener
    }

    /// Watches for signs of life of `id`, here and at other replicas.
    pub(crate) fn watch_pulse(&self, id: WorkspaceId) -> Pulse {
        let pulse = self.inner.hub.watch(id);
        self.inner.relay.listens();
        pulse
    }

    /// Whether anybody would hear an event that is not recorded.
    pub(crate) fn has_listeners(&self) -> bool {
        self.inner.hub.has_listeners() || self.inner.relay.has_listeners()
    }

    /// The newest recorded events, newest first, of one workspace or of all; an unknown one has none.
    pub async fn events(&self, of: Option<WorkspaceId>, limit: u32) -> Result<Vec<RecordedEvent>> {
        self.event_log(of, &Which { limit, ..Which::default() }).await
    }

    /// The recorded events that are asked for, newest first, of one workspace or of all; an unknown one has none.
    pub async fn event_log(&self, of: Option<WorkspaceId>, which: &Which) -> Result<Vec<RecordedEvent>> {
        self.inner.store.newest_events(of, which).await
    }

    /// Deletes old events from the log, where they are not kept for good. How workspaces and agents came and went is.
    pub(crate) async fn prune_events(&self) -> Result<()> {
        let Some(retention) = self.inner.config.event_retention else { return Ok(()) };
        // Further back than can be said is never.
        let Some(cutoff) = TimeDelta::from_std(retention).ok().and_then(|age| self.now().checked_sub_signed(age))
        else {
            return Ok(());
        };
        let deleted = self.inner.store.delete_events(cutoff).await?;
        if deleted > 0 {
            tracing::info!(events = deleted, "old events were deleted from the log");
        }
        Ok(())
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.inner.clock.now()
    }

    pub(crate) fn new_attempt(&self) -> AttemptId {
        AttemptId::from_uuid(random_uuid(&*self.inner.entropy))
    }

    pub(crate) fn event(&self, kind: EventKind, workspace_id: WorkspaceId, payload: Value) -> Event {
        Event {
            id: EventId::from_uuid(random_uuid(&*self.inner.entropy)),
            kind,
            workspace_id: Some(workspace_id),
            payload: events::capped(payload),
            created_at: self.next_event_time(),
        }
    }

    /// Now, but later than any event before: the log is ordered by time, and so keeps what caused what.
    fn next_event_time(&self) -> DateTime<Utc> {
        let now = self.now().timestamp_micros();
        let newest = &self.inner.newest_event;
        let before = newest
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |newest| Some(now.max(newest + 1)))
            .unwrap_or(now);
        DateTime::from_timestamp_micros(now.max(before + 1)).unwrap_or_else(|| self.now())
    }

    /// Tells listeners of an event that is not recorded. Where there are none it is not made, and is a sign of life all the
    /// same.
    pub(crate) fn mention(&self, kind: EventKind, id: WorkspaceId, payload: impl FnOnce() -> Value) {
        if self.has_listeners() {
            self.announce(self.event(kind, id, payload()));
        } else {
            self.inner.hub.beat(id);
        }
    }

    /// Tells listeners of an event that needs no record, or whose record was made already.
    pub(crate) fn announce(&self, event: Event) {
        self.inner.relay.tell(&event);
        self.inner.hub.announce(event);
    }
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlPlane")
            .field("store", &self.inner.store)
            .field("backend", &self.inner.backend.mode())
            .finish_non_exhaustive()
    }
}
