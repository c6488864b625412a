//! Machines of another control plane: the suite that every such backend passes, and what becomes of those whose starts go
//! wrong.

#![allow(clippy::disallowed_methods, reason = "tests look at the host they run on")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use molecule_core::{
    ControlPlane, Error, ErrorKind,
    config::Config,
    error::Result,
    id::WorkspaceId,
    provisioner::{
        ControlPlaneProvisioner, Instance, StartSpec,
        remote::{RemoteConfig, RemoteProvisioner},
    },
    store::{Store, gate},
    testing::{
        Logged, MockControlPlaneProvisioner, Sweep,
        provisioner_suite::{Fixture, machines},
        sweep,
    },
    workspace::{Access, CreateWorkspace, Status},
};
use serde_json::json;
use tokio::sync::Semaphore;

const PATIENCE: Duration = Duration::from_secs(30);

fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(program.is_file(), "build it with `cargo build -p molecule-core --example {name}`");
    program
}

struct Workloads;

impl Fixture for Workloads {
    fn spec(&self, id: WorkspaceId) -> StartSpec {
        StartSpec {
            workspace_id: id,
            name: "Test".to_owned(),
            runtime: "claude-code".to_owned(),
            tier: 2,
            env: BTreeMap::new(),
            files: Vec::new(),
            workspace_dir: None,
            access: Access::None,
            platform_url: "http://127.0.0.1:8080".to_owned(),
            reset_session: false,
            command: Default::default(),
        }
    }
}

/// The example of a control plane, with child processes as its machines. Gone with the value.
struct Owner {
    child: Child,
    url: String,
    _root: tempfile::TempDir,
}

impl Owner {
    const SECRET: &str = "between-control-planes";

    fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut child = Command::new(example("control_plane"))
            .arg("--process")
            .arg(root.path())
            .arg(example("workload"))
            .env_clear()
            .env("CP_SECRET", Self::SECRET)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { child, url, _root: root }
    }

    fn client(&self) -> RemoteProvisioner {
        RemoteProvisioner::new(RemoteConfig {
            base_url: self.url.clone(),
            org_id: "org-1".to_owned(),
            shared_secret: Some(Self::SECRET.into()),
            admin_api_token: None,
            admin_token: None,
            timeout: PATIENCE,
        })
        .unwrap()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test]
async fn the_control_plane_backend_passes_the_suite_of_machines() {
    let owner = Owner::start();
    let report = machines::run_suite(&owner.client(), &Workloads).await;
    assert!(report.is_success(), "{report}");
    assert_eq!(report.passed.len(), machines::CASES.len());
}

/// What a control plane of machines does wrong, in all else as good as the one behind it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    GivesBackWhateverThereIs,
    GivesTheSameNameTwice,
    ShowsAnEmptyConsole,
    LetsTheEnvironmentWin,
}

#[derive(Debug)]
struct Faulty {
    machines: RemoteProvisioner,
    fault: Fault,
    /// The machine that each workspace has now, by the name that it really has.
    current: Mutex<BTreeMap<WorkspaceId, String>>,
}

impl Faulty {
    fn current(&self, id: WorkspaceId) -> Option<String> {
        self.current.lock().unwrap().get(&id).cloned()
    }
}

#[async_trait]
impl ControlPlaneProvisioner for Faulty {
    async fn start(&self, spec: &StartSpec) -> Result<Instance> {
        let mut spec = spec.clone();
        if self.fault == Fault::LetsTheEnvironmentWin
            && let Some(forged) = spec.env.get("PLATFORM_URL")
        {
            spec.platform_url = forged.clone();
        }
        let instance = self.machines.start(&spec).await?;
        self.current.lock().unwrap().insert(spec.workspace_id, instance.instance_id.clone());
        match self.fault {
            Fault::GivesTheSameNameTwice => Ok(Instance { instance_id: spec.workspace_id.to_string() }),
            _ => Ok(instance),
        }
    }

    async fn stop(&self, id: WorkspaceId, instance_id: &str) -> Result<()> {
        match self.fault {
            Fault::GivesBackWhateverThereIs | Fault::GivesTheSameNameTwice => {
                self.machines.stop(id, &self.current(id).unwrap_or_default()).await
            }
            _ => self.machines.stop(id, instance_id).await,
        }
    }

    async fn is_running(&self, id: WorkspaceId, instance_id: &str) -> Result<bool> {
        match self.fault {
            Fault::GivesTheSameNameTwice => self.machines.is_running(id, &self.current(id).unwrap_or_default()).await,
            _ => self.machines.is_running(id, instance_id).await,
        }
    }

    async fn console_output(&self, id: WorkspaceId) -> Result<String> {
        match self.fault {
            Fault::ShowsAnEmptyConsole if self.current(id).is_none() => Ok(String::new()),
            _ => self.machines.console_output(id).await,
        }
    }
}

#[tokio::test]
async fn the_suite_sees_what_a_control_plane_does_wrong() {
    let owner = Owner::start();
    for (fault, named) in [
        (Fault::GivesBackWhateverThereIs, "A machine that came later for the same workspace is left alone."),
        (Fault::GivesTheSameNameTwice, "The machine comes to run, under a name that no other has, nor one before it."),
        (Fault::ShowsAnEmptyConsole, "A workspace without a machine has no console: an error."),
        (
            Fault::LetsTheEnvironmentWin,
            "Its agent has the variables of the spec, but its own id as WORKSPACE_ID and the URL of the spec as \
             PLATFORM_URL.",
        ),
    ] {
        let faulty = Faulty { machines: owner.client(), fault, current: Default::default() };
        let report = machines::run_suite(&faulty, &Workloads).await;
        assert!(report.failed.iter().any(|(name, _)| *name == named), "{fault:?}: {report}");
    }
}

/// Starts a machine for each permit, and notes which it was given back.
#[derive(Debug)]
struct Slow {
    asked: Semaphore,
    may_start: Semaphore,
    given_back: Mutex<Vec<String>>,
    gave_back: Semaphore,
    /// How often it does not give a machine back.
    refusals: Mutex<usize>,
}

impl Slow {
    fn new(refusals: usize) -> Arc<Self> {
        Arc::new(Self {
            asked: Semaphore::new(0),
            may_start: Semaphore::new(0),
            given_back: Mutex::default(),
            gave_back: Semaphore::new(0),
            refusals: Mutex::new(refusals),
        })
    }
}

#[async_trait]
impl ControlPlaneProvisioner for Slow {
    async fn start(&self, _: &StartSpec) -> Result<Instance> {
        self.asked.add_permits(1);
        self.may_start.acquire().await.unwrap().forget();
        Ok(Instance { instance_id: "i-late".to_owned() })
    }

    async fn stop(&self, _: WorkspaceId, instance_id: &str) -> Result<()> {
        let refuses = {
            let mut refusals = self.refusals.lock().unwrap();
            let refuses = *refusals > 0;
            *refusals = refusals.saturating_sub(1);
            refuses
        };
        if refuses {
            return Err(Error::new(ErrorKind::Upstream, "unexpected 500"));
        }
        self.given_back.lock().unwrap().push(instance_id.to_owned());
        self.gave_back.add_permits(1);
        Ok(())
    }

    async fn is_running(&self, _: WorkspaceId, _: &str) -> Result<bool> {
        Ok(true)
    }

    async fn console_output(&self, _: WorkspaceId) -> Result<String> {
        Ok(String::new())
    }
}

async fn control_plane(backend: Arc<dyn ControlPlaneProvisioner>) -> ControlPlane {
    let store = Store::connect("sqlite::memory:").await.unwrap();
    let config = Config {
        provision_timeout: Some(Duration::from_millis(100)),
        restart_stop_backoff: Duration::from_millis(1),
        ..Config::default()
    };
    ControlPlane::builder(store).config(config).control_plane_backend(backend).build().unwrap()
}

fn coder() -> CreateWorkspace {
    CreateWorkspace { name: "coder".to_owned(), ..CreateWorkspace::default() }
}

async fn soon(semaphore: &Semaphore) {
    tokio::time::timeout(PATIENCE, semaphore.acquire()).await.expect("it happens").unwrap().forget();
}

#[tokio::test]
async fn a_machine_that_comes_up_after_its_workspace_was_removed_is_given_back() {
    let machines = Slow::new(0);
    let control_plane = control_plane(machines.clone()).await;
    let id = control_plane.create(coder()).await.unwrap().workspace.id;
    soon(&machines.asked).await;
    // Nobody waits for the machine any more, and nobody has heard its name.
    control_plane.delete(id, true, false).await.unwrap();
    assert!(machines.given_back.lock().unwrap().is_empty());
    machines.may_start.add_permits(1);
    soon(&machines.gave_back).await;
    assert!(control_plane.shut_down(PATIENCE).await);
    assert_eq!(*machines.given_back.lock().unwrap(), ["i-late"]);
    assert_eq!(control_plane.workspace(id).await.unwrap().unwrap().status, Status::Removed);
}

#[tokio::test]
async fn a_machine_that_comes_up_too_late_is_asked_for_until_it_is_given_back() {
    // Three tries at once, and one of the sweep.
    let machines = Slow::new(4);
    let control_plane = control_plane(machines.clone()).await;
    let id = control_plane.create(coder()).await.unwrap().workspace.id;
    soon(&machines.asked).await;
    let failed = async {
        while control_plane.workspace(id).await.unwrap().unwrap().status != Status::Failed {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, failed).await.expect("nobody waits for ever");
    machines.may_start.add_permits(1);
    assert!(control_plane.shut_down(PATIENCE).await);
    assert_eq!(*machines.refusals.lock().unwrap(), 1);
    for _ in 0..3 {
        sweep(&control_plane, Sweep::Machines).await.unwrap();
    }
    assert_eq!(*machines.given_back.lock().unwrap(), ["i-late"], "once, and then it is forgotten");
}

#[tokio::test]
async fn a_machine_that_was_asked_for_by_a_server_that_died_is_told_of() {
    let (logged, _guard) = Logged::here();
    let before = Slow::new(0);
    let died = control_plane(before.clone()).await;
    let asks_for_nothing = died.create(CreateWorkspace { external: true, ..coder() }).await.unwrap().workspace.id;
    let id = died.create(coder()).await.unwrap().workspace.id;
    soon(&before.asked).await;
    let attempt = died.workspace(id).await.unwrap().unwrap().provision_attempt.unwrap();
    let after = Slow::new(0);
    let next = ControlPlane::builder(died.store().clone()).control_plane_backend(after.clone()).build().unwrap();
    next.start();
    soon(&after.asked).await;
    let told = logged.with("LEAK-SUSPECT");
    let line = format!("LEAK-SUSPECT cpProv.Start workspace_id={id} attempt={attempt}");
    assert!(told.len() == 1 && told[0].starts_with(&line), "{told:?}, not of {asks_for_nothing}");
    after.may_start.add_permits(1);
    assert!(next.shut_down(PATIENCE).await);
}

#[tokio::test]
async fn the_word_of_whoever_watches_machines_is_kept_or_refused() {
    let machines = Slow::new(0);
    let store = Store::connect("sqlite::memory:").await.unwrap();
    let control_plane = ControlPlane::builder(store).control_plane_backend(machines.clone()).build().unwrap();
    let id = control_plane.create(coder()).await.unwrap().workspace.id;
    soon(&machines.asked).await;
    machines.may_start.add_permits(1);
    let pool = gate::sqlite(control_plane.store()).expect("it is SQLite");
    let trigger =
        "CREATE TRIGGER broken BEFORE UPDATE OF last_sample_error ON workspaces BEGIN SELECT RAISE(ABORT, 'no'); END";
    sqlx::query(trigger).execute(pool).await.unwrap();
    let error = control_plane.bootstrap_failed(id, "no disk", "log").await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unexpected, "db update failed"));
    sqlx::query("DROP TRIGGER broken").execute(pool).await.unwrap();
    assert!(control_plane.bootstrap_failed(id, " ", "last line").await.unwrap());
    let row = control_plane.workspace(id).await.unwrap().unwrap();
    let generic = "the machine did not come up — its console says why";
    assert_eq!((row.status, row.last_sample_error.as_deref()), (Status::Failed, Some(generic)));
    let events = control_plane.events(Some(id), 1).await.unwrap();
    let expected = json!({"error": generic, "log_tail": "last line", "source": "bootstrap_watcher"});
    assert_eq!(events[0].payload, Some(expected));
    assert!(!control_plane.bootstrap_failed(id, "no disk", "log").await.unwrap(), "it waits for nothing any more");
    assert!(control_plane.shut_down(PATIENCE).await);
}

#[tokio::test]
async fn a_panic_in_the_call_for_a_machine_fails_the_try() {
    let mut machines = MockControlPlaneProvisioner::new();
    machines.expect_start().times(1).returning(|_| panic!("secret detail"));
    let control_plane = control_plane(Arc::new(machines)).await;
    let id = control_plane.create(coder()).await.unwrap().workspace.id;
    assert!(control_plane.shut_down(PATIENCE).await);
    let row = control_plane.workspace(id).await.unwrap().unwrap();
    assert_eq!(row.status, Status::Failed);
    let told = row.last_sample_error.expect("it says why");
    assert!(told.starts_with("provision panic") && !told.contains("secret"), "{told}");
}
