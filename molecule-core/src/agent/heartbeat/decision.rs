//! What follows from the outcome of a beat: counts, the next delay, and a line for the log.

use std::time::Duration;

use tracing::Level;

use super::BeatOutcome;
use crate::id::WorkspaceId;

/// The longest time between two beats that no platform asked for.
pub const LONGEST_INTERVAL: Duration = Duration::from_secs(20);

/// The longest time between two beats, whatever a platform asks for: silence soon looks like death.
pub const LONGEST_ASKED: Duration = Duration::from_secs(60);

/// The longest time a rate limit is obeyed for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// The shortest time between two beats when a platform asks for one.
const SHORTEST_ASKED: Duration = Duration::from_secs(1);

/// How far delays are spread, to either side.
const JITTER: f64 = 0.1;

/// After so many rejections in a row the token counts as revoked.
const ALARM: u32 = 3;

/// After the alarm, every so many rejections are worth another line.
const ALARM_AGAIN: u32 = 20;

/// What a decision depends on beside the outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The longest time between two beats.
    pub interval: Duration,
    /// Who speaks in the log.
    pub program: Program,
    /// Whose beats they are.
    pub workspace_id: WorkspaceId,
}

/// How a program that beats calls itself and its parts in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// What the line starts with.
    pub name: &'static str,
    /// What goes on running although its token is revoked.
    pub service: &'static str,
    /// Where its token is configured.
    pub configuration: &'static str,
}

impl Program {
    /// The MCP server beside an agent.
    pub const MCP: Self = Self { name: "molecule-mcp", service: "MCP server", configuration: "MCP config" };
    /// A program that beats through the Python package.
    pub const PYTHON: Self = Self { name: "molecule", service: "agent", configuration: "agent's configuration" };
    /// The reference agent.
    pub const AGENT: Self = Self { name: "molecule agent", service: "agent", configuration: "agent's configuration" };
}

/// What is remembered from beat to beat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoopState {
    /// How many beats were accepted.
    pub accepted: u64,
    /// How many were rejected for their token, or because the workspace is gone, since the last accepted one.
    pub auth_failures: u32,
    /// How many failed otherwise since the last accepted one.
    pub other_failures: u32,
}

/// What to do after a beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What to remember.
    pub state: LoopState,
    /// How long to wait for the next beat.
    pub delay: Duration,
    /// What to say.
    pub log: Option<LogLine>,
}

/// A line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How loud.
    pub level: Level,
    /// What to say.
    pub message: String,
}

/// What follows from `outcome` for a loop in `state`; `chance`, from 0 to 1, spreads the delay.
pub fn decide(policy: &Policy, state: LoopState, outcome: &BeatOutcome, chance: f64) -> Step {
    let delay = delay(policy, outcome, chance);
    let (state, log) = match outcome {
        BeatOutcome::Ok { .. } => accepted(policy, state),
        BeatOutcome::Unauthorized(status) => rejected(policy, state, status.as_u16(), false),
        BeatOutcome::Removed(status) => rejected(policy, state, status.as_u16(), true),
        BeatOutcome::RateLimited { .. } => failed(policy, state, "HTTP 429"),
        BeatOutcome::ServerError(status) => failed(policy, state, &format!("HTTP {}", status.as_u16())),
        BeatOutcome::Unreachable(reason) => failed(policy, state, reason),
    };
    Step { state, delay, log }
}

fn delay(policy: &Policy, outcome: &BeatOutcome, chance: f64) -> Duration {
    match outcome {
        BeatOutcome::Ok { next_heartbeat: Some(asked) } => {
            spread_below((*asked).clamp(SHORTEST_ASKED, LONGEST_ASKED), chance)
        }
        // Coming back earlier than asked is what the limit is against, so this one is spread upwards only.
        BeatOutcome::RateLimited { retry_after: Some(asked) } => {
            (*asked).clamp(SHORTEST_ASKED, LONGEST_RETRY_AFTER).mul_f64(1.0 + JITTER * chance)
        }
        _ => spread_below(policy.interval, chance),
    }
}

/// A delay of which `longest` is the upper end: a tenth to either side of its middle, never beyond.
fn spread_below(longest: Duration, chance: f64) -> Duration {
    let middle = 1.0 / (1.0 + JITTER);
    longest.mul_f64(middle * (1.0 + JITTER * (2.0 * chance - 1.0))).min(longest)
}

fn accepted(policy: &Policy, state: LoopState) -> (LoopState, Option<LogLine>) {
    let failures = state.auth_failures.saturating_add(state.other_failures);
    let name = policy.program.name;
    let log = match (state.accepted, failures) {
        (_, 1..) => line(Level::INFO, format!("{name}: heartbeat accepted again after {failures} failures")),
        (0, 0) => line(Level::INFO, format!("{name}: first heartbeat accepted")),
        _ => None,
    };
    (LoopState { accepted: state.accepted.saturating_add(1), auth_failures: 0, other_failures: 0 }, log)
}

fn rejected(policy: &Policy, state: LoopState, code: u16, removed: bool) -> (LoopState, Option<LogLine>) {
    let failures = state.auth_failures.saturating_add(1);
    let Program { name, service, configuration } = policy.program;
    let id = policy.workspace_id;
    let log = if failures < ALARM {
        let why = if removed {
            format!("workspace {id} may have been removed. Will retry; if persistent, create it anew from canvas.")
        } else {
            "token may be revoked. Will retry; if persistent, regenerate from canvas → Tokens.".to_owned()
        };
        line(Level::WARN, format!("{name}: heartbeat HTTP {code} (auth failure {failures}/{ALARM}) — {why}"))
    } else if (failures - ALARM).is_multiple_of(ALARM_AGAIN) {
        let why = if removed {
            format!("workspace {id} was REMOVED on the platform.")
        } else {
            format!(
                "the token in MOLECULE_WORKSPACE_TOKEN has been REVOKED, likely because workspace {id} was deleted \
                 server-side."
            )
        };
        line(
            Level::ERROR,
            format!(
                "{name}: {failures} consecutive heartbeat auth failures (HTTP {code}) — {why} The {service} is still \
                 running but every platform call will fail. Regenerate the workspace + token from the canvas (Tokens \
                 tab), update your {configuration}, and restart your runtime."
            ),
        )
    } else {
        None
    };
    (LoopState { auth_failures: failures, ..state }, log)
}

fn failed(policy: &Policy, state: LoopState, why: &str) -> (LoopState, Option<LogLine>) {
    let failures = state.other_failures.saturating_add(1);
    let level = if failures <= 3 || failures.is_multiple_of(10) { Level::WARN } else { Level::DEBUG };
    let message = format!("{}: heartbeat failed ({failures} in a row): {why}", policy.program.name);
    (LoopState { other_failures: failures, ..state }, line(level, message))
}

fn line(level: Level, message: String) -> Option<LogLine> {
    Some(LogLine { level, message })
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    const ID: &str = "6f9619ff-8b86-d011-b42d-00cf4fc964ff";

    fn policy() -> Policy {
        Policy { interval: LONGEST_INTERVAL, program: Program::MCP, workspace_id: ID.parse().unwrap() }
    }

    fn ok() -> BeatOutcome {
        BeatOutcome::Ok { next_heartbeat: None }
    }

    fn unauthorized() -> BeatOutcome {
        BeatOutcome::Unauthorized(StatusCode::UNAUTHORIZED)
    }

    fn step(state: LoopState, outcome: &BeatOutcome) -> Step {
        decide(&policy(), state, outcome, 0.5)
    }

    /// The level and text of each line that `outcomes` give, one after the other.
    fn lines(outcomes: impl IntoIterator<Item = BeatOutcome>) -> Vec<Option<(Level, String)>> {
        let mut state = LoopState::default();
        let lines = outcomes.into_iter().map(|outcome| {
            let step = step(state, &outcome);
            state = step.state;
            step.log.map(|line| (line.level, line.message))
        });
        lines.collect()
    }

    #[test]
    fn delays_by_outcome() {
        let seconds = Duration::from_secs;
        let asked = |s| BeatOutcome::Ok { next_heartbeat: Some(seconds(s)) };
        let limited = |s| BeatOutcome::RateLimited { retry_after: Some(seconds(s)) };
        // The outcome, then the range of the delay in seconds.
        for (outcome, shortest, longest) in [
            (ok(), 16.3, 20.0),
            (unauthorized(), 16.3, 20.0),
            (BeatOutcome::Removed(StatusCode::GONE), 16.3, 20.0),
            (BeatOutcome::ServerError(StatusCode::BAD_GATEWAY), 16.3, 20.0),
            (BeatOutcome::Unreachable("gone".into()), 16.3, 20.0),
            (BeatOutcome::RateLimited { retry_after: None }, 16.3, 20.0),
            (asked(40), 32.7, 40.0),
            (asked(3600), 49.0, 60.0),
            (BeatOutcome::Ok { next_heartbeat: Some(Duration::ZERO) }, 0.8, 1.0),
            (limited(45), 45.0, 49.5),
            (limited(0), 1.0, 1.1),
            (limited(86_400), 300.0, 330.0),
        ] {
            for chance in [0.0, 0.25, 0.5, 1.0] {
                let delay = decide(&policy(), LoopState::default(), &outcome, chance).delay.as_secs_f64();
                assert!((shortest..=longest).contains(&delay), "{outcome:?} {chance}: {delay}");
            }
        }
        let first = decide(&policy(), LoopState::default(), &ok(), 0.0).delay;
        let last = decide(&policy(), LoopState::default(), &ok(), 1.0).delay;
        assert!(last.as_secs_f64() / first.as_secs_f64() > 1.2, "a tenth to either side: {first:?} {last:?}");
    }

    #[test]
    fn rejections_are_told_at_1_2_3_23_43_and_so_on() {
        let told: Vec<(usize, Level)> = lines(vec![unauthorized(); 64])
            .into_iter()
            .enumerate()
            .filter_map(|(index, line)| line.map(|(level, _)| (index + 1, level)))
            .collect();
        assert_eq!(
            told,
            [
                (1, Level::WARN),
                (2, Level::WARN),
                (3, Level::ERROR),
                (23, Level::ERROR),
                (43, Level::ERROR),
                (63, Level::ERROR),
            ]
        );
    }

    #[test]
    fn the_texts_of_rejections() {
        let forbidden = BeatOutcome::Unauthorized(StatusCode::FORBIDDEN);
        let texts: Vec<String> =
            lines([unauthorized(), forbidden, unauthorized()]).into_iter().map(|line| line.unwrap().1).collect();
        assert_eq!(
            texts,
            [
                "molecule-mcp: heartbeat HTTP 401 (auth failure 1/3) — token may be revoked. Will retry; if persistent, \
                 regenerate from canvas → Tokens."
                    .to_owned(),
                "molecule-mcp: heartbeat HTTP 403 (auth failure 2/3) — token may be revoked. Will retry; if persistent, \
                 regenerate from canvas → Tokens."
                    .to_owned(),
                format!(
                    "molecule-mcp: 3 consecutive heartbeat auth failures (HTTP 401) — the token in \
                     MOLECULE_WORKSPACE_TOKEN has been REVOKED, likely because workspace {ID} was deleted server-side. \
                     The MCP server is still running but every platform call will fail. Regenerate the workspace + \
                     token from the canvas (Tokens tab), update your MCP config, and restart your runtime."
                ),
            ]
        );
    }

    #[test]
    fn a_removed_workspace_counts_as_a_rejection_with_a_text_of_its_own() {
        for status in [StatusCode::GONE, StatusCode::NOT_FOUND] {
            let lines = lines(vec![BeatOutcome::Removed(status); 3]);
            let (level, text) = lines[0].clone().unwrap();
            assert_eq!(level, Level::WARN);
            assert!(text.contains(&format!("HTTP {}", status.as_u16())) && text.contains("removed"), "{text}");
            let (level, text) = lines[2].clone().unwrap();
            assert_eq!(level, Level::ERROR);
            assert!(text.contains(&format!("workspace {ID} was REMOVED")) && !text.contains("REVOKED"), "{text}");
        }
    }

    #[test]
    fn only_an_accepted_beat_resets_the_count_of_rejections() {
        let two = LoopState { auth_failures: 2, ..LoopState::default() };
        for outcome in [
            BeatOutcome::ServerError(StatusCode::INTERNAL_SERVER_ERROR),
            BeatOutcome::RateLimited { retry_after: None },
            BeatOutcome::Unreachable("gone".into()),
        ] {
            assert_eq!(step(two, &outcome).state.auth_failures, 2, "{outcome:?}");
        }
        assert_eq!(step(two, &unauthorized()).state.auth_failures, 3);
        assert_eq!(step(two, &ok()).state, LoopState { accepted: 1, ..LoopState::default() });
    }

    #[test]
    fn other_failures_are_told_three_times_and_then_every_tenth() {
        let gone = BeatOutcome::Unreachable("connection refused".into());
        let lines = lines(vec![gone; 21]);
        let told: Vec<usize> = lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.as_ref().is_some_and(|(level, _)| *level == Level::WARN))
            .map(|(index, _)| index + 1)
            .collect();
        assert_eq!(told, [1, 2, 3, 10, 20]);
        assert!(lines[0].as_ref().unwrap().1.contains("connection refused"));
    }

    #[test]
    fn the_first_accepted_beat_and_each_recovery_are_told_once() {
        let server_error = BeatOutcome::ServerError(StatusCode::INTERNAL_SERVER_ERROR);
        let lines = lines([ok(), ok(), unauthorized(), server_error, ok(), ok()]);
        assert_eq!(lines[0].as_ref().unwrap().1, "molecule-mcp: first heartbeat accepted");
        assert_eq!(lines[1], None);
        assert_eq!(lines[4].as_ref().unwrap().1, "molecule-mcp: heartbeat accepted again after 2 failures");
        assert_eq!(lines[5], None);
    }

    #[test]
    fn counts_do_not_overflow() {
        let full = LoopState { accepted: u64::MAX, auth_failures: u32::MAX, other_failures: u32::MAX };
        for outcome in [ok(), unauthorized(), BeatOutcome::RateLimited { retry_after: None }] {
            step(full, &outcome);
        }
    }
}
