//! The live feed: one JSON text frame for each event, as it happens.

use std::{collections::HashMap, time::Duration};

use axum::{
    body::Bytes,
    extract::{
        State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, rejection::WebSocketUpgradeRejection},
    },
    http::HeaderMap,
    response::Response,
};
use molecule_core::{
    Error,
    events::{Announcement, EventKind, ListenerEnd},
    id::WorkspaceId,
    identity::Caller,
};
use tokio::time::{Instant, MissedTickBehavior};

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{Claimed, Presented},
    listeners::{Admission, PROTOCOL, Place, RECHECK_EVERY, Wish},
    state::AppState,
};

/// How often a listener is asked whether it lives, and how long it may say nothing.
const PING_EVERY: Duration = Duration::from_secs(30);
const LONGEST_SILENCE: Duration = Duration::from_secs(75);

/// How long one frame may take to leave.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// How long an answer to "may this agent hear of that workspace" holds.
const ACCESS_HOLDS: Duration = Duration::from_secs(5);

/// Listeners say nothing that matters.
const INBOUND_LIMIT: usize = 4096;

/// Close codes of RFC 6455.
const GOING_AWAY: u16 = 1001;
const POLICY_VIOLATION: u16 = 1008;
const TRY_AGAIN_LATER: u16 = 1013;

/// Sends every event to the operator, or to an agent those of the workspaces it may talk to.
#[utoipa::path(get, path = "/ws", tag = "events",
    params(("X-Workspace-ID" = Option<String>, Header)),
    responses((status = 101), (status = 400), (status = 401, body = ErrorView), (status = 429, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn connect(
    State(app): State<AppState>,
    presented: Presented,
    Claimed(claimed): Claimed,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> ApiResult<Response> {
    let admission = Admission::new(&headers, presented.exposure, Wish::Feed { claimed });
    let agent = match admission.admit(&app).await? {
        Caller::Operator => None,
        Caller::Workspace(id) => Some(id),
    };
    let upgrade = upgrade.map_err(|rejection| {
        Error::invalid("this route takes WebSocket connections only").with_member("detail", rejection.body_text())
    })?;
    let place = app.listeners.enter(agent)?;
    let upgrade = upgrade.max_message_size(INBOUND_LIMIT).max_frame_size(INBOUND_LIMIT).protocols([PROTOCOL]);
    Ok(upgrade.on_upgrade(async move |socket| {
        let sockets = app.sockets.clone();
        sockets.track_future(serve(app, agent, admission, place, socket)).await;
    }))
}

async fn serve(app: AppState, agent: Option<WorkspaceId>, admission: Admission, _place: Place, mut socket: WebSocket) {
    app.metrics.websockets.inc();
    let why = feed(&app, agent, &admission, &mut socket).await;
    app.metrics.websockets.dec();
    if let Some((code, reason)) = why {
        let frame = CloseFrame { code, reason: reason.into() };
        // The peer may be gone; there is nobody left to tell.
        let _ = tokio::time::timeout(WRITE_DEADLINE, socket.send(Message::Close(Some(frame)))).await;
    }
}

/// Feeds the listener until one side ends it. Gives what to tell the peer, if it is still there.
async fn feed(
    app: &AppState,
    agent: Option<WorkspaceId>,
    admission: &Admission,
    socket: &mut WebSocket,
) -> Option<(u16, &'static str)> {
    let mut listener = app.control_plane.listen();
    let mut allowed = Allowed::default();
    let mut ping = tokio::time::interval(PING_EVERY);
    let mut recheck = tokio::time::interval(RECHECK_EVERY);
    for ticks in [&mut ping, &mut recheck] {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut last_word = Instant::now();
    loop {
        let mut removed = false;
        let message = tokio::select! {
            () = app.stop.cancelled() => return Some((GOING_AWAY, "the server goes down")),
            _ = ping.tick() => {
                if last_word.elapsed() > LONGEST_SILENCE {
                    return None;
                }
                Message::Ping(Bytes::new())
            }
            _ = recheck.tick() => {
                if admission.holds(app).await {
                    continue;
                }
                return Some((POLICY_VIOLATION, "the credential is worth nothing any more"));
            }
            inbound = socket.recv() => match inbound {
                Some(Ok(_)) => {
                    last_word = Instant::now();
                    continue;
                }
                Some(Err(_)) | None => return None,
            },
            heard = listener.next() => match heard {
                Ok(announcement) if allowed.may_hear(app, agent, &announcement).await => {
                    let event = &announcement.event;
                    removed = agent.is_some() && event.workspace_id == agent && event.kind == EventKind::WorkspaceRemoved;
                    Message::Text(announcement.frame.as_ref().into())
                }
                Ok(_) => continue,
                Err(ListenerEnd::FellBehind) => return Some((TRY_AGAIN_LATER, "fell behind; read the state anew")),
                Err(ListenerEnd::Closed) => return Some((GOING_AWAY, "the server goes down")),
            },
        };
        if !matches!(tokio::time::timeout(WRITE_DEADLINE, socket.send(message)).await, Ok(Ok(()))) {
            return None;
        }
        if removed {
            return Some((POLICY_VIOLATION, "the workspace was removed"));
        }
    }
}

/// Remembers for a moment which workspaces an agent may hear of.
#[derive(Debug, Default)]
struct Allowed {
    answers: HashMap<WorkspaceId, (Instant, bool)>,
}

impl Allowed {
    async fn may_hear(&mut self, app: &AppState, agent: Option<WorkspaceId>, announcement: &Announcement) -> bool {
        let Some(agent) = agent else { return true };
        let Some(subject) = announcement.event.workspace_id else { return false };
        if let Some((since, answer)) = self.answers.get(&subject)
            && since.elapsed() < ACCESS_HOLDS
        {
            return *answer;
        }
        self.answers.retain(|_, (since, _)| since.elapsed() < ACCESS_HOLDS);
        // A store that is away tells nobody anything.
        let answer = app.control_plane.can_communicate(agent, subject).await.unwrap_or(false);
        self.answers.insert(subject, (Instant::now(), answer));
        answer
    }
}
