//! What the configuration of a workspace shares with whoever works with it.

use crate::{
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    id::WorkspaceId,
    provisioner::{EXEC_READ_LIMIT, FilePath, FileRoot, prepare::CONFIG_FILE},
    templates::{is_own_file, shared_context},
};

/// How many files may be shared.
const SHARED_LIMIT: usize = 100;

/// A file that is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedFile {
    /// Below the configuration folder, as the configuration names it.
    pub path: String,
    /// What it holds.
    pub content: String,
}

impl ControlPlane {
    /// The files that `shared_context` of the workspace's `config.yaml` names. What cannot be read, or is no text, is
    /// passed over, and so is what goes beyond [`EXEC_READ_LIMIT`] bytes in all.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown workspace; [`ErrorKind::Unsupported`] where its files are elsewhere.
    pub async fn shared_context(&self, id: WorkspaceId) -> Result<Vec<SharedFile>> {
        let (workspace, keeper) = self.keeper_of(id).await?;
        let read = async |path: &FilePath| self.read_kept(&workspace, keeper, FileRoot::Configs, path).await;
        let config = match read(&FilePath::parse(CONFIG_FILE)?).await {
            Ok(config) => String::from_utf8_lossy(&config).into_owned(),
            Err(error) if is_unreadable(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let names = shared_context(&config).unwrap_or_else(|error| {
            tracing::warn!(workspace.id = %id, error, "config.yaml cannot be read; nothing is shared");
            Vec::new()
        });
        let mut shared = Vec::new();
        let mut bytes = 0;
        for name in names.into_iter().take(SHARED_LIMIT) {
            let Ok(path) = FilePath::parse(&name) else { continue };
            if is_own_file(path.as_str()) {
                continue;
            }
            let contents = match read(&path).await {
                Ok(contents) => contents,
                Err(error) if is_unreadable(&error) => continue,
                Err(error) => return Err(error),
            };
            let Ok(content) = String::from_utf8(contents) else { continue };
            bytes += content.len();
            if bytes > EXEC_READ_LIMIT {
                break;
            }
            shared.push(SharedFile { path: name, content });
        }
        Ok(shared)
    }
}

/// Whether it is the file that cannot be read, and not the backend that is away.
fn is_unreadable(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput | ErrorKind::TooLarge)
}
