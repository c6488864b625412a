//! Which backend runs the workspaces, and why.

use std::{net::IpAddr, path::Path, sync::Arc};

use molecule_core::{
    Error, ErrorKind,
    provisioner::{
        docker::{DockerConfig, DockerProvisioner},
        process::{DEFAULT_STOP_GRACE, ProcessConfig, ProcessProvisioner},
        remote::RemoteProvisioner,
    },
};

use super::{
    descriptors::Descriptors,
    installation, remote,
    settings::{ProvisionerChoice, Settings},
};

/// What a child process may know of this server's own environment.
const INHERITED: [&str; 6] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TERM"];

/// The chosen backend.
#[derive(Debug)]
pub(crate) enum Chosen {
    Docker { backend: Arc<DockerProvisioner>, gateway: Option<IpAddr> },
    Process(Arc<ProcessProvisioner>),
    ControlPlane(Arc<RemoteProvisioner>),
    None,
}

/// Chooses as `settings` says, and logs which and why.
pub(crate) async fn choose(settings: &Settings, descriptors: Descriptors) -> Result<Chosen, Error> {
    let local = settings.listen.ip().is_loopback();
    match settings.provisioner {
        ProvisionerChoice::Docker => {
            let chosen = docker(settings).await?;
            tracing::info!("workspaces run in Docker containers, as asked for");
            Ok(chosen)
        }
        ProvisionerChoice::Process => {
            let chosen = process(settings, descriptors)?;
            tracing::warn!("workspaces run as child processes, as asked for; nothing isolates them from this host");
            Ok(chosen)
        }
        ProvisionerChoice::None => {
            tracing::info!("no backend, as asked for; only external agents can join");
            Ok(Chosen::None)
        }
        ProvisionerChoice::ControlPlane => Ok(Chosen::ControlPlane(remote::provisioner(settings)?)),
        ProvisionerChoice::Auto if settings.remote.org_id().is_some() => {
            Ok(Chosen::ControlPlane(remote::provisioner(settings)?))
        }
        ProvisionerChoice::Auto => match docker(settings).await {
            Ok(chosen) => {
                tracing::info!("workspaces run in Docker containers: a daemon answered");
                Ok(chosen)
            }
            Err(error) if local => {
                let chosen = process(settings, descriptors)?;
                tracing::warn!(
                    docker = error.detail(),
                    "workspaces run as child processes: no Docker daemon answered; nothing isolates them from this host"
                );
                Ok(chosen)
            }
            Err(error) => Err(Error::new(
                ErrorKind::Unavailable,
                "no Docker daemon answered, and child processes must be asked for by name on an address that others \
                 can reach: start Docker, or pass --provisioner process or none",
            )
            .caused_by(error)),
        },
    }
}

async fn docker(settings: &Settings) -> Result<Chosen, Error> {
    let mut config = DockerConfig {
        docker_host: settings.docker_host.clone(),
        installation: Some(installation::ensure(&settings.data_dir)?),
        ..DockerConfig::default()
    };
    if let Some(tier) = settings.max_tier {
        config.max_tier = tier;
    }
    if let Some(within) = settings.prepare_timeout {
        // One pull may take all of it.
        config.pull_timeout = within;
    }
    settings.docker.apply(&mut config);
    let backend = Arc::new(DockerProvisioner::connect(config).await?);
    let gateway = backend.gateway().await?;
    Ok(Chosen::Docker { backend, gateway })
}

#[expect(clippy::disallowed_methods, reason = "the frontend decides what of its environment a child sees")]
fn process(settings: &Settings, descriptors: Descriptors) -> Result<Chosen, Error> {
    let command = match &settings.agent_command {
        Some(command) => command.clone(),
        None => std::env::current_exe().map_err(|error| {
            Error::new(ErrorKind::Unexpected, "the path of this program is unknown, so no agent can be started")
                .caused_by(error)
        })?,
    };
    let inherit = INHERITED.into_iter().filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?))).collect();
    let config = ProcessConfig {
        root: workspaces_folder(&settings.data_dir),
        command,
        args: vec!["agent".to_owned()],
        inherit,
        open_files: descriptors.before,
        stop_grace: DEFAULT_STOP_GRACE,
    };
    Ok(Chosen::Process(Arc::new(ProcessProvisioner::new(config)?)))
}

fn workspaces_folder(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("workspaces")
}
