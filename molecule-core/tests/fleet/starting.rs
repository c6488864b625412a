//! Workspaces that are brought up, and those that fail to come.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use molecule_core::{
    ControlPlane, ErrorKind,
    config::Config,
    events::EventKind,
    registry::Register,
    store::Store,
    testing::{Logged, Operation, ScriptedProvisioner},
    workspace::{CreateWorkspace, Deleted, Status},
};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::fleet::{Fleet, PATIENCE};

#[tokio::test]
async fn a_workspace_comes_up_and_its_agent_brings_it_online() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    assert_eq!(fleet.row(id).await.status, Status::Provisioning);
    fleet.come_online(id).await;
    let expected = [
        ("WORKSPACE_PROVISIONING".to_owned(), json!({"name": "a", "tier": 3, "runtime": "claude-code"})),
        ("WORKSPACE_ONLINE".to_owned(), json!({"recovered_from": "provisioning"})),
    ];
    assert_eq!(fleet.told(id).await, expected);
    fleet.down().await;
}

#[tokio::test]
async fn a_start_that_fails_is_told_to_the_operator() {
    let fleet = Fleet::new().await;
    fleet.backend.when(Operation::Start).fail(ErrorKind::Unavailable, "the disk is full");
    let mut listener = fleet.control_plane.listen();
    let id = fleet.create("a").await;
    let row = fleet.until(id, Status::Failed).await;
    assert_eq!(row.last_sample_error.as_deref(), Some("workspace start failed: the disk is full"));
    let failed = tokio::time::timeout(PATIENCE, async {
        loop {
            let announcement = listener.next().await.unwrap();
            if announcement.event.kind == EventKind::WorkspaceProvisionFailed {
                return announcement;
            }
        }
    });
    let payload = failed.await.expect("listeners are told").event.payload.clone();
    assert_eq!(payload, json!({"error": "workspace start failed: the disk is full"}));
    fleet.down().await;
}

#[tokio::test]
async fn a_panic_in_the_backend_fails_one_workspace_and_no_other() {
    let fleet = Fleet::new().await;
    let doomed = fleet.create("doomed").await;
    fleet.backend.called(Operation::Start, 1).await;
    fleet.backend.when(Operation::Start).times(1).panic("secret detail");
    let id = fleet.create("a").await;
    let row = fleet.until(id, Status::Failed).await;
    let said = row.last_sample_error.unwrap();
    assert!(said.starts_with("provision panic") && !said.contains("secret"), "{said}");
    fleet.come_online(doomed).await;
    fleet.down().await;
}

/// How much memory this process has, where the system tells.
fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok())
}

#[tokio::test]
async fn seven_hundred_at_once_leave_their_traces_one_for_one() {
    let fleet = Fleet::new().await;
    let (logged, _guard) = Logged::here();
    fleet.backend.when(Operation::Start).fail(ErrorKind::Unavailable, "no");
    let mut resident = Vec::new();
    for round in 1..=3 {
        let ids = join_all((0..700).map(|n| {
            let fleet = &fleet;
            async move { fleet.create(&format!("w{n}")).await }
        }))
        .await;
        for id in &ids {
            fleet.until(*id, Status::Failed).await;
            assert_eq!(fleet.events(*id).await, ["WORKSPACE_PROVISIONING", "WORKSPACE_PROVISION_FAILED"]);
            let entries = logged.with(&format!("provisioning a workspace workspace.id={id} "));
            assert_eq!(entries.len(), 1, "{entries:?}");
            assert!(entries[0].contains("mode=\"scripted\""), "{entries:?}");
        }
        assert_eq!(fleet.backend.count(Operation::Start), round * 700);
        resident.extend(resident_kib());
    }
    // What is kept of them is rows: nothing of the tries themselves stays behind.
    if let [_, second, third] = resident[..] {
        assert!(third < second + 16 * 1024, "{resident:?} KiB");
    }
    fleet.down().await;
}

#[tokio::test]
async fn an_agent_that_ends_before_its_first_word_fails_its_workspace() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.backend.called(Operation::Start, 1).await;
    fleet.backend.end(id, Some(3));
    let row = fleet.until(id, Status::Failed).await;
    assert_eq!(
        row.last_sample_error.as_deref(),
        Some("the agent ended with exit code 3 before it registered — its log says why (molecule logs)")
    );
    // A backend that would begin it again is told not to; its log stays.
    tokio::time::timeout(PATIENCE, fleet.backend.called(Operation::Halt, 1)).await.expect("it is put to rest");
    assert!(fleet.control_plane.logs(id, 10).await.is_ok());
    fleet.down().await;
}

#[tokio::test]
async fn an_agent_that_never_comes_is_not_waited_for_for_ever() {
    let config = Config { timeout_tick: Duration::from_millis(20), ..Config::default() };
    let fleet = Fleet::with(config).await;
    let id = fleet.create("a").await;
    fleet.backend.called(Operation::Start, 1).await;
    fleet.clock.advance(Duration::from_secs(601));
    fleet.control_plane.start();
    let row = fleet.until(id, Status::Failed).await;
    assert!(row.last_sample_error.unwrap().contains("container started but never called /registry/register"));
    let events = fleet.control_plane.events(Some(id), 1).await.unwrap();
    let payload = events[0].payload.clone().unwrap();
    assert_eq!(payload["timeout_secs"], 600);
    assert_eq!(payload["source"], "provision_timeout_sweep");
    // Late, but it came.
    let credential = fleet.control_plane.authenticate(Some(fleet.token(id).expose_secret())).await.unwrap();
    let register = Register { id, url: String::new(), agent_card: json!({}), delivery_mode: None };
    fleet.control_plane.register(&register, credential).await.unwrap();
    assert_eq!(fleet.row(id).await.status, Status::Online);
    fleet.down().await;
}

#[tokio::test]
async fn a_start_that_is_overtaken_by_a_delete_is_given_up_and_clears_up_after_itself() {
    let fleet = Fleet::new().await;
    fleet.backend.when(Operation::Start).hang();
    let id = fleet.create("a").await;
    fleet.backend.called(Operation::Start, 1).await;
    let deleted = tokio::time::timeout(PATIENCE, fleet.control_plane.delete(id, false, false)).await;
    assert!(matches!(deleted.expect("it waits for no start").unwrap(), Deleted::Removed { .. }));
    assert!(fleet.backend.count(Operation::Stop) >= 1);
    assert!(fleet.backend.count(Operation::RemoveVolume) >= 1);
    assert_eq!(fleet.row(id).await.status, Status::Removed);
    fleet.down().await;
}

#[tokio::test]
async fn a_start_that_died_with_its_server_is_begun_anew() {
    let before = Fleet::new().await;
    before.backend.when(Operation::Start).hang();
    let id = before.create("a").await;
    before.backend.called(Operation::Start, 1).await;
    let backend = ScriptedProvisioner::new();
    let control_plane = ControlPlane::builder(before.control_plane.store().clone())
        .clock(Arc::new(before.clock.clone()))
        .local_backend(Arc::new(backend.clone()))
        .build()
        .unwrap();
    control_plane.start();
    backend.called(Operation::Start, 1).await;
    let after = Fleet { control_plane, backend, clock: before.clock.clone() };
    after.come_online(id).await;
    after.down().await;
}

#[tokio::test]
async fn without_a_backend_a_create_fails_in_plain_words() {
    let control_plane = ControlPlane::builder(Store::connect("sqlite::memory:").await.unwrap()).build().unwrap();
    let request = CreateWorkspace { name: "a".to_owned(), ..CreateWorkspace::default() };
    let id = control_plane.create(request).await.unwrap().workspace.id;
    let failed = async {
        loop {
            let row = control_plane.workspace(id).await.unwrap().unwrap();
            if row.status == Status::Failed {
                return row.last_sample_error.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let said = tokio::time::timeout(PATIENCE, failed).await.unwrap();
    assert!(said.starts_with("no provisioning backend available"), "{said}");
    let error = control_plane.restart(id, false).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, "provisioner not available"));
    assert!(control_plane.shut_down(PATIENCE).await);
}
