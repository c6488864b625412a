//! Machines of another control plane.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use molecule_core::{
    ControlPlane, Error, ErrorKind,
    a2a::{Call, Sender},
    config::Config,
    identity::Credential,
    net::Policy,
    provisioner::Instance,
    registry::{Heartbeat, Register},
    store::Store,
    testing::MockControlPlaneProvisioner,
    workspace::{CreateWorkspace, Deleted, Status},
};
use serde_json::json;

use crate::fleet::PATIENCE;

#[tokio::test]
async fn a_machine_that_does_not_come_up_is_told_of_with_the_end_of_its_log() {
    let mut machines = MockControlPlaneProvisioner::new();
    machines.expect_start().returning(|_| Ok(Instance { instance_id: "i-1".to_owned() }));
    let control_plane = ControlPlane::builder(Store::connect("sqlite::memory:").await.unwrap())
        .control_plane_backend(Arc::new(machines))
        .build()
        .unwrap();
    let request = CreateWorkspace { name: "a".to_owned(), ..CreateWorkspace::default() };
    let id = control_plane.create(request).await.unwrap().workspace.id;
    let log = format!("{}the end", "x".repeat(8192));
    assert!(control_plane.bootstrap_failed(id, "no network", &log).await.unwrap());
    assert!(!control_plane.bootstrap_failed(id, "again", "").await.unwrap(), "it has failed already");
    let failed = control_plane.events(Some(id), 1).await.unwrap().pop().unwrap();
    assert_eq!(failed.event_type, "WORKSPACE_PROVISION_FAILED");
    let payload = failed.payload.unwrap();
    assert_eq!((&payload["error"], &payload["source"]), (&json!("no network"), &json!("bootstrap_watcher")));
    let tail = payload["log_tail"].as_str().unwrap();
    assert!(tail.ends_with("xthe end") && tail.contains("truncated") && tail.len() < 8300, "{}", tail.len());
    assert_eq!(payload.as_object().unwrap().len(), 3);
    assert!(control_plane.shut_down(PATIENCE).await);
}

#[tokio::test]
async fn machines_of_another_control_plane_come_up_and_are_given_back() {
    let mut machines = MockControlPlaneProvisioner::new();
    machines.expect_start().times(1).returning(|_| Ok(Instance { instance_id: "i-1".to_owned() }));
    let mut stops = 0;
    machines.expect_stop().withf(|_, instance| instance == "i-1").times(2).returning(move |_, _| {
        stops += 1;
        if stops == 1 { Err(Error::new(ErrorKind::Upstream, "unexpected 500")) } else { Ok(()) }
    });
    let control_plane = ControlPlane::builder(Store::connect("sqlite::memory:").await.unwrap())
        .control_plane_backend(Arc::new(machines))
        .build()
        .unwrap();
    let request = CreateWorkspace { name: "a".to_owned(), ..CreateWorkspace::default() };
    let id = control_plane.create(request).await.unwrap().workspace.id;
    let started = async {
        while control_plane.workspace(id).await.unwrap().unwrap().instance_id.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, started).await.expect("the machine is asked for");
    // Its agent has no token yet. That it beats before it registers, since that call got lost, shuts it no door, and tells
    // nobody a secret.
    let told = control_plane.heartbeat(id, &Heartbeat::default(), Credential::Absent).await.unwrap();
    assert!(told.inbound_secret.is_none());
    assert_eq!(control_plane.workspace(id).await.unwrap().unwrap().status, Status::Provisioning);
    // The first register call is given a token, and names the address.
    let register = Register { id, url: "http://8.8.8.8/".to_owned(), agent_card: json!({}), delivery_mode: None };
    let registered = control_plane.register(&register, Credential::Absent).await.unwrap();
    assert!(registered.auth_token.is_some());
    let row = control_plane.workspace(id).await.unwrap().unwrap();
    assert_eq!((row.status, row.url.as_str()), (Status::Online, "http://8.8.8.8/"));
    let error = control_plane.register(&register, Credential::Absent).await.unwrap_err();
    assert_eq!(error.message(), "missing workspace auth token", "the first token is given once");
    // Others call it where it said it is.
    assert_eq!(control_plane.discover(id, id).await.unwrap().url, "http://8.8.8.8/");
    // A machine that was not given back is not forgotten: the next delete tries again.
    assert!(control_plane.delete(id, false, false).await.is_err());
    assert!(matches!(control_plane.delete(id, false, false).await.unwrap(), Deleted::Removed { .. }));
    assert!(control_plane.shut_down(PATIENCE).await);
}

#[tokio::test]
async fn a_machine_is_dead_only_where_its_control_plane_says_so() {
    let (starts, mut asked) = (Arc::new(AtomicUsize::new(0)), 0);
    let started = Arc::clone(&starts);
    let mut machines = MockControlPlaneProvisioner::new();
    machines.expect_start().returning(move |_| {
        let number = started.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Instance { instance_id: format!("i-{number}") })
    });
    machines.expect_stop().returning(|_, _| Ok(()));
    machines.expect_is_running().withf(|_, instance| instance == "i-1").returning(move |_, _| {
        asked += 1;
        match asked {
            1 => Err(Error::new(ErrorKind::Upstream, "unexpected 500")),
            2 => Ok(true),
            _ => Ok(false),
        }
    });
    let control_plane = ControlPlane::builder(Store::connect("sqlite::memory:").await.unwrap())
        .config(Config { address_policy: Policy::Development, ..Config::default() })
        .control_plane_backend(Arc::new(machines))
        .build()
        .unwrap();
    let request = CreateWorkspace { name: "a".to_owned(), ..CreateWorkspace::default() };
    let id = control_plane.create(request).await.unwrap().workspace.id;
    let until = async |count: usize| {
        let seen = async {
            let is_there = async || control_plane.workspace(id).await.unwrap().unwrap().instance_id.is_some();
            while starts.load(Ordering::SeqCst) < count || !is_there().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.expect("the machine is asked for");
    };
    until(1).await;
    // Nobody listens there.
    let register = Register { id, url: "http://127.0.0.1:1/".to_owned(), agent_card: json!({}), delivery_mode: None };
    control_plane.register(&register, Credential::Absent).await.unwrap();
    let body = Bytes::from_static(br#"{"method":"message/send","params":{"message":{"content":"hi"}}}"#);
    let call = Call { target: id, sender: Sender::Operator, body, protocol: None, deadline: None };
    for _ in 0..2 {
        let error = control_plane.call(call.clone()).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Upstream, "failed to reach workspace agent"));
    }
    let error = control_plane.call(call).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::Unavailable, "workspace agent unreachable — container restart triggered")
    );
    assert_eq!(error.members()[0], ("restarting", json!(true)));
    until(2).await;
    assert!(control_plane.shut_down(PATIENCE).await);
}
