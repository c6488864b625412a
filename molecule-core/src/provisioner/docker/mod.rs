//! Workspaces as containers of a Docker Engine.
//!
//! A workspace is a container `ws-<id>` on a network that all of them share, and up to three volumes: its
//! configuration, its working folder and, for one runtime, its conversations. Everything carries labels, by which it
//! is found and cleaned up. Files get in and out through the engine's archive calls, into containers that need not
//! run: an agent finds its files at its first instruction, and no secret passes through an argument or a variable.

mod archive;
mod config;
mod container;
mod errors;
mod files;
mod image;
mod inspect;
mod listing;
mod names;
mod network;
mod owner;
mod start;
mod tier;
mod volumes;
mod workspace_files;

use std::sync::Arc;

use async_trait::async_trait;
use bollard::{API_DEFAULT_VERSION, Docker, errors::Error as EngineError};
use secrecy::{ExposeSecret, SecretString};
use tokio_util::task::TaskTracker;

pub use self::config::{DockerConfig, ImageNames, Limit, RegistryLogin, TierLimits};
use super::{
    Capability, ConfigFile, FileEntry, FilePath, FileRoot, Images, LocalProvisioner, StartSpec, Workload,
    WorkloadInspector, WorkspaceFiles,
};
use crate::{
    error::{Error, ErrorKind, Result},
    gate::Gates,
    id::WorkspaceId,
};

const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
const AUTH_TOKEN_FILE: &str = ".auth_token";

/// Runs workspaces as containers of one Docker Engine.
///
/// Cloning clones the handle, not the containers. Where the future of a start is dropped, what it had begun on the
/// engine is taken away again; the next start, stop or removal of that workspace waits for that.
#[derive(Debug, Clone)]
pub struct DockerProvisioner {
    docker: Docker,
    config: Arc<DockerConfig>,
    /// How many processors the engine's machine has, where it says so.
    cpus: Option<i64>,
    pulls: Arc<image::Pulls>,
    making_network: Arc<tokio::sync::Mutex<()>>,
    /// Entered by whoever changes what runs.
    gates: Arc<Gates>,
    /// Starts under way.
    tasks: TaskTracker,
}

impl DockerProvisioner {
    /// Connects to the engine that `config` names, and makes sure that it answers.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] where none answers, [`ErrorKind::InvalidInput`] for an address of an unknown form.
    pub async fn connect(config: DockerConfig) -> Result<Self> {
        let host = config.docker_host.clone().unwrap_or_else(|| DEFAULT_HOST.to_owned());
        let unreachable = |error: EngineError| {
            let message =
                format!("no docker engine answers at {host} — start the docker daemon or name another engine");
            Error::new(ErrorKind::Unavailable, message).caused_by(error)
        };
        let seconds = config.request_timeout.as_secs().max(1);
        let docker = if host.starts_with("unix://") {
            Docker::connect_with_unix(&host, seconds, API_DEFAULT_VERSION)
        } else if host.starts_with("tcp://") || host.starts_with("http://") {
            Docker::connect_with_http(host.trim_end_matches('/'), seconds, API_DEFAULT_VERSION)
        } else {
            let message = format!("{host:?} names no docker engine: use unix://, tcp:// or http://");
            return Err(Error::invalid(message));
        }
        .map_err(unreachable)?;
        docker.ping().await.map_err(unreachable)?;
        let docker = docker.negotiate_version().await.map_err(unreachable)?;
        if is_elsewhere(&host) {
            tracing::warn!(engine = host, "{ELSEWHERE}");
        }
        let cpus = docker.info().await.map_err(unreachable)?.ncpu;
        Ok(Self {
            docker,
            config: Arc::new(config),
            cpus,
            pulls: Arc::default(),
            making_network: Arc::default(),
            gates: Arc::default(),
            tasks: TaskTracker::new(),
        })
    }

    /// Returns once no start is under way any more, those included whose callers went away.
    pub async fn shutdown(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The platform to ask for; empty leaves it to the engine.
    fn platform(&self) -> &str {
        self.config.platform.as_deref().unwrap_or_default()
    }
}

/// Why an engine that is not on this host is warned of.
const ELSEWHERE: &str = "the docker engine is on another host: ports of agents are chosen, and called, on this one, so that \
                         no agent will be reached unless its network leads back here";

/// Whether the engine at `host` runs on another host than this.
fn is_elsewhere(host: &str) -> bool {
    let Some(address) = host.strip_prefix("tcp://").or_else(|| host.strip_prefix("http://")) else { return false };
    let Ok(url) = url::Url::parse(&format!("http://{address}")) else { return true };
    match url.host() {
        Some(url::Host::Ipv4(ip)) => !ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => !ip.is_loopback(),
        Some(url::Host::Domain(name)) => name != "localhost",
        None => true,
    }
}

#[async_trait]
impl LocalProvisioner for DockerProvisioner {
    fn capability(&self) -> Capability {
        Capability { name: "docker", assigns_url: true, exec: true, volumes: true, files: true, isolation: true }
    }

    async fn prepare(&self, spec: &StartSpec) -> Result<()> {
        self.ensure_image(&spec.runtime).await.map(drop)
    }

    async fn start(&self, spec: &StartSpec) -> Result<Option<String>> {
        self.start_workspace(spec).await.map(Some)
    }

    async fn stop(&self, id: WorkspaceId) -> Result<()> {
        let _gate = self.gates.enter(id).await;
        self.remove_workload(id).await
    }

    async fn halt(&self, id: WorkspaceId) -> Result<()> {
        let _gate = self.gates.enter(id).await;
        self.end_workload(id).await
    }

    async fn is_running(&self, id: WorkspaceId) -> Result<bool> {
        Ok(self.find(id).await?.is_some_and(|found| found.is_running()))
    }

    async fn exec_read(&self, id: WorkspaceId, path: &str) -> Result<Vec<u8>> {
        match self.find(id).await? {
            Some(found) if found.is_running() => self.read_file(&found.name, path).await,
            _ => Err(Error::not_found(format!("workspace {id} is not running"))),
        }
    }

    async fn remove_volume(&self, id: WorkspaceId) -> Result<()> {
        let _gate = self.gates.enter(id).await;
        self.remove_containers(id).await?;
        self.delete_volumes(id, false).await
    }

    async fn purge_volumes(&self, id: WorkspaceId) -> Result<()> {
        let _gate = self.gates.enter(id).await;
        self.remove_containers(id).await?;
        self.delete_volumes(id, true).await
    }

    async fn volume_has_file(&self, id: WorkspaceId, path: &str) -> Result<bool> {
        archive::check_relative(path)?;
        self.config_has_file(id, path).await
    }

    async fn write_auth_token(&self, id: WorkspaceId, token: &SecretString) -> Result<()> {
        let contents = token.expose_secret().as_bytes().to_vec();
        self.put_config_files(id, &[ConfigFile { path: AUTH_TOKEN_FILE.to_owned(), contents, private: true }]).await
    }
}

#[async_trait]
impl WorkloadInspector for DockerProvisioner {
    fn peer_url(&self, id: WorkspaceId) -> Option<String> {
        Some(container::address(id))
    }

    async fn address(&self, id: WorkspaceId) -> Result<Option<String>> {
        let found = self.find(id).await?.filter(|found| found.is_running());
        Ok(found.and_then(|found| found.port()).map(|port| format!("http://127.0.0.1:{port}")))
    }

    async fn observe(&self, id: WorkspaceId) -> Result<Workload> {
        self.workload(id).await
    }

    async fn logs(&self, id: WorkspaceId, lines: usize) -> Result<Vec<u8>> {
        self.last_lines(id, lines).await
    }

    async fn inventory(&self) -> Result<Vec<WorkspaceId>> {
        self.workspaces(inspect::Which::Known).await
    }

    async fn own_inventory(&self) -> Result<Vec<WorkspaceId>> {
        self.workspaces(inspect::Which::Own).await
    }
}

#[async_trait]
impl WorkspaceFiles for DockerProvisioner {
    async fn list_files(
        &self,
        id: WorkspaceId,
        root: FileRoot,
        folder: Option<&FilePath>,
        depth: usize,
    ) -> Result<Option<Vec<FileEntry>>> {
        self.list_workspace_files(id, root, folder, depth).await
    }

    async fn read_file(&self, id: WorkspaceId, root: FileRoot, path: &FilePath) -> Result<Option<Vec<u8>>> {
        self.read_workspace_file(id, root, path).await
    }

    async fn write_files(&self, id: WorkspaceId, files: &[ConfigFile]) -> Result<()> {
        self.put_config_files(id, files).await
    }

    async fn delete_file(&self, id: WorkspaceId, path: &FilePath) -> Result<()> {
        self.delete_config_file(id, path).await
    }
}

#[async_trait]
impl Images for DockerProvisioner {
    async fn refresh(&self, runtime: &str) -> Result<()> {
        self.refresh_image(runtime).await
    }

    async fn newest(&self, runtime: &str) -> Result<String> {
        self.newest_digest(runtime).await
    }

    async fn made_of(&self, runtime: &str) -> Result<Vec<WorkspaceId>> {
        self.made_of_image(runtime).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_here_where_its_address_is_this_hosts() {
        for (host, elsewhere) in [
            ("unix:///var/run/docker.sock", false),
            ("tcp://127.0.0.1:2375", false),
            ("http://[::1]:2375/", false),
            ("tcp://localhost:2375", false),
            ("tcp://10.0.0.7:2375", true),
            ("tcp://engine:2375", true),
        ] {
            assert_eq!(is_elsewhere(host), elsewhere, "{host}");
        }
    }
}
