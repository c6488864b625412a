//! Several control planes on one Postgres: what happens on one is known to the others.

mod support;

use std::{sync::Arc, time::Duration};

use molecule_core::{
    ControlPlane,
    clock::{Clock, SystemClock},
    config::Config,
    events::{Announcement, EventKind, EventListener, ListenerEnd},
    id::WorkspaceId,
    registry::{Heartbeat, RuntimeMetadata},
    store::{Store, gate},
    testing::{Logged, ManualClock, Operation, ScriptedProvisioner, hear_peers, tell_much},
    workspace::{CreateWorkspace, Status},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

use self::support::TestDatabase;

const PATIENCE: Duration = Duration::from_secs(60);

async fn replica(database: &TestDatabase) -> ControlPlane {
    let control_plane = ControlPlane::builder(Store::connect(database.url()).await.unwrap()).build().unwrap();
    control_plane.start();
    until(async || control_plane.store().hears_peers()).await;
    control_plane
}

#[expect(clippy::future_not_send, reason = "it is awaited where it is made")]
async fn until(condition: impl AsyncFn() -> bool) {
    tokio::time::timeout(PATIENCE, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it becomes true");
}

async fn external(replica: &ControlPlane) -> (WorkspaceId, SecretString) {
    let request = CreateWorkspace { name: "e".to_owned(), external: true, ..CreateWorkspace::default() };
    let created = replica.create(request).await.unwrap();
    (created.workspace.id, created.auth_token.unwrap())
}

async fn beat(replica: &ControlPlane, (id, token): &(WorkspaceId, SecretString), task: &str) -> Option<String> {
    let credential = replica.authenticate(Some(token.expose_secret())).await.unwrap();
    let beat = Heartbeat { current_task: task.to_owned(), ..Heartbeat::default() };
    let reply = replica.heartbeat(*id, &beat, credential).await.unwrap();
    reply.inbound_secret.map(|secret| secret.expose_secret().to_owned())
}

async fn next(listener: &mut EventListener) -> Arc<Announcement> {
    tokio::time::timeout(PATIENCE, listener.next()).await.expect("something is heard").unwrap()
}

/// The next event of a kind; whatever else is heard before it is passed over.
async fn heard(listener: &mut EventListener, kind: EventKind) -> Arc<Announcement> {
    loop {
        let announcement = next(listener).await;
        if announcement.event.kind == kind {
            return announcement;
        }
    }
}

/// Has the agent beat until a listener elsewhere hears of it: from then on nothing it says is missed there.
async fn beat_until_heard(replica: &ControlPlane, agent: &(WorkspaceId, SecretString), listener: &mut EventListener) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        beat(replica, agent, "").await;
        let heard = tokio::time::timeout(Duration::from_millis(200), heard(listener, EventKind::WorkspaceHeartbeat));
        if heard.await.is_ok() {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "a beat on one replica is not heard on the other");
    }
}

async fn down(replicas: impl IntoIterator<Item = ControlPlane>) {
    for replica in replicas {
        assert!(replica.shut_down(PATIENCE).await);
        replica.store().close().await;
    }
}

#[tokio::test]
async fn what_happens_on_one_replica_is_heard_on_the_other_once_and_as_it_was() {
    let Some(database) = support::postgres_database().await else { return };
    let (one, other) = (replica(&database).await, replica(&database).await);
    let (mut here, mut there) = (one.listen(), other.listen());
    let agent = external(&one).await;
    let recorded = heard(&mut there, EventKind::WorkspaceAwaitingAgent).await;
    let own = heard(&mut here, EventKind::WorkspaceAwaitingAgent).await;
    assert_eq!((&recorded.frame, recorded.event.id), (&own.frame, own.event.id));

    beat_until_heard(&one, &agent, &mut there).await;
    // More than one notice holds, with letters that a cut could come into.
    let long = "ü".repeat(8000);
    beat(&one, &agent, &long).await;
    let told = heard(&mut there, EventKind::TaskUpdated).await;
    assert_eq!(told.event.payload["current_task"], long.as_str());
    let own = heard(&mut here, EventKind::TaskUpdated).await;
    assert_eq!(told.frame, own.frame);

    // Each is heard once, whoever told of it.
    let mut marks = Vec::new();
    for replica in [&one, &other] {
        marks.push(external(replica).await.0);
    }
    for listener in [&mut here, &mut there] {
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let announcement = next(listener).await;
            if announcement.event.kind == EventKind::WorkspaceAwaitingAgent {
                seen.push(announcement.event.workspace_id.unwrap());
            }
        }
        seen.sort();
        marks.sort();
        assert_eq!(seen, marks);
    }
    down([one, other]).await;
}

#[tokio::test]
async fn without_a_listener_anywhere_nothing_is_told() {
    let Some(database) = support::postgres_database().await else { return };
    let (one, other) = (replica(&database).await, replica(&database).await);
    let agent = external(&one).await;
    for _ in 0..3 {
        beat(&one, &agent, "").await;
    }
    // Whatever the others tell of these changes is heard by now, or is told while nothing else is.
    let before = (one.store().statements(), other.store().statements());
    for _ in 0..100 {
        beat(&one, &agent, "").await;
    }
    let after = (one.store().statements(), other.store().statements());
    assert!(after.0.writes - before.0.writes <= 2 && after.1 == before.1, "{before:?} {after:?}");
    down([one, other]).await;
}

#[tokio::test]
async fn listeners_are_told_when_another_replica_could_not_be_heard() {
    let Some(database) = support::postgres_database().await else { return };
    let (one, other) = (replica(&database).await, replica(&database).await);
    let mut listener = other.listen();
    database.cut_connections().await;
    let end = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Err(end) = listener.next().await {
                return end;
            }
        }
    });
    assert_eq!(end.await.expect("it is told"), ListenerEnd::FellBehind);
    until(async || one.store().hears_peers() && other.store().hears_peers()).await;
    // And hears again.
    let (id, _) = external(&one).await;
    let announcement = heard(&mut listener, EventKind::WorkspaceAwaitingAgent).await;
    assert_eq!(announcement.event.workspace_id, Some(id));
    down([one, other]).await;
}

#[tokio::test]
async fn listeners_elsewhere_are_told_when_there_was_too_much_to_tell() {
    let Some(database) = support::postgres_database().await else { return };
    let (one, other) = (replica(&database).await, replica(&database).await);
    let mut listener = other.listen();
    let agent = external(&one).await;
    beat_until_heard(&one, &agent, &mut listener).await;
    // Fewer than a listener may fall behind, and more than waits to be told.
    tell_much(&one, agent.0, 40, 1000 * 1000);
    let end = async {
        let mut heard = 0;
        loop {
            match listener.next().await {
                Ok(announcement) => heard += usize::from(announcement.event.kind == EventKind::TaskUpdated),
                Err(end) => return (end, heard),
            }
        }
    };
    let (end, heard) = tokio::time::timeout(PATIENCE, end).await.expect("it is told");
    assert!(end == ListenerEnd::FellBehind && heard < 40, "{end:?} after {heard}");
    down([one, other]).await;
}

#[tokio::test]
async fn a_secret_rotated_on_one_replica_is_told_by_the_other_at_once() {
    let Some(database) = support::postgres_database().await else { return };
    let (one, other) = (replica(&database).await, replica(&database).await);
    let agent = external(&one).await;
    let minted = beat(&one, &agent, "").await.expect("it is given one");
    assert_eq!(minted.len(), 43);
    for replica in [&one, &other, &one, &other] {
        assert_eq!(beat(replica, &agent, "").await.as_ref(), Some(&minted));
    }
    let rotated = one.rotate_inbound_secret(agent.0).await.unwrap().expose_secret().to_owned();
    assert_ne!(rotated, minted);
    assert_eq!(beat(&one, &agent, "").await.as_ref(), Some(&rotated));
    until(async || beat(&other, &agent, "").await.as_ref() == Some(&rotated)).await;
    down([one, other]).await;
}

#[tokio::test]
async fn of_many_who_ask_for_a_secret_at_once_one_asks_the_database() {
    let store = Store::connect("sqlite::memory:").await.unwrap();
    let control_plane = ControlPlane::builder(store).build().unwrap();
    let (id, _) = external(&control_plane).await;
    let before = control_plane.store().statements();
    let asked = (0..50).map(|_| control_plane.inbound_secret(id));
    let secrets: Vec<_> = futures_util::future::join_all(asked).await.into_iter().map(Result::unwrap).collect();
    let after = control_plane.store().statements();
    assert_eq!((after.reads - before.reads, after.writes - before.writes), (1, 1));
    assert_eq!(secrets.iter().filter(|found| found.minted).count(), 1);
    let same = |secret: &SecretString| secret.expose_secret() == secrets[0].secret.expose_secret();
    assert!(secrets.iter().all(|found| same(&found.secret)));
    assert!(!format!("{secrets:?}").contains(secrets[0].secret.expose_secret()));
    control_plane.forget_inbound_secrets();
    assert!(same(&control_plane.inbound_secret(id).await.unwrap().secret));
    assert_eq!(control_plane.store().statements().reads - after.reads, 1, "it is read anew");
    let nobody = WorkspaceId::from_uuid(uuid::Uuid::from_u128(5));
    let error = control_plane.inbound_secret(nobody).await.unwrap_err();
    assert_eq!(error.kind(), molecule_core::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_database_that_was_away_for_longer_than_agents_may_be_silent_loses_nobody() {
    let Some(database) = support::postgres_database().await else { return };
    let clock = ManualClock::default();
    let config = Config { health_tick: Duration::from_millis(20), ..Config::default() };
    let one = ControlPlane::builder(Store::connect(database.url()).await.unwrap())
        .config(config)
        .clock(Arc::new(clock.clone()))
        .local_backend(Arc::new(ScriptedProvisioner::new()))
        .build()
        .unwrap();
    one.start();
    let agent = external(&one).await;
    beat(&one, &agent, "").await;
    let managed = one.create(CreateWorkspace { name: "m".to_owned(), ..CreateWorkspace::default() }).await.unwrap();
    let managed = managed.workspace.id;
    until(async || !one.workspace(managed).await.unwrap().unwrap().url.is_empty()).await;
    let token = one.issue_token(managed).await.unwrap().token;
    beat(&one, &(managed, token.clone()), "").await;
    let status = async |id| one.workspace(id).await.unwrap().unwrap().status;
    assert_eq!((status(agent.0).await, status(managed).await), (Status::Online, Status::Online));

    database.let_in(false).await;
    database.cut_connections().await;
    until(async || one.store().ping().await.is_err()).await;
    swept(&one, &clock).await;
    clock.advance(Duration::from_secs(600));
    database.let_in(true).await;
    until(async || one.store().ping().await.is_ok()).await;
    swept(&one, &clock).await;
    assert_eq!((status(agent.0).await, status(managed).await), (Status::Online, Status::Online), "they could not beat");
    // The one goes on beating, the other does not.
    clock.advance(Duration::from_secs(60));
    beat(&one, &(managed, token), "").await;
    clock.advance(Duration::from_secs(60));
    until(async || status(agent.0).await == Status::AwaitingAgent).await;
    assert_eq!(status(managed).await, Status::Online);
    down([one]).await;
}

#[tokio::test]
async fn a_workload_that_is_lost_is_brought_up_again_once_whoever_sweeps() {
    let Some(database) = support::postgres_database().await else { return };
    let (backend, clock) = (ScriptedProvisioner::new(), ManualClock::default());
    let mut replicas = Vec::new();
    for _ in 0..3 {
        let config = Config { health_tick: Duration::from_millis(5), ..Config::default() };
        let replica = ControlPlane::builder(Store::connect(database.url()).await.unwrap())
            .config(config)
            .clock(Arc::new(clock.clone()))
            .local_backend(Arc::new(backend.clone()))
            .build()
            .unwrap();
        replicas.push(replica);
    }
    let one = &replicas[0];
    let mut ids = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let created = one.create(CreateWorkspace { name: name.to_owned(), ..CreateWorkspace::default() }).await;
        let id = created.unwrap().workspace.id;
        until(async || !one.workspace(id).await.unwrap().unwrap().url.is_empty()).await;
        let token = one.issue_token(id).await.unwrap().token;
        beat(one, &(id, token), "").await;
        ids.push(id);
    }
    replicas.iter().for_each(ControlPlane::start);
    ids.iter().for_each(|id| backend.end(*id, Some(1)));
    backend.called(Operation::Start, 8).await;
    for replica in &replicas {
        swept(replica, &clock).await;
    }
    assert_eq!(backend.count(Operation::Start), 8);
    for id in &ids {
        let told = one.events(Some(*id), 100).await.unwrap();
        let lost = told.iter().filter(|event| event.event_type == "WORKSPACE_OFFLINE").count();
        assert_eq!(lost, 1, "{told:?}");
    }
    down(replicas).await;
}

#[tokio::test]
async fn a_start_whose_replica_died_is_gone_on_with_once_and_not_before() {
    let Some(database) = support::postgres_database().await else { return };
    let backend = ScriptedProvisioner::new();
    backend.when(Operation::Start).times(1).hang();
    let lease = Duration::from_millis(800);
    let url = database.url().to_owned();
    let made = async |timeout_tick| {
        let config = Config { queue_lease: lease, timeout_tick, ..Config::default() };
        let store = Store::connect(&url).await.unwrap();
        ControlPlane::builder(store).config(config).local_backend(Arc::new(backend.clone())).build().unwrap()
    };
    // Its tasks end with the runtime, as with a process that is killed.
    let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let one = process.handle().clone();
    let begun = {
        let (url, backend) = (url.clone(), backend.clone());
        let config = Config { queue_lease: lease, ..Config::default() };
        std::thread::spawn(move || {
            one.block_on(async {
                let store = Store::connect(&url).await.unwrap();
                let one = ControlPlane::builder(store).config(config).local_backend(Arc::new(backend)).build().unwrap();
                one.create(CreateWorkspace { name: "a".to_owned(), ..CreateWorkspace::default() }).await.unwrap()
            })
        })
    };
    let id = tokio::task::spawn_blocking(|| begun.join().unwrap().workspace.id).await.unwrap();
    backend.called(Operation::Start, 1).await;
    let (other, third) = (made(Duration::from_millis(5)).await, made(Duration::from_millis(5)).await);
    other.start();
    third.start();
    let watched = tokio::time::Instant::now();
    until(async || watched.elapsed() > lease * 2).await;
    assert_eq!(backend.count(Operation::Start), 1, "who carries it out lives");

    process.shutdown_background();
    backend.called(Operation::Start, 2).await;
    until(async || !other.workspace(id).await.unwrap().unwrap().url.is_empty()).await;
    let token = other.issue_token(id).await.unwrap().token;
    let agent = (id, token);
    let answered = tokio::time::Instant::now();
    until(async || answered.elapsed() > lease * 2).await;
    assert_eq!(backend.count(Operation::Start), 2, "the backend has answered: its agent is waited for");
    beat(&third, &agent, "").await;
    assert_eq!(third.workspace(id).await.unwrap().unwrap().status, Status::Online);
    let told = other.events(Some(id), 100).await.unwrap();
    let kinds: Vec<&str> = told.iter().rev().map(|event| event.event_type.as_str()).collect();
    assert_eq!(kinds, ["WORKSPACE_PROVISIONING", "WORKSPACE_PROVISIONING", "WORKSPACE_ONLINE"]);
    down([other, third]).await;
}

#[tokio::test]
async fn who_is_alone_on_a_database_goes_on_at_once() {
    let Some(database) = support::postgres_database().await else { return };
    let made = async |backend: &ScriptedProvisioner, alone| {
        let store = Store::connect(database.url()).await.unwrap();
        let config = Config { alone, ..Config::default() };
        ControlPlane::builder(store).config(config).local_backend(Arc::new(backend.clone())).build().unwrap()
    };
    let (before, after) = (ScriptedProvisioner::new(), ScriptedProvisioner::new());
    before.when(Operation::Start).hang();
    let dead = made(&before, true).await;
    let created = dead.create(CreateWorkspace { name: "a".to_owned(), ..CreateWorkspace::default() }).await.unwrap();
    before.called(Operation::Start, 1).await;
    let alone = made(&after, true).await;
    alone.start();
    after.called(Operation::Start, 1).await;
    until(async || !alone.workspace(created.workspace.id).await.unwrap().unwrap().url.is_empty()).await;
    down([alone]).await;
    dead.store().close().await;
}

/// Waits until the health sweep came round twice more.
async fn swept(replica: &ControlPlane, clock: &ManualClock) {
    for _ in 0..2 {
        let tick = || replica.liveness().get("health-sweep").map(|tick| tick.at);
        let before = tick();
        clock.advance(Duration::from_millis(1));
        until(async || tick() != before).await;
    }
}

#[tokio::test]
async fn a_connection_that_dies_without_a_word_is_not_trusted_for_long() {
    let Some(database) = support::postgres_database().await else { return };
    let wire = Wire::to(database.url()).await;
    let control_plane = ControlPlane::builder(Store::connect(&wire.url).await.unwrap()).build().unwrap();
    hear_peers(&control_plane);
    until(async || control_plane.store().hears_peers()).await;
    until(async || control_plane.liveness().contains_key("broadcaster")).await;
    wire.carries.send_replace(false);
    until(async || !control_plane.store().hears_peers()).await;
    wire.carries.send_replace(true);
    until(async || control_plane.store().hears_peers()).await;
    down([control_plane]).await;
}

#[tokio::test]
async fn a_clock_that_is_not_in_step_with_the_database_is_told_of() {
    let Some(database) = support::postgres_database().await else { return };
    let (logged, _guard) = Logged::here();
    let store = Store::connect(database.url()).await.unwrap();
    let (own, said) = (ManualClock::new(SystemClock.now()), || logged.with("the clock of this server").len());
    let control_plane = ControlPlane::builder(store).clock(Arc::new(own.clone())).build().unwrap();
    hear_peers(&control_plane);
    until(async || control_plane.liveness().contains_key("broadcaster")).await;
    assert_eq!(said(), 0, "it is in step");
    own.advance(Duration::from_secs(3600));
    until(async || said() == 1).await;
    down([control_plane]).await;
}

/// A way to the database that can be made to carry nothing, without either end being told.
struct Wire {
    url: String,
    carries: watch::Sender<bool>,
    /// Ends with the value.
    _ways: JoinSet<()>,
}

impl Wire {
    async fn to(url: &str) -> Self {
        let mut url: url::Url = url.parse().unwrap();
        let server = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let (carries, seen) = watch::channel(true);
        let mut ways = JoinSet::new();
        ways.spawn(async move {
            let mut pieces = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect((server.0.as_str(), server.1)).await.unwrap();
                let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                pieces.spawn(carry(near_read, far_write, seen.clone()));
                pieces.spawn(carry(far_read, near_write, seen.clone()));
            }
        });
        Self { url: url.into(), carries, _ways: ways }
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut carries: watch::Receiver<bool>) {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        if carries.wait_for(|carries| *carries).await.is_err() || to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn postgres_gives_up_on_what_takes_too_long() {
    let Some(database) = support::postgres_database().await else { return };
    let store = Store::connect(database.url()).await.unwrap();
    let limit: String =
        sqlx::query_scalar("SHOW statement_timeout").fetch_one(gate::postgres(&store).unwrap()).await.unwrap();
    assert_eq!(limit, "20s");
    store.close().await;
}

#[tokio::test]
async fn what_another_replica_heard_later_is_not_written_over() {
    let Some(database) = support::postgres_database().await else { return };
    let (one, other) = (replica(&database).await, replica(&database).await);
    let agent = external(&one).await;
    beat(&one, &agent, "").await;
    // Both remember it from here on.
    for replica in [&one, &other] {
        until(async || {
            let reads = replica.store().statements().reads;
            beat(replica, &agent, "").await;
            replica.store().statements().reads == reads
        })
        .await;
    }
    beat(&one, &agent, "").await;
    let credential = other.authenticate(Some(agent.1.expose_secret())).await.unwrap();
    let later = Heartbeat { uptime_seconds: 77, ..Heartbeat::default() };
    other.heartbeat(agent.0, &later, credential).await.unwrap();
    other.save_telemetry().await.unwrap();
    one.save_telemetry().await.unwrap();
    let uptime: i64 = sqlx::query_scalar("SELECT uptime_seconds::int8 FROM workspaces WHERE id = $1")
        .bind(agent.0)
        .fetch_one(gate::postgres(one.store()).unwrap())
        .await
        .unwrap();
    assert_eq!(uptime, 77);
    // What was passed over is no change: both go on without asking.
    for replica in [&one, &other] {
        let reads = replica.store().statements().reads;
        beat(replica, &agent, "").await;
        assert_eq!(replica.store().statements().reads, reads);
    }
    down([one, other]).await;
}

#[tokio::test]
async fn what_a_runtime_does_is_what_its_agent_said_last_to_whichever_replica() {
    let Some(database) = support::postgres_database().await else { return };
    let (one, other) = (replica(&database).await, replica(&database).await);
    let agent = external(&one).await;
    let says = async |replica: &ControlPlane, capabilities: &[&str], idle| {
        let credential = replica.authenticate(Some(agent.1.expose_secret())).await.unwrap();
        let capabilities = capabilities.iter().map(|name| ((*name).to_owned(), true)).collect();
        let runtime_metadata = Some(RuntimeMetadata { capabilities, idle_timeout_seconds: idle });
        let beat = Heartbeat { runtime_metadata, ..Heartbeat::default() };
        replica.heartbeat(agent.0, &beat, credential).await.unwrap();
        kept(replica, agent.0).await
    };
    for _ in 0..3 {
        assert_eq!(says(&one, &["session", "scheduler"], Some(60)).await, (true, true, Some(60)));
    }
    assert_eq!(says(&other, &["session"], Some(0)).await, (true, false, None));
    until(async || says(&one, &["session", "scheduler"], Some(60)).await == (true, true, Some(60))).await;
    // Who says nothing of it does nothing by itself.
    beat(&one, &agent, "").await;
    assert_eq!(kept(&one, agent.0).await, (false, false, None));
    down([one, other]).await;
}

async fn kept(replica: &ControlPlane, id: WorkspaceId) -> (bool, bool, Option<i32>) {
    let row = replica.workspace(id).await.unwrap().unwrap();
    (row.native_session, row.native_scheduler, row.idle_timeout_seconds)
}
