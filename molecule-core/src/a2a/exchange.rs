//! One exchange with an agent, as long as it shows signs of life.

use std::{sync::OnceLock, time::Duration};

use bytes::BytesMut;
use futures_util::StreamExt;
use tokio::time::Instant;

use super::Answer;
use crate::{
    events::{EventListener, ListenerEnd},
    id::WorkspaceId,
};

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

/// Posts `body` and reads the answer. `head` is set once its first line has come.
pub(super) async fn exchange(
    client: &reqwest::Client,
    url: &str,
    body: Vec<u8>,
    head: &OnceLock<u16>,
) -> Result<Answer, Silence> {
    let sent = client.post(url).header(reqwest::header::CONTENT_TYPE, "application/json").body(body).send().await;
    let response = sent.map_err(|error| match error.is_connect() || error.is_builder() {
        true => Silence::Unreachable(error),
        // The request may have arrived: a slow agent is not a dead one.
        false => Silence::Busy(error.without_url().to_string()),
    })?;
    let status = *head.get_or_init(|| response.status().as_u16());
    let mut body = BytesMut::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Silence::BodyLost { status })?;
        if body.len() + chunk.len() > ANSWER_LIMIT {
            return Err(Silence::BodyLost { status });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, body: body.freeze() })
}

/// Waits for `exchange` as long as the target shows signs of life, and never past `ceiling`.
pub(super) async fn within(
    exchange: impl Future<Output = Result<Answer, Silence>>,
    mut listener: EventListener,
    target: WorkspaceId,
    idle: Duration,
    ceiling: Option<Duration>,
) -> Result<Answer, Silence> {
    // Further away than the clock can count is no limit.
    let end = ceiling.and_then(|ceiling| Instant::now().checked_add(ceiling));
    let mut last_sign = Instant::now();
    let mut exchange = std::pin::pin!(exchange);
    loop {
        let limit = end.map_or(last_sign + idle, |end| end.min(last_sign + idle));
        tokio::select! {
            outcome = &mut exchange => return outcome,
            () = tokio::time::sleep_until(limit) => {
                return Err(Silence::Busy("no answer in time".to_owned()));
            }
            heard = listener.next() => match heard {
                Ok(announcement) if announcement.event.workspace_id != Some(target) => {}
                // What was lost may have been a sign of life.
                Ok(_) | Err(ListenerEnd::FellBehind) => last_sign = Instant::now(),
                Err(ListenerEnd::Closed) => return exchange.await,
            },
        }
    }
}
