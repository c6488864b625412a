//! A backend of one's own: each machine is a child process of this one, with a folder for its files.
#![allow(clippy::print_stdout, reason = "it prints a report")]

use std::{
    collections::BTreeMap,
    env, fs, io, net,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{ExitCode, Stdio},
};

use async_trait::async_trait;
use molecule_conformance::provisioner::{Plain, run};
use molecule_core::{
    Error, ErrorKind, Result,
    id::WorkspaceId,
    provisioner::{
        Capability, ConfigFile, FileEntry, FilePath, FileRoot, LocalProvisioner, StartSpec, Workload,
        WorkloadInspector, WorkspaceFiles,
    },
};
use secrecy::SecretString;
use tokio::{
    process::{Child, Command},
    sync::Mutex,
};

/// What it can do: machines have an address; there is no way into them, and nothing of them outlives them.
const CAPABILITY: Capability =
    Capability { name: "toy", assigns_url: true, exec: false, volumes: false, files: false, isolation: false };

#[derive(Debug)]
struct Toy {
    root: PathBuf,
    program: PathBuf,
    /// A mistake on purpose, to see it found.
    forgets_to_stop: bool,
    machines: Mutex<BTreeMap<WorkspaceId, Child>>,
}

impl Toy {
    async fn bring_up(&self, spec: &StartSpec) -> io::Result<(Child, String)> {
        let folder = self.root.join(spec.workspace_id.to_string());
        for file in &spec.files {
            let path = folder.join(&file.path);
            fs::create_dir_all(path.parent().unwrap_or(&folder))?;
            fs::write(&path, &file.contents)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(if file.private { 0o600 } else { 0o644 }))?;
        }
        fs::create_dir_all(&folder)?;
        let log = fs::File::create(folder.join("log"))?;
        let port = net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new(&self.program)
            .env_clear()
            .envs(&spec.env)
            // After those of the spec, so that these win.
            .env("WORKSPACE_ID", spec.workspace_id.to_string())
            .env("WORKSPACE_CONFIG_PATH", &folder)
            .env("PLATFORM_URL", &spec.platform_url)
            .env("PORT", port.to_string())
            .stderr(log.try_clone()?)
            .stdout(log)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Ok((child, format!("http://127.0.0.1:{port}")))
    }
}

#[async_trait]
impl LocalProvisioner for Toy {
    fn capability(&self) -> Capability {
        CAPABILITY
    }

    async fn prepare(&self, _: &StartSpec) -> Result<()> {
        Ok(())
    }

    async fn start(&self, spec: &StartSpec) -> Result<Option<String>> {
        let outside = |path: &str| path.starts_with('/') || path.split('/').any(|part| part == "..");
        if let Some(file) = spec.files.iter().find(|file| outside(&file.path)) {
            return Err(Error::invalid(format!("the file {:?} would be outside of its folder", file.path)));
        }
        self.stop(spec.workspace_id).await?;
        let (child, url) = self.bring_up(spec).await.map_err(|error| {
            Error::new(ErrorKind::Unavailable, "the machine cannot be started — see the log").caused_by(error)
        })?;
        self.machines.lock().await.insert(spec.workspace_id, child);
        Ok(Some(url))
    }

    async fn stop(&self, id: WorkspaceId) -> Result<()> {
        if self.forgets_to_stop {
            return Ok(());
        }
        if let Some(mut child) = self.machines.lock().await.remove(&id) {
            child.kill().await.map_err(|error| {
                Error::new(ErrorKind::Unavailable, "the machine cannot be stopped").caused_by(error)
            })?;
        }
        Ok(())
    }

    async fn halt(&self, id: WorkspaceId) -> Result<()> {
        if let Some(child) = self.machines.lock().await.get_mut(&id) {
            // It fails only where it ended by itself.
            let _ = child.start_kill();
            child.wait().await.map_err(|error| {
                Error::new(ErrorKind::Unavailable, "the machine cannot be waited for").caused_by(error)
            })?;
        }
        Ok(())
    }

    async fn is_running(&self, id: WorkspaceId) -> Result<bool> {
        Ok(self.observe(id).await? == Workload::Running)
    }

    async fn exec_read(&self, _: WorkspaceId, _: &str) -> Result<Vec<u8>> {
        Err(CAPABILITY.unsupported("read files of a workload"))
    }

    async fn remove_volume(&self, _: WorkspaceId) -> Result<()> {
        Err(CAPABILITY.unsupported("remove volumes"))
    }

    async fn purge_volumes(&self, _: WorkspaceId) -> Result<()> {
        Err(CAPABILITY.unsupported("remove volumes"))
    }

    async fn volume_has_file(&self, _: WorkspaceId, _: &str) -> Result<bool> {
        Err(CAPABILITY.unsupported("look into volumes"))
    }

    async fn write_auth_token(&self, _: WorkspaceId, _: &SecretString) -> Result<()> {
        Err(CAPABILITY.unsupported("write into volumes"))
    }
}

#[async_trait]
impl WorkspaceFiles for Toy {
    async fn list_files(
        &self,
        _: WorkspaceId,
        _: FileRoot,
        _: Option<&FilePath>,
        _: usize,
    ) -> Result<Option<Vec<FileEntry>>> {
        Err(CAPABILITY.unsupported("list files"))
    }

    async fn read_file(&self, _: WorkspaceId, _: FileRoot, _: &FilePath) -> Result<Option<Vec<u8>>> {
        Err(CAPABILITY.unsupported("read files"))
    }

    async fn write_files(&self, _: WorkspaceId, _: &[ConfigFile]) -> Result<()> {
        Err(CAPABILITY.unsupported("write files"))
    }

    async fn delete_file(&self, _: WorkspaceId, _: &FilePath) -> Result<()> {
        Err(CAPABILITY.unsupported("delete files"))
    }
}

#[async_trait]
impl WorkloadInspector for Toy {
    fn peer_url(&self, _: WorkspaceId) -> Option<String> {
        None
    }

    async fn address(&self, _: WorkspaceId) -> Result<Option<String>> {
        Ok(None)
    }

    async fn observe(&self, id: WorkspaceId) -> Result<Workload> {
        let mut machines = self.machines.lock().await;
        Ok(match machines.get_mut(&id).map(Child::try_wait) {
            None => Workload::Absent,
            Some(Ok(Some(status))) => Workload::Ended { exit_code: status.code().map(i64::from) },
            Some(_) => Workload::Running,
        })
    }

    async fn logs(&self, id: WorkspaceId, lines: usize) -> Result<Vec<u8>> {
        let none = || Error::not_found("there is no machine to read from");
        self.machines.lock().await.get(&id).ok_or_else(none)?;
        let log = fs::read_to_string(self.root.join(id.to_string()).join("log")).map_err(|_| none())?;
        let all: Vec<&str> = log.split_inclusive('\n').collect();
        Ok(all[all.len().saturating_sub(lines)..].concat().into_bytes())
    }

    async fn inventory(&self) -> Result<Vec<WorkspaceId>> {
        Ok(self.machines.lock().await.keys().copied().collect())
    }

    async fn own_inventory(&self) -> Result<Vec<WorkspaceId>> {
        // Nobody else knows of these.
        self.inventory().await
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [root, program, mistakes @ ..] = &arguments[..] else { panic!("usage: toy_provisioner FOLDER PROGRAM") };
    let toy = Toy {
        root: root.into(),
        program: program.into(),
        forgets_to_stop: mistakes == ["--forgets-to-stop"],
        machines: Mutex::default(),
    };
    let report = run("toy", &toy, &Plain { runtime: "claude-code".to_owned() }).await;
    println!("{report}");
    if report.succeeded() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
