//! What stops workspaces for a while, and what brings them back.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use molecule_core::{
    ControlPlane, Error, ErrorKind,
    a2a::Sender,
    a2a::{Answer, Call},
    config::Config,
    id::WorkspaceId,
    identity::Credential,
    provisioner::Instance,
    registry::{Heartbeat, Register},
    store::Store,
    templates::Templates,
    testing::{Logged, MockControlPlaneProvisioner, Operation, Sweep, sweep},
    workspace::{CreateWorkspace, Deleted, Status},
};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::fleet::{Fleet, PATIENCE};

fn said(error: &Error) -> (ErrorKind, &str) {
    (error.kind(), error.message())
}

async fn message(control_plane: &ControlPlane, target: WorkspaceId) -> molecule_core::Result<Answer> {
    let body = Bytes::from_static(br#"{"method":"message/send","params":{"message":{"role":"user","parts":[]}}}"#);
    control_plane.call(Call { target, sender: Sender::Operator, body, protocol: None, deadline: None }).await
}

#[tokio::test]
async fn pausing_stops_all_below_and_resuming_brings_it_back() {
    let fleet = Fleet::new().await;
    let lead = fleet.create("lead").await;
    let below = fleet.create_below("below", lead).await;
    let other = fleet.create("other").await;
    for id in [lead, below, other] {
        fleet.come_online(id).await;
    }
    let first_url = fleet.row(lead).await.url;
    assert_eq!(fleet.control_plane.pause(lead).await.unwrap(), 2);
    for (id, name) in [(lead, "lead"), (below, "below")] {
        let row = fleet.row(id).await;
        assert_eq!((row.status, row.url.as_str()), (Status::Paused, ""));
        let paused = ("WORKSPACE_PAUSED".to_owned(), json!({"name": name}));
        assert_eq!(fleet.told(id).await.pop(), Some(paused));
    }
    assert!(!fleet.backend.serves(&first_url), "nothing of it runs");
    assert_eq!(fleet.row(other).await.status, Status::Online);
    assert_eq!(fleet.backend.count(Operation::RemoveVolume), 0, "what it keeps stays");

    let error = fleet.control_plane.pause(lead).await.unwrap_err();
    assert_eq!(said(&error), (ErrorKind::NotFound, "workspace not found or already paused"));
    let error = fleet.control_plane.restart(below, false).await.unwrap_err();
    assert_eq!(said(&error), (ErrorKind::Conflict, "parent workspace \"lead\" is paused — resume it first"));
    let error = fleet.control_plane.resume(below).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);

    let resumed = fleet.control_plane.resume(lead).await.unwrap();
    assert_eq!((resumed.status, resumed.count), (Status::Provisioning, 2));
    for id in [lead, below] {
        fleet.come_online(id).await;
    }
    let error = fleet.control_plane.resume(lead).await.unwrap_err();
    assert_eq!(said(&error), (ErrorKind::NotFound, "workspace not found or not paused"));
    fleet.down().await;
}

#[tokio::test]
async fn who_was_stopped_registers_and_stays_stopped() {
    let fleet = Fleet::new().await;
    let (paused, hibernated, hibernating) =
        (fleet.create("p").await, fleet.create("h").await, fleet.create("still").await);
    for id in [paused, hibernated, hibernating] {
        fleet.come_online(id).await;
    }
    fleet.control_plane.pause(paused).await.unwrap();
    fleet.control_plane.hibernate(hibernated, true).await.unwrap();
    fleet.backend.when(Operation::Stop).times(1).fail(ErrorKind::Unavailable, "the engine is away");
    fleet.control_plane.hibernate(hibernating, true).await.unwrap_err();
    let rows = [(paused, Status::Paused), (hibernated, Status::Hibernated), (hibernating, Status::Hibernating)];
    for (id, status) in rows {
        let token = fleet.token(id);
        let credential = fleet.control_plane.authenticate(Some(token.expose_secret())).await.unwrap();
        let card = json!({"name": "still here"});
        let register = Register { id, url: String::new(), agent_card: card.clone(), delivery_mode: None };
        let registered = fleet.control_plane.register(&register, credential).await.unwrap();
        assert!(registered.auth_token.is_none());
        let row = fleet.row(id).await;
        assert_eq!((row.status, row.agent_card.as_ref()), (status, Some(&card)));
        let told = ("AGENT_CARD_UPDATED".to_owned(), json!({"agent_card": card}));
        assert_eq!(fleet.told(id).await.pop(), Some(told));
    }
    fleet.down().await;
}

#[tokio::test]
async fn a_beat_of_a_paused_agent_moves_nothing() {
    let fleet = Fleet::new().await;
    let (id, token) = fleet.create_external("e").await;
    fleet.beat(id, &token).await.unwrap();
    assert_eq!(fleet.control_plane.pause(id).await.unwrap(), 1);
    fleet.beat(id, &token).await.unwrap();
    assert_eq!(fleet.row(id).await.status, Status::Paused);
    let resumed = fleet.control_plane.resume(id).await.unwrap();
    assert_eq!((resumed.status, resumed.count), (Status::AwaitingAgent, 1));
    fleet.beat(id, &token).await.unwrap();
    assert_eq!(fleet.row(id).await.status, Status::Online);
    assert!(fleet.backend.calls().is_empty(), "nothing of an external workspace runs here");
    fleet.down().await;
}

#[tokio::test]
async fn a_start_that_is_overtaken_by_a_pause_is_given_up() {
    let fleet = Fleet::new().await;
    fleet.backend.when(Operation::Start).times(1).hang();
    let id = fleet.create("a").await;
    fleet.backend.called(Operation::Start, 1).await;
    assert_eq!(fleet.control_plane.pause(id).await.unwrap(), 1);
    assert_eq!(fleet.row(id).await.status, Status::Paused);
    fleet.control_plane.resume(id).await.unwrap();
    fleet.come_online(id).await;
    fleet.down().await;
}

#[tokio::test]
async fn a_pause_that_cannot_stop_says_so_and_a_resume_starts_anew() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    fleet.backend.when(Operation::Stop).times(1).fail(ErrorKind::Unavailable, "the engine is away");
    let error = fleet.control_plane.pause(id).await.unwrap_err();
    assert_eq!(said(&error), (ErrorKind::Unexpected, "1 of 1 workloads could not be stopped: the engine is away"));
    assert_eq!(error.members(), [("paused_count", json!(1)), ("stop_failures", json!(1))]);
    assert_eq!(fleet.row(id).await.status, Status::Paused);
    fleet.control_plane.resume(id).await.unwrap();
    fleet.come_online(id).await;
    fleet.down().await;
}

/// The stop of a pause that comes late must not hit what a resume has started meanwhile.
#[tokio::test]
async fn a_pause_and_a_resume_at_once_leave_a_workspace_that_runs() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    for _ in 0..20 {
        let pause = fleet.control_plane.pause(id);
        let resume = async {
            while fleet.control_plane.resume(id).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        let (paused, ()) = tokio::join!(pause, resume);
        assert_eq!(paused.unwrap(), 1);
        fleet.come_online(id).await;
        let url = fleet.row(id).await.url;
        assert!(fleet.backend.serves(&url), "it runs");
    }
    fleet.down().await;
}

#[tokio::test]
async fn hibernating_stops_an_idle_workspace_and_a_message_wakes_it() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    let url = fleet.row(id).await.url;
    fleet.control_plane.hibernate(id, false).await.unwrap();
    let row = fleet.row(id).await;
    assert_eq!((row.status, row.url.as_str()), (Status::Hibernated, ""));
    assert!(!fleet.backend.serves(&url));
    let error = fleet.control_plane.hibernate(id, true).await.unwrap_err();
    let text = "workspace not found or not in a hibernatable state (must be online or degraded)";
    assert_eq!(said(&error), (ErrorKind::NotFound, text));

    let answers = futures_util::future::join_all((0..5).map(|_| message(&fleet.control_plane, id))).await;
    let waking = answers.iter().filter_map(|answer| answer.as_ref().err()).filter(|error| {
        error.members() == [("waking", json!(true)), ("retry_after", json!(15))]
            && said(error) == (ErrorKind::Unavailable, "workspace is waking from hibernation — retry in ~15 seconds")
    });
    assert!(waking.count() >= 1, "{answers:?}");
    fleet.come_online(id).await;
    assert_eq!(fleet.backend.count(Operation::Start), 2, "of five that wake it one starts it");
    let kinds = fleet.events(id).await;
    assert_eq!(kinds[1..], ["WORKSPACE_ONLINE", "WORKSPACE_HIBERNATED", "WORKSPACE_PROVISIONING", "WORKSPACE_ONLINE"]);
    fleet.down().await;
}

#[tokio::test]
async fn a_workspace_that_works_hibernates_only_when_forced() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    let token = fleet.token(id);
    let credential = fleet.control_plane.authenticate(Some(token.expose_secret())).await.unwrap();
    let busy = Heartbeat { active_tasks: 2, ..Heartbeat::default() };
    // The second is taken from memory alone.
    for _ in 0..2 {
        fleet.clock.advance(Duration::from_secs(1));
        fleet.control_plane.heartbeat(id, &busy, credential).await.unwrap();
    }
    let error = fleet.control_plane.hibernate(id, false).await.unwrap_err();
    let text = "workspace has active tasks; use ?force=true to terminate them";
    assert_eq!(said(&error), (ErrorKind::Conflict, text));
    assert_eq!(error.members(), [("active_tasks", json!(2))]);
    assert_eq!(fleet.row(id).await.status, Status::Online);
    fleet.control_plane.hibernate(id, true).await.unwrap();
    assert_eq!(fleet.row(id).await.status, Status::Hibernated);
    fleet.down().await;
}

/// Idle again, as only memory knows: the claim goes by the row.
#[tokio::test]
async fn a_workspace_whose_last_task_just_ended_hibernates() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    let token = fleet.token(id);
    let credential = fleet.control_plane.authenticate(Some(token.expose_secret())).await.unwrap();
    for active_tasks in [2, 2, 0] {
        let beat = Heartbeat { active_tasks, ..Heartbeat::default() };
        fleet.clock.advance(Duration::from_secs(1));
        fleet.control_plane.heartbeat(id, &beat, credential).await.unwrap();
    }
    fleet.control_plane.hibernate(id, false).await.unwrap();
    assert_eq!(fleet.row(id).await.status, Status::Hibernated);
    fleet.down().await;
}

#[tokio::test]
async fn of_many_that_hibernate_at_once_one_does() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    let outcomes = futures_util::future::join_all((0..5).map(|_| fleet.control_plane.hibernate(id, true))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert!(matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound), "{error:?}");
    }
    assert_eq!(fleet.backend.count(Operation::Stop), 1);
    fleet.down().await;
}

#[tokio::test]
async fn a_message_wakes_what_could_not_be_stopped_as_well() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    fleet.backend.when(Operation::Stop).times(1).fail(ErrorKind::Unavailable, "the engine is away");
    let error = fleet.control_plane.hibernate(id, false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected);
    assert_eq!(fleet.row(id).await.status, Status::Hibernating);
    assert!(message(&fleet.control_plane, id).await.is_err());
    fleet.come_online(id).await;
    fleet.down().await;
}

#[tokio::test]
async fn external_workspaces_never_hibernate() {
    let fleet = Fleet::new().await;
    let (id, token) = fleet.create_external("e").await;
    fleet.beat(id, &token).await.unwrap();
    assert_eq!(fleet.control_plane.hibernate(id, true).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fleet.row(id).await.status, Status::Online);
    fleet.down().await;
}

#[tokio::test]
async fn collapsing_removes_all_below_and_leaves_the_lead() {
    let fleet = Fleet::new().await;
    let lead = fleet.create("lead").await;
    let one = fleet.create_below("one", lead).await;
    let below = fleet.create_below("below", one).await;
    for id in [lead, one, below] {
        fleet.come_online(id).await;
    }
    fleet.backend.when(Operation::Stop).of(below).times(1).fail(ErrorKind::Unavailable, "the engine is away");
    let error = fleet.control_plane.collapse(lead).await.unwrap_err();
    assert_eq!(error.members(), [("removed_count", json!(2)), ("stop_failures", json!(1))]);
    // Repeating it finishes what was left.
    assert_eq!(fleet.control_plane.collapse(lead).await.unwrap(), Vec::<String>::new());
    for id in [one, below] {
        assert_eq!(fleet.row(id).await.status, Status::Removed);
        assert_eq!(
            fleet.control_plane.authenticate(Some(fleet.token(id).expose_secret())).await.unwrap(),
            Credential::Unknown
        );
    }
    assert_eq!(fleet.row(lead).await.status, Status::Online);
    let kinds = fleet.events(lead).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "WORKSPACE_COLLAPSED").count(), 2);
    let error = fleet.control_plane.collapse(one).await.unwrap_err();
    assert_eq!(said(&error), (ErrorKind::NotFound, "workspace not found"));
    fleet.down().await;
}

/// A change that comes while another is brought about does not queue up behind it.
#[tokio::test]
async fn many_changes_at_once_are_brought_about_together() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    let release = fleet.backend.when(Operation::Stop).times(1).hang_until_released();
    for n in 0..10 {
        fleet.control_plane.set_provider(id, &format!("p{n}")).await.unwrap();
    }
    release.release();
    tokio::time::timeout(PATIENCE, async {
        while fleet.backend.starts().last().is_none_or(|spec| spec.env.get("LLM_PROVIDER").is_none_or(|p| p != "p9")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the newest of them is brought about");
    fleet.come_online(id).await;
    assert!(fleet.backend.count(Operation::Start) <= 3, "{}", fleet.backend.count(Operation::Start));
    fleet.down().await;
}

/// Two restarts, a delete and a heartbeat at one instant: the delete wins, and nothing runs afterwards.
#[tokio::test]
async fn whatever_races_with_a_delete_nothing_is_left() {
    let fleet = Fleet::new().await;
    for round in 0..20 {
        let id = fleet.create(&format!("w{round}")).await;
        fleet.come_online(id).await;
        let token = fleet.token(id);
        let (one, two, deleted, beat) = tokio::join!(
            fleet.control_plane.restart(id, false),
            fleet.control_plane.restart(id, false),
            fleet.control_plane.delete(id, true, false),
            fleet.beat(id, &token),
        );
        assert!(matches!(deleted.unwrap(), Deleted::Removed { .. }));
        for error in [one.err(), two.err(), beat.err()].into_iter().flatten() {
            assert!(
                matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unauthenticated | ErrorKind::Conflict),
                "{error:?}"
            );
        }
        assert_eq!(fleet.row(id).await.status, Status::Removed);
        let cleared = async {
            while fleet.backend.starts().iter().any(|spec| spec.workspace_id == id)
                && fleet.control_plane.logs(id, 1).await.is_ok()
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, cleared).await.expect("nothing of it is left");
    }
    let backend = fleet.backend.clone();
    fleet.down().await;
    let left = molecule_core::provisioner::WorkloadInspector::inventory(&backend).await.unwrap();
    assert_eq!(left, [], "nothing is left on the backend");
}

/// A control plane with machines that refuse to be given back as often as asked, and what was asked of them.
async fn machines(refusals: usize) -> (ControlPlane, Arc<Mutex<Vec<String>>>) {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let mut machines = MockControlPlaneProvisioner::new();
    let (started, stopped) = (calls.clone(), calls.clone());
    machines.expect_start().returning(move |_| {
        let mut calls = started.lock().unwrap();
        let n = calls.iter().filter(|call: &&String| call.starts_with("start")).count() + 1;
        calls.push(format!("start i-{n}"));
        Ok(Instance { instance_id: format!("i-{n}") })
    });
    machines.expect_stop().returning(move |_, instance| {
        let mut calls = stopped.lock().unwrap();
        let n = calls.iter().filter(|call| call.starts_with("stop")).count();
        calls.push(format!("stop {instance}"));
        if n < refusals { Err(Error::new(ErrorKind::Upstream, "unexpected 503")) } else { Ok(()) }
    });
    let config =
        Config { restart_stop_backoff: Duration::from_millis(1), orphan_grace: Duration::ZERO, ..Config::default() };
    let store = Store::connect("sqlite::memory:").await.unwrap();
    let control_plane =
        ControlPlane::builder(store).config(config).control_plane_backend(Arc::new(machines)).build().unwrap();
    (control_plane, calls)
}

async fn machine(control_plane: &ControlPlane, id: WorkspaceId, instance: &str) {
    let reached = async {
        while control_plane.workspace(id).await.unwrap().unwrap().instance_id.as_deref() != Some(instance) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("the machine comes up");
}

async fn coder(control_plane: &ControlPlane) -> WorkspaceId {
    let request = CreateWorkspace { name: "coder".to_owned(), ..CreateWorkspace::default() };
    let id = control_plane.create(request).await.unwrap().workspace.id;
    machine(control_plane, id, "i-1").await;
    id
}

#[tokio::test]
async fn a_restart_asks_for_the_old_machine_three_times_and_goes_on() {
    for (refusals, expected) in [
        (0, vec!["start i-1", "stop i-1", "start i-2"]),
        (2, vec!["start i-1", "stop i-1", "stop i-1", "stop i-1", "start i-2"]),
        (9, vec!["start i-1", "stop i-1", "stop i-1", "stop i-1", "start i-2"]),
    ] {
        let (control_plane, calls) = machines(refusals).await;
        let id = coder(&control_plane).await;
        control_plane.restart(id, false).await.unwrap();
        machine(&control_plane, id, "i-2").await;
        assert_eq!(*calls.lock().unwrap(), expected, "{refusals} refusals");
        assert!(control_plane.shut_down(PATIENCE).await);
    }
}

#[tokio::test]
async fn a_machine_that_is_left_is_told_of_and_asked_for_until_it_is_given_back() {
    for (source, how) in [("Restart", "restart"), ("Auto-restart", "secret")] {
        let (logged, _guard) = Logged::here();
        let (control_plane, calls) = machines(4).await;
        let id = coder(&control_plane).await;
        match how {
            "restart" => drop(control_plane.restart(id, false).await.unwrap()),
            _ => control_plane.set_secret(id, "KEY", &"x".to_owned().into()).await.unwrap(),
        }
        machine(&control_plane, id, "i-2").await;
        let told = logged.with("LEAK-SUSPECT");
        let start = format!("LEAK-SUSPECT cpProv.Stop workspace_id={id} source={source} attempts=3 last_err=");
        assert!(told.len() == 1 && told[0].starts_with(&start) && told[0].ends_with("instance_id=i-1"), "{told:?}");
        for _ in 0..3 {
            sweep(&control_plane, Sweep::Machines).await.unwrap();
        }
        let expected = ["start i-1", "stop i-1", "stop i-1", "stop i-1", "start i-2", "stop i-1", "stop i-1"];
        assert_eq!(*calls.lock().unwrap(), expected, "{how}: once refused, then given back, then forgotten");
        assert!(control_plane.shut_down(PATIENCE).await);
    }
}

#[tokio::test]
async fn the_machine_of_a_removed_workspace_is_asked_for_until_it_is_given_back() {
    let (control_plane, calls) = machines(2).await;
    let id = coder(&control_plane).await;
    let error = control_plane.delete(id, true, false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected);
    for _ in 0..3 {
        sweep(&control_plane, Sweep::Machines).await.unwrap();
    }
    assert_eq!(*calls.lock().unwrap(), ["start i-1", "stop i-1", "stop i-1", "stop i-1"]);
    assert_eq!(control_plane.workspace(id).await.unwrap().unwrap().instance_id, None);
    assert!(control_plane.shut_down(PATIENCE).await);
}

#[tokio::test]
async fn a_machine_that_was_started_once_is_checked_against_no_template() {
    let dir = tempfile::tempdir().unwrap();
    let vanilla = dir.path().join("hermes-default");
    std::fs::create_dir(&vanilla).unwrap();
    let yaml = "name: vanilla\nruntime: hermes\nruntime_config: {required_env: [HERMES_API_KEY]}\n";
    std::fs::write(vanilla.join("config.yaml"), yaml).unwrap();
    let templates = Templates::open(Some(dir.path().to_owned()), None);
    let mut machines = MockControlPlaneProvisioner::new();
    let mut started = 0;
    machines.expect_start().times(2).returning(move |_| {
        started += 1;
        Ok(Instance { instance_id: format!("i-{started}") })
    });
    machines.expect_stop().times(1).returning(|_, _| Ok(()));
    let store = Store::connect("sqlite::memory:").await.unwrap();
    let config = Config { templates, ..Config::default() };
    let control_plane =
        ControlPlane::builder(store).config(config).control_plane_backend(Arc::new(machines)).build().unwrap();
    let request = |template: Option<&str>| CreateWorkspace {
        name: "a".to_owned(),
        runtime: Some("hermes".to_owned()),
        template: template.map(str::to_owned),
        ..CreateWorkspace::default()
    };
    let id = control_plane.create(request(None)).await.unwrap().workspace.id;
    machine(&control_plane, id, "i-1").await;
    control_plane.restart(id, false).await.unwrap();
    machine(&control_plane, id, "i-2").await;
    // One that was made from it is checked until it was started.
    let id = control_plane.create(request(Some("hermes-default"))).await.unwrap().workspace.id;
    for _ in 0..2 {
        let failed = async {
            loop {
                let row = control_plane.workspace(id).await.unwrap().unwrap();
                if row.status == Status::Failed {
                    return row.last_sample_error.unwrap();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let said = tokio::time::timeout(PATIENCE, failed).await.expect("it fails");
        assert!(said.contains("HERMES_API_KEY"), "{said}");
        control_plane.restart(id, false).await.unwrap();
    }
    assert!(control_plane.shut_down(PATIENCE).await);
}

#[tokio::test]
async fn a_paused_machine_is_given_back_once_and_forgotten() {
    let (control_plane, calls) = machines(0).await;
    let id = coder(&control_plane).await;
    assert_eq!(control_plane.pause(id).await.unwrap(), 1);
    assert_eq!(control_plane.workspace(id).await.unwrap().unwrap().instance_id, None);
    control_plane.resume(id).await.unwrap();
    machine(&control_plane, id, "i-2").await;
    let register = Register { id, url: "http://8.8.8.8/".to_owned(), agent_card: json!({}), delivery_mode: None };
    control_plane.register(&register, Credential::Absent).await.unwrap();
    control_plane.hibernate(id, false).await.unwrap();
    assert_eq!(control_plane.workspace(id).await.unwrap().unwrap().status, Status::Hibernated);
    assert!(message(&control_plane, id).await.is_err());
    machine(&control_plane, id, "i-3").await;
    let order = ["start i-1", "stop i-1", "start i-2", "stop i-2", "start i-3"];
    assert_eq!(*calls.lock().unwrap(), order);
    assert!(control_plane.shut_down(PATIENCE).await);
}

#[tokio::test]
async fn without_a_backend_nothing_is_resumed_or_woken() {
    let control_plane = ControlPlane::builder(Store::connect("sqlite::memory:").await.unwrap()).build().unwrap();
    let request = CreateWorkspace { name: "a".to_owned(), ..CreateWorkspace::default() };
    let id = control_plane.create(request).await.unwrap().workspace.id;
    assert_eq!(control_plane.pause(id).await.unwrap(), 1);
    let error = control_plane.resume(id).await.unwrap_err();
    assert_eq!(said(&error), (ErrorKind::Unavailable, "provisioner not available"));
    assert_eq!(control_plane.workspace(id).await.unwrap().unwrap().status, Status::Paused);
    assert!(control_plane.shut_down(PATIENCE).await);
}

#[tokio::test]
async fn a_machine_that_is_not_given_back_is_told_of_and_kept_in_the_row() {
    let (control_plane, calls) = machines(3).await;
    let id = coder(&control_plane).await;
    let instance = async || control_plane.workspace(id).await.unwrap().unwrap().instance_id;
    let counted = |error: &Error, member: &'static str| {
        let members: Vec<_> = error.members().iter().map(|(name, value)| (*name, value.as_u64())).collect();
        assert_eq!(members, [(member, Some(1)), ("stop_failures", Some(1))], "{error:?}");
    };
    let error = control_plane.pause(id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected);
    counted(&error, "paused_count");
    assert_eq!(control_plane.workspace(id).await.unwrap().unwrap().status, Status::Paused);
    assert_eq!(instance().await.as_deref(), Some("i-1"));
    // What starts it again gives the old one back first, however often it has to ask.
    control_plane.resume(id).await.unwrap();
    machine(&control_plane, id, "i-2").await;
    let order = ["start i-1", "stop i-1", "stop i-1", "stop i-1", "stop i-1", "start i-2"];
    assert_eq!(*calls.lock().unwrap(), order);
    assert!(control_plane.shut_down(PATIENCE).await);
}

#[tokio::test]
async fn what_sleeps_below_a_paused_workspace_is_not_woken() {
    let fleet = Fleet::new().await;
    let (lead, id) = (fleet.create("lead").await, fleet.create("sleeps").await);
    fleet.come_online(lead).await;
    fleet.come_online(id).await;
    fleet.control_plane.hibernate(id, false).await.unwrap();
    fleet.control_plane.pause(lead).await.unwrap();
    // It is put below what is paused while it sleeps.
    let pool = molecule_core::store::gate::sqlite(fleet.control_plane.store()).unwrap();
    sqlx::query("UPDATE workspaces SET parent_id = $2 WHERE id = $1").bind(id).bind(lead).execute(pool).await.unwrap();
    let starts = fleet.backend.count(Operation::Start);
    let error = message(&fleet.control_plane, id).await.unwrap_err();
    assert!(error.message().contains("\"lead\" is paused"), "{error:?}");
    assert_eq!(fleet.row(id).await.status, Status::Hibernated);
    fleet.control_plane.resume(lead).await.unwrap();
    fleet.come_online(lead).await;
    message(&fleet.control_plane, id).await.unwrap_err();
    fleet.come_online(id).await;
    assert_eq!(fleet.backend.count(Operation::Start), starts + 2);
    fleet.down().await;
}
