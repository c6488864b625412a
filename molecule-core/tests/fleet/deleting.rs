//! Workspaces that go.

use molecule_core::{
    ErrorKind,
    identity::Credential,
    provisioner::{Workload, WorkloadInspector},
    testing::Operation,
    workspace::{Deleted, Status},
};
use secrecy::ExposeSecret;

use crate::fleet::Fleet;

#[tokio::test]
async fn deleting_takes_everything_below_and_leaves_nothing() {
    let fleet = Fleet::new().await;
    let root = fleet.create("root").await;
    let child = fleet.create_below("child", root).await;
    let grandchild = fleet.create_below("grandchild", child).await;
    for id in [root, child, grandchild] {
        fleet.come_online(id).await;
    }
    let token = fleet.token(grandchild);
    match fleet.control_plane.delete(root, false, false).await.unwrap() {
        Deleted::ConfirmationRequired { children } => assert_eq!(children.len(), 1),
        other => panic!("{other:?}"),
    }
    assert_eq!(fleet.row(root).await.status, Status::Online);
    let deleted = fleet.control_plane.delete(root, true, false).await.unwrap();
    assert!(matches!(deleted, Deleted::Removed { cascade_deleted: 2 }), "{deleted:?}");
    for id in [root, child, grandchild] {
        assert_eq!(fleet.row(id).await.status, Status::Removed);
        assert_eq!(fleet.events(id).await.last().unwrap(), "WORKSPACE_REMOVED");
    }
    assert_eq!(fleet.backend.count(Operation::RemoveVolume), 3);
    let error = fleet.beat(grandchild, &token).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unauthenticated, "invalid workspace auth token"));
    assert!(fleet.control_plane.workspaces().await.unwrap().is_empty());
    let again = fleet.control_plane.delete(root, true, true).await.unwrap();
    assert!(matches!(again, Deleted::Purged { cascade_deleted: 2 }), "{again:?}");
    assert_eq!(fleet.backend.count(Operation::PurgeVolumes), 3, "what they worked on, which the first call left");
    assert!(fleet.control_plane.workspace(root).await.unwrap().is_none());
    fleet.down().await;
}

#[tokio::test]
async fn a_delete_that_cannot_stop_says_so_and_can_be_repeated() {
    let fleet = Fleet::new().await;
    let root = fleet.create("root").await;
    let child = fleet.create_below("child", root).await;
    fleet.come_online(root).await;
    fleet.come_online(child).await;
    fleet.backend.when(Operation::Stop).of(child).fail(ErrorKind::Unavailable, "the daemon is away");
    let error = fleet.control_plane.delete(root, true, false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected);
    assert_eq!(error.message(), "1 of 2 workloads could not be stopped: the daemon is away");
    let members: Vec<_> = error.members().iter().map(|(name, value)| (*name, value.as_u64())).collect();
    assert_eq!(members, [("removed_count", Some(2)), ("stop_failures", Some(1))]);
    assert_eq!(fleet.row(child).await.status, Status::Removed);
    assert_eq!(fleet.backend.count(Operation::RemoveVolume), 1, "the volume of what may still run is kept");
    fleet.backend.behave();
    fleet.control_plane.delete(root, true, false).await.unwrap();
    assert_eq!(fleet.backend.count(Operation::RemoveVolume), 3);
    fleet.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_comes_at_the_same_instant_a_deleted_workspace_stays_gone() {
    let fleet = Fleet::new().await;
    let mut left = Vec::new();
    for _ in 0..20 {
        let id = fleet.create("a").await;
        fleet.come_online(id).await;
        let token = fleet.token(id);
        let (one, other, deleted, beat) = tokio::join!(
            fleet.control_plane.restart(id, false),
            fleet.control_plane.restart(id, false),
            fleet.control_plane.delete(id, false, false),
            fleet.beat(id, &token),
        );
        assert!(matches!(deleted.unwrap(), Deleted::Removed { .. }));
        for restarted in [one, other] {
            let kind = restarted.err().map(|error| error.kind());
            assert!(matches!(kind, None | Some(ErrorKind::NotFound | ErrorKind::Conflict)), "{kind:?}");
        }
        let kind = beat.err().map(|error| error.kind());
        assert!(matches!(kind, None | Some(ErrorKind::Unauthenticated)), "{kind:?}");
        left.push((id, token));
    }
    let (control_plane, backend) = (fleet.control_plane.clone(), fleet.backend.clone());
    // Nothing is under way any more.
    fleet.down().await;
    for (id, token) in left {
        assert_eq!(control_plane.workspace(id).await.unwrap().unwrap().status, Status::Removed);
        assert_eq!(backend.observe(id).await.unwrap(), Workload::Absent);
        let credential = control_plane.authenticate(Some(token.expose_secret())).await.unwrap();
        assert_eq!(credential, Credential::Unknown);
    }
    assert_eq!(backend.inventory().await.unwrap(), [], "nor a volume");
}

#[tokio::test]
async fn who_is_deleted_is_nobody_before_what_runs_is_stopped() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    let token = fleet.token(id);
    let release = fleet.backend.when(Operation::Stop).of(id).hang_until_released();
    let looked = async {
        fleet.backend.called(Operation::Stop, 1).await;
        assert_eq!(fleet.row(id).await.status, Status::Removed);
        let error = fleet.beat(id, &token).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        assert_eq!(fleet.backend.count(Operation::RemoveVolume), 0, "it may still run");
        release.release();
    };
    let (deleted, ()) = tokio::join!(fleet.control_plane.delete(id, false, false), looked);
    assert!(matches!(deleted.unwrap(), Deleted::Removed { cascade_deleted: 0 }));
    assert_eq!(fleet.backend.count(Operation::RemoveVolume), 1);
    fleet.down().await;
}
