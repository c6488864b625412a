//! Newer images, and the workspaces that run the ones before.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use chrono::DateTime;
use molecule_core::{
    ControlPlane, Error, ErrorKind, Result,
    config::Config,
    id::WorkspaceId,
    provisioner::Images,
    registry::Heartbeat,
    store::Store,
    templates::Templates,
    testing::{ManualClock, Operation, ScriptedProvisioner},
    workspace::{CreateWorkspace, Status},
};
use secrecy::ExposeSecret;

use crate::fleet::{Fleet, PATIENCE};

/// Images that are as the test says.
#[derive(Debug, Default)]
struct Shelf {
    newest: Mutex<BTreeMap<String, String>>,
    /// The runtimes whose image cannot be brought.
    stuck: Mutex<Vec<String>>,
    brought: Mutex<Vec<String>>,
    made_of: Mutex<BTreeMap<String, Vec<WorkspaceId>>>,
    /// The runtime whose containers cannot be listed.
    unlisted: Mutex<Option<String>>,
}

#[async_trait]
impl Images for Shelf {
    async fn refresh(&self, runtime: &str) -> Result<()> {
        self.brought.lock().unwrap().push(runtime.to_owned());
        if self.stuck.lock().unwrap().iter().any(|stuck| stuck == runtime) {
            return Err(Error::new(ErrorKind::Unavailable, "the registry is away"));
        }
        Ok(())
    }

    async fn newest(&self, runtime: &str) -> Result<String> {
        let newest = self.newest.lock().unwrap().get(runtime).cloned();
        newest.ok_or_else(|| Error::new(ErrorKind::Upstream, "the registry does not say"))
    }

    async fn made_of(&self, runtime: &str) -> Result<Vec<WorkspaceId>> {
        if self.unlisted.lock().unwrap().as_deref() == Some(runtime) {
            return Err(Error::new(ErrorKind::Unavailable, "the engine is away"));
        }
        Ok(self.made_of.lock().unwrap().get(runtime).cloned().unwrap_or_default())
    }
}

async fn over(shelf: &Arc<Shelf>, config: Config) -> Fleet {
    let clock = ManualClock::new(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
    let backend = ScriptedProvisioner::new();
    let control_plane = ControlPlane::builder(Store::connect("sqlite::memory:").await.unwrap())
        .config(config)
        .clock(Arc::new(clock.clone()))
        .local_backend(Arc::new(backend.clone()))
        .images(Arc::clone(shelf) as Arc<dyn Images>)
        .build()
        .unwrap();
    Fleet { control_plane, backend, clock }
}

#[tokio::test]
async fn idle_workspaces_are_brought_up_with_the_newest_image_and_busy_ones_left_alone() {
    let shelf = Arc::new(Shelf::default());
    let fleet = over(&shelf, Config::default()).await;
    let (idle, busy) = (fleet.create("idle").await, fleet.create("busy").await);
    fleet.come_online(idle).await;
    fleet.come_online(busy).await;
    let beat = Heartbeat { active_tasks: 1, ..Heartbeat::default() };
    let credential = fleet.control_plane.authenticate(Some(fleet.token(busy).expose_secret())).await.unwrap();
    fleet.control_plane.heartbeat(busy, &beat, credential).await.unwrap();
    shelf.made_of.lock().unwrap().insert("claude-code".to_owned(), vec![idle, busy]);
    shelf.stuck.lock().unwrap().push("hermes".to_owned());

    let kept = fleet.control_plane.refresh_images(None, false).await.unwrap();
    assert_eq!(
        (kept.pulled, kept.failed),
        (vec!["claude-code".into(), "codex".into(), "openclaw".into()], vec!["hermes".into()])
    );
    assert_eq!(kept.recreated, []);
    assert_eq!(fleet.backend.count(Operation::Start), 2);

    let refreshed = fleet.control_plane.refresh_images(Some("claude-code"), true).await.unwrap();
    assert_eq!((refreshed.pulled, refreshed.recreated), (vec!["claude-code".to_owned()], vec![idle]));
    fleet.backend.called(Operation::Start, 3).await;
    assert_eq!(fleet.backend.starts()[2].workspace_id, idle);
    assert_eq!(fleet.row(busy).await.status, Status::Online);

    let unknown = fleet.control_plane.refresh_images(Some("external"), true).await.unwrap_err();
    assert_eq!((unknown.kind(), unknown.message()), (ErrorKind::InvalidInput, "unknown runtime"));
    let known = &unknown.members().iter().find(|(name, _)| *name == "known_runtimes").unwrap().1;
    assert_eq!(known, &serde_json::json!(["claude-code", "codex", "hermes", "openclaw"]));
    fleet.down().await;
}

#[tokio::test]
async fn the_watcher_brings_what_changed_and_tries_again_what_failed() {
    let shelf = Arc::new(Shelf::default());
    for runtime in ["claude-code", "hermes", "codex"] {
        shelf.newest.lock().unwrap().insert(runtime.to_owned(), "1".to_owned());
    }
    shelf.stuck.lock().unwrap().push("codex".to_owned());
    let config = Config { image_tick: Some(Duration::from_millis(20)), ..Config::default() };
    let fleet = over(&shelf, config).await;
    fleet.control_plane.start();
    let until = async |what: &str, holds: &dyn Fn() -> bool| {
        let waiting = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "{what}");
    };
    until("it looks", &|| fleet.control_plane.liveness().contains_key("image-watcher")).await;
    assert_eq!(*shelf.brought.lock().unwrap(), [""; 0], "the first sight brings nothing");
    for runtime in ["hermes", "codex"] {
        shelf.newest.lock().unwrap().insert(runtime.to_owned(), "2".to_owned());
    }
    let brought = |runtime: &str| shelf.brought.lock().unwrap().iter().filter(|brought| *brought == runtime).count();
    until("what failed is tried again", &|| brought("codex") >= 3 && brought("hermes") >= 1).await;
    shelf.stuck.lock().unwrap().clear();
    fleet.down().await;
    assert_eq!((brought("hermes"), brought("claude-code")), (1, 0));
}

#[tokio::test]
async fn without_images_there_is_nothing_to_refresh() {
    let fleet = Fleet::new().await;
    let error = fleet.control_plane.refresh_images(None, true).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    fleet.down().await;
}

#[tokio::test]
async fn a_refresh_that_cannot_see_what_runs_says_how_far_it_came() {
    let shelf = Arc::new(Shelf::default());
    let fleet = over(&shelf, Config::default()).await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    shelf.made_of.lock().unwrap().insert("claude-code".to_owned(), vec![id]);
    *shelf.unlisted.lock().unwrap() = Some("codex".to_owned());
    shelf.stuck.lock().unwrap().push("hermes".to_owned());
    let error = fleet.control_plane.refresh_images(None, true).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, "the engine is away"));
    let partial = serde_json::json!({
        "pulled": ["claude-code", "codex", "openclaw"], "failed": ["hermes"], "recreated": [id],
    });
    assert_eq!(error.members(), [("partial_result", partial)]);
    fleet.down().await;
}

#[tokio::test]
async fn a_runtime_of_the_manifest_is_known_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = dir.path().join("manifest.json");
    std::fs::write(&manifest, r#"{"workspace_templates": [{"name": "own-default"}, {"name": "hermes"}]}"#).unwrap();
    let shelf = Arc::new(Shelf::default());
    shelf.newest.lock().unwrap().insert("own".to_owned(), "1".to_owned());
    let templates = Templates::open(None, Some(&manifest));
    let config = Config { templates, image_tick: Some(Duration::from_millis(20)), ..Config::default() };
    let fleet = over(&shelf, config).await;
    for (asked, runtime) in [("own", "own"), ("hermes", "hermes"), ("codex", "claude-code")] {
        let request =
            CreateWorkspace { name: "a".to_owned(), runtime: Some(asked.to_owned()), ..CreateWorkspace::default() };
        assert_eq!(fleet.control_plane.create(request).await.unwrap().workspace.runtime, runtime);
    }
    let refreshed = fleet.control_plane.refresh_images(None, true).await.unwrap();
    assert_eq!(refreshed.pulled, ["hermes", "own"]);
    shelf.brought.lock().unwrap().clear();
    fleet.control_plane.start();
    let seen = async {
        loop {
            shelf.newest.lock().unwrap().insert("own".to_owned(), format!("{:?}", std::time::Instant::now()));
            if shelf.brought.lock().unwrap().iter().any(|brought| brought == "own") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("the watcher looks at it as well");
    fleet.down().await;
}
