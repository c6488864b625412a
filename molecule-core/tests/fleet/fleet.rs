//! A fleet over a backend that does as it is told.

use std::{sync::Arc, time::Duration};

use chrono::DateTime;
use molecule_core::{
    ControlPlane,
    config::Config,
    id::WorkspaceId,
    registry::Heartbeat,
    store::Store,
    testing::{ManualClock, ScriptedProvisioner},
    workspace::{CreateWorkspace, Status, Workspace},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// How long anything that happens in the background may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Fleet {
    pub(crate) control_plane: ControlPlane,
    pub(crate) backend: ScriptedProvisioner,
    pub(crate) clock: ManualClock,
}

impl Fleet {
    pub(crate) async fn new() -> Self {
        Self::with(Config { health_tick: Duration::from_millis(20), ..Config::default() }).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        Self::made_of(config, ScriptedProvisioner::new()).await
    }

    /// With a backend that another fleet may have as well.
    pub(crate) async fn over(backend: ScriptedProvisioner) -> Self {
        Self::made_of(Config::default(), backend).await
    }

    pub(crate) async fn made_of(config: Config, backend: ScriptedProvisioner) -> Self {
        let clock = ManualClock::new(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        let control_plane = ControlPlane::builder(Store::connect("sqlite::memory:").await.unwrap())
            .config(config)
            .clock(Arc::new(clock.clone()))
            .local_backend(Arc::new(backend.clone()))
            .build()
            .unwrap();
        Self { control_plane, backend, clock }
    }

    pub(crate) async fn create(&self, name: &str) -> WorkspaceId {
        let request = CreateWorkspace { name: name.to_owned(), ..CreateWorkspace::default() };
        self.control_plane.create(request).await.unwrap().workspace.id
    }

    pub(crate) async fn create_below(&self, name: &str, parent: WorkspaceId) -> WorkspaceId {
        let request = CreateWorkspace { name: name.to_owned(), parent_id: Some(parent), ..CreateWorkspace::default() };
        self.control_plane.create(request).await.unwrap().workspace.id
    }

    /// An external workspace and its token.
    pub(crate) async fn create_external(&self, name: &str) -> (WorkspaceId, SecretString) {
        let request = CreateWorkspace { name: name.to_owned(), external: true, ..CreateWorkspace::default() };
        let created = self.control_plane.create(request).await.unwrap();
        (created.workspace.id, created.auth_token.unwrap())
    }

    pub(crate) async fn row(&self, id: WorkspaceId) -> Workspace {
        self.control_plane.workspace(id).await.unwrap().unwrap()
    }

    pub(crate) async fn until(&self, id: WorkspaceId, status: Status) -> Workspace {
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
    pub(crate) fn token(&self, id: WorkspaceId) -> SecretString {
        let starts = self.backend.starts();
        let spec = starts.iter().rfind(|spec| spec.workspace_id == id).expect("it was started");
        let file = spec.files.iter().find(|file| file.path == ".auth_token").expect("it was given a token");
        assert!(file.private);
        String::from_utf8(file.contents.clone()).unwrap().into()
    }

    pub(crate) async fn beat(&self, id: WorkspaceId, token: &SecretString) -> molecule_core::Result<()> {
        let credential = self.control_plane.authenticate(Some(token.expose_secret())).await?;
        self.control_plane.heartbeat(id, &Heartbeat::default(), credential).await.map(drop)
    }

    /// Waits until the workspace was started and its agent could beat, then beats.
    pub(crate) async fn come_online(&self, id: WorkspaceId) {
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

    pub(crate) async fn events(&self, id: WorkspaceId) -> Vec<String> {
        let events = self.control_plane.events(Some(id), 100).await.unwrap();
        events.into_iter().rev().map(|event| event.event_type).collect()
    }

    /// What was recorded of the workspace, oldest first, each with its payload.
    pub(crate) async fn told(&self, id: WorkspaceId) -> Vec<(String, Value)> {
        let events = self.control_plane.events(Some(id), 100).await.unwrap();
        events.into_iter().rev().map(|event| (event.event_type, event.payload.unwrap_or_default())).collect()
    }

    pub(crate) async fn down(self) {
        assert!(self.control_plane.shut_down(PATIENCE).await, "a task was left behind");
    }
}
