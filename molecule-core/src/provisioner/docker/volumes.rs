//! The volumes of a workspace, and reaching into them whether anything runs or not.

use bollard::{
    errors::Error as EngineError,
    models::{ContainerCreateBody, HostConfig, MountVolumeOptions, Volume, VolumeCreateRequest},
    query_parameters::{CreateContainerOptionsBuilder, ListVolumesOptionsBuilder, RemoveVolumeOptions},
};

use super::{
    DockerProvisioner,
    archive::Owner,
    container::{self, CONFIG_DIR},
    errors, names,
};
use crate::{
    error::Result,
    id::WorkspaceId,
    provisioner::{ConfigFile, FilePath, FileRoot},
};

/// The one runtime that keeps conversations in a folder outside its configuration.
const SESSION_RUNTIME: &str = "claude-code";

/// The names of the volumes that a workspace is started with.
#[derive(Debug)]
pub(super) struct Volumes {
    pub(super) config: String,
    pub(super) workspace: String,
    pub(super) session: Option<String>,
}

/// A container through which a volume is reached, running or not.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) container: String,
    /// Whose image it has; a stranger's image does not tell who the agent is.
    own_image: bool,
    /// Made for this one visit.
    helper: bool,
}

impl DockerProvisioner {
    /// Makes what is missing of a workspace's volumes. No container of it may exist where its session is reset.
    pub(super) async fn ensure_volumes(&self, id: WorkspaceId, runtime: &str, reset_session: bool) -> Result<Volumes> {
        let mut session = None;
        if runtime == SESSION_RUNTIME {
            let name = self.volume_name(names::session_volume(id), names::legacy_session_volume(id), id).await?;
            if reset_session {
                self.delete_volume(&name).await?;
            }
            session = Some(self.make_volume(&name, id, None).await?);
        }
        let config = self.volume_name(names::config_volume(id), names::legacy_config_volume(id), id).await?;
        Ok(Volumes {
            config: self.make_volume(&config, id, Some(runtime)).await?,
            workspace: self.make_volume(&names::workspace_volume(id), id, None).await?,
            session,
        })
    }

    /// Removes every volume of the workspace, that of its work only where `all` go. No container of it may exist.
    pub(super) async fn delete_volumes(&self, id: WorkspaceId, all: bool) -> Result<()> {
        let work = names::workspace_volume(id);
        for name in [names::config_volume(id), names::session_volume(id)] {
            self.delete_volume(&name).await?;
        }
        if all {
            self.delete_volume(&work).await?;
        }
        for name in [names::legacy_config_volume(id), names::legacy_session_volume(id)] {
            if self.legacy_volume(&name, id).await?.is_some() {
                self.delete_volume(&name).await?;
            }
        }
        let rest = self.volumes_with(&[(names::WORKSPACE, &id.to_string())]).await?;
        for volume in rest.into_iter().filter(|volume| volume.name != work) {
            self.delete_volume(&volume.name).await?;
        }
        Ok(())
    }

    pub(super) async fn volumes_with(&self, labels: &[(&str, &str)]) -> Result<Vec<Volume>> {
        let options = ListVolumesOptionsBuilder::new().filters(&names::with_labels(labels)).build();
        let answer = self.docker.list_volumes(Some(options)).await.map_err(errors::failed("list its volumes"))?;
        Ok(answer.volumes.unwrap_or_default())
    }

    pub(super) async fn config_has_file(&self, id: WorkspaceId, path: &str) -> Result<bool> {
        let Some(door) = self.open(id).await? else { return Ok(false) };
        let answer = self.has_file(&door.container, &format!("{CONFIG_DIR}/{path}")).await;
        self.close(door).await;
        answer
    }

    /// Puts `files` into the configuration folder, making the volume where there is none.
    pub(super) async fn put_config_files(&self, id: WorkspaceId, files: &[ConfigFile]) -> Result<()> {
        let door = match self.open(id).await? {
            Some(door) => door,
            None => {
                self.make_volume(&names::config_volume(id), id, None).await?;
                self.open_volume(id, &names::config_volume(id), CONFIG_DIR, None).await?
            }
        };
        let put = self.put_through(&door, files).await;
        self.close(door).await;
        put
    }

    async fn put_through(&self, door: &Door, files: &[ConfigFile]) -> Result<()> {
        for file in files {
            self.refuse_links(&door.container, CONFIG_DIR, &FilePath::parse(&file.path)?).await?;
        }
        let mut owner = Owner::default();
        if door.own_image {
            let found = self.docker.inspect_container(&door.container, None).await;
            let found = found.map_err(errors::failed("look at the container that holds the volume"))?;
            owner = self.owner(&door.container, &found).await?;
        }
        self.put_files(&door.container, files, owner).await
    }

    /// A container through which `root` can be reached; none where nothing is kept there.
    pub(super) async fn open_root(&self, id: WorkspaceId, root: FileRoot) -> Result<Option<Door>> {
        if let Some(found) = self.find(id).await? {
            return Ok(Some(Door { container: found.name, own_image: true, helper: false }));
        }
        match root {
            FileRoot::Configs => self.open(id).await,
            FileRoot::Workspace => {
                let name = names::workspace_volume(id);
                match self.volume(&name).await? {
                    Some(_) => self.open_volume(id, &name, root.as_str(), None).await.map(Some),
                    None => Ok(None),
                }
            }
            FileRoot::Home | FileRoot::Plugins => Ok(None),
        }
    }

    async fn open(&self, id: WorkspaceId) -> Result<Option<Door>> {
        if let Some(found) = self.find(id).await? {
            return Ok(Some(Door { container: found.name, own_image: true, helper: false }));
        }
        match self.existing_config_volume(id).await? {
            Some((name, runtime)) => self.open_volume(id, &name, CONFIG_DIR, runtime.as_deref()).await.map(Some),
            None => Ok(None),
        }
    }

    /// The configuration volume, where there is one, and the runtime that it was made for, where it says.
    pub(super) async fn existing_config_volume(&self, id: WorkspaceId) -> Result<Option<(String, Option<String>)>> {
        let name = self.volume_name(names::config_volume(id), names::legacy_config_volume(id), id).await?;
        let volume = self.volume(&name).await?;
        Ok(volume.map(|mut volume| (name, volume.labels.remove(names::RUNTIME))))
    }

    async fn volume(&self, name: &str) -> Result<Option<Volume>> {
        errors::found(self.docker.inspect_volume(name).await)
            .map_err(errors::failed(format!("look for the volume {name}")))
    }

    /// Makes a container that is never started: it only mounts the volume, for the engine to read and write.
    async fn open_volume(&self, id: WorkspaceId, volume: &str, target: &str, runtime: Option<&str>) -> Result<Door> {
        let (image, own_image) = self.any_local_image(runtime).await?;
        let mut mount = container::volume(volume, target);
        if !own_image {
            // An empty volume is filled from the first image that mounts it, which must not be a stranger's.
            mount.volume_options = Some(MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() });
        }
        let body = ContainerCreateBody {
            image: Some(image),
            // Engines refuse a container without a command, even one that never runs it.
            cmd: Some(vec!["never-started".to_owned()]),
            labels: Some(self.config.labels(id)),
            network_disabled: Some(true),
            host_config: Some(HostConfig {
                mounts: Some(vec![mount]),
                network_mode: Some("none".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::new().platform(self.platform()).build();
        let made = self
            .docker
            .create_container(Some(options), body)
            .await
            .map_err(errors::failed(format!("make a container to reach the volume {volume}")))?;
        Ok(Door { container: made.id, own_image, helper: true })
    }

    pub(super) async fn close(&self, door: Door) {
        if door.helper
            && let Err(error) = self.remove_container(&door.container).await
        {
            // What was asked for is done. The leftover has the workspace's label and goes with its next start.
            tracing::warn!(container = door.container, error = error.detail(), "could not remove a helper container");
        }
    }

    /// The name that is in use: `full`, unless only `short` exists, from an older installation.
    async fn volume_name(&self, full: String, short: String, id: WorkspaceId) -> Result<String> {
        if self.volume(&full).await?.is_none() && self.legacy_volume(&short, id).await?.is_some() {
            return Ok(short);
        }
        Ok(full)
    }

    async fn legacy_volume(&self, name: &str, id: WorkspaceId) -> Result<Option<Volume>> {
        Ok(self.volume(name).await?.filter(|volume| names::belongs(&volume.labels, id)))
    }

    async fn make_volume(&self, name: &str, id: WorkspaceId, runtime: Option<&str>) -> Result<String> {
        let mut labels = self.config.labels(id);
        labels.extend(runtime.map(|runtime| (names::RUNTIME.to_owned(), runtime.to_owned())));
        let request =
            VolumeCreateRequest { name: Some(name.to_owned()), labels: Some(labels), ..VolumeCreateRequest::default() };
        let made = self.docker.create_volume(request).await;
        made.map(|volume| volume.name).map_err(errors::failed(format!("make the volume {name}")))
    }

    async fn delete_volume(&self, name: &str) -> Result<()> {
        let removed: Result<_, EngineError> = self.docker.remove_volume(name, None::<RemoveVolumeOptions>).await;
        errors::found(removed).map(|_| ()).map_err(errors::failed(format!("remove the volume {name}")))
    }
}
