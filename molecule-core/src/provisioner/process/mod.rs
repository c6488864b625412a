//! Workspaces as child processes of this host: nothing to install, and no isolation.
//!
//! An agent runs as the user of the server and can do whatever that user can; an access of
//! [`ReadOnly`](crate::workspace::Access::ReadOnly) is not enforced, and no tier limits it. Each workspace has a folder
//! named by its full id:
//!
//! ```text
//! <root>/<id>/configs/       the configuration folder, with the agent's token
//!             workspace/     where it works, unless it was given a folder of the host; what is in there is left until it
//!                            is purged
//!             agent.log      what it wrote; agent.log.1 is the log before
//!             process.json   how to find its process again
//! ```
//!
//! Agents outlive the server: neither dropping nor [shutting down](ProcessProvisioner::shutdown) the provisioner ends
//! them, and a later provisioner of the same root finds them again. Only one may use a root at a time. An agent that was
//! started in the instant between its start and the writing of its record, when the server was killed right there, is
//! not found again.

mod folder;
mod log;
mod proc_table;
#[cfg(target_os = "linux")]
mod procfs;
#[cfg(any(test, not(target_os = "linux")))]
#[cfg_attr(target_os = "linux", expect(dead_code, reason = "built for its tests"))]
mod ps;
mod record;
mod spawn;
mod stop;

use std::{
    collections::HashMap,
    fs::{self, DirBuilder},
    io,
    os::unix::{fs::DirBuilderExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use tokio::{process::Child, sync::OwnedMutexGuard};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use self::{
    folder::{Folder, TOKEN_FILE},
    proc_table::ProcessId,
    record::RecordFile,
};
use super::{
    Capability, ConfigFile, FileEntry, FilePath, FileRoot, LocalProvisioner, StartSpec, Workload, WorkloadInspector,
    WorkspaceFiles, files::host,
};
use crate::{
    error::{Error, ErrorKind, Result},
    id::WorkspaceId,
};

/// How long the processes of a workload may take to end by themselves, unless configured otherwise.
pub const DEFAULT_STOP_GRACE: Duration = Duration::from_secs(5);

const CAPABILITY: Capability =
    Capability { name: "process", assigns_url: true, exec: true, volumes: true, files: true, isolation: false };

/// What [`ProcessProvisioner`] runs, and where.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// The folder that holds one folder per workspace. Made, for its owner alone, where it is missing.
    pub root: PathBuf,
    /// The agent: the absolute path of a program. It is told the port to listen on in `PORT`.
    pub command: PathBuf,
    /// Its arguments. They are seen by every user of the host.
    pub args: Vec<String>,
    /// The variables of the server's environment that agents get, such as `PATH` and `HOME`. They get no other: the
    /// server's environment holds the server's secrets.
    pub inherit: Vec<(String, String)>,
    /// How many files an agent may have open until it raises that itself (its soft limit); `None` for as many as this
    /// process may.
    pub open_files: Option<u64>,
    /// How long processes may take to end after SIGTERM, before SIGKILL.
    pub stop_grace: Duration,
}

/// Runs each workspace as child processes of this host.
///
/// Cloning clones the handle. Its methods are called within a tokio runtime that drives I/O and time.
#[derive(Debug, Clone)]
pub struct ProcessProvisioner(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: ProcessConfig,
    /// Slots that somebody holds. What a slot knows is of use only to those who hold it at the same time.
    slots: Mutex<HashMap<WorkspaceId, Weak<Slot>>>,
    tasks: TaskTracker,
    stopping: CancellationToken,
    _stop_on_drop: DropGuard,
}

/// What the operations on one workspace share.
#[derive(Debug)]
struct Slot {
    /// Held by whoever changes what runs.
    gate: Arc<tokio::sync::Mutex<()>>,
    folder: Folder,
    record: RecordFile,
    reaper: Mutex<Option<Reaper>>,
}

/// The task that waits for a child of ours.
#[derive(Debug, Clone)]
struct Reaper {
    process: ProcessId,
    /// Cancelled once the child is waited for and its exit code recorded, or the task gave up.
    done: CancellationToken,
}

impl ProcessProvisioner {
    /// A provisioner of the workspaces under `config.root`, those of an earlier one included.
    pub fn new(mut config: ProcessConfig) -> Result<Self> {
        config.root = std::path::absolute(&config.root).map_err(|error| unusable_root(&config.root, error))?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&config.root)
            .map_err(|error| unusable_root(&config.root, error))?;
        let stopping = CancellationToken::new();
        Ok(Self(Arc::new(Inner {
            config,
            slots: Mutex::default(),
            tasks: TaskTracker::new(),
            _stop_on_drop: stopping.clone().drop_guard(),
            stopping,
        })))
    }

    /// Ends the tasks of this provisioner and returns when they have. The workspaces keep running; nothing can be started
    /// through this value afterwards.
    pub async fn shutdown(&self) {
        self.0.stopping.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn slot(&self, id: WorkspaceId) -> Arc<Slot> {
        let mut slots = self.0.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&id).and_then(Weak::upgrade) {
            return slot;
        }
        slots.retain(|_, slot| slot.strong_count() > 0);
        let folder = Folder::new(self.0.config.root.join(id.to_string()));
        let slot = Arc::new(Slot {
            gate: Arc::default(),
            record: RecordFile::new(folder.record.clone()),
            folder,
            reaper: Mutex::new(None),
        });
        slots.insert(id, Arc::downgrade(&slot));
        slot
    }

    /// Runs `operation`, which may block, to its end even if the caller goes away.
    async fn blocking<T: Send + 'static>(&self, operation: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        self.0.tasks.spawn_blocking(operation).await.map_err(|error| {
            Error::new(ErrorKind::Unexpected, "an operation of the process backend broke off").caused_by(error)
        })?
    }

    async fn remove_with(&self, id: WorkspaceId, remove: fn(&Folder) -> Result<()>) -> Result<()> {
        let slot = self.slot(id);
        let gate = slot.lock().await;
        self.blocking(move || {
            let _gate = gate;
            let process = slot.record.read()?.and_then(|record| record.process);
            let left = process.map_or(Ok(Vec::new()), |process| process.workload()).map_err(unknown)?;
            if !left.is_empty() {
                let message = format!("workspace {id} still runs — stop it before its files are removed");
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            remove(&slot.folder)
        })
        .await
    }

    /// Starts the agent and waits for its end in a task. Takes the gate along: the caller may go away.
    async fn spawn(&self, slot: Arc<Slot>, spec: StartSpec, gate: OwnedMutexGuard<()>) -> Result<String> {
        let provisioner = Arc::clone(&self.0);
        self.blocking(move || {
            let _gate = gate;
            let spawned = spawn::spawn(&provisioner.config, &slot.folder, &spec)?;
            if let Err(error) = slot.record.write(&spawned.record) {
                spawned.discard();
                return Err(error);
            }
            let port = spawned.record.port;
            let id = spec.workspace_id;
            tracing::info!(workspace.id = %id, port, pid = spawned.process.pid, "agent process started");

            let reaper = Reaper { process: spawned.process, done: CancellationToken::new() };
            *slot.reaper.lock().unwrap_or_else(PoisonError::into_inner) = Some(reaper.clone());
            let stopping = provisioner.stopping.clone();
            provisioner.tasks.spawn(reap(id, slot, reaper, spawned.child, stopping));
            Ok(url(port))
        })
        .await
    }
}

/// Waits for `child`, so that it does not stay behind as a zombie, and records how it ended.
async fn reap(id: WorkspaceId, slot: Arc<Slot>, reaper: Reaper, mut child: Child, stopping: CancellationToken) {
    let _done = reaper.done.drop_guard();
    let status = tokio::select! {
        status = child.wait() => status,
        () = stopping.cancelled() => return,
    };
    let process = reaper.process;
    let recorded = tokio::task::spawn_blocking(move || {
        let exit_code = status.ok().and_then(exit_code);
        tracing::info!(workspace.id = %id, exit_code, "agent process ended");
        slot.record.ended(&process, exit_code)
    });
    match recorded.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(workspace.id = %id, error = error.detail(), "exit code not recorded"),
        Err(error) => tracing::warn!(workspace.id = %id, %error, "exit code not recorded"),
    }
}

/// Where an agent that listens on `port` is called.
fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// The exit code as shells tell it.
fn exit_code(status: ExitStatus) -> Option<i64> {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).map(i64::from)
}

impl Slot {
    async fn lock(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.gate).lock_owned().await
    }

    /// The task that waits for `process`, while it does.
    fn reaper_of(&self, process: &ProcessId) -> Option<CancellationToken> {
        let reaper = self.reaper.lock().unwrap_or_else(PoisonError::into_inner);
        let reaper = reaper.as_ref().filter(|reaper| reaper.process == *process && !reaper.done.is_cancelled())?;
        Some(reaper.done.clone())
    }

    /// What the workload does, or whom to wait for before that is known.
    fn look(&self) -> Result<Result<Workload, CancellationToken>> {
        let Some(record) = self.record.read()? else { return Ok(Ok(Workload::Absent)) };
        if let Some(process) = &record.process {
            if process.runs().map_err(unknown)? {
                return Ok(Ok(Workload::Running));
            }
            if let Some(done) = self.reaper_of(process) {
                return Ok(Err(done));
            }
        }
        Ok(Ok(Workload::Ended { exit_code: record.exit_code }))
    }

    /// The folder of this host that the workload knows as `root`; none where it has no such folder.
    fn folder_of(&self, root: FileRoot) -> Result<Option<PathBuf>> {
        Ok(match root {
            FileRoot::Configs => Some(self.folder.configs.clone()),
            FileRoot::Workspace => {
                let given = self.record.read()?.map(|record| record.workspace);
                Some(given.unwrap_or_else(|| self.folder.workspace.clone()))
            }
            FileRoot::Home | FileRoot::Plugins => None,
        })
    }

    /// Fails unless the workload runs.
    fn expect_running(&self) -> Result<record::Record> {
        let record = self.record.read()?;
        let running = |record: &record::Record| match &record.process {
            Some(process) => process.runs().map_err(unknown),
            None => Ok(false),
        };
        match record {
            Some(record) if running(&record)? => Ok(record),
            _ => Err(Error::not_found("the workspace does not run")),
        }
    }
}

fn unknown(error: io::Error) -> Error {
    let message = format!("cannot read the process table of this host: {}", error.kind());
    Error::new(ErrorKind::Unavailable, message).caused_by(error)
}

/// Told to who starts a server, and to nobody else: so it may name the folder.
fn unusable_root(root: &Path, error: io::Error) -> Error {
    let message = format!("the folder for workspaces {} cannot be made: {error}", root.display());
    Error::new(ErrorKind::Unavailable, message).caused_by(error)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl LocalProvisioner for ProcessProvisioner {
    fn capability(&self) -> Capability {
        CAPABILITY
    }

    /// A command of this host is there, or not.
    async fn prepare(&self, _: &StartSpec) -> Result<()> {
        Ok(())
    }

    async fn start(&self, spec: &StartSpec) -> Result<Option<String>> {
        if self.0.stopping.is_cancelled() {
            return Err(Error::new(ErrorKind::Unavailable, "the control plane is shutting down"));
        }
        let slot = self.slot(spec.workspace_id);
        let gate = slot.lock().await;
        stop::stop(self, &slot).await?;
        self.spawn(slot, spec.clone(), gate).await.map(Some)
    }

    async fn stop(&self, id: WorkspaceId) -> Result<()> {
        let slot = self.slot(id);
        let _gate = slot.lock().await;
        stop::stop(self, &slot).await
    }

    /// The log is a file, which stays.
    async fn halt(&self, id: WorkspaceId) -> Result<()> {
        self.stop(id).await
    }

    async fn is_running(&self, id: WorkspaceId) -> Result<bool> {
        Ok(self.observe(id).await? == Workload::Running)
    }

    async fn exec_read(&self, id: WorkspaceId, path: &str) -> Result<Vec<u8>> {
        let slot = self.slot(id);
        let path = path.to_owned();
        self.blocking(move || {
            let record = slot.expect_running()?;
            folder::read(&slot.folder.configs, &record.workspace, &path)
        })
        .await
    }

    /// Fails with [`ErrorKind::Conflict`] while a process of the workspace runs: its folder would come back.
    async fn remove_volume(&self, id: WorkspaceId) -> Result<()> {
        self.remove_with(id, Folder::remove_but_work).await
    }

    async fn purge_volumes(&self, id: WorkspaceId) -> Result<()> {
        self.remove_with(id, Folder::remove).await
    }

    async fn volume_has_file(&self, id: WorkspaceId, path: &str) -> Result<bool> {
        let slot = self.slot(id);
        let path = path.to_owned();
        self.blocking(move || slot.folder.has_config(&path)).await
    }

    async fn write_auth_token(&self, id: WorkspaceId, token: &SecretString) -> Result<()> {
        let slot = self.slot(id);
        let gate = slot.lock().await;
        let token = token.clone();
        self.blocking(move || {
            let _gate = gate;
            slot.folder.create()?;
            folder::replace(&slot.folder.configs.join(TOKEN_FILE), token.expose_secret().as_bytes(), 0o600)
        })
        .await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl WorkloadInspector for ProcessProvisioner {
    fn peer_url(&self, _: WorkspaceId) -> Option<String> {
        None
    }

    async fn address(&self, id: WorkspaceId) -> Result<Option<String>> {
        let slot = self.slot(id);
        let running = self.blocking(move || slot.expect_running()).await;
        match running {
            Ok(record) => Ok(Some(url(record.port))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn observe(&self, id: WorkspaceId) -> Result<Workload> {
        let slot = self.slot(id);
        loop {
            let looking = Arc::clone(&slot);
            match self.blocking(move || looking.look()).await? {
                Ok(workload) => return Ok(workload),
                Err(exit_recorded) => exit_recorded.cancelled().await,
            }
        }
    }

    async fn logs(&self, id: WorkspaceId, lines: usize) -> Result<Vec<u8>> {
        let slot = self.slot(id);
        self.blocking(move || log::tail(&slot.folder.log, lines)).await
    }

    async fn inventory(&self) -> Result<Vec<WorkspaceId>> {
        let mut ids = self.own_inventory().await?;
        let this = self.clone();
        self.blocking(move || {
            ids.retain(|id| !this.slot(*id).folder.holds_only_work());
            Ok(ids)
        })
        .await
    }

    /// All of it: nobody else may use the root.
    async fn own_inventory(&self) -> Result<Vec<WorkspaceId>> {
        let provisioner = Arc::clone(&self.0);
        self.blocking(move || {
            let root = &provisioner.config.root;
            let list = || -> io::Result<Vec<WorkspaceId>> {
                let mut ids = Vec::new();
                for entry in fs::read_dir(root)? {
                    ids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<WorkspaceId>().ok()));
                }
                Ok(ids)
            };
            match list() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                listed => listed.map_err(|error| folder::failed("list its workspaces", root, error)),
            }
        })
        .await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl WorkspaceFiles for ProcessProvisioner {
    async fn list_files(
        &self,
        id: WorkspaceId,
        root: FileRoot,
        folder: Option<&FilePath>,
        depth: usize,
    ) -> Result<Option<Vec<FileEntry>>> {
        let (slot, folder) = (self.slot(id), folder.cloned());
        self.blocking(move || match slot.folder_of(root)? {
            Some(base) => host::list(&base, folder.as_ref(), depth),
            None => Ok(None),
        })
        .await
    }

    async fn read_file(&self, id: WorkspaceId, root: FileRoot, path: &FilePath) -> Result<Option<Vec<u8>>> {
        let (slot, path) = (self.slot(id), path.clone());
        self.blocking(move || match slot.folder_of(root)? {
            Some(base) => host::read(&base, &path),
            None => Ok(None),
        })
        .await
    }

    async fn write_files(&self, id: WorkspaceId, files: &[ConfigFile]) -> Result<()> {
        let (slot, files) = (self.slot(id), files.to_vec());
        let gate = slot.lock().await;
        self.blocking(move || {
            let _gate = gate;
            slot.folder.create()?;
            slot.folder.write_configs(&files)
        })
        .await
    }

    async fn delete_file(&self, id: WorkspaceId, path: &FilePath) -> Result<()> {
        let (slot, path) = (self.slot(id), path.clone());
        self.blocking(move || host::delete(&slot.folder.configs, &path)).await
    }
}
