//! A place on a real engine for one test: images, a network and workspaces of its own, all gone afterwards.

use std::{
    fs,
    future::Future,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use bollard::{
    API_DEFAULT_VERSION, Docker, body_full,
    models::{ContainerCreateBody, ContainerInspectResponse, HostConfig},
    query_parameters::{
        CreateImageOptionsBuilder, DownloadFromContainerOptionsBuilder, ListContainersOptionsBuilder,
        ListVolumesOptions, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder, RemoveVolumeOptions,
    },
};
use futures_util::{FutureExt, TryStreamExt};
use molecule_core::{
    clock::{SystemEntropy, random_uuid},
    id::WorkspaceId,
    provisioner::{
        LocalProvisioner, StartSpec,
        docker::{DockerConfig, DockerProvisioner},
    },
    workspace::Access,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::skip::{cut_short, skip};

/// How long anything may take that should happen soon.
const SOON: Duration = Duration::from_secs(60);

/// One test's place on the engine.
pub(crate) struct Bench {
    /// The address of the engine.
    pub(crate) host: String,
    /// The engine itself, for looking behind the provisioner.
    pub(crate) docker: Docker,
    /// A provisioner with [`Bench::config`].
    pub(crate) provisioner: DockerProvisioner,
    /// Unique on the engine: part of the name of everything this test makes.
    pub(crate) tag: String,
    images: Mutex<Vec<String>>,
    ids: Mutex<Vec<WorkspaceId>>,
}

/// Runs `test` against the engine named by `DOCKER_HOST`, and takes away whatever it made, passed or not.
pub(crate) async fn on_engine<F: Future<Output = ()>>(test: impl FnOnce(Arc<Bench>) -> F) {
    let Some(host) = environment("DOCKER_HOST") else {
        return skip("DOCKER_HOST names no Docker engine; run under fixtures/with-engines");
    };
    let tag = format!("t{}", &random_uuid(&SystemEntropy).simple().to_string()[..12]);
    let provisioner = DockerProvisioner::connect(config(&host, &tag)).await.expect("DOCKER_HOST names an engine");
    let bench = Arc::new(Bench {
        docker: connect(&host),
        provisioner,
        tag,
        host,
        images: Mutex::default(),
        ids: Mutex::default(),
    });
    let outcome = std::panic::AssertUnwindSafe(test(Arc::clone(&bench))).catch_unwind().await;
    bench.clean_up().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

impl Bench {
    /// The settings that tests start from.
    pub(crate) fn config(&self) -> DockerConfig {
        config(&self.host, &self.tag)
    }

    /// A provisioner with other settings.
    pub(crate) async fn connect(&self, config: DockerConfig) -> DockerProvisioner {
        DockerProvisioner::connect(config).await.unwrap()
    }

    /// The id of a workspace that is removed after the test.
    pub(crate) fn workspace(&self) -> WorkspaceId {
        let id = WorkspaceId::from_uuid(random_uuid(&SystemEntropy));
        self.adopt(id);
        id
    }

    /// Removes `id` after the test as well.
    pub(crate) fn adopt(&self, id: WorkspaceId) {
        self.ids.lock().unwrap().push(id);
    }

    /// Makes an image that runs the workload, and gives the runtime that resolves to it.
    pub(crate) async fn runtime(&self) -> String {
        self.runtime_with(&[]).await
    }

    /// The same with further instructions, as in a Dockerfile.
    pub(crate) async fn runtime_with(&self, instructions: &[&str]) -> String {
        let runtime = format!("{}-{}", self.tag, self.images.lock().unwrap().len());
        self.image(&format!("workspace-template:{runtime}"), instructions).await;
        runtime
    }

    /// Makes the image `reference`.
    pub(crate) async fn image(&self, reference: &str, instructions: &[&str]) {
        self.images.lock().unwrap().push(reference.to_owned());
        let (repository, tag) = reference.rsplit_once(':').unwrap();
        let mut changes = vec![r#"CMD ["/workload"]"#.to_owned()];
        changes.extend(instructions.iter().map(|instruction| (*instruction).to_owned()));
        let mut options = CreateImageOptionsBuilder::new().from_src("-").repo(repository).tag(tag).build();
        options.changes = changes;
        self.docker
            .create_image(Some(options), Some(body_full(root().into())), None)
            .try_for_each(|_| async { Ok(()) })
            .await
            .unwrap();
    }

    /// Removes the image `reference` after the test, wherever it came from.
    pub(crate) fn forget_image(&self, reference: &str) {
        self.images.lock().unwrap().push(reference.to_owned());
    }

    /// Whether the engine can run privileged containers; where it can't, that is recorded as a skip.
    pub(crate) async fn can_privilege(&self, runtime: &str) -> bool {
        let body = ContainerCreateBody {
            image: Some(format!("workspace-template:{runtime}")),
            host_config: Some(HostConfig {
                privileged: Some(true),
                network_mode: Some("none".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let made = self.docker.create_container(None, body).await.unwrap().id;
        let started = self.docker.start_container(&made, None).await;
        let force = RemoveContainerOptionsBuilder::new().force(true).build();
        self.docker.remove_container(&made, Some(force)).await.unwrap();
        if let Err(error) = &started {
            cut_short(&format!("the engine runs no privileged containers: {error}"));
        }
        started.is_ok()
    }

    /// A spec without files.
    pub(crate) fn spec(&self, id: WorkspaceId, runtime: &str) -> StartSpec {
        StartSpec {
            workspace_id: id,
            name: "test".to_owned(),
            runtime: runtime.to_owned(),
            tier: 2,
            env: [("MODEL".to_owned(), "m".to_owned())].into(),
            files: Vec::new(),
            workspace_dir: None,
            access: Access::None,
            platform_url: "http://host.docker.internal:8080".to_owned(),
            reset_session: false,
            command: Default::default(),
        }
    }

    /// A spec with variables for the workload.
    pub(crate) fn spec_with(&self, id: WorkspaceId, runtime: &str, variables: &[(&str, &str)]) -> StartSpec {
        let mut spec = self.spec(id, runtime);
        spec.env.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        spec
    }

    /// What the engine says of the workspace's container.
    pub(crate) async fn inspect(&self, id: WorkspaceId) -> ContainerInspectResponse {
        self.docker.inspect_container(&format!("ws-{id}"), None).await.unwrap()
    }

    /// Owner, group and mode of a file in a container.
    pub(crate) async fn stat(&self, container: &str, path: &str) -> (u64, u64, u32) {
        let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
        let chunks = self.docker.download_from_container(container, Some(options));
        let packed: Vec<u8> = chunks
            .try_fold(Vec::new(), async |mut all, chunk| {
                all.extend_from_slice(&chunk);
                Ok(all)
            })
            .await
            .unwrap();
        let mut archive = tar::Archive::new(packed.as_slice());
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        let header = entry.header();
        (header.uid().unwrap(), header.gid().unwrap(), header.mode().unwrap() & 0o7777)
    }

    /// The names of all containers and volumes that belong to `id`, by label or name.
    pub(crate) async fn traces(&self, id: WorkspaceId) -> Vec<String> {
        let text = id.to_string();
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let containers = self.docker.list_containers(Some(options)).await.unwrap().into_iter().map(|container| {
            let names = container.names.unwrap_or_default().join(",");
            (names, container.labels.unwrap_or_default())
        });
        let volumes = self.docker.list_volumes(None::<ListVolumesOptions>).await.unwrap().volumes.unwrap_or_default();
        containers
            .chain(volumes.into_iter().map(|volume| (volume.name, volume.labels)))
            .filter(|(name, labels)| name.contains(&text[..12]) || labels.values().any(|value| *value == text))
            .map(|(name, _)| name)
            .collect()
    }

    async fn clean_up(&self) {
        let ids = self.ids.lock().unwrap().clone();
        for id in ids {
            let _ = self.provisioner.purge_volumes(id).await;
            // What a test put there in the way of older installations, or of somebody else.
            for name in self.traces(id).await {
                let force = RemoveContainerOptionsBuilder::new().force(true).build();
                let _ = self.docker.remove_container(name.trim_start_matches('/'), Some(force)).await;
                let _ = self.docker.remove_volume(&name, None::<RemoveVolumeOptions>).await;
            }
        }
        let _ = self.docker.remove_network(&self.tag).await;
        let images = self.images.lock().unwrap().clone();
        for image in images {
            let force = RemoveImageOptionsBuilder::new().force(true).build();
            let _ = self.docker.remove_image(&image, Some(force), None).await;
        }
    }
}

/// Waits for `condition`, and fails where it stays away.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, wait).await.is_ok(), "{what}: not within {SOON:?}");
}

/// Asks for `path` once, and gives the whole answer; empty where nobody answers.
pub(crate) async fn get(url: &str, path: &str) -> String {
    let mut answer = String::new();
    if let Ok(mut stream) = tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await {
        let _ = stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await;
        let _ = stream.read_to_string(&mut answer).await;
    }
    answer
}

/// Waits until the agent behind `url` answers.
pub(crate) async fn answers(url: &str) {
    eventually(&format!("an answer from {url}"), || async { get(url, "/").await.ends_with("ok\n") }).await;
}

fn config(host: &str, tag: &str) -> DockerConfig {
    DockerConfig { docker_host: Some(host.to_owned()), network: tag.to_owned(), ..DockerConfig::default() }
}

fn connect(host: &str) -> Docker {
    if host.starts_with("unix://") {
        Docker::connect_with_unix(host, 60, API_DEFAULT_VERSION).unwrap()
    } else {
        Docker::connect_with_http(host, 60, API_DEFAULT_VERSION).unwrap()
    }
}

/// The files of the image: one static program under both of its names, and the user that some images run it as.
pub(crate) fn root() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, mode: u32, contents: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(contents.len() as u64);
        archive.append_data(&mut header, path, contents).unwrap();
    };
    let workload = example("workload");
    let program = fs::read(&workload).unwrap_or_else(|error| panic!("{}: {error}", workload.display()));
    for path in ["workload", "bin/rm"] {
        add(path, 0o755, &program);
    }
    add("etc/passwd", 0o644, b"root:x:0:0::/:/\nagent:x:1000:1001::/:/\n");
    archive.into_inner().unwrap()
}

/// An example, which cargo builds beside the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(|deps| deps.parent()).expect("tests are in target/…/deps").join("examples").join(name)
}

#[expect(clippy::disallowed_methods, reason = "tests are told their engine by the environment")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
