//! What happens to one workspace, as server-sent events.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use molecule_core::{
    ErrorKind,
    events::{Announcement, EventKind, EventListener},
    id::{EventId, WorkspaceId},
};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{Id, Received},
    listeners::{Admission, Place, WRITE_DEADLINE, Wish},
    state::AppState,
};

/// What a stream says now and then.
const PING: &str = ": ping\n\n";

/// How many pieces wait for a listener that is slow to take them.
const READ_AHEAD: usize = 16;

/// How far back a listener that comes again can begin.
const REPLAY: u32 = 100;

/// Streams what happens to the workspace. `Last-Event-ID` of a recorded event among the newest 100 brings what came after
/// it first.
#[utoipa::path(get, path = "/workspaces/{id}/events/stream", tag = "events",
    params(("id" = uuid::Uuid, Path), ("Last-Event-ID" = Option<String>, Header)),
    responses((status = 200, content_type = "text/event-stream"), (status = 400, body = ErrorView),
        (status = 401, body = ErrorView), (status = 404, body = ErrorView), (status = 429, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn stream(
    State(app): State<AppState>,
    Id(id): Id,
    Received(exposure): Received,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let admission = Admission::new(&headers, exposure, Wish::Workspace(id));
    admission.admit(&app).await?;
    app.control_plane.existing(id).await.map_err(|error| match error.kind() {
        ErrorKind::Removed => molecule_core::Error::not_found("workspace not found"),
        ErrorKind::Unexpected => error.with_message("failed to verify workspace"),
        _ => error,
    })?;
    let place = app.listeners.enter(Some(id))?;
    // Before the log is read, so that nothing falls between the two.
    let listener = app.control_plane.listen();
    let (mut waiting, told) = replay(&app, id, &headers).await?;
    waiting.push_front(PING.to_owned());
    let every = |period: Duration| {
        let mut ticks = interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let (ping, recheck) = (every(app.listeners.pace.stream_ping), every(app.listeners.pace.recheck));
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let sockets = app.sockets.clone();
    let feed = Feed { app, id, admission, _place: place, listener, ping, recheck, waiting, told, over: false };
    sockets.spawn(feed.drive(sender));
    let body = Body::from_stream(stream::unfold(receiver, |mut receiver| async move {
        let text = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), receiver))
    }));
    Ok(event_stream(body))
}

/// `body` as a stream of events that nothing on its way keeps back.
pub(crate) fn event_stream(body: Body) -> Response {
    let fixed = |text| HeaderValue::from_static(text);
    let headers = [
        (header::CONTENT_TYPE, fixed("text/event-stream")),
        (header::CACHE_CONTROL, fixed("no-cache")),
        (header::CONNECTION, fixed("keep-alive")),
        (header::HeaderName::from_static("x-accel-buffering"), fixed("no")),
    ];
    (headers, body).into_response()
}

/// What the listener missed since it was here, oldest first, and the ids of that.
async fn replay(
    app: &AppState,
    id: WorkspaceId,
    headers: &HeaderMap,
) -> ApiResult<(VecDeque<String>, HashSet<EventId>)> {
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.trim().parse::<EventId>().ok());
    let Some(last) = last else { return Ok(Default::default()) };
    let newest = app.control_plane.events(Some(id), REPLAY).await?;
    let Some(known) = newest.iter().position(|event| event.id == last) else { return Ok(Default::default()) };
    let missed = newest[..known].iter().rev();
    let texts = missed.clone().map(|event| {
        let payload = event.payload.as_ref().unwrap_or(&Value::Null).to_string();
        frame(Some(event.id), &event.event_type, event.created_at.timestamp_millis(), &payload)
    });
    Ok((texts.collect(), missed.map(|event| event.id).collect()))
}

/// One who listens.
struct Feed {
    app: AppState,
    id: WorkspaceId,
    admission: Admission,
    _place: Place,
    listener: EventListener,
    ping: Interval,
    recheck: Interval,
    /// What is to be told before what happens now.
    waiting: VecDeque<String>,
    /// What was told from the log, and may come again as it happens.
    told: HashSet<EventId>,
    over: bool,
}

impl Feed {
    /// Sends piece after piece, until there is no more or its listener is gone, or takes nothing any more: it must not be
    /// what keeps events in memory.
    async fn drive(mut self, sender: mpsc::Sender<String>) {
        loop {
            let text = tokio::select! {
                text = self.next() => text,
                () = sender.closed() => None,
            };
            let Some(text) = text else { return };
            if !matches!(tokio::time::timeout(WRITE_DEADLINE, sender.send(text)).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    /// The next piece of the stream; none at its end.
    async fn next(&mut self) -> Option<String> {
        loop {
            if self.over {
                return None;
            }
            tokio::select! {
                biased;
                () = self.app.stop.cancelled() => return None,
                () = std::future::ready(()), if !self.waiting.is_empty() => return self.waiting.pop_front(),
                _ = self.ping.tick() => return Some(PING.to_owned()),
                _ = self.recheck.tick() => {
                    if !self.admission.holds(&self.app).await {
                        return None;
                    }
                }
                // Whoever fell behind comes again and reads the state anew.
                heard = self.listener.next() => match heard {
                    Err(_) => return None,
                    Ok(announcement) => if let Some(text) = self.tell(&announcement) {
                        return Some(text);
                    },
                },
            }
        }
    }

    fn tell(&mut self, announcement: &Arc<Announcement>) -> Option<String> {
        let event = &announcement.event;
        if event.workspace_id != Some(self.id) || self.told.remove(&event.id) {
            return None;
        }
        self.over = event.kind == EventKind::WorkspaceRemoved;
        let id = event.kind.is_recorded().then_some(event.id);
        let payload = std::str::from_utf8(&announcement.payload).unwrap_or("null");
        Some(frame(id, event.kind.as_str(), event.created_at.timestamp_millis(), payload))
    }
}

/// The envelope around `payload`, which is JSON, with its members in the order that clients know.
fn frame(id: Option<EventId>, kind: &str, timestamp: i64, payload: &str) -> String {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    // JSON has no line breaks of its own.
    format!("{id}data: {{\"type\":{},\"timestamp\":{timestamp},\"data\":{payload}}}\n\n", json!(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_one_line_of_data() {
        let payload = json!({"text": "a\nb\r\n"}).to_string();
        assert_eq!(
            frame(None, "TASK_UPDATED", 5, &payload),
            "data: {\"type\":\"TASK_UPDATED\",\"timestamp\":5,\"data\":{\"text\":\"a\\nb\\r\\n\"}}\n\n"
        );
        let id: EventId = "00000000-0000-4000-8000-000000000001".parse().unwrap();
        assert!(frame(Some(id), "X", 0, "{}").starts_with(&format!("id: {id}\ndata: ")));
    }

    #[test]
    fn the_pieces_of_older_versions_are_still_what_is_sent() {
        let recorded: Value = serde_json::from_str(include_str!("../../../../fixtures/wire/frames.json")).unwrap();
        let pieces: Vec<_> =
            recorded["stream"].as_array().unwrap().iter().map(|piece| piece.as_str().unwrap()).collect();
        assert_eq!(format!("{}\n\n", pieces[0]), PING);
        for piece in &pieces[1..] {
            let (id, data) = piece.rsplit_once("data: ").unwrap();
            let id = id.strip_prefix("id: ").map(|id| id.trim_end().parse().unwrap());
            let sent: Value = serde_json::from_str(data).unwrap();
            let (kind, timestamp) = (sent["type"].as_str().unwrap(), sent["timestamp"].as_i64().unwrap());
            assert_eq!(frame(id, kind, timestamp, &sent["data"].to_string()), format!("{piece}\n\n"));
        }
    }
}
