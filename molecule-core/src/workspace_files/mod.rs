//! The files that a workspace keeps on its backend: looked at, changed, and what its configuration shares.

mod shared;

use std::{collections::BTreeMap, sync::Arc};

pub use self::shared::SharedFile;
use crate::{
    control_plane::{Backend, ControlPlane},
    error::{Error, ErrorKind, Result},
    id::WorkspaceId,
    provisioner::{
        ConfigFile, EXEC_READ_LIMIT, FileEntry, FilePath, FileRoot, Workload, WorkspaceFiles,
        files::{host, too_large},
        no_backend,
        prepare::{CONFIG_FILE, generated_config},
        stop::Leaves,
    },
    templates::is_own_file,
    workspace::{Workspace, lifecycle::gone_is_not_found},
};

/// How many files may be written at once.
pub const FILES_LIMIT: usize = 200;

/// How deep a listing may go.
pub const DEPTH_LIMIT: usize = 5;

/// What came of writing files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// The name of the workspace.
    pub workspace: String,
    /// How many files were written.
    pub files: usize,
    /// Where they are now: in the container of a workload that runs, or in its volume.
    pub source: &'static str,
}

impl ControlPlane {
    /// What is in a folder of the workspace, or in the template that is called like it while the backend keeps nothing
    /// of it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a depth other than 1 to [`DEPTH_LIMIT`]; [`ErrorKind::NotFound`] for an unknown
    /// workspace or folder; [`ErrorKind::Unsupported`] where the files of the workspace are elsewhere.
    pub async fn list_files(
        &self,
        id: WorkspaceId,
        root: FileRoot,
        folder: Option<&FilePath>,
        depth: usize,
    ) -> Result<Vec<FileEntry>> {
        if !(1..=DEPTH_LIMIT).contains(&depth) {
            return Err(Error::invalid(format!("depth must be 1-{DEPTH_LIMIT}")));
        }
        let (workspace, keeper) = self.keeper_of(id).await?;
        let listed = match keeper.list_files(id, root, folder, depth).await? {
            Some(listed) => listed,
            None => self.list_template(&workspace, root, folder.cloned(), depth).await?,
        };
        let within_root = folder.is_none() && root == FileRoot::Configs;
        Ok(listed.into_iter().filter(|entry| !(within_root && is_own_file(&entry.path))).collect())
    }

    /// The contents of a file of the workspace, found as [`ControlPlane::list_files`] finds it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown workspace or file; [`ErrorKind::TooLarge`] over [`EXEC_READ_LIMIT`];
    /// [`ErrorKind::Unsupported`] where the files of the workspace are elsewhere.
    pub async fn read_file(&self, id: WorkspaceId, root: FileRoot, path: &FilePath) -> Result<Vec<u8>> {
        let (workspace, keeper) = self.keeper_of(id).await?;
        if root == FileRoot::Configs && is_own_file(path.as_str()) {
            // It is how the agent and the platform know each other, and nobody else's.
            return Err(Error::not_found("file not found"));
        }
        self.read_kept(&workspace, keeper, root, path).await
    }

    async fn read_kept(
        &self,
        workspace: &Workspace,
        keeper: &Arc<dyn WorkspaceFiles>,
        root: FileRoot,
        path: &FilePath,
    ) -> Result<Vec<u8>> {
        if let Some(contents) = keeper.read_file(workspace.id, root, path).await? {
            return Ok(contents);
        }
        let path = path.clone();
        let found = self.in_template(workspace, root, move |folder| host::read(folder, &path)).await?;
        found.ok_or_else(|| Error::not_found("file not found (container offline, no template)"))
    }

    /// Puts a file into the configuration folder of the workspace.
    ///
    /// # Errors
    /// As [`ControlPlane::write_files`].
    pub async fn write_file(&self, id: WorkspaceId, path: FilePath, contents: String) -> Result<()> {
        let (_, keeper) = self.keeper_of(id).await?;
        let file = config_file(path, contents)?;
        keeper.write_files(id, &[file]).await.map_err(write_failed)?;
        self.forget_if_removed(id).await
    }

    /// Puts files into the configuration folder of the workspace, in the place of what was there. Where there is no
    /// `config.yaml` afterwards, one is made.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for no file, more than [`FILES_LIMIT`], or what is the platform's own;
    /// [`ErrorKind::TooLarge`] for one over [`EXEC_READ_LIMIT`]; [`ErrorKind::Unsupported`] where the files of the
    /// workspace are elsewhere. Nothing is written then.
    pub async fn write_files(&self, id: WorkspaceId, files: BTreeMap<FilePath, String>) -> Result<Replaced> {
        match files.len() {
            0 => return Err(Error::invalid("invalid request body").with_member("detail", "files must not be empty")),
            count if count > FILES_LIMIT => {
                return Err(Error::invalid(format!("too many files ({count}), max {FILES_LIMIT}")));
            }
            _ => {}
        }
        let (workspace, keeper) = self.keeper_of(id).await?;
        let mut written =
            files.into_iter().map(|(path, contents)| config_file(path, contents)).collect::<Result<Vec<_>>>()?;
        let count = written.len();
        let failed = |error| match write_failed(error) {
            error if error.kind() == ErrorKind::InvalidInput => error,
            error => error.with_message("failed to write files to workspace"),
        };
        let config = FilePath::parse(CONFIG_FILE)?;
        let brought = written.iter().any(|file| file.path == CONFIG_FILE);
        if !brought && !self.has(keeper, id, &config).await.map_err(failed)? {
            let yaml = generated_config(&workspace, self.model(id).await?.as_deref());
            written.push(config_file(config, yaml)?);
        }
        let source = match self.observe(id).await {
            Ok(Workload::Running) => "container",
            _ => "volume",
        };
        keeper.write_files(id, &written).await.map_err(failed)?;
        self.forget_if_removed(id).await?;
        Ok(Replaced { workspace: workspace.name, files: count, source })
    }

    /// Deletes a file of the configuration folder of the workspace; one that is not there is deleted already.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a folder or what is the platform's own; [`ErrorKind::Unsupported`] where the files
    /// of the workspace are elsewhere.
    pub async fn delete_file(&self, id: WorkspaceId, path: &FilePath) -> Result<()> {
        let (_, keeper) = self.keeper_of(id).await?;
        refuse_own(path)?;
        keeper.delete_file(id, path).await.map_err(|error| match error.kind() {
            ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::Unavailable => error,
            _ => {
                let text = format!("failed to delete: {}", error.message());
                Error::new(ErrorKind::Unexpected, text).caused_by(error)
            }
        })
    }

    /// The workspace and who keeps its files.
    async fn keeper_of(&self, id: WorkspaceId) -> Result<(Workspace, &Arc<dyn WorkspaceFiles>)> {
        let workspace = self.existing(id).await.map_err(gone_is_not_found)?;
        match &self.inner.backend {
            Backend::Local { provisioner, .. } if !provisioner.capability().files => {
                Err(provisioner.capability().unsupported("reach the files of workspaces"))
            }
            Backend::Local { files, .. } if !workspace.is_external() => Ok((workspace, files)),
            Backend::None if !workspace.is_external() => Err(no_backend()),
            _ => {
                Err(Error::new(ErrorKind::Unsupported, "this workspace does not run here, so its files are elsewhere"))
            }
        }
    }

    async fn has(&self, keeper: &Arc<dyn WorkspaceFiles>, id: WorkspaceId, path: &FilePath) -> Result<bool> {
        match keeper.read_file(id, FileRoot::Configs, path).await {
            Ok(contents) => Ok(contents.is_some()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) if error.kind() == ErrorKind::TooLarge => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn observe(&self, id: WorkspaceId) -> Result<Workload> {
        match &self.inner.backend {
            Backend::Local { inspector, .. } => inspector.observe(id).await,
            _ => Ok(Workload::Absent),
        }
    }

    /// Clears what was written into a workspace that was removed meanwhile: nobody else would.
    async fn forget_if_removed(&self, id: WorkspaceId) -> Result<()> {
        match Leaves::of(self.inner.store.workspace(id).await?.as_ref()) {
            Leaves::Storage => Ok(()),
            leaves => {
                self.inner.backend.clear(id, leaves).await?;
                Err(Error::not_found("workspace not found"))
            }
        }
    }

    async fn list_template(
        &self,
        workspace: &Workspace,
        root: FileRoot,
        folder: Option<FilePath>,
        depth: usize,
    ) -> Result<Vec<FileEntry>> {
        let listed = self.in_template(workspace, root, move |base| host::list(base, folder.as_ref(), depth)).await;
        match listed {
            Ok(listed) => Ok(listed.unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Looks into the template that is called like the workspace, where there is one.
    async fn in_template<T: Send + 'static>(
        &self,
        workspace: &Workspace,
        root: FileRoot,
        look: impl FnOnce(&std::path::Path) -> Result<Option<T>> + Send + 'static,
    ) -> Result<Option<T>> {
        if root != FileRoot::Configs {
            return Ok(None);
        }
        let (templates, name) = (self.inner.config.templates.clone(), workspace.name.clone());
        let looking = tokio::task::spawn_blocking(move || match templates.called_like("", &name) {
            Some((_, folder)) => look(&folder),
            None => Ok(None),
        });
        looking.await.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Unexpected, "the templates cannot be looked at").caused_by(error))
        })
    }
}

fn config_file(path: FilePath, contents: String) -> Result<ConfigFile> {
    refuse_own(&path)?;
    if contents.len() > EXEC_READ_LIMIT {
        return Err(too_large(format!("{path} is larger than {EXEC_READ_LIMIT} bytes")));
    }
    Ok(ConfigFile { path: path.to_string(), contents: contents.into_bytes(), private: false })
}

/// What the platform puts into the configuration folder itself is not for others to change.
fn refuse_own(path: &FilePath) -> Result<()> {
    if is_own_file(path.as_str()) {
        return Err(Error::invalid("invalid path").with_member("detail", "this file is the platform's own"));
    }
    Ok(())
}

/// Says what could not be written, where the caller is not the reason for it.
fn write_failed(error: Error) -> Error {
    match error.kind() {
        ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::Unavailable => error,
        _ => {
            let text = format!("failed to write file: {}", error.message());
            Error::new(ErrorKind::Unexpected, text).caused_by(error)
        }
    }
}
