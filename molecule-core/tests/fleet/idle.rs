//! Workspaces that go to sleep by themselves, and those that do not.

use std::time::Duration;

use molecule_core::{
    ErrorKind, config::Config, id::WorkspaceId, registry::Heartbeat, store::gate, testing::Operation, workspace::Status,
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::fleet::{Fleet, PATIENCE};

const MINUTE: Duration = Duration::from_secs(60);

async fn swept_often() -> Fleet {
    // Nobody is to be found lost and brought up again meanwhile.
    let managed_silence = 365 * 24 * 60 * MINUTE;
    let hibernation_tick = Duration::from_millis(5);
    Fleet::with(Config { hibernation_tick, managed_silence, ..Config::default() }).await
}

async fn is_to_sleep_after(fleet: &Fleet, id: WorkspaceId, minutes: i32) {
    let pool = gate::sqlite(fleet.control_plane.store()).expect("it is SQLite");
    let set = sqlx::query("UPDATE workspaces SET hibernation_idle_minutes = $2 WHERE id = $1").bind(id).bind(minutes);
    assert_eq!(set.execute(pool).await.unwrap().rows_affected(), 1);
}

/// Waits until the sweep came round twice more.
async fn swept(fleet: &Fleet) {
    for _ in 0..2 {
        let tick = || fleet.control_plane.liveness().get("hibernation-monitor").map(|tick| tick.at);
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

async fn beat(fleet: &Fleet, id: WorkspaceId, token: &SecretString, active_tasks: i32) {
    let credential = fleet.control_plane.authenticate(Some(token.expose_secret())).await.unwrap();
    let beat = Heartbeat { active_tasks, ..Heartbeat::default() };
    fleet.control_plane.heartbeat(id, &beat, credential).await.unwrap();
}

#[tokio::test]
async fn who_beats_and_does_nothing_sleeps_and_who_works_does_not() {
    let fleet = swept_often().await;
    let mut members = Vec::new();
    for (name, minutes) in [("idle", 10), ("works", 10), ("never", 0), ("later", 60)] {
        let id = fleet.create(name).await;
        fleet.come_online(id).await;
        is_to_sleep_after(&fleet, id, minutes).await;
        members.push((id, fleet.token(id)));
    }
    let (external, token) = fleet.create_external("external").await;
    is_to_sleep_after(&fleet, external, 10).await;
    members.push((external, token));
    fleet.control_plane.start();
    for minute in 0..=11 {
        for (n, (id, token)) in members.iter().enumerate() {
            // The second works now and then.
            let active_tasks = i32::from(n == 1 && minute % 4 == 0);
            if fleet.row(*id).await.status != Status::Hibernated {
                beat(&fleet, *id, token, active_tasks).await;
            }
        }
        swept(&fleet).await;
        let expected = if minute > 10 { Status::Hibernated } else { Status::Online };
        if minute != 10 {
            assert_eq!(fleet.row(members[0].0).await.status, expected, "minute {minute}");
        }
        fleet.clock.advance(MINUTE);
    }
    for (id, _) in &members[1..] {
        assert_eq!(fleet.row(*id).await.status, Status::Online);
    }
    let told = fleet.told(members[0].0).await.pop().unwrap();
    assert_eq!(told, ("WORKSPACE_HIBERNATED".to_owned(), json!({"name": "idle", "tier": 3})));
    fleet.down().await;
}

#[tokio::test]
async fn a_hibernation_that_was_interrupted_is_finished() {
    let fleet = swept_often().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    fleet.backend.when(Operation::Stop).times(1).fail(ErrorKind::Unavailable, "the engine is away");
    fleet.control_plane.hibernate(id, true).await.unwrap_err();
    assert_eq!(fleet.row(id).await.status, Status::Hibernating);
    fleet.control_plane.start();
    swept(&fleet).await;
    assert_eq!(fleet.row(id).await.status, Status::Hibernating, "whoever began it may still be at it");
    // Its agent was not stopped, and goes on beating.
    let token = fleet.token(id);
    for _ in 0..10 {
        beat(&fleet, id, &token, 0).await;
        assert_eq!(fleet.row(id).await.status, Status::Hibernating);
        fleet.clock.advance(MINUTE / 2);
    }
    fleet.until(id, Status::Hibernated).await;
    assert_eq!(fleet.backend.count(Operation::Stop), 2);
    assert_eq!(fleet.events(id).await.last().unwrap(), "WORKSPACE_HIBERNATED");
    fleet.down().await;
}

#[tokio::test]
async fn that_an_agent_begins_to_work_or_ends_is_in_its_row_at_once() {
    let fleet = swept_often().await;
    let (id, token) = fleet.create_external("e").await;
    let kept = async || {
        let pool = gate::sqlite(fleet.control_plane.store()).expect("it is SQLite");
        let tasks = sqlx::query_scalar("SELECT active_tasks FROM workspaces WHERE id = $1").bind(id);
        let tasks: i32 = tasks.fetch_one(pool).await.unwrap();
        tasks
    };
    for (tasks, expected) in [(0, 0), (0, 0), (0, 0), (2, 2), (2, 2), (3, 2), (0, 0)] {
        beat(&fleet, id, &token, tasks).await;
        assert_eq!(kept().await, expected, "after {tasks}");
    }
    fleet.down().await;
}
