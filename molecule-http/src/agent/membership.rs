//! Becoming known to the platform, however long it takes.

use std::time::Duration;

use molecule_core::{
    agent::{AgentCard, Delivery, PlatformClient, RegisterOutcome},
    clock::Entropy,
};
use tokio_util::sync::CancellationToken;

/// The first pause between two tries; each one after is twice as long.
const SHORTEST: Duration = Duration::from_millis(500);

/// The longest of those pauses, and the only one after a rejection, which no hurry can turn.
const LONGEST: Duration = Duration::from_secs(30);

/// The longest time a rate limit is obeyed for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Registers `card` at `url` until the platform accepts it; false when `stop` came first.
pub(super) async fn join(
    client: &PlatformClient,
    card: &AgentCard,
    url: String,
    entropy: &dyn Entropy,
    stop: &CancellationToken,
) -> bool {
    let delivery = Delivery::Push { url };
    let mut tries = 0;
    loop {
        let Some(outcome) = stop.run_until_cancelled(client.register(card, &delivery)).await else { return false };
        let Some(pause) = pause(&outcome, tries, chance(entropy)) else {
            tracing::info!(workspace.id = %client.workspace_id(), "registered with the platform");
            return true;
        };
        tries = tries.saturating_add(1);
        tracing::warn!(
            workspace.id = %client.workspace_id(),
            retry_ms = pause.as_millis(),
            "registration failed: {outcome}"
        );
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return false;
        }
    }
}

/// How long to wait after `outcome`, when `tries` came before it; `None` when nothing is left to do.
///
/// `chance`, from 0 to 1, spreads agents that all lost their platform at once.
fn pause(outcome: &RegisterOutcome, tries: u32, chance: f64) -> Option<Duration> {
    let pause = match outcome {
        RegisterOutcome::Accepted { .. } => return None,
        RegisterOutcome::Unauthorized(_) | RegisterOutcome::Removed(_) => LONGEST,
        RegisterOutcome::RateLimited { retry_after: Some(asked) } => (*asked).clamp(SHORTEST, LONGEST_RETRY_AFTER),
        _ => SHORTEST.saturating_mul(2_u32.saturating_pow(tries)).min(LONGEST),
    };
    Some(pause.mul_f64(1.0 + 0.1 * chance))
}

fn chance(entropy: &dyn Entropy) -> f64 {
    let mut byte = [0];
    entropy.fill(&mut byte);
    f64::from(byte[0]) / f64::from(u8::MAX)
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    #[test]
    fn pauses_by_outcome_and_try() {
        let limited = |seconds| RegisterOutcome::RateLimited { retry_after: Some(Duration::from_secs(seconds)) };
        let gone = RegisterOutcome::Unreachable("gone".into());
        let refused = RegisterOutcome::Refused { status: StatusCode::BAD_REQUEST, message: String::new() };
        for (outcome, tries, milliseconds) in [
            (RegisterOutcome::Accepted { delivery_mode: None }, 0, None),
            (gone.clone(), 0, Some(500)),
            (gone.clone(), 1, Some(1_000)),
            (gone.clone(), 6, Some(30_000)),
            (gone, u32::MAX, Some(30_000)),
            (RegisterOutcome::NotAPlatform, 0, Some(500)),
            (RegisterOutcome::ServerError(StatusCode::BAD_GATEWAY), 2, Some(2_000)),
            (refused, 0, Some(500)),
            (RegisterOutcome::Unauthorized(StatusCode::UNAUTHORIZED), 0, Some(30_000)),
            (RegisterOutcome::Removed(StatusCode::GONE), 9, Some(30_000)),
            (RegisterOutcome::RateLimited { retry_after: None }, 0, Some(500)),
            (limited(7), 5, Some(7_000)),
            (limited(0), 0, Some(500)),
            (limited(86_400), 0, Some(300_000)),
        ] {
            let expected = milliseconds.map(Duration::from_millis);
            assert_eq!(pause(&outcome, tries, 0.0), expected, "{outcome:?} {tries}");
            let spread = expected.map(|pause| pause.mul_f64(1.1));
            assert_eq!(pause(&outcome, tries, 1.0), spread, "{outcome:?} {tries}");
        }
    }
}
