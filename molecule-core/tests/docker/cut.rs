//! An engine that goes away in the middle of something, and comes back: the row tells the truth meanwhile, and nothing is
//! left over afterwards.

use std::{fmt, sync::Arc, time::Duration};

use molecule_core::{
    ControlPlane, Error, ErrorKind,
    config::Config,
    id::WorkspaceId,
    provisioner::{
        LocalProvisioner, Workload, WorkloadInspector,
        docker::{DockerConfig, DockerProvisioner},
    },
    registry::Heartbeat,
    store::Store,
    testing::{Sweep, sweep},
    workspace::{CreateWorkspace, Status, Workspace},
};
use tokio::task::JoinSet;

use crate::{
    bench::{Bench, eventually, on_engine},
    proxy::Proxy,
};

struct Cut {
    proxy: Proxy,
    control_plane: ControlPlane,
    backend: Arc<DockerProvisioner>,
    /// How the same is reached without anything in between.
    direct: DockerConfig,
}

impl Cut {
    async fn new(bench: &Bench) -> Self {
        Self::running(bench, &format!("{}:serve", bench.tag)).await
    }

    async fn running(bench: &Bench, image: &str) -> Self {
        bench.image(image, &[]).await;
        let proxy = Proxy::to(&bench.host, None);
        let mut direct = bench.config();
        direct.images.overrides.insert("claude-code".to_owned(), image.to_owned());
        let config = DockerConfig { docker_host: Some(proxy.host.clone()), ..direct.clone() };
        let backend = Arc::new(bench.connect(config).await);
        let control_plane = ControlPlane::builder(Store::connect("sqlite::memory:").await.unwrap())
            .config(Config {
                orphan_grace: Duration::ZERO,
                restart_stop_backoff: Duration::from_millis(10),
                ..Config::default()
            })
            .local_backend(backend.clone())
            .build()
            .unwrap();
        Self { proxy, control_plane, backend, direct }
    }

    async fn create(&self, bench: &Bench) -> WorkspaceId {
        let request = CreateWorkspace { name: "a".to_owned(), ..CreateWorkspace::default() };
        let id = self.control_plane.create(request).await.unwrap().workspace.id;
        bench.adopt(id);
        id
    }

    async fn row(&self, id: WorkspaceId) -> Workspace {
        self.control_plane.workspace(id).await.unwrap().unwrap()
    }

    /// Its agent says that it is there.
    async fn comes_online(&self, id: WorkspaceId) {
        self.comes_up(id).await;
        let token = self.backend.exec_read(id, "/configs/.auth_token").await.unwrap();
        let credential = self.control_plane.authenticate(Some(std::str::from_utf8(&token).unwrap())).await.unwrap();
        self.control_plane.heartbeat(id, &Heartbeat::default(), credential).await.unwrap();
        assert_eq!(self.row(id).await.status, Status::Online);
    }

    async fn comes_up(&self, id: WorkspaceId) {
        eventually("its agent to be started", async || !self.row(id).await.url.is_empty()).await;
        assert_eq!(self.backend.observe(id).await.unwrap(), Workload::Running);
    }

    /// Goes away while `asking` has a container removed, before it does so or, where what it said is `lost`, after. What is
    /// told of that.
    async fn fails_as_it_stops<T, F>(&mut self, lost: bool, asking: impl FnOnce(ControlPlane) -> F) -> Error
    where
        T: fmt::Debug + Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let error = self.goes_while_it_stops(lost, asking).await.unwrap_err();
        assert!(error.members().iter().any(|(name, value)| *name == "stop_failures" && *value == 1), "{error:?}");
        error
    }

    /// The same, whatever is told.
    async fn goes_while_it_stops<T, F>(
        &mut self,
        lost: bool,
        asking: impl FnOnce(ControlPlane) -> F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let step = "DELETE /containers/";
        if lost {
            self.proxy.lose(Some(step));
        } else {
            self.proxy.hold(step);
        }
        let mut asked = JoinSet::new();
        asked.spawn(asking(self.control_plane.clone()));
        eventually(step, async || self.proxy.lost() > 0 || (!lost && self.proxy.asked(step) > 0)).await;
        self.proxy.close().await;
        asked.join_next().await.unwrap().unwrap()
    }

    /// The engine is back.
    fn comes_back(&mut self) {
        self.proxy.release();
        self.proxy.lose(None);
        self.proxy.open();
    }

    /// Restarts what failed, and then removes it: exactly one container, and then nothing.
    async fn mend(mut self, bench: &Bench, id: WorkspaceId) {
        self.comes_back();
        self.control_plane.restart(id, false).await.unwrap();
        self.comes_up(id).await;
        let containers = bench.traces(id).await.iter().filter(|name| name.starts_with('/')).count();
        assert_eq!(containers, 1, "{:?}", bench.traces(id).await);
        self.control_plane.delete(id, false, true).await.unwrap();
        assert_eq!(bench.traces(id).await, [""; 0]);
        self.ends().await;
    }

    async fn ends(self) {
        assert!(self.control_plane.shut_down(Duration::from_secs(60)).await);
        self.backend.shutdown().await;
    }
}

const STEPS: [&str; 4] =
    ["POST /volumes/create", "POST /containers/create", "PUT /containers/", "POST /containers/ws-"];

#[tokio::test]
async fn an_engine_that_stops_before_a_step_of_a_start_fails_it_and_leaves_nothing() {
    for step in STEPS {
        on_engine(async |bench| {
            let mut cut = Cut::new(&bench).await;
            cut.proxy.hold(step);
            let id = cut.create(&bench).await;
            eventually(step, async || cut.proxy.asked(step) > 0).await;
            assert_eq!(cut.row(id).await.status, Status::Provisioning);
            cut.proxy.close().await;
            eventually("the failure to be told", async || cut.row(id).await.status == Status::Failed).await;
            let said = cut.row(id).await.last_sample_error.unwrap();
            assert!(said.starts_with("workspace start failed: the docker engine did not answer"), "{step}: {said}");
            cut.mend(&bench, id).await;
        })
        .await;
    }
}

#[tokio::test]
async fn an_engine_that_stops_in_the_middle_of_a_pull_fails_the_start_and_leaves_nothing() {
    on_engine(async |bench| {
        // What moves is brought anew, although it is there.
        let mut cut = Cut::running(&bench, &format!("{}:latest", bench.tag)).await;
        let step = "POST /images/create";
        cut.proxy.hold(step);
        let id = cut.create(&bench).await;
        eventually(step, async || cut.proxy.asked(step) > 0).await;
        assert_eq!(cut.row(id).await.status, Status::Provisioning);
        cut.proxy.close().await;
        eventually("the failure to be told", async || cut.row(id).await.status == Status::Failed).await;
        assert_eq!(bench.traces(id).await, [""; 0]);
        cut.mend(&bench, id).await;
    })
    .await;
}

#[tokio::test]
async fn an_engine_that_stops_before_it_can_say_that_it_did_a_step_fails_the_start_and_leaves_nothing() {
    for step in STEPS {
        on_engine(async |bench| {
            let mut cut = Cut::new(&bench).await;
            cut.proxy.lose(Some(step));
            let id = cut.create(&bench).await;
            eventually(step, async || cut.proxy.lost() > 0).await;
            cut.proxy.close().await;
            eventually("the failure to be told", async || cut.row(id).await.status == Status::Failed).await;
            cut.mend(&bench, id).await;
        })
        .await;
    }
}

#[tokio::test]
async fn an_engine_that_stops_in_the_middle_of_a_stop_is_asked_again_by_the_sweep() {
    for lost in [false, true] {
        on_engine(async |bench| {
            let mut cut = Cut::new(&bench).await;
            let id = cut.create(&bench).await;
            cut.comes_up(id).await;
            let deleted = |plane: ControlPlane| async move { plane.delete(id, false, false).await };
            let error = cut.fails_as_it_stops(lost, deleted).await;
            assert_eq!(error.kind(), ErrorKind::Unexpected);
            assert_eq!(cut.row(id).await.status, Status::Removed);
            assert!(!bench.traces(id).await.is_empty(), "its volumes, at least, are still there");

            cut.comes_back();
            sweep(&cut.control_plane, Sweep::Orphans).await.unwrap();
            assert_eq!(bench.traces(id).await, [format!("ws-{id}-workspace")], "one sweep later");
            sweep(&cut.control_plane, Sweep::Orphans).await.unwrap();
            cut.control_plane.delete(id, false, true).await.unwrap();
            assert_eq!(bench.traces(id).await, [""; 0], "and once it is purged");
            cut.ends().await;
        })
        .await;
    }
}

#[tokio::test]
async fn an_engine_that_stops_in_the_middle_of_a_pause_leaves_what_a_resume_replaces() {
    for lost in [false, true] {
        on_engine(async |bench| {
            let mut cut = Cut::new(&bench).await;
            let id = cut.create(&bench).await;
            cut.comes_up(id).await;
            cut.fails_as_it_stops(lost, |plane| async move { plane.pause(id).await }).await;
            let row = cut.row(id).await;
            assert_eq!((row.status, row.url.as_str()), (Status::Paused, ""));

            cut.comes_back();
            cut.control_plane.resume(id).await.unwrap();
            cut.comes_up(id).await;
            cut.mend(&bench, id).await;
        })
        .await;
    }
}

#[tokio::test]
async fn an_engine_that_stops_in_the_middle_of_a_hibernation_leaves_what_a_restart_replaces() {
    for lost in [false, true] {
        on_engine(async |bench| {
            let mut cut = Cut::new(&bench).await;
            let id = cut.create(&bench).await;
            cut.comes_online(id).await;
            cut.fails_as_it_stops(lost, |plane| async move { plane.hibernate(id, false).await }).await;
            assert_eq!(cut.row(id).await.status, Status::Hibernating, "until it is known to have stopped");
            cut.mend(&bench, id).await;
        })
        .await;
    }
}

#[tokio::test]
async fn an_engine_that_stops_in_the_middle_of_a_restart_fails_it() {
    for lost in [false, true] {
        on_engine(async |bench| {
            let mut cut = Cut::new(&bench).await;
            let id = cut.create(&bench).await;
            cut.comes_online(id).await;
            cut.goes_while_it_stops(lost, |plane| async move { plane.restart(id, false).await }).await.unwrap();
            eventually("the failure to be told", async || cut.row(id).await.status == Status::Failed).await;
            assert_eq!(cut.row(id).await.url, "");
            cut.mend(&bench, id).await;
        })
        .await;
    }
}

/// What an overtaken try is told at last is no news of the workspace any more.
#[tokio::test]
async fn a_start_that_another_server_has_overtaken_takes_nothing_from_the_newer_one() {
    for step in ["PUT /containers/", "POST /containers/ws-"] {
        on_engine(async |bench| {
            let cut = Cut::new(&bench).await;
            let beside = ControlPlane::builder(cut.control_plane.store().clone())
                .local_backend(Arc::new(bench.connect(cut.direct.clone()).await))
                .build()
                .unwrap();
            cut.proxy.hold(step);
            let id = cut.create(&bench).await;
            eventually(step, async || cut.proxy.asked(step) > 0).await;
            beside.restart(id, false).await.unwrap();
            cut.comes_up(id).await;
            let (row, container) = (cut.row(id).await, bench.inspect(id).await.id);
            cut.proxy.release();
            assert!(cut.control_plane.shut_down(Duration::from_secs(60)).await);
            let after = beside.workspace(id).await.unwrap().unwrap();
            assert_eq!((after.url, after.status), (row.url, row.status), "{step}");
            assert_eq!(bench.inspect(id).await.id, container, "{step}");
            assert_eq!(cut.backend.observe(id).await.unwrap(), Workload::Running, "{step}");
            beside.delete(id, false, true).await.unwrap();
            assert_eq!(bench.traces(id).await, [""; 0]);
            assert!(beside.shut_down(Duration::from_secs(60)).await);
            cut.backend.shutdown().await;
        })
        .await;
    }
}

#[tokio::test]
async fn a_disk_that_is_full_fails_the_workspace_in_plain_words_and_a_restart_mends_it() {
    on_engine(async |bench| {
        let cut = Cut::new(&bench).await;
        let id = cut.create(&bench).await;
        cut.comes_up(id).await;
        cut.control_plane.pause(id).await.unwrap();
        let config = format!("ws-{id}-configs");
        let volume = async |size: &str| {
            use bollard::{models::VolumeCreateRequest, query_parameters::RemoveVolumeOptions};
            bench.docker.remove_volume(&config, None::<RemoveVolumeOptions>).await.unwrap();
            let options = [("type", "tmpfs"), ("device", "tmpfs"), ("o", size)];
            let request = VolumeCreateRequest {
                name: Some(config.clone()),
                driver_opts: Some(options.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
                labels: Some([("molecule.workspace.id".to_owned(), id.to_string())].into()),
                ..VolumeCreateRequest::default()
            };
            bench.docker.create_volume(request).await.unwrap();
        };
        // Not even the token of the agent fits.
        volume("nr_inodes=2,size=4k").await;
        cut.control_plane.resume(id).await.unwrap();
        eventually("the failure to be told", async || cut.row(id).await.status == Status::Failed).await;
        let row = cut.row(id).await;
        let said = row.last_sample_error.unwrap();
        assert!(said.starts_with("workspace start failed: ") && !said.contains("/var/"), "{said}");
        assert_eq!(row.url, "");
        let events = cut.control_plane.events(Some(id), 1).await.unwrap();
        assert_eq!(events[0].event_type, "WORKSPACE_PROVISION_FAILED");
        assert_eq!(events[0].payload.as_ref().unwrap()["error"], said.as_str());
        assert!(bench.traces(id).await.iter().all(|name| !name.starts_with('/')), "no container is left");
        volume("size=1m").await;
        cut.mend(&bench, id).await;
    })
    .await;
}
