//! Keeps the loops going: a panic ends one run and never the loop, and each run that ends is noted.

use std::{
    any::Any,
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use tokio::time::Instant;

use crate::{control_plane::ControlPlane, error::Result};

/// The pause before a loop that panicked begins again, doubled each time up to the limit.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// When a loop came round last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// When that was.
    pub at: DateTime<Utc>,
    /// How long ago that is. Many times the loop's period: it hangs, or panics again and again.
    pub age: Duration,
}

/// When each loop came round last, and how often it did.
#[derive(Debug, Default)]
pub(crate) struct Ticks(Mutex<BTreeMap<&'static str, (DateTime<Utc>, u64)>>);

impl Ticks {
    fn note(&self, name: &'static str, now: DateTime<Utc>) {
        let mut ticks = self.lock();
        let (at, count) = ticks.entry(name).or_insert((now, 0));
        *at = now;
        *count += 1;
    }

    fn count(&self, name: &str) -> u64 {
        self.lock().get(name).map_or(0, |(_, count)| *count)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, (DateTime<Utc>, u64)>> {
        // Nothing in here can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ControlPlane {
    /// When each loop came round last, by its name. One that never did is not there.
    pub fn liveness(&self) -> BTreeMap<&'static str, Tick> {
        let now = self.now();
        let tick = |at: DateTime<Utc>| Tick { at, age: (now - at).to_std().unwrap_or_default() };
        self.inner.ticks.lock().iter().map(|(name, (at, _))| (*name, tick(*at))).collect()
    }

    /// Notes that the loop `name` came round.
    pub(crate) fn tick(&self, name: &'static str) {
        self.inner.ticks.note(name, self.now());
    }
}

/// Runs `sweep` now and then every `period`, until the control plane is shut down.
pub(super) fn every<F, Run>(control_plane: &ControlPlane, name: &'static str, period: Duration, sweep: F)
where
    F: Fn(ControlPlane) -> Run + Send + Sync + 'static,
    Run: Future<Output = Result<()>> + Send,
{
    let sweep = Arc::new(sweep);
    supervise(control_plane, name, move |this| {
        let sweep = Arc::clone(&sweep);
        async move {
            loop {
                if let Err(error) = sweep(this.clone()).await {
                    tracing::warn!(sweep = name, error = error.detail(), "a sweep could not finish");
                }
                this.tick(name);
                let due = Instant::now() + period;
                tokio::select! {
                    () = this.inner.stop.cancelled() => return,
                    () = tokio::time::sleep_until(due) => {}
                }
                this.inner.hearing.came_round(due, this.now());
            }
        }
    });
}

/// Runs `body` in a task of its own until it returns, beginning again after each panic. Within it, the loop says by
/// [`ControlPlane::tick`] that it came round, and ends when the control plane is shut down.
pub(super) fn supervise<F, Run>(control_plane: &ControlPlane, name: &'static str, body: F)
where
    F: Fn(ControlPlane) -> Run + Send + Sync + 'static,
    Run: Future<Output = ()> + Send,
{
    let this = control_plane.clone();
    control_plane.inner.tasks.spawn(async move {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let before = this.inner.ticks.count(name);
            let run = AssertUnwindSafe(async { body(this.clone()).await });
            let Err(panic) = run.catch_unwind().await else { return };
            if this.inner.ticks.count(name) != before {
                backoff = FIRST_BACKOFF;
            }
            tracing::error!(
                sweep = name,
                panic = panic_text(&*panic),
                again_in_ms = backoff.as_millis(),
                "a loop panicked"
            );
            tokio::select! {
                () = this.inner.stop.cancelled() => return,
                () = tokio::time::sleep(backoff) => {}
            }
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    });
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::{store::Store, testing::ManualClock};

    async fn control_plane() -> (ControlPlane, ManualClock) {
        let clock = ManualClock::default();
        let store = Store::connect("sqlite::memory:").await.unwrap();
        let control_plane = ControlPlane::builder(store).clock(Arc::new(clock.clone())).build().unwrap();
        // From here on nothing asks the store, whose own deadlines know no paused time.
        tokio::time::pause();
        (control_plane, clock)
    }

    /// The seconds between the next `count` messages.
    async fn pauses(messages: &mut mpsc::UnboundedReceiver<Instant>, count: usize) -> Vec<u64> {
        let mut before = messages.recv().await.unwrap();
        let mut pauses = Vec::new();
        for _ in 0..count {
            let at = messages.recv().await.unwrap();
            pauses.push((at - before).as_secs());
            before = at;
        }
        pauses
    }

    #[tokio::test]
    async fn a_loop_that_panics_begins_again_later_and_later() {
        let (control_plane, _) = control_plane().await;
        let (began, mut beginnings) = mpsc::unbounded_channel();
        supervise(&control_plane, "broken", move |_| {
            began.send(Instant::now()).unwrap();
            async { panic!("as asked") }
        });
        assert_eq!(pauses(&mut beginnings, 7).await, [1, 2, 4, 8, 16, 30, 30]);
        assert!(control_plane.liveness().is_empty(), "it never came round");
        assert!(control_plane.shut_down(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_loop_that_came_round_is_soon_back_after_a_panic() {
        let (control_plane, clock) = control_plane().await;
        let (began, mut beginnings) = mpsc::unbounded_channel();
        let runs = std::sync::atomic::AtomicU32::new(0);
        every(&control_plane, "now-and-then", Duration::from_secs(5), move |_| {
            let run = runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            began.send(Instant::now()).unwrap();
            async move {
                assert!(run.is_multiple_of(2), "as asked");
                Err(crate::error::Error::invalid("what fails comes round all the same"))
            }
        });
        // A run, its period, a panic, the first pause.
        assert_eq!(pauses(&mut beginnings, 6).await, [5, 1, 5, 1, 5, 1]);
        clock.advance(Duration::from_secs(90));
        let tick = control_plane.liveness()["now-and-then"];
        assert_eq!((tick.age, tick.at), (Duration::from_secs(90), control_plane.now() - tick.age));
        clock.set(tick.at - Duration::from_secs(3600));
        assert_eq!(control_plane.liveness()["now-and-then"].age, Duration::ZERO, "the clock went back");
        assert!(control_plane.shut_down(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_loop_that_returns_is_done() {
        let (control_plane, _) = control_plane().await;
        supervise(&control_plane, "once", |this| async move { this.tick("once") });
        assert!(control_plane.shut_down(Duration::from_secs(5)).await);
        assert_eq!(control_plane.inner.ticks.count("once"), 1);
    }
}
