//! Where workspaces run: the traits that a backend implements, and the backends that come with the library.
//!
//! A backend of your own implements [`LocalProvisioner`], [`WorkloadInspector`] and [`WorkspaceFiles`] (machines of this host,
//! reached directly) or [`ControlPlaneProvisioner`] (machines that another control plane owns), and is handed to
//! [`ControlPlane::builder`](crate::ControlPlane::builder). Nothing in the library changes for it.

#[cfg(feature = "docker")]
pub mod docker;
#[cfg(feature = "process")]
pub mod process;

pub(crate) mod attempts;
mod bring_up;
pub(crate) mod dispatch;
pub mod env;
pub mod files;
pub mod image_ref;
pub(crate) mod images;
pub(crate) mod prepare;
pub mod remote;
pub(crate) mod stop;

use std::{collections::BTreeMap, fmt::Debug, path::PathBuf};

use async_trait::async_trait;
use secrecy::SecretString;

pub use self::{
    files::{FileEntry, FilePath, FileRoot, LISTING_LIMIT, WorkspaceFiles},
    images::{Images, Refreshed},
};
use crate::{
    error::{Error, ErrorKind, Result},
    id::WorkspaceId,
    workspace::Access,
};

/// What a backend can do. Constant for the life of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// The name of the backend in logs and reports.
    pub name: &'static str,
    /// [`LocalProvisioner::start`] gives the address under which the agent can be called.
    pub assigns_url: bool,
    /// [`LocalProvisioner::exec_read`] works.
    pub exec: bool,
    /// [`LocalProvisioner::remove_volume`], [`LocalProvisioner::volume_has_file`] and
    /// [`LocalProvisioner::write_auth_token`] work, also while nothing runs.
    pub volumes: bool,
    /// It keeps files that can be looked at and changed: [`WorkspaceFiles`].
    pub files: bool,
    /// The workload is kept apart from this host and from other workloads.
    pub isolation: bool,
}

impl Capability {
    /// The error of an operation that this capability does not declare.
    pub fn unsupported(&self, operation: &'static str) -> Error {
        Error::new(ErrorKind::Unsupported, format!("the {} backend cannot {operation}", self.name))
    }
}

/// The error of every operation where no backend is configured.
pub fn no_backend() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "no provisioning backend available — start a Docker daemon, name a control plane, or choose with --provisioner",
    )
    .with_retry(crate::error::Retry::Never)
}

/// Everything that a backend needs to know to bring a workspace up.
#[derive(Clone)]
pub struct StartSpec {
    /// Whose machine it is.
    pub workspace_id: WorkspaceId,
    /// The name its operator gave it.
    pub name: String,
    /// The runtime that the image or command is chosen by.
    pub runtime: String,
    /// How much it may use and do: 1 (sandboxed) to 4.
    pub tier: i32,
    /// Environment of the agent. The backend's own variables win over these.
    pub env: BTreeMap<String, String>,
    /// Files that are in place, under the configuration folder, before the agent runs.
    pub files: Vec<ConfigFile>,
    /// A folder of the host to work in; the backend's own storage where there is none.
    pub workspace_dir: Option<PathBuf>,
    /// What the agent may do with `workspace_dir`.
    pub access: Access,
    /// Where the agent reaches the control plane.
    pub platform_url: String,
    /// Forget the agent's conversation first, where the backend keeps one.
    pub reset_session: bool,
    /// Which program the agent is, where no image says that.
    pub command: AgentCommand,
}

/// Which program an agent is, on a backend without images.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AgentCommand {
    /// That of the backend.
    #[default]
    Own,
    /// That of the start before; that of the backend where there was none.
    Kept,
    /// This one, with its arguments: an absolute path, or a name to be looked up where programs are.
    Named(Vec<String>),
}

impl Debug for StartSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The values of the environment are secrets.
        f.debug_struct("StartSpec")
            .field("workspace_id", &self.workspace_id)
            .field("runtime", &self.runtime)
            .field("tier", &self.tier)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

/// A file in the configuration folder of a workspace.
#[derive(Clone)]
pub struct ConfigFile {
    /// Relative to the configuration folder, with `/` between parts.
    pub path: String,
    /// What it holds.
    pub contents: Vec<u8>,
    /// Whether only the agent may read it (mode 0600; otherwise 0644).
    pub private: bool,
}

impl Debug for ConfigFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, contents, private } = self;
        // The contents may be a secret.
        write!(f, "ConfigFile({path:?}, {} bytes, private: {private})", contents.len())
    }
}

/// Brings workspaces up on machines of this host.
///
/// Every operation may be repeated. Cloning clones the handle, not the machines.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait LocalProvisioner: Debug + Send + Sync + 'static {
    /// What this backend can do.
    fn capability(&self) -> Capability;

    /// Fetches what a start of the workspace needs and may take long to come by, such as its image.
    ///
    /// It is asked for before each start. A start of what was not prepared fetches what it needs itself.
    ///
    /// # Behavior
    /// - What runs is left alone.
    ///
    /// # Errors
    /// As [`LocalProvisioner::start`], which is not asked for then.
    async fn prepare(&self, spec: &StartSpec) -> Result<()>;

    /// Starts the workspace and gives the URL under which this process can call its agent.
    ///
    /// # Behavior
    /// - Files of the spec are in place before the agent's first instruction, private ones readable by it alone.
    /// - An earlier workload of the same workspace is replaced; its volume is kept.
    /// - A failed start leaves no workload behind.
    /// - The URL is there when [`Capability::assigns_url`] is, and names an address of this host.
    ///
    /// # Errors
    /// The message is fit for operators: it says what to do and holds no secret.
    async fn start(&self, spec: &StartSpec) -> Result<Option<String>>;

    /// Stops the workload, keeping its volume.
    ///
    /// # Behavior
    /// - Stopping a stopped or unknown workspace succeeds.
    /// - Returns once no process of the workspace runs.
    async fn stop(&self, id: WorkspaceId) -> Result<()>;

    /// Ends the workload for good, and keeps what it wrote.
    ///
    /// # Behavior
    /// - Nothing of it runs afterwards, nor begins again by itself.
    /// - Its log can be read as before.
    async fn halt(&self, id: WorkspaceId) -> Result<()>;

    /// Whether the workload runs.
    ///
    /// # Behavior
    /// - An unknown workspace does not run.
    ///
    /// # Errors
    /// Where the backend can't tell. Callers take such a workspace for alive, so that a backend that is away never
    /// causes a storm of restarts.
    async fn is_running(&self, id: WorkspaceId) -> Result<bool>;

    /// Reads a file as the running workload sees it, at most [`EXEC_READ_LIMIT`] bytes.
    ///
    /// Requires [`Capability::exec`].
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a missing file or a workload that does not run, [`ErrorKind::TooLarge`] over the
    /// limit.
    async fn exec_read(&self, id: WorkspaceId, path: &str) -> Result<Vec<u8>>;

    /// Removes what the backend keeps for the workspace: its configuration and its conversation, and not what its agent
    /// worked on, which [`LocalProvisioner::purge_volumes`] removes as well.
    ///
    /// Requires [`Capability::volumes`].
    ///
    /// # Behavior
    /// - Removing what is not there succeeds.
    /// - Afterwards the workspace is not in the inventory, and has no configuration.
    async fn remove_volume(&self, id: WorkspaceId) -> Result<()>;

    /// Removes everything the backend keeps for the workspace.
    ///
    /// Requires [`Capability::volumes`].
    ///
    /// # Behavior
    /// - Purging what is not there, or was removed, succeeds.
    /// - Afterwards nothing of the workspace is left on the backend.
    async fn purge_volumes(&self, id: WorkspaceId) -> Result<()>;

    /// Whether the configuration folder holds `path`, relative to it.
    ///
    /// Requires [`Capability::volumes`].
    ///
    /// # Behavior
    /// - Without a volume the answer is no.
    async fn volume_has_file(&self, id: WorkspaceId, path: &str) -> Result<bool>;

    /// Puts `token` into the configuration folder as `.auth_token`, readable by the agent alone.
    ///
    /// Requires [`Capability::volumes`].
    ///
    /// # Behavior
    /// - Works while nothing runs, and replaces an earlier token.
    /// - The token never appears in an argument, an environment or an inspectable setting.
    async fn write_auth_token(&self, id: WorkspaceId, token: &SecretString) -> Result<()>;
}

/// The most that [`LocalProvisioner::exec_read`] reads.
pub const EXEC_READ_LIMIT: usize = 5 * 1024 * 1024;

/// Lets an operator look at what runs on a local backend.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait WorkloadInspector: Debug + Send + Sync + 'static {
    /// Where other workloads of this backend call the agent of `id`; `None` where that is the URL that
    /// [`LocalProvisioner::start`] gave.
    fn peer_url(&self, id: WorkspaceId) -> Option<String>;

    /// Where this process calls the agent of `id`; `None` where none runs, or the backend does not tell.
    ///
    /// # Behavior
    /// - What runs is called where its start said.
    async fn address(&self, id: WorkspaceId) -> Result<Option<String>>;

    /// What the workload of `id` does now.
    async fn observe(&self, id: WorkspaceId) -> Result<Workload>;

    /// The last `lines` lines that the workload wrote, oldest first; also after it ended, until it is removed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is no workload to read from.
    async fn logs(&self, id: WorkspaceId, lines: usize) -> Result<Vec<u8>>;

    /// The workspaces that have anything on this backend: a workload in whatever state, or a volume.
    ///
    /// What only is left of the work of one that was removed does not count, nor does what says that another installation
    /// made it.
    async fn inventory(&self) -> Result<Vec<WorkspaceId>>;

    /// The workspaces that have anything here that this installation made, and no other that shares the machine, also where
    /// that is only what is left of their work. A thing that does not tell whose it is is not listed.
    ///
    /// # Behavior
    /// - Of what runs it holds nothing that the inventory does not hold.
    async fn own_inventory(&self) -> Result<Vec<WorkspaceId>>;
}

/// What a workload does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// There is none.
    Absent,
    /// It runs.
    Running,
    /// It ended, or ends again and again.
    Ended {
        /// The exit code of its last run, where the backend knows it; 128 + n for signal n.
        exit_code: Option<i64>,
    },
}

/// A machine of another control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The other control plane's name for it.
    pub instance_id: String,
}

/// Brings workspaces up on machines that another control plane owns.
///
/// The agent's own register call tells its address.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait ControlPlaneProvisioner: Debug + Send + Sync + 'static {
    /// Asks for a machine for the workspace.
    ///
    /// # Behavior
    /// - The machine comes to run, under a name that no other has, nor one before it.
    /// - Its agent has the variables of the spec, but its own id as WORKSPACE_ID and the URL of the spec as PLATFORM_URL.
    async fn start(&self, spec: &StartSpec) -> Result<Instance>;

    /// Gives the machine back.
    ///
    /// # Behavior
    /// - A machine that is given back comes to its end.
    /// - Giving back what was given back, was never there or has no name succeeds.
    /// - A machine that came later for the same workspace is left alone.
    ///
    /// # Errors
    /// Any answer but success, naming the workspace and the status: a machine that was not given back costs money.
    async fn stop(&self, id: WorkspaceId, instance_id: &str) -> Result<()>;

    /// Whether the machine runs.
    ///
    /// # Behavior
    /// - A machine that was never there or has no name does not run.
    ///
    /// # Errors
    /// Where that can't be told; callers then take it for alive.
    async fn is_running(&self, id: WorkspaceId, instance_id: &str) -> Result<bool>;

    /// What the machine wrote to its console.
    ///
    /// # Behavior
    /// - The console holds what the agent wrote, in its order.
    /// - A workspace without a machine has no console: an error.
    async fn console_output(&self, id: WorkspaceId) -> Result<String>;
}
