//! The loop that keeps a workspace alive in the eyes of its platform.
//!
//! [`decide`] says what follows from the outcome of a beat; [`HeartbeatLoop`] carries it out and never ends by
//! itself.

mod beat;
mod decision;
mod thread;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tracing::Level;

pub use self::{
    beat::{Beat, BeatOutcome, RuntimeMetadata},
    decision::{LONGEST_ASKED, LONGEST_INTERVAL, LogLine, LoopState, Policy, Program, Step, decide},
    thread::Beating,
};
use super::PlatformClient;
use crate::{clock::Entropy, id::WorkspaceId};

/// How long the platform is left alone after an answer, at least.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// How the loop is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoopStatus {
    /// The counts that decisions are made from.
    pub state: LoopState,
    /// What came of the last beat; `None` before the first one.
    pub last: Option<BeatOutcome>,
}

/// Beats for one workspace.
#[derive(Debug)]
pub struct HeartbeatLoop {
    client: PlatformClient,
    policy: Policy,
    entropy: Arc<dyn Entropy>,
    status: watch::Sender<LoopStatus>,
}

impl HeartbeatLoop {
    /// A loop that beats through `client` and speaks in its logs as `program`; `entropy` spreads the beats of many
    /// agents over time.
    pub fn new(client: PlatformClient, program: Program, entropy: Arc<dyn Entropy>) -> Self {
        let policy = Policy { interval: LONGEST_INTERVAL, program, workspace_id: *client.workspace_id() };
        Self { client, policy, entropy, status: watch::Sender::default() }
    }

    /// Beats every `interval`, of at most [`LONGEST_INTERVAL`].
    #[must_use]
    pub fn every(mut self, interval: Duration) -> Self {
        self.policy.interval = interval.min(LONGEST_INTERVAL);
        self
    }

    /// Follows how the loop is doing.
    pub fn status(&self) -> watch::Receiver<LoopStatus> {
        self.status.subscribe()
    }

    /// Beats, the first time at once, until `stop` is done.
    ///
    /// `beat` is asked for the whole body each time: what is left out is wiped on the platform, so one owner in a
    /// process says everything. When it panics, the body before is sent again.
    pub async fn run(self, mut beat: impl FnMut() -> Beat + Send, stop: impl Future<Output = ()> + Send) {
        let mut last = Beat::default();
        let Self { client, policy, entropy, status } = self;
        let send = move || {
            match catch_unwind(AssertUnwindSafe(&mut beat)) {
                Ok(beat) => last = beat,
                Err(_) => {
                    tracing::error!("what a heartbeat should say could not be found out; the last one is repeated")
                }
            }
            let (client, beat) = (client.clone(), last.clone());
            async move { client.heartbeat(&beat).await }
        };
        drive(send, &policy, entropy.as_ref(), &status, stop).await;
    }
}

async fn drive<S, F>(
    mut send: S,
    policy: &Policy,
    entropy: &dyn Entropy,
    status: &watch::Sender<LoopStatus>,
    stop: impl Future<Output = ()> + Send,
) where
    S: FnMut() -> F + Send,
    F: Future<Output = BeatOutcome> + Send,
{
    let mut stop = pin!(stop);
    let mut state = LoopState::default();
    loop {
        let sent = Instant::now();
        let outcome = tokio::select! {
            outcome = send() => outcome,
            () = &mut stop => return,
        };
        let step = decide(policy, state, &outcome, fraction(entropy));
        state = step.state;
        if let Some(line) = step.log {
            log(&line, &policy.workspace_id);
        }
        // A platform that takes its time must not make the beats rarer; how long to stay away counts from its answer.
        let next = match outcome {
            BeatOutcome::RateLimited { .. } => Instant::now() + step.delay,
            _ => (sent + step.delay).max(Instant::now() + step.delay.min(SHORTEST_PAUSE)),
        };
        status.send_replace(LoopStatus { state, last: Some(outcome) });
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = &mut stop => return,
        }
    }
}

/// A number from 0 to 1.
fn fraction(entropy: &dyn Entropy) -> f64 {
    let mut bytes = [0; 4];
    entropy.fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

/// The level of a `tracing` event must be constant, hence one arm each.
fn log(line: &LogLine, workspace_id: &WorkspaceId) {
    let message = &line.message;
    match line.level {
        Level::ERROR => tracing::error!(workspace.id = %workspace_id, "{message}"),
        Level::WARN => tracing::warn!(workspace.id = %workspace_id, "{message}"),
        Level::INFO => tracing::info!(workspace.id = %workspace_id, "{message}"),
        _ => tracing::debug!(workspace.id = %workspace_id, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, future::pending};

    use reqwest::StatusCode;
    use tokio::{
        sync::{mpsc, oneshot},
        time::timeout,
    };

    use super::*;
    use crate::{
        agent::{InboundSecret, StateDir, TokenStore},
        http_client::Way,
    };

    /// Always the longest delay, so that it can be foretold.
    #[derive(Debug)]
    struct Highest;

    impl Entropy for Highest {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0xff);
        }
    }

    fn policy() -> Policy {
        let id = "6f9619ff-8b86-d011-b42d-00cf4fc964ff".parse().unwrap();
        Policy { interval: Duration::from_secs(20), program: Program::AGENT, workspace_id: id }
    }

    #[tokio::test(start_paused = true)]
    async fn beats_at_once_goes_on_through_every_failure_and_stops_when_told() {
        let (stop, stopped) = oneshot::channel::<()>();
        let (seen, mut beats) = mpsc::unbounded_channel();
        let mut outcomes = VecDeque::from([
            BeatOutcome::Unreachable("gone".into()),
            BeatOutcome::Unauthorized(StatusCode::UNAUTHORIZED),
            BeatOutcome::RateLimited { retry_after: Some(Duration::from_secs(50)) },
            BeatOutcome::Removed(StatusCode::GONE),
            BeatOutcome::Ok { next_heartbeat: Some(Duration::from_secs(5)) },
        ]);
        let started = Instant::now();
        let send = move || {
            seen.send(started.elapsed().as_secs()).unwrap();
            let outcome = outcomes.pop_front().unwrap_or(BeatOutcome::Ok { next_heartbeat: None });
            async move { outcome }
        };
        let status = watch::Sender::default();
        let mut watched = status.subscribe();
        let policy = policy();
        let run = drive(send, &policy, &Highest, &status, async {
            let _ = stopped.await;
        });
        let watch = async {
            let mut at = Vec::new();
            for _ in 0..7 {
                at.push(beats.recv().await.unwrap());
            }
            watched.wait_for(|status| status.state.accepted == 3).await.unwrap();
            stop.send(()).unwrap();
            at
        };
        let (at, ()) = timeout(Duration::from_secs(600), async { tokio::join!(watch, run) }).await.unwrap();
        assert_eq!(at, [0, 20, 40, 95, 115, 120, 140]);
        assert_eq!(watched.borrow().state.auth_failures, 0);
        assert_eq!(watched.borrow().last, Some(BeatOutcome::Ok { next_heartbeat: None }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_platform_that_takes_its_time_does_not_make_beats_rarer() {
        let (seen, mut beats) = mpsc::unbounded_channel();
        let mut lasts = VecDeque::from([8, 25, 0].map(Duration::from_secs));
        let started = Instant::now();
        let send = move || {
            seen.send(started.elapsed().as_secs()).unwrap();
            let lasts = lasts.pop_front().unwrap_or_default();
            async move {
                tokio::time::sleep(lasts).await;
                BeatOutcome::Ok { next_heartbeat: None }
            }
        };
        let (status, policy) = (watch::Sender::default(), policy());
        let four = async {
            for expected in [0, 20, 46, 66] {
                assert_eq!(beats.recv().await, Some(expected));
            }
        };
        drive(send, &policy, &Highest, &status, four).await;
    }

    #[tokio::test]
    async fn stops_in_the_middle_of_a_beat() {
        let status = watch::Sender::default();
        drive(pending::<BeatOutcome>, &policy(), &Highest, &status, async {}).await;
        assert_eq!(*status.borrow(), LoopStatus::default());
    }

    #[tokio::test]
    async fn a_panic_in_the_body_does_not_end_the_loop() {
        let root = tempfile::tempdir().unwrap();
        let folder = StateDir::resolve(Some(root.path()), None).unwrap();
        let client = PlatformClient::new(
            "http://127.0.0.1:9".parse().unwrap(),
            policy().workspace_id,
            TokenStore::file_first(&folder, None),
            InboundSecret::new(&folder),
            &Way::default(),
        )
        .unwrap();
        let beats = HeartbeatLoop::new(client, Program::AGENT, Arc::new(Highest)).every(Duration::from_millis(1));
        let mut status = beats.status();
        let twice = async move {
            status.wait_for(|status| status.state.other_failures >= 2).await.unwrap();
        };
        timeout(Duration::from_secs(10), beats.run(|| panic!("a broken probe"), twice)).await.unwrap();
    }
}
