//! The engine, as its own command line shows it.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
};

use serde_json::Value;

use crate::support::skip::skip;

/// The network that workspaces share.
const NETWORK: &str = "molecule-monorepo-net";

/// An engine that has the image of the agent.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) host: String,
}

impl Engine {
    /// The engine that `DOCKER_HOST` names, or a recorded skip.
    #[expect(clippy::disallowed_methods, reason = "tests are told their engine by the environment")]
    pub(crate) fn of_the_tests() -> Option<Self> {
        let Some(host) = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) else {
            skip("DOCKER_HOST names no Docker engine; run under fixtures/with-engines");
            return None;
        };
        let engine = Self { host };
        engine.build_image();
        Some(engine)
    }

    /// Runs `docker`, which has to succeed, and gives what it printed.
    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        let output = self.run(Command::new("docker").args(arguments));
        assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// What the engine says of the container of workspace `id`.
    pub(crate) fn inspect(&self, id: &str) -> Value {
        let found: Value = serde_json::from_str(&self.docker(&["inspect", &container(id)])).unwrap();
        found[0].clone()
    }

    /// The containers and volumes of workspace `id`.
    pub(crate) fn traces(&self, id: &str) -> Vec<String> {
        let filter = format!("label=molecule.workspace.id={id}");
        let containers = self.docker(&["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"]);
        let volumes = self.docker(&["volume", "ls", "--filter", &filter, "--format", "{{.Name}}"]);
        containers.lines().chain(volumes.lines()).map(str::to_owned).collect()
    }

    /// Takes away all there is of workspace `id`.
    pub(crate) fn remove(&self, id: &str) {
        let filter = format!("label=molecule.workspace.id={id}");
        let list = |arguments: &[&str]| {
            let output = self.run(Command::new("docker").args(arguments).args(["--quiet", "--filter", &filter]));
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
        };
        for container in list(&["ps", "--all"]) {
            self.run(Command::new("docker").args(["rm", "--force", "--volumes", &container]));
        }
        for volume in list(&["volume", "ls"]) {
            self.run(Command::new("docker").args(["volume", "rm", "--force", &volume]));
        }
    }

    /// The address of this host on the network of the workspaces.
    pub(crate) fn gateway(&self) -> String {
        self.docker(&["network", "inspect", NETWORK, "--format", "{{(index .IPAM.Config 0).Gateway}}"])
    }

    fn run(&self, command: &mut Command) -> Output {
        command.env("DOCKER_HOST", &self.host).output().expect("the docker command line is installed")
    }

    fn build_image(&self) {
        // One at a time, whether tests run as threads or as processes: the second finds the work done.
        let lock = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("image.lock")).unwrap();
        lock.lock().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/image/build");
        let output = self.run(Command::new(script).arg(env!("CARGO_BIN_EXE_molecule")));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The name of the container of workspace `id`.
pub(crate) fn container(id: &str) -> String {
    format!("ws-{id}")
}

/// Passes everything on to an engine, but says that there is no image, wherever it is asked for one.
#[derive(Debug)]
pub(crate) struct WithoutImages {
    pub(crate) host: String,
    socket: PathBuf,
    listening: Option<thread::JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl WithoutImages {
    pub(crate) fn before(engine: &Engine) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("engine.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let engine = engine.host.clone();
        let listening = thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = BufReader::new(client.unwrap());
                let mut request = String::new();
                match client.read_line(&mut request) {
                    // The farewell of the test.
                    Ok(0) | Err(_) => return,
                    Ok(_) => {
                        let engine = engine.clone();
                        thread::spawn(move || pass(client, &request, &engine));
                    }
                }
            }
        });
        let host = format!("unix://{}", socket.display());
        Self { host, socket, listening: Some(listening), _folder: folder }
    }
}

impl Drop for WithoutImages {
    fn drop(&mut self) {
        drop(UnixStream::connect(&self.socket));
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
    }
}

fn pass(mut client: BufReader<UnixStream>, request: &str, engine: &str) {
    if request.contains("/images/") {
        let body = r#"{"message":"No such image"}"#;
        let head = "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\nconnection: close\r\n";
        let _ = write!(client.get_mut(), "{head}content-length: {}\r\n\r\n{body}", body.len());
        return;
    }
    // Either end may hang up whenever it likes.
    if let Some(path) = engine.strip_prefix("unix://") {
        let Ok(server) = UnixStream::connect(path) else { return };
        let Ok(reader) = server.try_clone() else { return };
        let _ = join(client, request, reader, server, |server| drop(server.shutdown(Shutdown::Write)));
    } else {
        let Ok(server) = TcpStream::connect(engine.split_once("://").unwrap_or_default().1) else { return };
        let Ok(reader) = server.try_clone() else { return };
        let _ = join(client, request, reader, server, |server| drop(server.shutdown(Shutdown::Write)));
    }
}

fn join<S: Write + Send>(
    mut client: BufReader<UnixStream>,
    request: &str,
    mut from_engine: impl Read,
    mut to_engine: S,
    done: impl FnOnce(&S) + Send,
) -> std::io::Result<()> {
    let mut answers = client.get_ref().try_clone()?;
    to_engine.write_all(request.as_bytes())?;
    thread::scope(|scope| {
        scope.spawn(move || {
            let _ = std::io::copy(&mut client, &mut to_engine);
            done(&to_engine);
        });
        let copied = std::io::copy(&mut from_engine, &mut answers);
        // Ends the other direction, too.
        let _ = answers.shutdown(Shutdown::Both);
        copied.map(drop)
    })
}
