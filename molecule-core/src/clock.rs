//! Time and chance, as parameters: nothing else in the library asks the system for either.

use std::{
    fmt::Debug,
    sync::OnceLock,
    time::{Duration, Instant},
};

use chrono::{DateTime, SubsecRound, Utc};
use uuid::Uuid;

/// Tells the time of day.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Now, cut to microseconds: what every store keeps.
    fn now(&self) -> DateTime<Utc>;

    /// How long this clock has been running. Nobody can set it: it tells when the time of day was.
    fn uptime(&self) -> Duration;
}

/// The clock of this host.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
    fn now(&self) -> DateTime<Utc> {
        to_micros(Utc::now())
    }

    fn uptime(&self) -> Duration {
        static BEGAN: OnceLock<Instant> = OnceLock::new();
        BEGAN.get_or_init(Instant::now).elapsed()
    }
}

/// Cuts `time` to whole microseconds.
pub fn to_micros(time: DateTime<Utc>) -> DateTime<Utc> {
    time.trunc_subsecs(6)
}

/// A source of randomness fit for secrets.
pub trait Entropy: Debug + Send + Sync + 'static {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// The randomness of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system has no randomness to give; nothing can go on safely");
    }
}

/// A random (version 4) UUID from `entropy`.
pub fn random_uuid(entropy: &dyn Entropy) -> Uuid {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}
