//! Workspaces on machines of another control plane: the example of the library, with child processes as machines.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::{
    lives::lived,
    process,
    server::{Server, Setup, until},
    support,
};

const SECRET: &str = "between-control-planes";

/// The other control plane, gone with the value, as are its machines.
pub(crate) struct Owner {
    root: TempDir,
    url: String,
    child: Child,
}

impl Owner {
    pub(crate) fn start() -> Self {
        let test = std::env::current_exe().expect("this test has a path");
        let program = test.ancestors().nth(2).expect("it lies in deps").join("examples/control_plane");
        assert!(program.is_file(), "build it with `cargo build -p molecule-core --example control_plane`");
        let root = tempfile::tempdir().expect("a folder can be made");
        let mut child = Command::new(program)
            .arg("--process")
            .arg(root.path())
            .args([env!("CARGO_BIN_EXE_molecule"), "agent", "--listen-host", "localhost"])
            .env_clear()
            .env("CP_SECRET", SECRET)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("its output is piped"));
        stdout.read_line(&mut line).expect("it says where it is");
        let url = line.trim().strip_prefix("listening on ").expect("it says where it is").to_owned();
        Self { root, url, child }
    }

    /// A server whose workspaces run here.
    pub(crate) fn server(&self) -> Setup {
        Setup::none()
            .env("MOLECULE_PROVISIONER", "control-plane")
            .env("CP_PROVISION_URL", &self.url)
            .env("MOLECULE_CP_SHARED_SECRET", SECRET)
            .env("MOLECULE_ORG_ID", "org-1")
            // The machines are processes of this host, which an organisation's private network is not.
            .env("MOLECULE_DEPLOY_MODE", "self-hosted")
    }

    fn folder(&self, id: &str) -> PathBuf {
        self.root.path().join(id)
    }

    /// The process that is the machine of a workspace.
    fn machine(&self, id: &str) -> i32 {
        let record = fs::read(self.folder(id).join("process.json")).expect("it has a machine");
        let record: Value = serde_json::from_slice(&record).expect("the record is JSON");
        record["process"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("it runs")
    }

    fn machines(&self) -> Vec<i32> {
        process::processes_that_mention(&self.root.path().display().to_string())
    }

    fn go_away(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.machines().into_iter().for_each(process::kill);
    }
}

async fn online(server: &Server, owner: &Owner, name: &str) -> (String, i32) {
    let id = server.create(name).await;
    server.until_status(&id, "online").await;
    let machine = owner.machine(&id);
    (id, machine)
}

#[tokio::test]
async fn a_workspace_lives_on_a_machine_of_another_control_plane() {
    let owner = Owner::start();
    let server = owner.server().start().await;
    let (id, first) = online(&server, &owner, "coder").await;
    server.assert_answers(&id, "good morning").await;
    // The agent was given its token by its own first register call.
    assert!(owner.folder(&id).join("configs/.auth_token").is_file());

    let restarted = server.post(&format!("/workspaces/{id}/restart"), &serde_json::json!({})).await;
    assert_eq!(restarted.status, 200, "{restarted:?}");
    until("another machine runs in place of the first", async || {
        let machines = owner.machines();
        (machines.len() == 1 && machines[0] != first).then_some(())
    })
    .await;
    server.until_status(&id, "online").await;
    server.assert_answers(&id, "good evening").await;

    let deleted = server.delete(&format!("/workspaces/{id}?confirm=true")).await;
    assert_eq!(deleted.status, 200, "{deleted:?}");
    assert_eq!(owner.machines(), Vec::<i32>::new());
    assert!(!owner.folder(&id).exists());
}

#[tokio::test]
async fn a_machine_that_died_is_noticed_by_the_next_call_and_replaced() {
    let owner = Owner::start();
    let server = owner.server().start().await;
    let (id, machine) = online(&server, &owner, "coder").await;
    process::kill(machine);
    until("a call finds it dead", async || {
        let request = serde_json::json!({"method": "message/send", "params": {"message": {
            "role": "user", "parts": [{"kind": "text", "text": "are you there?"}],
        }}});
        let answer = server.post(&format!("/workspaces/{id}/a2a"), &request).await;
        assert!(matches!(answer.status, 502 | 503), "{answer:?}");
        (answer.json()["restarting"] == true).then_some(())
    })
    .await;
    server.until_status(&id, "online").await;
    assert_ne!(owner.machine(&id), machine);
    server.assert_answers(&id, "still here").await;
}

#[tokio::test]
async fn a_delete_that_cannot_give_the_machine_back_says_so() {
    let mut owner = Owner::start();
    let server = owner.server().start().await;
    let (id, machine) = online(&server, &owner, "coder").await;
    owner.go_away();
    let deleted = server.delete(&format!("/workspaces/{id}?confirm=true")).await;
    assert_eq!((deleted.status, &deleted.json()["stop_failures"]), (500, &serde_json::json!(1)), "{deleted:?}");
    assert!(deleted.error().contains(&id), "{deleted:?}");
    assert_eq!(owner.machines(), [machine]);
}

#[tokio::test]
async fn a_start_that_the_control_plane_refuses_fails_and_tells_nothing_of_it() {
    let owner = Owner::start();
    let server = owner.server().env("MOLECULE_CP_SHARED_SECRET", "another").start().await;
    let id = server.create("coder").await;
    server.until_status(&id, "failed").await;
    let events = server.events(&id).await;
    let (kind, payload) = events.last().expect("there are events");
    assert_eq!((kind.as_str(), &payload["error"]), ("WORKSPACE_PROVISION_FAILED", &"provisioning failed".into()));
    assert!(
        server.log().contains("unexpected 401: unauthorized") && !server.log().contains(SECRET),
        "{}",
        server.log()
    );
}

#[tokio::test]
async fn what_a_server_began_when_it_was_killed_another_goes_on_with() {
    let Some(database) = support::postgres_database().await else { return };
    let owner = Owner::start();
    // Takes every call, and answers none.
    let silence = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let silent_url = format!("http://{}", silence.local_addr().expect("it listens"));
    const LEASE: Duration = Duration::from_millis(1500);
    let hasty = || {
        let setup = owner.server().database(Some(database.url()));
        setup.env("MOLECULE_QUEUE_LEASE_MS", &LEASE.as_millis().to_string()).env("MOLECULE_TIMEOUT_TICK_MS", "50")
    };
    let mut one = hasty().env("CP_PROVISION_URL", &silent_url).start().await;
    let (other, third) = (hasty().start().await, hasty().start().await);
    let id = one.create("coder").await;
    let (_call, _) = silence.accept().await.expect("the machine is asked for");
    let kinds = async |server: &Server| -> Vec<String> {
        let kinds = server.events(&id).await.into_iter().map(|(kind, _)| kind);
        kinds.filter(|kind| kind.starts_with("WORKSPACE_PROV") || kind == "WORKSPACE_ONLINE").collect()
    };
    let watched = Instant::now();
    until("it is watched for longer than it would take", async || (watched.elapsed() > LEASE * 2).then_some(())).await;
    assert_eq!(kinds(&other).await, ["WORKSPACE_PROVISIONING"], "who began it lives");

    one.kill9();
    let killed = Instant::now();
    other.until_status(&id, "online").await;
    assert!(killed.elapsed() < Duration::from_secs(15), "{:?}", killed.elapsed());
    assert_eq!(owner.machines().len(), 1);
    let expected = ["WORKSPACE_PROVISIONING", "WORKSPACE_PROVISIONING", "WORKSPACE_ONLINE"];
    assert_eq!(kinds(&third).await, expected, "of two that saw it, one went on");
    other.assert_answers(&id, "up at last").await;
    third.assert_answers(&id, "here as well").await;
    one.start_again().await;
    one.assert_answers(&id, "and welcome back").await;
    assert_eq!((owner.machines().len(), kinds(&one).await.len()), (1, expected.len()));
}

#[tokio::test]
async fn a_whole_life_on_machines_of_another_control_plane() {
    let owner = Owner::start();
    let server = owner.server().start().await;
    lived(&server, || owner.machines(), |id| owner.folder(id), false).await;
}

#[tokio::test]
async fn the_console_of_a_machine_is_shown_to_the_operator() {
    let mut owner = Owner::start();
    let server = owner.server().start().await;
    let (id, _) = online(&server, &owner, "coder").await;
    let path = format!("/workspaces/{id}/console");
    let shown = until("its agent to write something", async || {
        let shown = server.get(&path).await;
        assert_eq!(shown.status, 200, "{shown:?}");
        shown.json()["output"].as_str().filter(|output| !output.is_empty()).map(str::to_owned)
    })
    .await;
    assert!(!shown.contains(&server.token()));
    assert_eq!(server.send(Method::GET, &path, None, "").await.status, 401);
    let unknown = server.get("/workspaces/6f9619ff-8b86-4011-b42d-00cf4fc964ff/console").await;
    assert_eq!((unknown.status, unknown.error().as_str()), (404, "workspace not found"));
    owner.go_away();
    let away = server.get(&path).await;
    let text = "control plane returned an error fetching console output";
    assert_eq!((away.status, away.error().as_str()), (502, text));

    let without = Setup::none().start().await;
    assert_eq!(without.get(&path).await.status, 501);
}

#[tokio::test]
async fn who_watches_machines_says_that_one_did_not_come_up() {
    let owner = Owner::start();
    // Its agent runs, and finds nobody.
    let server = owner.server().env("PLATFORM_URL", "http://127.0.0.1:1").start().await;
    let id = server.create("coder").await;
    let path = format!("/admin/workspaces/{id}/bootstrap-failed");
    let word = json!({"error": "no disk", "log_tail": "last line"});
    assert_eq!(server.send(Method::POST, &path, None, word.to_string()).await.status, 401);
    let heard = server.post(&path, &word).await;
    assert_eq!((heard.status, heard.json()), (200, json!({"ok": true})));
    assert_eq!(server.until_status(&id, "failed").await["last_sample_error"], "no disk");
    let events = server.events(&id).await;
    let told = json!({"error": "no disk", "log_tail": "last line", "source": "bootstrap_watcher"});
    assert_eq!(events.last(), Some(&("WORKSPACE_PROVISION_FAILED".to_owned(), told)));
    let again = server.post(&path, &word).await;
    assert_eq!((again.status, again.json()), (200, json!({"ok": true, "no_change": true})));
}
