//! Watches over the fleet: loops that carry out decisions made elsewhere.

mod abandoned;
mod health;
mod hearing;
mod hibernation;
mod jumps;
mod machines;
mod orphans;
mod skew;
mod supervisor;
mod timeouts;

use std::{sync::Arc, time::Duration};

pub use self::supervisor::Tick;
use self::supervisor::{every, supervise};
pub(crate) use self::{hearing::Hearing, jumps::Jumps, orphans::Strays, skew::Skew, supervisor::Ticks};
use crate::{
    control_plane::{Backend, ControlPlane},
    provisioner::images::Seen,
};

/// How often values whose time is over are deleted. Nobody sees them in the meantime.
const VALUES_TICK: Duration = Duration::from_secs(10 * 60);

pub(crate) fn start(control_plane: &ControlPlane) {
    let config = &control_plane.inner.config;
    relay(control_plane);
    resume_interrupted(control_plane);
    every(control_plane, "event-retention", config.event_tick, |this| async move { this.prune_events().await });
    every(control_plane, "health-sweep", config.health_tick, |this| async move { this.sweep_health().await });
    every(
        control_plane,
        "provision-timeout-sweep",
        config.timeout_tick,
        |this| async move { this.sweep_timeouts().await },
    );
    every(control_plane, "queue", config.queue_tick, |this| async move { this.sweep_queue().await });
    every(control_plane, "delegations", config.queue_tick, |this| async move { this.sweep_delegations().await });
    every(control_plane, "activity-retention", config.activity_tick, |this| async move { this.prune_activity().await });
    every(control_plane, "hibernation-monitor", config.hibernation_tick, |this| async move { this.sweep_idle().await });
    if matches!(control_plane.inner.backend, Backend::Local { .. }) {
        let strays = Arc::new(Strays::default());
        every(control_plane, "orphan-sweeper", config.orphan_tick, move |this| {
            let strays = Arc::clone(&strays);
            async move { this.sweep_orphans(&strays).await }
        });
    }
    if matches!(control_plane.inner.backend, Backend::ControlPlane(_)) {
        every(control_plane, "machine-sweeper", config.orphan_tick, |this| async move { this.give_back_left().await });
    }
    if let (Some(tick), Some(_)) = (config.image_tick, &control_plane.inner.images) {
        let seen = Arc::new(Seen::default());
        every(control_plane, "image-watcher", tick, move |this| {
            let seen = Arc::clone(&seen);
            async move { this.watch_images(&seen).await }
        });
    }
    every(control_plane, "scheduler", config.schedule_tick, |this| async move { this.run_schedules().await });
    every(control_plane, "approvals", config.approval_tick, |this| async move { this.expire_approvals().await });
    every(control_plane, "values", VALUES_TICK, |this| async move { this.purge_values().await });
    every(control_plane, "telemetry", config.telemetry_tick, |this| async move { this.save_telemetry().await });
}

pub(crate) fn relay(control_plane: &ControlPlane) {
    supervise(control_plane, "broadcaster", |this| async move {
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
