//! What a heartbeat costs beside the least that a server can do, what a large fleet takes of memory, what a sweep over it
//! costs, and what a message costs on its way. `docs/benchmarks.md` says how to run it and how to read it.
//!
//! This program plays every part but the server's: it measures (`run`), sends the load (`load`), and is the server that
//! only acknowledges (`bare`) and the agent that is sent messages (`agent`), each in a process of its own so that each can be kept on a processor of its own.

#![expect(clippy::print_stdout, reason = "it is a program that prints what it measured")]

mod a2a;
mod bare;
mod children;
mod load;
mod sweep;

use std::{error::Error, path::Path, time::Duration};

use molecule_core::{ControlPlane, id::WorkspaceId, store::Store, testing::heard_fleet};
use secrecy::{ExposeSecret, SecretString};

use self::children::{Child, own_processors};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// By how much the two runs of a baseline may differ before what lies between them means nothing.
const NOISE: f64 = 0.10;

/// The agents that send heartbeats, and the connections that they share; as many are used for messages.
const AGENTS: usize = 2000;
const CONNECTIONS: usize = 64;

/// How large the measurements are.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// How long the load lasts, each time.
    lasts: Duration,
    /// How many workspaces the large fleet has.
    fleet: usize,
}

const WHOLE: Size = Size { lasts: Duration::from_secs(10), fleet: 100_000 };

/// What can be measured by itself.
const PARTS: [&str; 4] = ["heartbeats", "memory", "sweep", "a2a"];

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).filter(|argument| *argument != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match arguments[..] {
        ["bare", address] => runtime.block_on(bare::serve(address)),
        ["agent", address, milliseconds] => {
            runtime.block_on(a2a::agent(address, Duration::from_millis(milliseconds.parse()?)))
        }
        ["load", address, agents, milliseconds] => {
            let lasts = Some(Duration::from_millis(milliseconds.parse()?));
            runtime.block_on(load::send(address, Path::new(agents), CONNECTIONS, lasts))
        }
        ["load", address, agents] => runtime.block_on(load::send(address, Path::new(agents), CONNECTIONS, None)),
        ["short"] => runtime.block_on(run(&PARTS, Size { lasts: Duration::from_secs(2), fleet: 5000 })),
        [] => runtime.block_on(run(&PARTS, WHOLE)),
        [part] if PARTS.contains(&part) => runtime.block_on(run(&[part], WHOLE)),
        _ => Err(format!("expected nothing, `short`, or one of {}", PARTS.join(", ")).into()),
    }
}

async fn run(parts: &[&str], size: Size) -> Outcome<()> {
    let (server_on, load_on) = own_processors()?;
    println!("server on processor {server_on}, load on processor {load_on}");
    for part in parts {
        match *part {
            "heartbeats" => heartbeats(size, server_on, load_on).await?,
            "memory" => memory(size, server_on, load_on).await?,
            "sweep" => sweep::measure(size.fleet).await?,
            _ => a2a::measure(size, server_on, load_on).await?,
        }
    }
    Ok(())
}

/// Heartbeats per second, between two runs of the bare server.
async fn heartbeats(size: Size, server_on: usize, load_on: usize) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let agents = fleet(folder.path(), AGENTS).await?;
    let server = Child::server(folder.path(), server_on).await?;
    // Every agent is heard before it counts: the first beat of each goes the careful way.
    Child::load(&server.address, &agents, None, load_on)?;
    let bare = Child::bare(server_on).await?;
    let measure = |child: &Child| Child::load(&child.address, &agents, Some(size.lasts), load_on);
    let (before, beats, after) = (measure(&bare)?, measure(&server)?, measure(&bare)?);
    let ratio = between(before, beats, after)?;
    println!("heartbeats: {beats:.0} per second, {ratio:.2} of a bare acknowledgement ({before:.0}, {after:.0})");
    Ok(())
}

/// What the server holds in memory once it has heard a large fleet.
async fn memory(size: Size, server_on: usize, load_on: usize) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let agents = fleet(folder.path(), size.fleet).await?;
    let server = Child::server(folder.path(), server_on).await?;
    let empty = server.resident()?;
    for _ in 0..2 {
        Child::load(&server.address, &agents, None, load_on)?;
    }
    let mebibytes = |bytes| f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) / 1024.0;
    let (empty, full) = (mebibytes(empty), mebibytes(server.resident()?));
    println!("memory: {full:.1} MiB with {} workspaces tracked, {empty:.1} MiB with none", size.fleet);
    Ok(())
}

/// `value` as a share of what was measured before and after it.
fn between(before: f64, value: f64, after: f64) -> Outcome<f64> {
    let difference = (before - after).abs() / before.max(after);
    if difference > NOISE {
        return Err(format!("the machine is too busy: two runs of the baseline gave {before:.0} and {after:.0}").into());
    }
    Ok(value / f64::midpoint(before, after))
}

/// Fills the database of a data folder with agents that are online, and gives the file that names them.
async fn fleet(data: &Path, count: usize) -> Outcome<std::path::PathBuf> {
    let store = Store::connect(&format!("sqlite:{}", data.join("molecule.db").display())).await?;
    let control_plane = ControlPlane::builder(store).build()?;
    let line = |(id, token): (WorkspaceId, SecretString)| format!("{id} {}\n", token.expose_secret());
    let lines: String = heard_fleet(&control_plane, count).await.into_iter().map(line).collect();
    control_plane.store().close().await;
    let file = data.join("agents");
    std::fs::write(&file, lines)?;
    Ok(file)
}
