//! The files of a workspace, in its container or, where it has none, in its volumes.

use std::time::Duration;

use bollard::{
    models::{ContainerCreateBody, HostConfig},
    query_parameters::{CreateContainerOptionsBuilder, StartContainerOptions, WaitContainerOptions},
};
use futures_util::TryStreamExt;

use super::{
    DockerProvisioner,
    container::{self, CONFIG_DIR},
    errors, listing,
    volumes::Door,
};
use crate::{
    error::{Error, ErrorKind, Result},
    id::WorkspaceId,
    provisioner::{FileEntry, FilePath, FileRoot, files::no_file},
};

/// How long deleting a file may take.
const DELETE_BUDGET: Duration = Duration::from_secs(30);

impl DockerProvisioner {
    pub(super) async fn list_workspace_files(
        &self,
        id: WorkspaceId,
        root: FileRoot,
        folder: Option<&FilePath>,
        depth: usize,
    ) -> Result<Option<Vec<FileEntry>>> {
        let Some(door) = self.open_root(id, root).await? else { return Ok(None) };
        let listed = self.list_through(&door, root, folder, depth).await;
        self.close(door).await;
        listed
    }

    async fn list_through(
        &self,
        door: &Door,
        root: FileRoot,
        folder: Option<&FilePath>,
        depth: usize,
    ) -> Result<Option<Vec<FileEntry>>> {
        let Some(real) = self.real_root(&door.container, root.as_str()).await? else { return Ok(None) };
        let place = match folder {
            None => real,
            Some(folder) => match self.look(&door.container, &real, folder).await? {
                Some(found) if found.folder => found.path,
                _ => return Err(no_file()),
            },
        };
        listing::entries(self.download(&door.container, &place), depth).await.map(Some)
    }

    pub(super) async fn read_workspace_file(
        &self,
        id: WorkspaceId,
        root: FileRoot,
        path: &FilePath,
    ) -> Result<Option<Vec<u8>>> {
        let Some(door) = self.open_root(id, root).await? else { return Ok(None) };
        let read = self.read_through(&door, root, path).await;
        self.close(door).await;
        read
    }

    async fn read_through(&self, door: &Door, root: FileRoot, path: &FilePath) -> Result<Option<Vec<u8>>> {
        let Some(real) = self.real_root(&door.container, root.as_str()).await? else { return Ok(None) };
        match self.look(&door.container, &real, path).await? {
            Some(found) if found.regular => self.read_file(&door.container, &found.path).await.map(Some),
            _ => Err(no_file()),
        }
    }

    /// Deletes a file through a container that is there for nothing else: the engine itself deletes no file.
    pub(super) async fn delete_config_file(&self, id: WorkspaceId, path: &FilePath) -> Result<()> {
        let Some((volume, runtime)) = self.existing_config_volume(id).await? else { return Ok(()) };
        let Some(door) = self.open_root(id, FileRoot::Configs).await? else { return Ok(()) };
        let found = self.look(&door.container, CONFIG_DIR, path).await;
        self.close(door).await;
        match found? {
            None => return Ok(()),
            Some(found) if found.folder => return Err(Error::invalid("it is a folder")),
            Some(_) => {}
        }
        let image = match self.find(id).await?.and_then(|found| found.container.image) {
            Some(image) => image,
            None => self.any_local_image(runtime.as_deref()).await?.0,
        };
        let body = ContainerCreateBody {
            image: Some(image),
            entrypoint: Some(vec!["rm".to_owned()]),
            cmd: Some(["-f", "--", &format!("{CONFIG_DIR}/{path}")].map(str::to_owned).into()),
            user: Some("0:0".to_owned()),
            labels: Some(self.config.labels(id)),
            network_disabled: Some(true),
            host_config: Some(HostConfig {
                mounts: Some(vec![container::volume(&volume, CONFIG_DIR)]),
                network_mode: Some("none".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::new().platform(self.platform()).build();
        let made = self.docker.create_container(Some(options), body).await;
        let made = made.map_err(errors::failed("make a container to delete a file with"))?.id;
        let late = || Error::new(ErrorKind::Upstream, "the docker engine did not delete the file in time");
        let deleted = tokio::time::timeout(DELETE_BUDGET, self.run_to_its_end(&made)).await;
        if let Err(error) = self.remove_container(&made).await {
            // It has the workspace's label and goes with its next start.
            tracing::warn!(container = made, error = error.detail(), "could not remove a helper container");
        }
        deleted.unwrap_or_else(|_| Err(late()))
    }

    async fn run_to_its_end(&self, container: &str) -> Result<()> {
        self.docker.start_container(container, None::<StartContainerOptions>).await.map_err(|error| {
            let kind = if errors::is_refused(&error) { ErrorKind::Unsupported } else { ErrorKind::Upstream };
            Error::new(kind, "the image of this workspace has no rm, so that nothing can be deleted with it")
                .caused_by(error)
        })?;
        let waiting = self.docker.wait_container(container, None::<WaitContainerOptions>);
        // An exit code other than 0 is an error here.
        waiting.try_for_each(|_| async { Ok(()) }).await.map_err(|error| {
            Error::new(ErrorKind::Upstream, "the docker engine could not delete the file").caused_by(error)
        })
    }
}
