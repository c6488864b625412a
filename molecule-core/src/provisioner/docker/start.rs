//! Bringing a workspace up, and taking its containers away.

use std::{
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::Path,
};

use bollard::{
    errors::Error as EngineError,
    models::ContainerCreateBody,
    query_parameters::{
        CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
        RemoveContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder, WaitContainerOptionsBuilder,
    },
};
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{
    DockerProvisioner, archive,
    container::{self, Plan},
    errors, image, names,
    tier::Tier,
};
use crate::{
    error::{Error, ErrorKind, Result},
    id::WorkspaceId,
    provisioner::StartSpec,
    workspace::Access,
};

/// How many ports are tried where others take them first.
const PORT_ATTEMPTS: usize = 3;

impl DockerProvisioner {
    /// Starts the workspace and gives the URL of its agent.
    pub(super) async fn start_workspace(&self, spec: &StartSpec) -> Result<String> {
        let id = spec.workspace_id;
        let tier = Tier::granted(spec.tier, self.config.max_tier);
        if tier.number() < spec.tier {
            tracing::warn!(
                workspace.id = %id,
                tier.asked = spec.tier,
                tier.granted = tier.number(),
                "the workspace runs with the settings of a lower tier: its own is above the highest granted one"
            );
        }
        // What may take long or fail comes first, while an earlier container still runs.
        spec.files.iter().try_for_each(|file| archive::check_relative(&file.path))?;
        let image = self.image_at_hand(&spec.runtime).await?;
        let gateway = self.gateway().await?;

        // An engine finishes what it was asked for, even where nobody listens any more. So the rest is seen through by a
        // task, which knows what there is to take away should the caller be gone by then.
        let abandoned = CancellationToken::new();
        let _abandon = abandoned.clone().drop_guard();
        let (this, spec) = (self.clone(), spec.clone());
        let replacing = self.tasks.spawn(async move {
            let _gate = this.gates.enter(id).await;
            if abandoned.is_cancelled() {
                return Err(Error::new(ErrorKind::Unavailable, "the start was given up before it began"));
            }
            let replaced = this.replace(&spec, tier, &image, gateway).await;
            if abandoned.is_cancelled()
                && let Err(error) = this.remove_workload(id).await
            {
                tracing::warn!(workspace.id = %id, error = error.detail(), "could not undo a start that was given up");
            }
            replaced
        });
        replacing.await.map_err(|error| {
            Error::new(ErrorKind::Unexpected, "the start broke off because of a defect").caused_by(error)
        })?
    }

    /// Puts a new container in the place of an earlier one, and gives the URL of its agent.
    async fn replace(&self, spec: &StartSpec, tier: Tier, image: &str, gateway: Option<IpAddr>) -> Result<String> {
        let id = spec.workspace_id;
        // A volume can't be removed while a container holds it, so this comes before a session is reset.
        self.remove_containers(id).await?;
        let volumes = self.ensure_volumes(id, &spec.runtime, spec.reset_session).await?;

        let mut attempt = 1;
        loop {
            let port = free_port()?;
            let config = &*self.config;
            let plan = Plan { spec, config, tier, image, volumes: &volumes, gateway, cpus: self.cpus, port };
            match self.launch(spec, image, host_folder(spec, tier), plan.body()).await? {
                Launch::Started => return Ok(address(config.in_container, id, port)),
                Launch::PortTaken(error) if attempt == PORT_ATTEMPTS => {
                    return Err(errors::failed(format!("publish a port for workspace {id}"))(error));
                }
                Launch::PortTaken(_) => attempt += 1,
            }
        }
    }

    /// Makes, fills and starts a container, leaving none behind on failure.
    async fn launch(
        &self,
        spec: &StartSpec,
        image: &str,
        host_folder: Option<&Path>,
        body: ContainerCreateBody,
    ) -> Result<Launch> {
        let id = spec.workspace_id;
        let name = names::container(id);
        let options = CreateContainerOptionsBuilder::new().name(&name).platform(self.platform()).build();
        match self.docker.create_container(Some(options), body).await {
            Ok(_) => {}
            // Volumes and network were made sure of a moment ago: what is missing is the image.
            Err(error) if errors::is_not_found(&error) => {
                return Err(image::not_found(&spec.runtime, image).caused_by(error));
            }
            Err(error) => {
                return Err(match host_folder {
                    // All else that is asked for was decided here.
                    Some(folder) if errors::is_refused(&error) => unmountable(folder).caused_by(error),
                    _ => errors::failed(format!("make the container of workspace {id}"))(error),
                });
            }
        }
        let launched = self.fill_and_run(spec, &name).await;
        if !matches!(launched, Ok(Launch::Started))
            && let Err(error) = self.remove_container(&name).await
        {
            tracing::warn!(workspace.id = %id, error = error.detail(), "could not remove the container that failed to start");
        }
        launched
    }

    async fn fill_and_run(&self, spec: &StartSpec, name: &str) -> Result<Launch> {
        let id = spec.workspace_id;
        let made = self
            .docker
            .inspect_container(name, None::<InspectContainerOptions>)
            .await
            .map_err(errors::failed(format!("look at the container of workspace {id}")))?;
        let owner = self.owner(name, &made).await?;
        self.put_files(name, &spec.files, owner).await?;
        match self.docker.start_container(name, None::<StartContainerOptions>).await {
            Ok(()) => Ok(Launch::Started),
            Err(error) if errors::is_port_taken(&error) => Ok(Launch::PortTaken(error)),
            Err(error) => Err(errors::failed(format!("start the container of workspace {id}"))(error)),
        }
    }

    /// Removes the workload, running or not, whichever way it is named. What does not exist is fine.
    pub(super) async fn remove_workload(&self, id: WorkspaceId) -> Result<()> {
        while let Some(found) = self.find(id).await? {
            self.remove_container(&found.name).await?;
        }
        Ok(())
    }

    /// Stops the workload where it is, log and all. Its restart policy leaves alone what was stopped by hand.
    pub(super) async fn end_workload(&self, id: WorkspaceId) -> Result<()> {
        let Some(found) = self.find(id).await? else { return Ok(()) };
        let at_once = StopContainerOptionsBuilder::new().t(0).build();
        match self.docker.stop_container(&found.name, Some(at_once)).await {
            Ok(()) => Ok(()),
            Err(error) if errors::is_not_found(&error) || errors::is_done(&error) => Ok(()),
            Err(error) => Err(errors::failed(format!("stop the container {}", found.name))(error)),
        }
    }

    /// Removes the workload and what is left of interrupted work on its volumes.
    pub(super) async fn remove_containers(&self, id: WorkspaceId) -> Result<()> {
        self.remove_workload(id).await?;
        let filters = names::with_labels(&[(names::WORKSPACE, &id.to_string())]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let containers = self.docker.list_containers(Some(options)).await;
        let containers = containers.map_err(errors::failed(format!("list the containers of workspace {id}")))?;
        for container in containers.into_iter().filter_map(|container| container.id) {
            self.remove_container(&container).await?;
        }
        Ok(())
    }

    /// Kills and removes a container in one call, which its restart policy can't get between.
    pub(super) async fn remove_container(&self, name: &str) -> Result<()> {
        // Volumes without a name belong to the container alone.
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.docker.remove_container(name, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if errors::is_not_found(&error) => Ok(()),
            Err(error) if errors::is_conflict(&error) => self.wait_until_removed(name).await,
            Err(error) => Err(errors::failed(format!("remove the container {name}"))(error)),
        }
    }

    /// Waits for a removal that somebody else began.
    async fn wait_until_removed(&self, name: &str) -> Result<()> {
        let options = WaitContainerOptionsBuilder::new().condition("removed").build();
        let mut removed = Box::pin(self.docker.wait_container(name, Some(options)));
        let answer = tokio::time::timeout(self.config.request_timeout, removed.next()).await;
        match answer {
            // An exit code other than 0 comes as an error, and so does a container that is gone already.
            Ok(None | Some(Ok(_) | Err(EngineError::DockerContainerWaitError { .. }))) => Ok(()),
            Ok(Some(Err(error))) if errors::is_not_found(&error) => Ok(()),
            Ok(Some(Err(error))) => Err(errors::failed(format!("finish removing the container {name}"))(error)),
            Err(_) => {
                let message = format!("the docker engine is still removing the container {name} — try again later");
                Err(Error::new(ErrorKind::Unavailable, message))
            }
        }
    }
}

/// How far a launch came.
#[derive(Debug)]
enum Launch {
    Started,
    /// Somebody took the port since it was chosen; the container is gone again.
    PortTaken(EngineError),
}

/// The folder of the host that is mounted for the workspace to work in.
fn host_folder(spec: &StartSpec, tier: Tier) -> Option<&Path> {
    spec.workspace_dir.as_deref().filter(|_| spec.access != Access::None && tier.has_workspace())
}

fn unmountable(folder: &Path) -> Error {
    Error::invalid(
        "the folder given to the workspace cannot be mounted — create it on the machine of the Docker engine, or give \
         the workspace another",
    )
    .context("workspace_dir", folder.display())
}

/// Where this control plane calls the agent of `id`, which the host publishes on `port`.
fn address(in_container: bool, id: WorkspaceId, port: u16) -> String {
    if in_container { container::address(id) } else { format!("http://127.0.0.1:{port}") }
}

/// A port of this host that is free now.
///
/// Left to itself, an engine publishes on another port whenever it restarts a container, and the URL of an agent that
/// crashed once would lead nowhere.
fn free_port() -> Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| Error::new(ErrorKind::Unavailable, "this host has no free port").caused_by(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_called_from_where_the_control_plane_runs() {
        let id: WorkspaceId = "6f9619ff-8b86-d011-b42d-00cf4fc964ff".parse().unwrap();
        assert_eq!(address(false, id, 4711), "http://127.0.0.1:4711");
        assert_eq!(address(true, id, 4711), "http://ws-6f9619ff-8b86-d011-b42d-00cf4fc964ff:8000");
    }
}
