//! Agents that are called, and that look for one another.

use std::time::Duration;

use bytes::Bytes;
use molecule_core::{
    ErrorKind,
    a2a::{Call, Sender},
    activity::ActivityQuery,
    config::Config,
    delegation::Delegate,
    id::WorkspaceId,
    net::Policy,
    provisioner::{Capability, LocalProvisioner},
    registry::Heartbeat,
    store::gate,
    testing::{Operation, ScriptedProvisioner},
    workspace::{CreateWorkspace, Status},
};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::fleet::{Fleet, PATIENCE};

/// A message of the operator.
fn greeting(target: WorkspaceId) -> Call {
    let body = Bytes::from_static(br#"{"method":"message/send","params":{"message":{"content":"hi"}}}"#);
    Call { target, sender: Sender::Operator, body, protocol: None, deadline: None }
}

#[tokio::test]
async fn a_deadline_beyond_all_reckoning_is_none() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    let body = Bytes::from_static(br#"{"method":"m"}"#);
    let call = Call { target: id, sender: Sender::Operator, body, protocol: None, deadline: Some(Some(Duration::MAX)) };
    // Whatever becomes of the call, it does not end by a panic.
    if let Err(error) = fleet.control_plane.call(call).await {
        assert_ne!(error.kind(), ErrorKind::Unexpected, "{error:?}");
    }
    fleet.down().await;
}

#[tokio::test]
async fn who_has_spent_what_it_may_is_not_called() {
    let fleet = Fleet::new().await;
    let request = CreateWorkspace { name: "a".to_owned(), budget_limit: Some(500), ..CreateWorkspace::default() };
    let id = fleet.control_plane.create(request).await.unwrap().workspace.id;
    fleet.come_online(id).await;
    let credential = fleet.control_plane.authenticate(Some(fleet.token(id).expose_secret())).await.unwrap();
    let beat = Heartbeat { monthly_spend: 500, ..Heartbeat::default() };
    fleet.control_plane.heartbeat(id, &beat, credential).await.unwrap();
    let body = Bytes::from_static(br#"{"method":"m"}"#);
    let call = Call { target: id, sender: Sender::Operator, body, protocol: None, deadline: None };
    let error = fleet.control_plane.call(call).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::BudgetExceeded, "workspace budget limit exceeded"));
    fleet.down().await;
}

#[tokio::test]
async fn a_task_for_an_agent_that_sleeps_or_is_not_up_yet_waits_for_it() {
    let fleet = Fleet::new().await;
    let (lead, sleeper) = (fleet.create("lead").await, fleet.create("a").await);
    fleet.come_online(sleeper).await;
    fleet.control_plane.hibernate(sleeper, false).await.unwrap();
    fleet.until(sleeper, Status::Hibernated).await;
    fleet.backend.when(Operation::Start).hang();
    let starting = fleet.create("b").await;
    for target in [sleeper, starting] {
        let task = Delegate { target_id: target.to_string(), task: "count".to_owned(), idempotency_key: None };
        fleet.control_plane.delegate(lead, task).await.unwrap();
    }
    let queued = async {
        loop {
            let rows = fleet.control_plane.delegations(lead).await.unwrap();
            if rows.iter().filter(|row| row.status == "queued").count() == 4 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, queued).await.expect("both wait");
    // The message woke it.
    fleet.backend.called(Operation::Start, 4).await;
    for target in [sleeper, starting] {
        let log = fleet.control_plane.activity(target, &ActivityQuery::default()).await.unwrap();
        assert_eq!((log.len(), log[0].status.as_str()), (1, "queued"), "{log:?}");
    }
}

#[tokio::test]
async fn a_caller_that_leaves_wakes_the_agent_all_the_same() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    fleet.control_plane.hibernate(id, false).await.unwrap();
    fleet.until(id, Status::Hibernated).await;
    let mut steps = 1;
    while fleet.row(id).await.status == Status::Hibernated {
        let mut call = Box::pin(fleet.control_plane.call(greeting(id)));
        for _ in 0..steps {
            if futures_util::poll!(&mut call).is_ready() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(call);
        tokio::time::sleep(Duration::from_millis(10)).await;
        steps += 1;
    }
    let started = tokio::time::timeout(PATIENCE, fleet.backend.called(Operation::Start, 2));
    started.await.expect("what was decided is done");
    fleet.come_online(id).await;
    fleet.down().await;
}

#[tokio::test]
async fn calling_a_dead_workload_brings_it_up_again() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    fleet.backend.end(id, None);
    let error = fleet.control_plane.call(greeting(id)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.members().iter().any(|(name, value)| *name == "restarting" && value == true), "{error:?}");
    fleet.backend.called(Operation::Start, 2).await;
    fleet.come_online(id).await;
    fleet.down().await;
}

#[tokio::test]
async fn however_many_find_a_workload_dead_it_is_brought_up_again_once() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    fleet.backend.end(id, None);
    let calls = futures_util::future::join_all((0..4).map(|_| fleet.control_plane.call(greeting(id))));
    for called in calls.await {
        assert_eq!(called.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    fleet.backend.called(Operation::Start, 2).await;
    fleet.come_online(id).await;
    let backend = fleet.backend.clone();
    fleet.down().await;
    assert_eq!(backend.count(Operation::Start), 2);
}

#[tokio::test]
async fn agents_find_those_they_may_talk_to_and_no_others() {
    let fleet = Fleet::new().await;
    let lead = fleet.create("lead").await;
    let (one, two) = (fleet.create_below("one", lead).await, fleet.create_below("Zwei", lead).await);
    let below = fleet.create_below("below", one).await;
    for id in [lead, one, two, below] {
        fleet.come_online(id).await;
    }
    let names = async |id, query| {
        let peers = fleet.control_plane.peers(id, query).await.unwrap();
        peers.into_iter().map(|peer| peer.name).collect::<Vec<_>>()
    };
    assert_eq!(names(one, None).await, ["Zwei", "below", "lead"]);
    assert_eq!(names(one, Some(" zWEI ")).await, ["Zwei"]);
    assert_eq!(names(below, None).await, ["one"]);
    let found = fleet.control_plane.discover(one, two).await.unwrap();
    assert_eq!((found.name.as_str(), found.url), ("Zwei", fleet.row(two).await.url));
    let error = fleet.control_plane.discover(below, two).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::PermissionDenied, "not authorized to discover this workspace")
    );
    fleet.control_plane.delete(two, true, false).await.unwrap();
    let error = fleet.control_plane.discover(one, two).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "a removed workspace is not told apart from none");
    assert_eq!(names(one, None).await, ["below", "lead"]);
    fleet.down().await;
}

#[tokio::test]
async fn where_an_agent_is_called_depends_on_who_asks_and_is_checked_again() {
    let config = Config { address_policy: Policy::Development, ..Config::default() };
    let fleet = Fleet::with(config).await;
    let asker = fleet.create("managed").await;
    fleet.come_online(asker).await;
    let (outside, token) = fleet.create_external("outside").await;
    fleet.beat(outside, &token).await.unwrap();
    let url = Some("http://127.0.0.1:9000/localhost".to_owned());
    let request = CreateWorkspace { name: "e".to_owned(), external: true, url, ..CreateWorkspace::default() };
    let target = fleet.control_plane.create(request).await.unwrap().workspace.id;
    let found = async |asker| fleet.control_plane.discover(asker, target).await.map(|found| found.url);
    // A workload reaches its host by another name than those who are on it.
    assert_eq!(found(asker).await.unwrap(), "http://host.docker.internal:9000/localhost");
    assert_eq!(found(outside).await.unwrap(), "http://127.0.0.1:9000/localhost");
    let pool = gate::sqlite(fleet.control_plane.store()).expect("it is SQLite");
    let moved = sqlx::query("UPDATE workspaces SET url = 'http://169.254.169.254/' WHERE id = $1").bind(target);
    moved.execute(pool).await.unwrap();
    for asker in [asker, outside] {
        let error = found(asker).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, "workspace URL failed safety check"));
    }
    fleet.down().await;
}

#[tokio::test]
async fn an_agent_that_is_a_process_of_this_host_finds_others_on_it_as_they_are() {
    let backend = ScriptedProvisioner::new();
    let capability = Capability { isolation: false, ..LocalProvisioner::capability(&backend) };
    let config = Config { address_policy: Policy::Development, ..Config::default() };
    let fleet = Fleet::made_of(config, ScriptedProvisioner::with_capability(capability)).await;
    let asker = fleet.create("managed").await;
    fleet.come_online(asker).await;
    let url = Some("http://127.0.0.1:9000/".to_owned());
    let request = CreateWorkspace { name: "e".to_owned(), external: true, url, ..CreateWorkspace::default() };
    let target = fleet.control_plane.create(request).await.unwrap().workspace.id;
    assert_eq!(fleet.control_plane.discover(asker, target).await.unwrap().url, "http://127.0.0.1:9000/");
    fleet.down().await;
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_named_with_its_status() {
    let fleet = Fleet::new().await;
    let (one, _) = fleet.create_external("one").await;
    let (two, token) = fleet.create_external("two").await;
    let error = fleet.control_plane.discover(one, two).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, "workspace not available"));
    assert_eq!(error.members().first().unwrap(), &("status", json!("awaiting_agent")));
    fleet.beat(two, &token).await.unwrap();
    // It polls: what is for it goes through here.
    let found = fleet.control_plane.discover(one, two).await.unwrap();
    assert_eq!(found.url, format!("http://127.0.0.1:8080/workspaces/{two}/a2a"));
    fleet.down().await;
}
