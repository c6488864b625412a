//! The provisioner suite on the backends that need no engine, and what only the process backend promises.

#![allow(clippy::disallowed_methods, reason = "tests look at the host they run on")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use molecule_core::{
    clock::{SystemEntropy, random_uuid},
    error::ErrorKind,
    id::WorkspaceId,
    provisioner::{
        Capability, LocalProvisioner, StartSpec,
        process::{ProcessConfig, ProcessProvisioner},
    },
    testing::{
        Operation, ScriptedProvisioner,
        provisioner_suite::{CASES, Fixture, run_suite},
    },
    workspace::Access,
};

/// How long the system may take to do what a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);

fn spec(id: WorkspaceId, env: &[(&str, &str)]) -> StartSpec {
    StartSpec {
        workspace_id: id,
        name: "Test".to_owned(),
        runtime: "claude-code".to_owned(),
        tier: 2,
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        files: Vec::new(),
        workspace_dir: None,
        access: Access::None,
        platform_url: "http://127.0.0.1:8080".to_owned(),
        reset_session: false,
        command: Default::default(),
    }
}

fn config(root: &Path) -> ProcessConfig {
    ProcessConfig {
        root: root.to_owned(),
        command: workload(),
        args: Vec::new(),
        inherit: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        open_files: None,
        stop_grace: Duration::from_secs(5),
    }
}

/// The example program that workspaces run here.
fn workload() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let workload = test.ancestors().nth(2).unwrap().join("examples/workload");
    assert!(workload.is_file(), "build it with `cargo build -p molecule-core --example workload`");
    workload
}

fn new_id() -> WorkspaceId {
    WorkspaceId::from_uuid(random_uuid(&SystemEntropy))
}

struct RealWorkloads;

impl Fixture for RealWorkloads {
    fn spec(&self, id: WorkspaceId) -> StartSpec {
        spec(id, &[])
    }
}

struct Scripted(ScriptedProvisioner);

#[async_trait]
impl Fixture for Scripted {
    fn spec(&self, id: WorkspaceId) -> StartSpec {
        spec(id, &[])
    }

    async fn status(&self, url: &str) -> std::io::Result<u16> {
        if self.0.serves(url) { Ok(200) } else { Err(std::io::ErrorKind::ConnectionRefused.into()) }
    }
}

#[tokio::test]
async fn the_process_backend_passes_the_suite() {
    let root = tempfile::tempdir().unwrap();
    let provisioner = ProcessProvisioner::new(config(root.path())).unwrap();
    let report = run_suite(&provisioner, &RealWorkloads).await;
    assert!(report.is_success(), "{report}");
    assert_eq!(report.unsupported, ["What is not declared is refused as unsupported."]);
    provisioner.shutdown().await;
}

#[tokio::test]
async fn the_scripted_backend_passes_the_suite() {
    let provisioner = ScriptedProvisioner::new();
    let report = run_suite(&provisioner, &Scripted(provisioner.clone())).await;
    assert!(report.is_success(), "{report}");
    assert_eq!(report.passed.len(), CASES.len() - 1);
}

#[tokio::test]
async fn a_backend_that_can_do_less_passes_what_it_claims() {
    let capability =
        Capability { name: "less", assigns_url: false, exec: false, volumes: false, files: false, isolation: false };
    let provisioner = ScriptedProvisioner::with_capability(capability);
    let report = run_suite(&provisioner, &Scripted(provisioner.clone())).await;
    assert!(report.is_success(), "{report}");
    assert!(report.passed.contains(&"What is not declared is refused as unsupported."));
    assert!(report.unsupported.len() > 5, "{report}");
}

#[tokio::test]
async fn the_suite_sees_what_a_backend_does_wrong() {
    for operation in [Operation::Start, Operation::Stop, Operation::Observe, Operation::Logs, Operation::Inventory] {
        let provisioner = ScriptedProvisioner::new();
        provisioner.when(operation).panic("as asked");
        let report = run_suite(&provisioner, &Scripted(provisioner.clone())).await;
        assert!(!report.failed.is_empty(), "{operation:?}: {report}");
    }
    let provisioner = ScriptedProvisioner::new();
    provisioner.when(Operation::IsRunning).fail(ErrorKind::Unavailable, "the engine is away");
    let report = run_suite(&provisioner, &Scripted(provisioner.clone())).await;
    let failed: BTreeMap<_, _> = report.failed.iter().map(|(name, reason)| (*name, reason.as_str())).collect();
    assert_eq!(failed["An unknown workspace does not run."], "Unavailable: the engine is away");
}

/// What can be checked only where `/proc` tells.
#[cfg(target_os = "linux")]
mod processes {
    use std::{
        collections::BTreeSet,
        fs,
        os::unix::fs::{PermissionsExt, symlink},
        process::{Child, Command, Stdio},
        time::Instant,
    };

    use molecule_core::provisioner::{ConfigFile, Workload, WorkloadInspector};
    use secrecy::SecretString;
    use serde_json::{Value, json};

    use super::*;

    /// A root of its own, and nothing left running under it at the end.
    struct Home(tempfile::TempDir);

    impl Home {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn provisioner(&self) -> ProcessProvisioner {
            ProcessProvisioner::new(config(self.0.path())).unwrap()
        }

        fn folder(&self, id: WorkspaceId) -> PathBuf {
            self.0.path().join(id.to_string())
        }

        fn record(&self, id: WorkspaceId) -> Value {
            serde_json::from_slice(&fs::read(self.folder(id).join("process.json")).unwrap()).unwrap()
        }

        /// Makes it look as if `process` had been started for the new workspace `id`.
        fn fake_record(&self, id: WorkspaceId, process: Value) {
            fs::create_dir(self.folder(id)).unwrap();
            let record = json!({"process": process, "port": 1, "command": [], "workspace": "/", "exit_code": null});
            fs::write(self.folder(id).join("process.json"), record.to_string()).unwrap();
        }

        /// The living processes that have this root in their environment, as every workload of it does.
        fn processes(&self) -> Vec<i32> {
            let root = self.0.path().to_str().unwrap();
            let ours =
                |pid: &i32| read_proc(*pid, "environ").contains(root) && state(*pid).is_some_and(|state| state != 'Z');
            let entries = fs::read_dir("/proc").unwrap();
            entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).filter(ours).collect()
        }
    }

    impl Drop for Home {
        fn drop(&mut self) {
            self.processes().into_iter().for_each(kill);
        }
    }

    fn read_proc(pid: i32, file: &str) -> String {
        String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default()).into_owned()
    }

    /// The fields of `/proc/<pid>/stat` from the state on.
    fn stat(pid: i32) -> Option<Vec<String>> {
        let stat = read_proc(pid, "stat");
        Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
    }

    fn state(pid: i32) -> Option<char> {
        stat(pid)?[0].chars().next()
    }

    fn runs(pid: i32) -> bool {
        state(pid).is_some_and(|state| state != 'Z')
    }

    fn kill(pid: i32) {
        Command::new("/bin/sh").args(["-c", &format!("kill -9 {pid}")]).stderr(Stdio::null()).status().unwrap();
    }

    async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds().await {
            assert!(Instant::now() < deadline, "{what} did not come true");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn leader(record: &Value) -> i32 {
        record["process"]["pid"].as_i64().unwrap().try_into().unwrap()
    }

    /// Waits for the pid of the child that ignores SIGTERM.
    async fn stubborn_child(provisioner: &ProcessProvisioner, id: WorkspaceId) -> i32 {
        let mut pid = None;
        until("the stubborn child", async || {
            let log = String::from_utf8(provisioner.logs(id, 9).await.unwrap()).unwrap();
            pid = log.lines().find_map(|line| line.strip_prefix("stubborn ")?.parse().ok());
            pid.is_some()
        })
        .await;
        pid.unwrap()
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    #[test]
    fn survivors_of_a_server_are_found_again_and_stopped() {
        let (home, id, ending) = (Home::new(), new_id(), new_id());
        let first = runtime();
        first.block_on(async {
            let provisioner = home.provisioner();
            provisioner.start(&spec(id, &[])).await.unwrap();
            provisioner.start(&spec(ending, &[])).await.unwrap();
        });
        // As in a crash: nobody says goodbye.
        first.shutdown_background();
        let (pid, ending_pid) = (leader(&home.record(id)), leader(&home.record(ending)));
        assert!(runs(pid));

        runtime().block_on(async {
            let provisioner = home.provisioner();
            assert_eq!(provisioner.observe(id).await.unwrap(), Workload::Running);
            let listed: BTreeSet<_> = provisioner.inventory().await.unwrap().into_iter().collect();
            assert_eq!(listed, [id, ending].into());
            kill(ending_pid);
            until("its end", async || provisioner.observe(ending).await.unwrap() != Workload::Running).await;
            assert_eq!(provisioner.observe(ending).await.unwrap(), Workload::Ended { exit_code: None });

            assert_eq!(provisioner.remove_volume(id).await.unwrap_err().kind(), ErrorKind::Conflict);
            provisioner.stop(id).await.unwrap();
            assert!(!runs(pid));
            assert_eq!(provisioner.observe(id).await.unwrap(), Workload::Absent);
        });
    }

    #[tokio::test]
    async fn agents_run_on_when_the_provisioner_goes() {
        let (home, id) = (Home::new(), new_id());
        let provisioner = home.provisioner();
        provisioner.start(&spec(id, &[])).await.unwrap();
        tokio::time::timeout(PATIENCE, provisioner.shutdown()).await.expect("it should not wait for the agents");
        assert_eq!(provisioner.start(&spec(new_id(), &[])).await.unwrap_err().kind(), ErrorKind::Unavailable);
        drop(provisioner);
        assert!(runs(leader(&home.record(id))));
        let next = home.provisioner();
        assert!(next.is_running(id).await.unwrap());
        // Replaces the survivor rather than running beside it.
        next.start(&spec(id, &[])).await.unwrap();
        assert_eq!(home.processes(), [leader(&home.record(id))]);
        next.stop(id).await.unwrap();
    }

    #[tokio::test]
    async fn a_recycled_pid_is_not_signalled() {
        let (home, victim) = (Home::new(), new_id());
        let provisioner = home.provisioner();
        provisioner.start(&spec(victim, &[])).await.unwrap();
        let real = home.record(victim)["process"].clone();
        let changed = |name: &str, value: Value| {
            let mut process = real.clone();
            process[name] = value;
            process
        };
        let earlier = real["started"].as_u64().unwrap() - 1;
        for process in [changed("started", json!(earlier)), changed("host", json!("an earlier boot"))] {
            let id = new_id();
            home.fake_record(id, process.clone());
            assert_eq!(provisioner.observe(id).await.unwrap(), Workload::Ended { exit_code: None }, "{process}");
            provisioner.stop(id).await.unwrap();
            assert_eq!(provisioner.observe(id).await.unwrap(), Workload::Absent);
            assert!(runs(leader(&home.record(victim))), "{process}");
        }
        // The same record with nothing changed is obeyed, so that the above means something.
        let id = new_id();
        home.fake_record(id, real.clone());
        provisioner.stop(id).await.unwrap();
        assert_eq!(provisioner.observe(victim).await.unwrap(), Workload::Ended { exit_code: Some(128 + 15) });
        assert_eq!(home.processes(), [0; 0]);
    }

    /// A child that ended and was not waited for.
    struct Zombie(Child);

    impl Drop for Zombie {
        fn drop(&mut self) {
            self.0.wait().unwrap();
        }
    }

    #[tokio::test]
    async fn a_zombie_does_not_run() {
        let (home, id, other) = (Home::new(), new_id(), new_id());
        let zombie = Zombie(Command::new("/bin/sh").args(["-c", "exit 0"]).spawn().unwrap());
        let pid = zombie.0.id().cast_signed();
        until("the zombie", async || state(pid) == Some('Z')).await;

        let provisioner = home.provisioner();
        provisioner.start(&spec(other, &[])).await.unwrap();
        let host = home.record(other)["process"]["host"].clone();
        let started: u64 = stat(pid).unwrap()[19].parse().unwrap();
        home.fake_record(id, json!({"pid": pid, "started": started, "host": host}));
        assert_eq!(provisioner.observe(id).await.unwrap(), Workload::Ended { exit_code: None });
        let before = Instant::now();
        provisioner.stop(id).await.unwrap();
        assert!(before.elapsed() < config(home.0.path()).stop_grace, "it waited for a zombie");
        provisioner.stop(other).await.unwrap();
    }

    #[tokio::test]
    async fn stop_ends_what_ignores_sigterm() {
        let (home, id) = (Home::new(), new_id());
        let config = ProcessConfig { stop_grace: Duration::from_millis(100), ..config(home.0.path()) };
        let provisioner = ProcessProvisioner::new(config).unwrap();
        provisioner.start(&spec(id, &[("MOLECULE_TEST_STUBBORN", "1")])).await.unwrap();
        let child = stubborn_child(&provisioner, id).await;
        assert!(runs(child));
        provisioner.stop(id).await.unwrap();
        assert!(!runs(child));
        assert_eq!(home.processes(), [0; 0]);
    }

    #[tokio::test]
    async fn stop_ends_what_outlived_its_leader() {
        let (home, id) = (Home::new(), new_id());
        let config = ProcessConfig { stop_grace: Duration::from_millis(100), ..config(home.0.path()) };
        let provisioner = ProcessProvisioner::new(config).unwrap();
        provisioner.start(&spec(id, &[("MOLECULE_TEST_STUBBORN", "1"), ("MOLECULE_TEST_EXIT", "3")])).await.unwrap();
        let child = stubborn_child(&provisioner, id).await;
        until("its end", async || provisioner.observe(id).await.unwrap() != Workload::Running).await;
        assert_eq!(provisioner.observe(id).await.unwrap(), Workload::Ended { exit_code: Some(3) });
        assert!(runs(child));
        assert_eq!(provisioner.remove_volume(id).await.unwrap_err().kind(), ErrorKind::Conflict);
        provisioner.stop(id).await.unwrap();
        assert!(!runs(child));
    }

    #[tokio::test]
    async fn a_signal_shows_in_the_exit_code() {
        let (home, id) = (Home::new(), new_id());
        let provisioner = home.provisioner();
        provisioner.start(&spec(id, &[])).await.unwrap();
        let pid = leader(&home.record(id));
        kill(pid);
        until("its end", async || provisioner.observe(id).await.unwrap() != Workload::Running).await;
        assert_eq!(provisioner.observe(id).await.unwrap(), Workload::Ended { exit_code: Some(128 + 9) });
        assert_eq!(home.record(id)["process"], Value::Null, "its pid may be given away now");
        until("the zombie to be waited for", async || state(pid).is_none()).await;
    }

    #[tokio::test]
    async fn the_environment_is_the_inherited_and_no_more() {
        let (home, id) = (Home::new(), new_id());
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "something that must not leak");
        let provisioner = home.provisioner();
        let token = SecretString::from("very-secret-token");
        provisioner.write_auth_token(id, &token).await.unwrap();
        let url = provisioner.start(&spec(id, &[("MODEL", "sonnet")])).await.unwrap().unwrap();

        let pid = leader(&home.record(id));
        let environment: BTreeMap<String, String> = read_proc(pid, "environ")
            .split_terminator('\0')
            .filter_map(|variable| variable.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let configs = home.folder(id).join("configs").display().to_string();
        let (id_text, port) = (id.to_string(), url.rsplit(':').next().unwrap());
        let expected = [
            ("CONFIGS_DIR", configs.as_str()),
            ("MODEL", "sonnet"),
            ("MOLECULE_URL", "http://127.0.0.1:8080"),
            ("PATH", "/usr/bin:/bin"),
            ("PLATFORM_URL", "http://127.0.0.1:8080"),
            ("PORT", port),
            ("TIER", "2"),
            ("WORKSPACE_CONFIG_PATH", &configs),
            ("WORKSPACE_ID", &id_text),
        ];
        assert_eq!(environment, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());

        let mode = |path: &str| fs::metadata(home.folder(id).join(path)).unwrap().permissions().mode() & 0o777;
        for (path, expected) in [
            ("", 0o700),
            ("configs", 0o700),
            ("configs/.auth_token", 0o600),
            ("process.json", 0o600),
            ("agent.log", 0o600),
        ] {
            assert_eq!(mode(path), expected, "{path:?}");
        }
        for place in [read_proc(pid, "cmdline"), read_proc(pid, "environ"), home.record(id).to_string()] {
            assert!(!place.contains("very-secret-token"), "{place}");
        }

        provisioner.stop(id).await.unwrap();
        provisioner.remove_volume(id).await.unwrap();
        assert!(!home.folder(id).exists());
    }

    #[tokio::test]
    async fn a_missing_command_is_named_in_the_log_alone() {
        let (home, id) = (Home::new(), new_id());
        let config = ProcessConfig { command: "/no/such/agent".into(), ..config(home.0.path()) };
        let provisioner = ProcessProvisioner::new(config).unwrap();
        let error = provisioner.start(&spec(id, &[])).await.unwrap_err();
        assert_eq!(error.message(), "the agent command cannot be run: entity not found — configure one that is there");
        assert!(error.detail().contains("/no/such/agent"), "{error:?}");
        assert_eq!(provisioner.observe(id).await.unwrap(), Workload::Absent);
    }

    #[tokio::test]
    async fn an_agent_may_have_as_many_files_open_as_was_said() {
        let (home, id) = (Home::new(), new_id());
        let limits = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let of = |pid: &str| {
            let all = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
            limits(all.lines().find(|line| line.starts_with("Max open files")).unwrap())[3..5].to_vec()
        };
        let [own, most] = of("self").try_into().unwrap();
        for (open_files, expected) in [(Some(99), "99"), (Some(u64::MAX - 1), &*most), (None, &*own)] {
            let provisioner = ProcessProvisioner::new(ProcessConfig { open_files, ..config(home.0.path()) }).unwrap();
            provisioner.start(&spec(id, &[])).await.unwrap();
            assert_eq!(of(&leader(&home.record(id)).to_string()), [expected, &most], "{open_files:?}");
            provisioner.stop(id).await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_agent_works_in_the_folder_it_was_given() {
        let (home, id) = (Home::new(), new_id());
        let work = tempfile::tempdir().unwrap();
        fs::write(work.path().join("notes"), "n").unwrap();
        let provisioner = home.provisioner();
        let missing =
            StartSpec { workspace_dir: Some("/no/such/folder".into()), access: Access::ReadWrite, ..spec(id, &[]) };
        let error = provisioner.start(&missing).await.unwrap_err();
        assert!(error.detail().contains("/no/such/folder") && !error.message().contains('/'), "{error:?}");

        for (access, expected) in
            [(Access::ReadWrite, work.path().to_owned()), (Access::None, home.folder(id).join("workspace"))]
        {
            let spec = StartSpec { workspace_dir: Some(work.path().to_owned()), access, ..spec(id, &[]) };
            provisioner.start(&spec).await.unwrap();
            let directory = fs::read_link(format!("/proc/{}/cwd", leader(&home.record(id)))).unwrap();
            assert_eq!(directory, expected.canonicalize().unwrap());
            let notes = provisioner.exec_read(id, "/workspace/notes").await;
            assert_eq!(notes.is_ok(), access == Access::ReadWrite);
        }
        provisioner.stop(id).await.unwrap();
        assert!(work.path().join("notes").exists());
    }

    #[tokio::test]
    async fn nothing_outside_the_folder_is_read() {
        let (home, id) = (Home::new(), new_id());
        let provisioner = home.provisioner();
        provisioner.start(&spec(id, &[])).await.unwrap();
        symlink("/etc/passwd", home.folder(id).join("configs/link")).unwrap();
        for path in ["/etc/passwd", "/configs/link", "/configs/../process.json"] {
            assert!(provisioner.exec_read(id, path).await.is_err(), "{path}");
        }
        provisioner.stop(id).await.unwrap();
    }

    #[tokio::test]
    async fn starts_that_race_leave_one_workload() {
        let (home, id) = (Home::new(), new_id());
        let provisioner = home.provisioner();
        let spec = spec(id, &[]);
        let starts = futures_util::future::join_all((0..5).map(|_| provisioner.start(&spec))).await;
        assert!(starts.iter().all(Result::is_ok), "{starts:?}");
        assert_eq!(home.processes(), [leader(&home.record(id))]);
        provisioner.stop(id).await.unwrap();
        assert_eq!(home.processes(), [0; 0]);
    }

    #[tokio::test]
    async fn a_start_that_nobody_waits_for_can_be_stopped() {
        let home = Home::new();
        let provisioner = home.provisioner();
        let mut spec = spec(new_id(), &[]);
        spec.files = vec![ConfigFile { path: "large".to_owned(), contents: vec![0; 1 << 20], private: true }];
        for given_up_after in [0, 1, 2, 4, 8, 16] {
            let patience = Duration::from_millis(given_up_after);
            let _ = tokio::time::timeout(patience, provisioner.start(&spec)).await;
            provisioner.stop(spec.workspace_id).await.unwrap();
            assert_eq!(home.processes(), [0; 0]);
        }
    }
}
