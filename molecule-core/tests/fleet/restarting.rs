//! Restarts.

use std::time::Duration;

use molecule_core::{
    ErrorKind,
    identity::Credential,
    registry::Register,
    store::gate,
    testing::Operation,
    workspace::{Restarted, Status},
};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::fleet::Fleet;

#[tokio::test]
async fn a_restart_answers_while_the_backend_hangs() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    let release = fleet.backend.when(Operation::Stop).hang_until_released();
    let restarted = tokio::time::timeout(Duration::from_millis(500), fleet.control_plane.restart(id, false)).await;
    assert_eq!(restarted.expect("the answer waits for nothing").unwrap(), Restarted::Provisioning);
    assert_eq!(fleet.row(id).await.status, Status::Provisioning);
    release.release();
    fleet.backend.called(Operation::Start, 2).await;
    fleet.come_online(id).await;
    fleet.down().await;
}

#[tokio::test]
async fn of_many_restarts_the_newest_wins_and_few_reach_the_backend() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    let release = fleet.backend.when(Operation::Stop).hang_until_released();
    for _ in 0..10 {
        fleet.control_plane.restart(id, false).await.unwrap();
    }
    release.release();
    fleet.come_online(id).await;
    let old_tokens_work = {
        let starts = fleet.backend.starts();
        let mut works = 0;
        for spec in starts.iter().filter(|spec| spec.workspace_id == id) {
            let file = spec.files.iter().find(|file| file.path == ".auth_token").unwrap();
            let token = String::from_utf8(file.contents.clone()).unwrap();
            let credential = fleet.control_plane.authenticate(Some(&token)).await.unwrap();
            works += usize::from(matches!(credential, Credential::Workspace(_)));
        }
        works
    };
    assert_eq!(old_tokens_work, 1, "only the newest token is live");
    assert!(fleet.backend.count(Operation::Start) <= 3, "{}", fleet.backend.count(Operation::Start));
    fleet.down().await;
}

#[tokio::test]
async fn restarting_an_external_workspace_touches_nothing() {
    let fleet = Fleet::new().await;
    let (id, token) = fleet.create_external("e").await;
    fleet.beat(id, &token).await.unwrap();
    let before = fleet.row(id).await;
    assert_eq!(fleet.control_plane.restart(id, false).await.unwrap(), Restarted::External);
    assert_eq!(fleet.row(id).await, before);
    assert!(fleet.backend.calls().is_empty());
    fleet.beat(id, &token).await.unwrap();
    fleet.down().await;
}

#[tokio::test]
async fn a_restart_gives_up_a_start_that_hangs() {
    let fleet = Fleet::new().await;
    fleet.backend.when(Operation::Start).times(1).hang();
    let id = fleet.create("a").await;
    fleet.backend.called(Operation::Start, 1).await;
    fleet.control_plane.restart(id, false).await.unwrap();
    fleet.backend.called(Operation::Start, 2).await;
    fleet.come_online(id).await;
    fleet.down().await;
}

#[tokio::test]
async fn the_last_words_of_the_agent_before_are_not_taken_for_those_of_the_next() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    let old = fleet.token(id);
    let release = fleet.backend.when(Operation::Stop).times(1).hang_until_released();
    fleet.backend.when(Operation::Start).fail(ErrorKind::Unavailable, "no");
    fleet.control_plane.restart(id, false).await.unwrap();
    // Its token is good until it is stopped, and says nothing about the try that is under way.
    fleet.beat(id, &old).await.unwrap();
    let credential = fleet.control_plane.authenticate(Some(old.expose_secret())).await.unwrap();
    let register = Register { id, url: String::new(), agent_card: json!({}), delivery_mode: None };
    fleet.control_plane.register(&register, credential).await.unwrap();
    assert_eq!(fleet.row(id).await.status, Status::Provisioning);
    release.release();
    let row = fleet.until(id, Status::Failed).await;
    assert_eq!(row.url, "", "nobody is to be called at the address of an agent that is gone");
    assert_eq!(fleet.events(id).await.last().unwrap(), "WORKSPACE_PROVISION_FAILED");
    fleet.down().await;
}

#[tokio::test]
async fn what_its_user_made_of_a_workspace_survives_a_restart() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    fleet.control_plane.restart(id, true).await.unwrap();
    fleet.backend.called(Operation::Start, 2).await;
    fleet.come_online(id).await;
    let starts = fleet.backend.starts();
    let paths = |n: usize| starts[n].files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>();
    let secrets = [".auth_token", ".platform_inbound_secret"];
    assert_eq!(paths(0), [&["config.yaml"], &secrets[..]].concat());
    assert_eq!(paths(1), secrets, "the configuration is there already");
    assert_eq!((starts[0].reset_session, starts[1].reset_session), (false, true));
    fleet.down().await;
}

#[tokio::test]
async fn a_runtime_that_was_changed_holds_from_the_next_restart_on() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    let pool = gate::sqlite(fleet.control_plane.store()).unwrap();
    sqlx::query("UPDATE workspaces SET runtime = 'hermes' WHERE id = $1").bind(id).execute(pool).await.unwrap();
    for n in [2, 3] {
        fleet.control_plane.restart(id, false).await.unwrap();
        fleet.backend.called(Operation::Start, n).await;
        fleet.come_online(id).await;
        assert_eq!(fleet.backend.starts()[n - 1].runtime, "hermes");
        assert_eq!(fleet.row(id).await.runtime, "hermes");
    }
    fleet.down().await;
}
