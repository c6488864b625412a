//! Watches over the fleet: loops that carry out decisions made elsewhere.

mod health;
mod timeouts;

use std::{any::Any, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;

use crate::{control_plane::ControlPlane, error::Result};

/// The pause before a loop that panicked runs again, doubled each time up to the limit.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

pub(crate) fn start(control_plane: &ControlPlane) {
    let config = &control_plane.inner.config;
    relay(control_plane);
    resume_interrupted(control_plane);
    every(control_plane, "health-sweep", config.health_tick, |this| async move { this.sweep_health().await });
    every(
        control_plane,
        "provision-timeout-sweep",
        config.timeout_tick,
        |this| async move { this.sweep_timeouts().await },
    );
    every(control_plane, "activity-retention", config.activity_tick, |this| async move { this.prune_activity().await });
    every(control_plane, "telemetry", config.telemetry_tick, |this| async move { this.save_telemetry().await });
}

fn relay(control_plane: &ControlPlane) {
    let this = control_plane.clone();
    control_plane.inner.tasks.spawn(async move {
        tokio::select! {
            () = this.inner.stop.cancelled() => {}
            () = this.relay() => {}
        }
    });
}

fn resume_interrupted(control_plane: &ControlPlane) {
    let this = control_plane.clone();
    control_plane.inner.tasks.spawn(async move {
        if let Err(error) = this.resume_interrupted().await {
            tracing::warn!(error = error.detail(), "interrupted starts could not be begun anew");
        }
    });
}

/// Runs `sweep` now and then every `period`, until the control plane is shut down. A panic ends one run only.
fn every<F, Run>(control_plane: &ControlPlane, name: &'static str, period: Duration, sweep: F)
where
    F: Fn(ControlPlane) -> Run + Send + Sync + 'static,
    Run: Future<Output = Result<()>> + Send,
{
    let this = control_plane.clone();
    control_plane.inner.tasks.spawn(async move {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let wait = match AssertUnwindSafe(async { sweep(this.clone()).await }).catch_unwind().await {
                Ok(result) => {
                    backoff = FIRST_BACKOFF;
                    if let Err(error) = result {
                        tracing::warn!(sweep = name, error = error.detail(), "a sweep could not finish");
                    }
                    period
                }
                Err(panic) => {
                    tracing::error!(sweep = name, panic = panic_text(&*panic), "a sweep panicked");
                    let wait = backoff;
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                    wait
                }
            };
            tokio::select! {
                () = this.inner.stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    });
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or_default()
}
