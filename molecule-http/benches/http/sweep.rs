//! The health sweep over a large fleet, beside a scan that reads every row to find who was not heard.

use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use molecule_core::{
    ControlPlane,
    clock::{Clock, SystemClock},
    store::{Store, gate},
    testing::{Sweep, heard_fleet, sweep},
};
use sqlx::SqlitePool;

use crate::{Outcome, between};

/// How often each is done in a run.
const TIMES: u32 = 5;

/// Names no index, so that every row is read.
const SCAN: &str = "SELECT id, last_heartbeat_at FROM workspaces WHERE +status IN ('online', 'degraded') \
                    AND +last_heartbeat_at < $1";

pub(crate) async fn measure(fleet: usize) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let store = Store::connect(&format!("sqlite:{}", folder.path().join("molecule.db").display())).await?;
    let control_plane = ControlPlane::builder(store).build()?;
    heard_fleet(&control_plane, fleet).await;
    let pool = gate::sqlite(control_plane.store()).ok_or("it is SQLite")?;
    let before = scans(pool).await?;
    let began = Instant::now();
    for _ in 0..TIMES {
        sweep(&control_plane, Sweep::Health).await?;
    }
    let sweeps = began.elapsed().as_secs_f64();
    let ratio = between(before, sweeps, scans(pool).await?)?;
    println!("sweep: {:.1} ms over {fleet} workspaces, {ratio:.2} of a scan", sweeps * 1000.0 / f64::from(TIMES));
    Ok(())
}

async fn scans(pool: &SqlitePool) -> Outcome<f64> {
    let late: DateTime<Utc> = SystemClock.now() - TimeDelta::seconds(90);
    let began = Instant::now();
    for _ in 0..TIMES {
        sqlx::query(SCAN).bind(late).fetch_all(pool).await?;
    }
    Ok(began.elapsed().as_secs_f64())
}
