//! Agents and workloads that are lost, and found again.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use molecule_core::{
    ControlPlane, ErrorKind, clock::Clock, config::Config, store::gate, testing::Operation, workspace::Status,
};
use serde_json::json;

use crate::fleet::{Fleet, PATIENCE};

#[tokio::test]
async fn a_lost_workload_is_brought_up_again() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    fleet.control_plane.start();
    fleet.backend.end(id, Some(1));
    fleet.backend.called(Operation::Start, 2).await;
    fleet.come_online(id).await;
    let events = fleet.events(id).await;
    assert_eq!(
        events,
        [
            "WORKSPACE_PROVISIONING",
            "WORKSPACE_ONLINE",
            "WORKSPACE_OFFLINE",
            "WORKSPACE_PROVISIONING",
            "WORKSPACE_ONLINE",
        ]
    );
    fleet.down().await;
}

#[tokio::test]
async fn a_backend_that_cannot_tell_causes_no_restart() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    fleet.backend.when(Operation::Observe).fail(ErrorKind::Unavailable, "away");
    fleet.control_plane.start();
    let looked = fleet.backend.count(Operation::Observe);
    fleet.backend.called(Operation::Observe, looked + 5).await;
    assert_eq!(fleet.row(id).await.status, Status::Online);
    assert_eq!(fleet.backend.count(Operation::Start), 1);
    fleet.down().await;
}

#[tokio::test]
async fn a_silent_external_agent_is_awaited_and_its_next_beat_brings_it_back() {
    let fleet = Fleet::new().await;
    let (id, token) = fleet.create_external("e").await;
    fleet.beat(id, &token).await.unwrap();
    fleet.clock.advance(Duration::from_secs(91));
    fleet.control_plane.start();
    fleet.until(id, Status::AwaitingAgent).await;
    fleet.beat(id, &token).await.unwrap();
    assert_eq!(fleet.row(id).await.status, Status::Online);
    let awaited = || ("WORKSPACE_ONLINE", json!({"recovered_from": "awaiting_agent"}));
    let expected = [
        ("WORKSPACE_AWAITING_AGENT", json!({"name": "e", "external": true})),
        awaited(),
        ("WORKSPACE_OFFLINE", json!({})),
        awaited(),
    ];
    assert_eq!(fleet.told(id).await, expected.map(|(kind, payload)| (kind.to_owned(), payload)));
    let named = fleet.backend.calls().into_iter().filter(|call| call.workspace_id.is_some()).count();
    assert_eq!(named, 0, "no backend has anything to do with it");
    fleet.down().await;
}

#[tokio::test]
async fn a_workspace_that_was_lost_and_left_is_brought_up_again() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    // A control plane without a backend finds the loss and can do nothing about it.
    let config = Config { health_tick: Duration::from_millis(20), ..Config::default() };
    let helpless = ControlPlane::builder(fleet.control_plane.store().clone())
        .config(config)
        .clock(Arc::new(fleet.clock.clone()))
        .build()
        .unwrap();
    fleet.clock.advance(Duration::from_secs(181));
    helpless.start();
    fleet.until(id, Status::Offline).await;
    assert!(helpless.shut_down(PATIENCE).await);
    assert_eq!(fleet.backend.count(Operation::Start), 1);
    fleet.control_plane.start();
    fleet.backend.called(Operation::Start, 2).await;
    fleet.come_online(id).await;
    fleet.down().await;
}

#[tokio::test]
async fn who_was_lost_and_beats_again_is_online() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    let config = Config { health_tick: Duration::from_millis(20), ..Config::default() };
    let helpless = ControlPlane::builder(fleet.control_plane.store().clone())
        .config(config)
        .clock(Arc::new(fleet.clock.clone()))
        .build()
        .unwrap();
    fleet.clock.advance(Duration::from_secs(181));
    helpless.start();
    fleet.until(id, Status::Offline).await;
    assert!(helpless.shut_down(PATIENCE).await);
    // Later, so that the log has an order.
    fleet.clock.advance(Duration::from_secs(1));
    fleet.beat(id, &fleet.token(id)).await.unwrap();
    assert_eq!(fleet.row(id).await.status, Status::Online);
    let told = fleet.told(id).await;
    let expected = ["WORKSPACE_OFFLINE", "WORKSPACE_ONLINE"].map(|kind| (kind.to_owned(), json!({})));
    assert_eq!(told[told.len() - 2..], expected);
    fleet.down().await;
}

#[tokio::test]
async fn below_a_paused_workspace_nothing_is_brought_up_again() {
    let fleet = Fleet::new().await;
    let (lead, id) = (fleet.create("lead").await, fleet.create("a").await);
    for id in [lead, id] {
        fleet.come_online(id).await;
    }
    fleet.control_plane.pause(lead).await.unwrap();
    let pool = gate::sqlite(fleet.control_plane.store()).expect("it is SQLite");
    let below = sqlx::query("UPDATE workspaces SET parent_id = $2 WHERE id = $1").bind(id).bind(lead);
    below.execute(pool).await.unwrap();
    fleet.control_plane.start();
    fleet.backend.end(id, Some(1));
    fleet.until(id, Status::Offline).await;
    for _ in 0..3 {
        swept(&fleet).await;
    }
    assert_eq!((fleet.row(id).await.status, fleet.backend.count(Operation::Start)), (Status::Offline, 2));
    fleet.control_plane.resume(lead).await.unwrap();
    fleet.backend.called(Operation::Start, 4).await;
    fleet.come_online(id).await;
    fleet.down().await;
}

#[tokio::test]
async fn a_panic_over_one_workspace_keeps_no_other_from_being_looked_at() {
    let fleet = Fleet::new().await;
    let (cursed, lost) = (fleet.create("cursed").await, fleet.create("lost").await);
    fleet.come_online(cursed).await;
    fleet.come_online(lost).await;
    fleet.backend.when(Operation::Observe).of(cursed).panic("as asked");
    fleet.backend.end(lost, Some(1));
    fleet.control_plane.start();
    fleet.backend.called(Operation::Start, 3).await;
    fleet.come_online(lost).await;
    assert_eq!(fleet.row(cursed).await.status, Status::Online);
    assert!(fleet.control_plane.liveness().contains_key("health-sweep"), "the loop comes round");
    fleet.down().await;
}

/// Waits until the health sweep came round twice more.
async fn swept(fleet: &Fleet) {
    for _ in 0..2 {
        let tick = || fleet.control_plane.liveness().get("health-sweep").map(|tick| tick.at);
        let before = tick();
        // A tick tells the time, so that has to move to tell one from the next.
        fleet.clock.advance(Duration::from_millis(1));
        let ticked = async {
            while tick() == before {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ticked).await.expect("the sweep comes round");
    }
}

#[tokio::test]
async fn a_clock_that_jumps_an_hour_loses_nobody_and_hides_no_loss() {
    for hours in [1, -1] {
        let fleet = Fleet::new().await;
        let began = fleet.clock.now();
        let (external, token) = fleet.create_external("e").await;
        fleet.beat(external, &token).await.unwrap();
        let managed = fleet.create("m").await;
        fleet.come_online(managed).await;
        fleet.control_plane.start();
        swept(&fleet).await;
        fleet.clock.set(began + TimeDelta::hours(hours));
        swept(&fleet).await;
        fleet.clock.advance(Duration::from_secs(85));
        swept(&fleet).await;
        for id in [external, managed] {
            assert_eq!(fleet.row(id).await.status, Status::Online, "{hours}");
        }
        // One goes on beating, the other is silent for good.
        fleet.beat(managed, &fleet.token(managed)).await.unwrap();
        fleet.clock.advance(Duration::from_secs(10));
        fleet.until(external, Status::AwaitingAgent).await;
        fleet.clock.advance(Duration::from_secs(120));
        swept(&fleet).await;
        assert_eq!(fleet.row(managed).await.status, Status::Online, "{hours}");
        fleet.clock.advance(Duration::from_secs(60));
        fleet.backend.called(Operation::Start, 2).await;
        fleet.down().await;
    }
}
