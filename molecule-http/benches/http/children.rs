//! The processes of a measurement, each on its own processor, gone with their values.

use std::{
    net::TcpListener,
    path::Path,
    process::{self, Command, Stdio},
    time::{Duration, Instant},
};

use tokio::net::TcpStream;

use crate::Outcome;

/// How long a process may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server under measurement.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) address: String,
    process: process::Child,
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Child {
    /// `molecule serve` over the database in `data`, with everything that it does to a request.
    pub(crate) async fn server(data: &Path, processor: usize) -> Outcome<Self> {
        let address = free_address()?;
        let mut command = on(processor, env!("CARGO_BIN_EXE_molecule"));
        let folder = data.to_string_lossy();
        command.args(["serve", "--listen", &address, "--provisioner", "none", "--data-dir", &folder]).env_clear();
        // One client sends what a whole fleet does.
        command.env("PATH", "/usr/bin:/bin").env("HOME", data).env("RATE_LIMIT", "1000000000");
        Self::listening(address, command).await
    }

    /// The server that only acknowledges.
    pub(crate) async fn bare(processor: usize) -> Outcome<Self> {
        let address = free_address()?;
        let mut command = on(processor, &std::env::current_exe()?.to_string_lossy());
        command.args(["bare", &address]);
        Self::listening(address, command).await
    }

    /// An agent that answers messages after `thinks`.
    pub(crate) async fn agent(thinks: Duration, processor: usize) -> Outcome<Self> {
        let address = free_address()?;
        let mut command = on(processor, &std::env::current_exe()?.to_string_lossy());
        command.args(["agent", &address, &thinks.as_millis().to_string()]);
        Self::listening(address, command).await
    }

    async fn listening(address: String, mut command: Command) -> Outcome<Self> {
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut child = Self { address, process };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(&child.address).await.is_err() {
            if child.process.try_wait()?.is_some() || Instant::now() > deadline {
                return Err("a server did not start".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(child)
    }

    /// Sends the heartbeats of `agents` to `address`, and gives how many were answered per second.
    pub(crate) fn load(address: &str, agents: &Path, lasts: Option<Duration>, processor: usize) -> Outcome<f64> {
        let mut command = on(processor, &std::env::current_exe()?.to_string_lossy());
        command.arg("load").arg(address).arg(agents).args(lasts.map(|lasts| lasts.as_millis().to_string()));
        let output = command.stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err("the load broke off".into());
        }
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    }

    /// How many bytes of memory it holds.
    pub(crate) fn resident(&self) -> Outcome<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }
}

/// A processor for the server and another for the load.
pub(crate) fn own_processors() -> Outcome<(usize, usize)> {
    match std::thread::available_parallelism()?.get() {
        1 => Err("server and load need a processor each".into()),
        _ => Ok((0, 1)),
    }
}

/// Keeps this process to one processor.
pub(crate) fn stay_on(processor: usize) -> Outcome<()> {
    let mut command = Command::new("taskset");
    command.args(["--all-tasks", "--cpu-list", "--pid", &processor.to_string(), &process::id().to_string()]);
    match command.output()?.status.success() {
        true => Ok(()),
        false => Err("taskset cannot move this process".into()),
    }
}

fn on(processor: usize, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &processor.to_string(), program]);
    command
}

fn free_address() -> Outcome<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
