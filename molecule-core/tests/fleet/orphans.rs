//! What nobody claims is cleared up, and nothing else.

use std::time::Duration;

use molecule_core::{
    ErrorKind,
    config::Config,
    id::WorkspaceId,
    identity::Credential,
    provisioner::{LocalProvisioner, Workload, WorkloadInspector},
    testing::{Operation, ScriptedProvisioner, Sweep, sweep},
    workspace::Status,
};
use secrecy::ExposeSecret;

use crate::fleet::Fleet;

const MINUTE: Duration = Duration::from_secs(60);

async fn swept_often() -> Fleet {
    // Nobody is to be found lost and brought up again meanwhile, and what is in memory stays there until it is needed.
    let never = 365 * 24 * 60 * MINUTE;
    let orphan_tick = Duration::from_millis(5);
    Fleet::with(Config { orphan_tick, managed_silence: never, telemetry_tick: never, ..Config::default() }).await
}

/// Waits for two more rounds of the sweep, so that one saw everything that was there when it was called.
async fn swept(fleet: &Fleet) {
    for operation in [Operation::Inventory, Operation::OwnInventory] {
        fleet.backend.called(operation, fleet.backend.count(operation) + 2).await;
    }
}

/// Puts a workload on the backend that the control plane knows nothing of.
async fn stray(backend: &ScriptedProvisioner) -> WorkspaceId {
    let other = Fleet::over(backend.clone()).await;
    let id = other.create("stray").await;
    other.come_online(id).await;
    other.down().await;
    id
}

#[tokio::test]
async fn what_a_delete_left_behind_is_cleared_after_a_while() {
    let fleet = swept_often().await;
    let (gone, stands) = (fleet.create("gone").await, fleet.create("stands").await);
    fleet.come_online(gone).await;
    fleet.come_online(stands).await;
    fleet.backend.when(Operation::Stop).of(gone).times(2).fail(ErrorKind::Upstream, "no");
    fleet.control_plane.delete(gone, false, false).await.unwrap_err();
    fleet.control_plane.start();
    fleet.clock.advance(5 * MINUTE);
    swept(&fleet).await;
    assert_eq!(fleet.backend.observe(gone).await.unwrap(), Workload::Running, "the delete is given its time");
    fleet.clock.advance(Duration::from_secs(1));
    // The first stop fails and the volume is not touched; the next sweep tries again.
    fleet.backend.called(Operation::Stop, fleet.backend.count(Operation::Stop) + 2).await;
    fleet.backend.called(Operation::RemoveVolume, 1).await;
    swept(&fleet).await;
    assert_eq!(fleet.backend.inventory().await.unwrap(), [stands]);
    assert_eq!(fleet.row(stands).await.status, Status::Online);
    fleet.down().await;
}

#[tokio::test]
async fn what_no_row_knows_is_stopped_and_its_disk_kept_for_a_day() {
    let fleet = swept_often().await;
    let (stray, stands) = (stray(&fleet.backend).await, fleet.create("stands").await);
    fleet.come_online(stands).await;
    fleet.control_plane.start();
    swept(&fleet).await;
    fleet.clock.advance(5 * MINUTE);
    swept(&fleet).await;
    assert_eq!(fleet.backend.observe(stray).await.unwrap(), Workload::Running);
    let stops = fleet.backend.count(Operation::Stop);
    fleet.clock.advance(MINUTE);
    swept(&fleet).await;
    assert_eq!(fleet.backend.observe(stray).await.unwrap(), Workload::Absent);
    assert!(fleet.backend.volume_has_file(stray, ".auth_token").await.unwrap());
    swept(&fleet).await;
    assert_eq!(fleet.backend.count(Operation::Stop), stops + 1, "what is stopped is let be");
    fleet.clock.advance(24 * 60 * MINUTE);
    fleet.backend.called(Operation::PurgeVolumes, 1).await;
    swept(&fleet).await;
    assert_eq!(fleet.backend.inventory().await.unwrap(), [stands]);
    fleet.down().await;
}

#[tokio::test]
async fn however_much_is_there_the_database_is_asked_seldom() {
    let backend = ScriptedProvisioner::new();
    let other = Fleet::over(backend.clone()).await;
    for n in 0..1200 {
        other.create(&format!("w{n}")).await;
    }
    backend.called(Operation::Start, 1200).await;
    other.down().await;
    let fleet = Fleet::over(backend).await;
    assert_eq!(fleet.backend.own_inventory().await.unwrap().len(), 1200);
    let before = fleet.control_plane.store().statements().reads;
    sweep(&fleet.control_plane, Sweep::Orphans).await.unwrap();
    let reads = fleet.control_plane.store().statements().reads - before;
    assert_eq!(reads, 3 + 3 + 1, "500 at once for each of two passes, and one of the third");
    fleet.down().await;
}

#[tokio::test]
async fn a_pass_that_fails_keeps_no_other_from_being_made() {
    let fleet = swept_often().await;
    let stray = stray(&fleet.backend).await;
    fleet.backend.when(Operation::Inventory).fail(ErrorKind::Unavailable, "away");
    fleet.control_plane.start();
    swept(&fleet).await;
    fleet.clock.advance(6 * MINUTE);
    swept(&fleet).await;
    assert_eq!(fleet.backend.observe(stray).await.unwrap(), Workload::Absent);
    assert!(fleet.control_plane.liveness().contains_key("orphan-sweeper"));
    fleet.down().await;
}

#[tokio::test]
async fn tokens_of_agents_that_are_gone_are_revoked_and_those_of_external_ones_never() {
    let fleet = swept_often().await;
    let (external, external_token) = fleet.create_external("e").await;
    fleet.beat(external, &external_token).await.unwrap();
    let runs = fleet.create("runs").await;
    fleet.come_online(runs).await;
    fleet.backend.when(Operation::Start).times(2).fail(ErrorKind::Unavailable, "the disk is full");
    let (gone, unknown) = (fleet.create("gone").await, fleet.create("unknown").await);
    for id in [gone, unknown] {
        fleet.until(id, Status::Failed).await;
    }
    fleet.backend.when(Operation::Observe).of(unknown).fail(ErrorKind::Unavailable, "away");
    // Heard in memory alone, shortly before the time is up.
    fleet.clock.advance(4 * MINUTE);
    fleet.beat(runs, &fleet.token(runs)).await.unwrap();
    fleet.clock.advance(MINUTE + Duration::from_secs(1));
    fleet.control_plane.start();
    swept(&fleet).await;
    for (id, lives) in [(gone, false), (runs, true), (unknown, true)] {
        let credential = fleet.control_plane.authenticate(Some(fleet.token(id).expose_secret())).await.unwrap();
        assert_eq!(credential != Credential::Unknown, lives, "{id}");
    }
    fleet.clock.advance(24 * 60 * MINUTE);
    swept(&fleet).await;
    let credential = fleet.control_plane.authenticate(Some(external_token.expose_secret())).await.unwrap();
    assert_ne!(credential, Credential::Unknown, "an external agent has no workload, and keeps its token");
    fleet.down().await;
}
