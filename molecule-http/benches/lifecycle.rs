//! What creating and restarting a workspace costs beside the least that must be done for it. `docs/benchmarks.md` says how
//! to run it and how to read it.

#![expect(clippy::print_stdout, reason = "it is a program that prints what it measured")]

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use molecule_core::{
    ControlPlane,
    id::WorkspaceId,
    store::Store,
    testing::{Operation, ScriptedProvisioner},
    workspace::CreateWorkspace,
};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A row of about the size of a workspace's.
const BARE: &str = "INSERT INTO bare (id, name, text, created_at) VALUES ($1, $2, $3, $4)";

fn main() -> Outcome<()> {
    let short = std::env::args().any(|argument| argument == "short");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(if short { 100 } else { 2000 }))
}

async fn run(rounds: usize) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    creates(folder.path(), rounds).await?;
    restarts(rounds / 4).await
}

/// Creates, each beside a bare insert that is as durable: the disk is the same, and as busy.
async fn creates(folder: &std::path::Path, rounds: usize) -> Outcome<()> {
    let (control_plane, _backend) = over(&format!("sqlite:{}", folder.join("fleet.db").display())).await?;
    let bare = bare(&folder.join("bare.db")).await?;
    let (mut created, mut inserted) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let begun = Instant::now();
        let row = sqlx::query(BARE).bind(vec![0_u8; 16]).bind(round.to_string()).bind("x".repeat(300));
        row.bind("2026-01-01T00:00:00Z").execute(&bare).await?;
        inserted.push(begun.elapsed());
        let begun = Instant::now();
        control_plane.create(named(&format!("w{round}"))).await?;
        created.push(begun.elapsed());
    }
    let (create, insert) = (percentile(&mut created, 50), percentile(&mut inserted, 50));
    println!("create     {create:?} beside {insert:?}: {:.2} (goal 2, never above 3)", ratio(create, insert));
    control_plane.shut_down(Duration::from_secs(30)).await;
    Ok(())
}

/// Restarts over a backend that answers at once, and over one that hangs.
async fn restarts(rounds: usize) -> Outcome<()> {
    let mut answers = Vec::new();
    for hangs in [false, true] {
        let (control_plane, backend) = over("sqlite::memory:").await?;
        let mut ids: Vec<WorkspaceId> = Vec::new();
        for workspace in 0..20 {
            ids.push(control_plane.create(named(&format!("w{workspace}"))).await?.workspace.id);
        }
        backend.called(Operation::Start, ids.len()).await;
        if hangs {
            backend.when(Operation::Stop).hang();
            backend.when(Operation::Start).hang();
        }
        let mut took = Vec::new();
        for round in 0..rounds {
            let begun = Instant::now();
            control_plane.restart(ids[round % ids.len()], false).await?;
            took.push(begun.elapsed());
        }
        answers.push(percentile(&mut took, 99));
        control_plane.shut_down(Duration::ZERO).await;
    }
    let (instant, hanging) = (answers[0], answers[1]);
    println!(
        "restart    {hanging:?} beside {instant:?}: {:.2} (goal 1.1, never above 1.3, nor above 50 ms)",
        ratio(hanging, instant)
    );
    Ok(())
}

async fn over(database: &str) -> Outcome<(ControlPlane, ScriptedProvisioner)> {
    let backend = ScriptedProvisioner::new();
    let store = Store::connect(database).await?;
    let control_plane = ControlPlane::builder(store).local_backend(Arc::new(backend.clone())).build()?;
    Ok((control_plane, backend))
}

/// A database of one table, as durable as that of a server.
async fn bare(path: &std::path::Path) -> Outcome<SqlitePool> {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
    sqlx::query("CREATE TABLE bare (id BLOB, name TEXT, text TEXT, created_at TEXT)").execute(&pool).await?;
    Ok(pool)
}

fn named(name: &str) -> CreateWorkspace {
    CreateWorkspace { name: name.to_owned(), ..CreateWorkspace::default() }
}

fn percentile(took: &mut [Duration], percent: usize) -> Duration {
    took.sort_unstable();
    took[(took.len() - 1) * percent / 100]
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}
