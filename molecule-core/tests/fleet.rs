//! The control plane over a backend that does as it is told: what operators and agents can rely on, whatever it does.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::DateTime;
use futures_util::future::join_all;
use molecule_core::{
    ControlPlane, Error, ErrorKind,
    a2a::Call,
    config::Config,
    events::EventKind,
    id::WorkspaceId,
    identity::{Caller, Credential},
    provisioner::Instance,
    registry::{Heartbeat, Register},
    store::Store,
    testing::{ManualClock, MockControlPlaneProvisioner, Operation, ScriptedProvisioner},
    workspace::{CreateWorkspace, Deleted, Restarted, Status, Workspace},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

/// How long anything that happens in the background may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(20);

struct Fleet {
    control_plane: ControlPlane,
    backend: ScriptedProvisioner,
    clock: ManualClock,
}

impl Fleet {
    async fn new() -> Self {
        Self::with(Config { health_tick: Duration::from_millis(20), ..Config::default() }).await
    }

    async fn with(config: Config) -> Self {
        let backend = ScriptedProvisioner::new();
        let clock = ManualClock::new(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        let control_plane = ControlPlane::builder(Store::connect("sqlite::memory:").await.unwrap())
            .config(config)
            .clock(Arc::new(clock.clone()))
            .local_backend(Arc::new(backend.clone()))
            .build()
            .unwrap();
        Self { control_plane, backend, clock }
    }

    async fn create(&self, name: &str) -> WorkspaceId {
        let request = CreateWorkspace { name: name.to_owned(), ..CreateWorkspace::default() };
        self.control_plane.create(request).await.unwrap().workspace.id
    }

    async fn create_below(&self, name: &str, parent: WorkspaceId) -> WorkspaceId {
        let request = CreateWorkspace { name: name.to_owned(), parent_id: Some(parent), ..CreateWorkspace::default() };
        self.control_plane.create(request).await.unwrap().workspace.id
    }

    /// An external workspace and its token.
    async fn create_external(&self, name: &str) -> (WorkspaceId, SecretString) {
        let request = CreateWorkspace { name: name.to_owned(), external: true, ..CreateWorkspace::default() };
        let created = self.control_plane.create(request).await.unwrap();
        (created.workspace.id, created.auth_token.unwrap())
    }

    async fn row(&self, id: WorkspaceId) -> Workspace {
        self.control_plane.workspace(id).await.unwrap().unwrap()
    }

    async fn until(&self, id: WorkspaceId, status: Status) -> Workspace {
        let reached = async {
            loop {
                let row = self.row(id).await;
                if row.status == status {
                    return row;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, reached).await {
            Ok(row) => row,
            Err(_) => panic!("{id} is {} and never became {status}", self.row(id).await.status),
        }
    }

    /// The token that the backend was handed for the workspace, as its agent would present it.
    fn token(&self, id: WorkspaceId) -> SecretString {
        let starts = self.backend.starts();
        let spec = starts.iter().rfind(|spec| spec.workspace_id == id).expect("it was started");
        let file = spec.files.iter().find(|file| file.path == ".auth_token").expect("it was given a token");
        assert!(file.private);
        String::from_utf8(file.contents.clone()).unwrap().into()
    }

    async fn beat(&self, id: WorkspaceId, token: &SecretString) -> molecule_core::Result<()> {
        let credential = self.control_plane.authenticate(Some(token.expose_secret())).await?;
        self.control_plane.heartbeat(id, &Heartbeat::default(), credential).await.map(drop)
    }

    /// Waits until the workspace was started and its agent could beat, then beats.
    async fn come_online(&self, id: WorkspaceId) {
        tokio::time::timeout(PATIENCE, async {
            while self.row(id).await.url.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("it is started");
        self.beat(id, &self.token(id)).await.unwrap();
        assert_eq!(self.row(id).await.status, Status::Online);
    }

    async fn events(&self, id: WorkspaceId) -> Vec<String> {
        let events = self.control_plane.events(Some(id), 100).await.unwrap();
        events.into_iter().rev().map(|event| event.event_type).collect()
    }

    async fn down(self) {
        assert!(self.control_plane.shut_down(PATIENCE).await, "a task was left behind");
    }
}

#[tokio::test]
async fn a_workspace_comes_up_and_its_agent_brings_it_online() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    assert_eq!(fleet.row(id).await.status, Status::Provisioning);
    fleet.come_online(id).await;
    assert_eq!(fleet.events(id).await, ["WORKSPACE_PROVISIONING", "WORKSPACE_ONLINE"]);
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

#[tokio::test]
async fn seven_hundred_at_once_leave_their_traces_one_for_one() {
    let fleet = Fleet::new().await;
    fleet.backend.when(Operation::Start).fail(ErrorKind::Unavailable, "no");
    let ids = join_all((0..700).map(|n| {
        let fleet = &fleet;
        async move { fleet.create(&format!("w{n}")).await }
    }))
    .await;
    for id in &ids {
        fleet.until(*id, Status::Failed).await;
        assert_eq!(fleet.events(*id).await, ["WORKSPACE_PROVISIONING", "WORKSPACE_PROVISION_FAILED"]);
    }
    assert_eq!(fleet.backend.count(Operation::Start), 700);
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
    fleet.down().await;
}

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
    let release = fleet.backend.when(Operation::Stop).times(1).hang_until_released();
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
    assert_eq!(
        fleet.events(id).await,
        ["WORKSPACE_AWAITING_AGENT", "WORKSPACE_ONLINE", "WORKSPACE_OFFLINE", "WORKSPACE_ONLINE"]
    );
    assert!(fleet.backend.calls().is_empty(), "no backend has anything to do with it");
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
async fn nobody_takes_the_first_token_of_a_workspace_that_a_backend_brings_up() {
    let fleet = Fleet::new().await;
    let release = fleet.backend.when(Operation::Stop).hang_until_released();
    let id = fleet.create("a").await;
    let register = Register { id, url: String::new(), agent_card: json!({}), delivery_mode: None };
    let error = fleet.control_plane.register(&register, Credential::Absent).await.unwrap_err();
    assert_eq!(error.message(), "missing workspace auth token");
    release.release();
    fleet.come_online(id).await;
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
async fn a_deadline_beyond_all_reckoning_is_none() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    let body = Bytes::from_static(br#"{"method":"m"}"#);
    let call = Call { target: id, caller: Caller::Operator, body, deadline: Some(Some(Duration::MAX)) };
    // Whatever becomes of the call, it does not end by a panic.
    if let Err(error) = fleet.control_plane.call(call).await {
        assert_ne!(error.kind(), ErrorKind::Unexpected, "{error:?}");
    }
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
async fn who_has_spent_what_it_may_is_not_called() {
    let fleet = Fleet::new().await;
    let request = CreateWorkspace { name: "a".to_owned(), budget_limit: Some(500), ..CreateWorkspace::default() };
    let id = fleet.control_plane.create(request).await.unwrap().workspace.id;
    fleet.come_online(id).await;
    let credential = fleet.control_plane.authenticate(Some(fleet.token(id).expose_secret())).await.unwrap();
    let beat = Heartbeat { monthly_spend: 500, ..Heartbeat::default() };
    fleet.control_plane.heartbeat(id, &beat, credential).await.unwrap();
    let body = Bytes::from_static(br#"{"method":"m"}"#);
    let call = Call { target: id, caller: Caller::Operator, body, deadline: None };
    let error = fleet.control_plane.call(call).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::BudgetExceeded, "workspace budget limit exceeded"));
    fleet.down().await;
}

#[tokio::test]
async fn a_card_names_no_address_that_must_not_be_called() {
    let fleet = Fleet::new().await;
    let (id, token) = fleet.create_external("e").await;
    let credential = fleet.control_plane.authenticate(Some(token.expose_secret())).await.unwrap();
    let card = json!({"url": "http://169.254.169.254/latest"});
    let error = fleet.control_plane.update_card(id, &card, credential).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::InvalidInput, "workspace agent_card URL not allowed"));
    assert_eq!(fleet.row(id).await.agent_card, None);
    fleet.down().await;
}

#[tokio::test]
async fn an_external_agent_registers_with_its_own_token_alone() {
    let fleet = Fleet::new().await;
    let (id, token) = fleet.create_external("e").await;
    let (_, other) = fleet.create_external("o").await;
    let register = Register { id, url: "http://8.8.8.8/".to_owned(), agent_card: json!({}), delivery_mode: None };
    for (bearer, said) in [
        (None, "missing workspace auth token"),
        (Some(other.expose_secret()), "invalid workspace auth token"),
        (Some("nonsense"), "invalid workspace auth token"),
    ] {
        let credential = fleet.control_plane.authenticate(bearer).await.unwrap();
        let error = fleet.control_plane.register(&register, credential).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Unauthenticated, said));
    }
    assert_eq!(fleet.row(id).await.status, Status::AwaitingAgent);
    let credential = fleet.control_plane.authenticate(Some(token.expose_secret())).await.unwrap();
    let registered = fleet.control_plane.register(&register, credential).await.unwrap();
    assert!(registered.auth_token.is_none(), "who has a token is given no other");
    assert_eq!(fleet.row(id).await.status, Status::Online);
    fleet.down().await;
}

#[tokio::test]
async fn an_unknown_workspace_cannot_register_itself_into_the_fleet() {
    let fleet = Fleet::new().await;
    let id: WorkspaceId = "6f9619ff-8b86-4011-b42d-00cf4fc964ff".parse().unwrap();
    let register = Register { id, url: String::new(), agent_card: json!({}), delivery_mode: None };
    let error = fleet.control_plane.register(&register, Credential::Absent).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::NotFound, "workspace not found"));
    assert!(fleet.control_plane.workspaces().await.unwrap().is_empty());
    fleet.down().await;
}

#[tokio::test]
async fn the_word_of_a_managed_agent_never_replaces_the_address_its_backend_assigned() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    let assigned = fleet.row(id).await.url;
    let credential = fleet.control_plane.authenticate(Some(fleet.token(id).expose_secret())).await.unwrap();
    let register =
        Register { id, url: "http://169.254.169.254/".to_owned(), agent_card: json!({}), delivery_mode: None };
    fleet.control_plane.register(&register, credential).await.unwrap();
    assert_eq!(fleet.row(id).await.url, assigned);
    fleet.down().await;
}

#[tokio::test]
async fn calling_a_dead_workload_brings_it_up_again() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    fleet.backend.end(id, None);
    let body = Bytes::from_static(br#"{"method":"message/send","params":{"message":{"content":"hi"}}}"#);
    let call = Call { target: id, caller: Caller::Operator, body, deadline: None };
    let error = fleet.control_plane.call(call).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.members().iter().any(|(name, value)| *name == "restarting" && value == true), "{error:?}");
    fleet.backend.called(Operation::Start, 2).await;
    fleet.come_online(id).await;
    fleet.down().await;
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
    // Its agent has no token yet: its first call is given one, and names its address.
    let register = Register { id, url: "http://8.8.8.8/".to_owned(), agent_card: json!({}), delivery_mode: None };
    let registered = control_plane.register(&register, Credential::Absent).await.unwrap();
    assert!(registered.auth_token.is_some());
    let row = control_plane.workspace(id).await.unwrap().unwrap();
    assert_eq!((row.status, row.url.as_str()), (Status::Online, "http://8.8.8.8/"));
    let error = control_plane.register(&register, Credential::Absent).await.unwrap_err();
    assert_eq!(error.message(), "missing workspace auth token", "the first token is given once");
    // A machine that was not given back is not forgotten: the next delete tries again.
    assert!(control_plane.delete(id, false, false).await.is_err());
    assert!(matches!(control_plane.delete(id, false, false).await.unwrap(), Deleted::Removed { .. }));
    assert!(control_plane.shut_down(PATIENCE).await);
}
