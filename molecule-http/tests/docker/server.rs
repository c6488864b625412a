//! A server of one test, and everything it started gone at the end.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{binary::Binary, engine::Engine};

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(50);

/// A server and the clients of it.
pub(crate) struct Server<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) port: u16,
    binary: Binary,
    env: Vec<(String, String)>,
    arguments: Vec<String>,
    child: Child,
    made: Vec<String>,
}

impl<'a> Server<'a> {
    /// Starts with workspaces in containers of `engine`.
    pub(crate) fn start(engine: &'a Engine) -> Self {
        Self::start_with(engine, &["--provisioner", "docker"], &[])
    }

    /// Starts with other settings.
    pub(crate) fn start_with(engine: &'a Engine, arguments: &[&str], env: &[(&str, &str)]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let binary = Binary::talking_to(&format!("http://127.0.0.1:{port}"));
        let data = binary.home().join("data");
        let binary = binary.env("MOLECULE_DATA_DIR", data.to_str().unwrap());
        let mut settings = vec![
            ("DOCKER_HOST".to_owned(), engine.host.clone()),
            ("MOLECULE_HEALTH_TICK_MS".to_owned(), "200".to_owned()),
            // Tests look more often than people do.
            ("RATE_LIMIT".to_owned(), "1000000".to_owned()),
        ];
        settings.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let mut all = vec!["serve".to_owned(), "--listen".to_owned(), format!("127.0.0.1:{port}")];
        all.extend(["--data-dir".to_owned(), data.to_str().unwrap().to_owned()]);
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let child = spawn(&binary, &all, &settings);
        let server = Self { engine, port, binary, env: settings, arguments: all, child, made: Vec::new() };
        server.comes_up();
        server
    }

    /// Ends the server without a chance to say goodbye.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it anew, with the port and the data of before.
    pub(crate) fn start_again(&mut self) {
        self.kill();
        self.child = spawn(&self.binary, &self.arguments, &self.env);
        self.comes_up();
    }

    /// Runs a client command to success, and gives what it printed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        self.binary.ok(arguments)
    }

    /// Runs a client command, and gives what it printed if that was a success.
    pub(crate) fn tries(&self, arguments: &[&str]) -> Option<String> {
        let outcome = self.binary.run(arguments);
        (outcome.code == Some(0)).then_some(outcome.stdout)
    }

    /// Runs a client command that prints JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    /// Begins to bring up a workspace, and gives its id.
    pub(crate) fn create(&mut self, name: &str) -> String {
        let id = self.json(&["create", name, "--no-wait"])["id"].as_str().unwrap().to_owned();
        self.made.push(id.clone());
        id
    }

    /// Brings up a workspace, and gives its id.
    pub(crate) fn online(&mut self, name: &str) -> String {
        let id = self.create(name);
        self.comes_to(&id, "online");
        id
    }

    /// Waits until the workspace has this status.
    pub(crate) fn comes_to(&self, id: &str, status: &str) {
        self.until(&format!("{id} to be {status}"), || self.json(&["show", id])["status"] == status);
    }

    /// Waits for `condition`.
    pub(crate) fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "waited in vain for {what}; the log of the server:\n{}", self.log());
            thread::sleep(POLL);
        }
    }

    /// The types and payloads of the events of a workspace, the latest first.
    pub(crate) fn events(&self, id: &str) -> Vec<(String, Value)> {
        let events = self.json(&["events", id]);
        let events = events.as_array().unwrap().iter();
        events.map(|event| (event["event_type"].as_str().unwrap().to_owned(), event["payload"].clone())).collect()
    }

    /// Where the server keeps what it knows.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.binary.home().join("data")
    }

    /// What the server wrote.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(log_file(&self.binary)).unwrap()
    }

    fn comes_up(&self) {
        self.until("the server to answer", || self.binary.run(&["list"]).code == Some(0));
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        // Every step is tried, whatever became of the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for id in &self.made {
            self.engine.remove(id);
        }
    }
}

fn log_file(binary: &Binary) -> PathBuf {
    binary.home().join("server.log")
}

fn spawn(binary: &Binary, arguments: &[String], env: &[(String, String)]) -> Child {
    let log = File::options().create(true).append(true).open(log_file(binary)).unwrap();
    Command::new(env!("CARGO_BIN_EXE_molecule"))
        .args(arguments)
        .env_clear()
        .env("HOME", binary.home())
        .env("XDG_CONFIG_HOME", binary.home().join("config"))
        .env("XDG_DATA_HOME", binary.home().join("share"))
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}
