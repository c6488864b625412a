//! Several control planes on one Postgres: what happens on one is known to the others.

mod support;

use std::{sync::Arc, time::Duration};

use molecule_core::{
    ControlPlane,
    events::{Announcement, EventKind, EventListener, ListenerEnd},
    id::WorkspaceId,
    registry::Heartbeat,
    store::Store,
    workspace::CreateWorkspace,
};
use secrecy::{ExposeSecret, SecretString};

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
    let long = "ü".repeat(30_000);
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
