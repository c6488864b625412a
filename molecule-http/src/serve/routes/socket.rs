//! The live feed: one JSON text frame for each event, as it happens.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Bytes,
    extract::{
        State, WebSocketUpgrade,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket, rejection::WebSocketUpgradeRejection},
    },
    http::HeaderMap,
    response::Response,
};
use molecule_core::{
    Error,
    events::{Announcement, EventKind, ListenerEnd},
    id::WorkspaceId,
    identity::Caller,
    registry::Hierarchy,
};
use tokio::time::{Instant, MissedTickBehavior};

use super::ErrorView;
use crate::serve::{
    accept,
    error::ApiResult,
    guard::{Claimed, Received},
    listeners::{Admission, PROTOCOL, Pace, Place, WRITE_DEADLINE, Wish},
    state::AppState,
};

/// How long a listener is waited for on the way down.
const LAST_WORD_WITHIN: Duration = Duration::from_secs(1);

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
    Received(exposure): Received,
    Claimed(claimed): Claimed,
    headers: HeaderMap,
    connection: Option<Extension<accept::Place>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> ApiResult<Response> {
    let admission = Admission::new(&headers, exposure, Wish::Feed { claimed });
    let agent = match admission.admit(&app).await? {
        Caller::Operator => None,
        Caller::Workspace(id) => Some(id),
    };
    let upgrade = upgrade.map_err(|rejection| {
        Error::invalid("this route takes WebSocket connections only").with_member("detail", rejection.body_text())
    })?;
    let places = Places { _listener: app.listeners.enter(agent)?, _connection: connection };
    let upgrade = upgrade.max_message_size(INBOUND_LIMIT).max_frame_size(INBOUND_LIMIT).protocols([PROTOCOL]);
    Ok(upgrade.on_upgrade(async move |socket| {
        let sockets = app.sockets.clone();
        sockets.track_future(serve(app, agent, admission, places, socket)).await;
    }))
}

async fn serve(
    app: AppState,
    agent: Option<WorkspaceId>,
    admission: Admission,
    _places: Places,
    mut socket: WebSocket,
) {
    let counted = Counted::new(&app);
    let why = feed(&app, agent, &admission, &mut socket).await;
    drop(counted);
    if let Some((code, reason)) = why {
        let frame = CloseFrame { code, reason: reason.into() };
        let farewell = async {
            // Until it answers: one that has much to read yet would lose the end of it with the connection.
            if socket.send(Message::Close(Some(frame))).await.is_ok() {
                while let Some(Ok(_)) = socket.recv().await {}
            }
        };
        let within = if code == GOING_AWAY { LAST_WORD_WITHIN } else { WRITE_DEADLINE };
        // The peer may be gone; there is nobody left to tell.
        let _ = tokio::time::timeout(within, farewell).await;
    }
}

/// What is taken as long as the socket is open.
struct Places {
    _listener: Place,
    _connection: Option<Extension<accept::Place>>,
}

/// One more in the metrics, however it ends.
struct Counted<'a>(&'a AppState);

impl<'a> Counted<'a> {
    fn new(app: &'a AppState) -> Self {
        app.metrics.websockets.inc();
        Self(app)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.metrics.websockets.dec();
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
    let Pace { ping, recheck, longest_silence, .. } = app.listeners.pace;
    let mut ping = tokio::time::interval(ping);
    // It was looked at just now.
    let mut recheck = tokio::time::interval_at(Instant::now() + recheck, recheck);
    for ticks in [&mut ping, &mut recheck] {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut last_word = Instant::now();
    loop {
        let mut removed = false;
        let message = tokio::select! {
            () = app.stop.cancelled() => return Some((GOING_AWAY, "the server goes down")),
            _ = ping.tick() => Message::Ping(Bytes::new()),
            () = tokio::time::sleep_until(last_word + longest_silence) => return None,
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
                    // Not copied, however many listen; JSON is always text.
                    Message::Text(Utf8Bytes::try_from(announcement.frame.clone()).unwrap_or_default())
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

/// Which workspaces an agent may hear of, as the fleet was a moment ago.
#[derive(Debug, Default)]
struct Allowed {
    hierarchy: Option<Arc<Hierarchy>>,
    /// Those that came since.
    newcomers: HashMap<WorkspaceId, bool>,
}

impl Allowed {
    async fn may_hear(&mut self, app: &AppState, agent: Option<WorkspaceId>, announcement: &Announcement) -> bool {
        let Some(agent) = agent else { return true };
        let Some(subject) = announcement.event.workspace_id else { return false };
        let core = &app.control_plane;
        if announcement.event.kind == EventKind::WorkspaceRemoved {
            // Who heard of it until now hears of its end: its row may be gone already.
            let known = self.hierarchy.as_ref().and_then(|hierarchy| hierarchy.can_communicate(agent, subject));
            return known == Some(true) || core.could_communicate(agent, subject).await.unwrap_or(false);
        }
        // A store that is away tells nobody anything.
        let Ok(hierarchy) = self.current(app).await else { return false };
        if let Some(answer) = hierarchy.can_communicate(agent, subject) {
            return answer;
        }
        if let Some(answer) = self.newcomers.get(&subject) {
            return *answer;
        }
        let answer = core.can_communicate(agent, subject).await.unwrap_or(false);
        self.newcomers.insert(subject, answer);
        answer
    }

    async fn current(&mut self, app: &AppState) -> Result<Arc<Hierarchy>, Error> {
        if let Some(hierarchy) = self.hierarchy.as_ref().filter(|hierarchy| !hierarchy.is_old()) {
            return Ok(Arc::clone(hierarchy));
        }
        let hierarchy = app.control_plane.hierarchy().await?;
        self.newcomers.clear();
        self.hierarchy = Some(Arc::clone(&hierarchy));
        Ok(hierarchy)
    }
}
