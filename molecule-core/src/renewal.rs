//! Says again and again that work goes on, so that nobody else begins it.

use std::{convert::Infallible, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Does `work`, and beside it `renew` each time a quarter of `lease` is over, until that says that nothing is left to renew.
///
/// A renewal that hangs keeps no work waiting.
pub(crate) async fn while_renewing<T, R>(lease: Duration, renew: impl Fn() -> R, work: impl Future<Output = T>) -> T
where
    R: Future<Output = bool>,
{
    tokio::select! {
        done = work => done,
        never = renew_for_ever(lease / 4, renew) => match never {},
    }
}

async fn renew_for_ever<R: Future<Output = bool>>(every: Duration, renew: impl Fn() -> R) -> Infallible {
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !renew().await {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const LEASE: Duration = Duration::from_secs(120);

    #[tokio::test(start_paused = true)]
    async fn work_is_spoken_of_until_it_is_done_or_nothing_is_left_to_say() {
        for (last, expected) in [(u32::MAX, 9), (3, 3)] {
            let said = AtomicU32::new(0);
            let renew = || {
                let said = said.fetch_add(1, Ordering::Relaxed) + 1;
                async move { said < last }
            };
            let work = async {
                tokio::time::sleep(LEASE * 5 / 2 - Duration::from_secs(1)).await;
                "done"
            };
            assert_eq!(while_renewing(LEASE, renew, work).await, "done");
            assert_eq!(said.into_inner(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_hangs_keeps_no_work_waiting() {
        let work = async {
            for _ in 0..10 {
                tokio::time::sleep(LEASE).await;
            }
            Instant::now()
        };
        let began = Instant::now();
        let ended = while_renewing(LEASE, std::future::pending, work).await;
        assert_eq!(ended - began, LEASE * 10);
    }
}
