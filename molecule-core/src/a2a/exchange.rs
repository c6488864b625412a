//! One exchange with an agent, as long as it shows signs of life.

use std::{
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::BytesMut;
use futures_util::StreamExt;
use reqwest::{RequestBuilder, Response, header::CONTENT_TYPE};
use tokio::time::Instant;

use super::{Answer, live::Live};
use crate::pulse::Pulse;

/// The most of an agent's answer that is carried back.
const ANSWER_LIMIT: usize = 10 * 1024 * 1024;

/// Why there is no answer.
pub(super) enum Silence {
    /// The agent could not be reached at all.
    Unreachable(reqwest::Error),
    /// The connection was made and nothing came of it in time, or it broke.
    Busy(String),
    /// The head of the answer came and its body did not.
    BodyLost { status: u16 },
}

/// What is seen of an answer before it is whole.
#[derive(Debug)]
pub(super) struct Signs {
    last: Mutex<Instant>,
    head: OnceLock<u16>,
}

impl Signs {
    pub(super) fn new() -> Self {
        Self { last: Mutex::new(Instant::now()), head: OnceLock::new() }
    }

    fn alive(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The status, once the head of the answer has come.
    pub(super) fn head(&self) -> Option<u16> {
        self.head.get().copied()
    }
}

fn is_events(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream")
}

/// Sends `request` and reads the answer. Events are passed on through `live`, where there is one, and not given back.
pub(super) async fn exchange(
    request: RequestBuilder,
    signs: &Signs,
    live: Option<&mut Live>,
) -> Result<Answer, Silence> {
    let sent = request.send().await;
    let response = sent.map_err(|error| match error.is_connect() || error.is_builder() {
        true => Silence::Unreachable(error),
        // The request may have arrived: a slow agent is not a dead one.
        false => Silence::Busy(error.without_url().to_string()),
    })?;
    let status = *signs.head.get_or_init(|| response.status().as_u16());
    signs.alive();
    let is_events = is_events(&response);
    let mut live = live.filter(|_| is_events && status < 300);
    if let Some(live) = &mut live {
        live.begin(status);
    }
    let mut body = BytesMut::new();
    let mut length = 0;
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Silence::BodyLost { status })?;
        length += chunk.len();
        if length > ANSWER_LIMIT {
            return Err(Silence::BodyLost { status });
        }
        match &mut live {
            Some(live) => live.pass(chunk).await,
            None => body.extend_from_slice(&chunk),
        }
        signs.alive();
    }
    if let Some(live) = &mut live {
        live.end().await;
    }
    Ok(Answer { status, body: body.freeze(), is_events })
}

/// Waits for `exchange` as long as the target shows signs of life, and never past `ceiling`.
pub(super) async fn within(
    exchange: impl Future<Output = Result<Answer, Silence>>,
    signs: &Signs,
    target: &Pulse,
    idle: Duration,
    ceiling: Option<Duration>,
) -> Result<Answer, Silence> {
    // Further away than the clock can count is no limit.
    let end = ceiling.and_then(|ceiling| Instant::now().checked_add(ceiling));
    let limit = || {
        let silent = target.last().map_or(signs.last(), |beat| beat.max(signs.last())) + idle;
        end.map_or(silent, |end| end.min(silent))
    };
    let mut exchange = std::pin::pin!(exchange);
    loop {
        if let Ok(outcome) = tokio::time::timeout_at(limit(), &mut exchange).await {
            return outcome;
        }
        // It may have shown some meanwhile.
        if limit() <= Instant::now() {
            return Err(Silence::Busy("no answer in time".to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::Value;

    use super::*;
    use crate::{
        clock::{SystemEntropy, random_uuid},
        events::{Event, EventHub, EventKind},
        id::{EventId, WorkspaceId},
    };

    const IDLE: Duration = Duration::from_secs(300);
    const MINUTE: Duration = Duration::from_secs(60);

    /// How long an agent that answers after nine minutes is waited for, with an event of `of` every minute.
    async fn waited(of: WorkspaceId, target: WorkspaceId, ceiling: Option<Duration>) -> (bool, Duration) {
        let (hub, began, signs) = (EventHub::new(), Instant::now(), Signs::new());
        let slow = async {
            tokio::time::sleep(9 * MINUTE).await;
            Ok(Answer { status: 200, body: Bytes::new(), is_events: false })
        };
        let pulse = hub.watch(target);
        let waiting = within(slow, &signs, &pulse, IDLE, ceiling);
        let beats = async {
            loop {
                tokio::time::sleep(MINUTE).await;
                hub.announce(Event {
                    id: EventId::from_uuid(random_uuid(&SystemEntropy)),
                    kind: EventKind::WorkspaceHeartbeat,
                    workspace_id: Some(of),
                    payload: Value::Null,
                    created_at: chrono::DateTime::UNIX_EPOCH,
                });
            }
        };
        tokio::select! {
            outcome = waiting => (outcome.is_ok(), began.elapsed()),
            () = beats => unreachable!("it goes on for ever"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_may_think_as_long_as_it_beats() {
        let id = || WorkspaceId::from_uuid(random_uuid(&SystemEntropy));
        let (target, other) = (id(), id());
        let rows = [
            // Who beats, how long the whole may take, whether there is an answer, and after how many minutes.
            (target, None, true, 9),
            (target, Some(30 * MINUTE), true, 9),
            (target, Some(8 * MINUTE), false, 8),
            (other, None, false, 5),
        ];
        for (of, ceiling, answered, minutes) in rows {
            let (is_answered, took) = waited(of, target, ceiling).await;
            assert_eq!((is_answered, took.as_secs() / 60), (answered, minutes), "{ceiling:?}");
        }
    }
}
