//! The messages that wait for the agent: a queue that loses none, also over a restart.
//!
//! What was read from the log of the platform stays here until it is popped. The cursor that is kept on disk stands before
//! the oldest row that is still wanted, so that a process that dies reads it again.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::{
    agent::{StateDir, secret_file::SecretFile},
    id::WorkspaceId,
    tools::reply::parts,
};

/// How many messages wait at most; more stay with the platform until there is room.
pub(super) const CAPACITY: usize = 200;

/// How many rows are known again when they come once more.
const KNOWN: usize = 1000;

/// The cursor of a workspace that no message came to before its inbox was first read. No row has this id.
const START: &str = "start";

/// Where to read on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Position {
    /// Nothing was ever read.
    Unknown,
    /// Nothing lies before what is to be read.
    Start,
    /// Behind the row of this id.
    After(String),
}

impl Position {
    fn cursor(&self) -> Option<&str> {
        match self {
            Self::Unknown => None,
            Self::Start => Some(START),
            Self::After(id) => Some(id),
        }
    }

    fn of(cursor: Option<&str>) -> Self {
        match cursor {
            None => Self::Unknown,
            Some(START) => Self::Start,
            Some(id) => Self::After(id.to_owned()),
        }
    }
}

/// One message, as tools and notifications show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Message {
    pub(super) activity_id: String,
    pub(super) text: String,
    /// The workspace it is from; empty when it is from the user.
    pub(super) peer_id: String,
    /// `canvas_user` or `peer_agent`.
    pub(super) kind: &'static str,
    pub(super) method: String,
    pub(super) created_at: String,
}

/// The messages of one workspace. A clone is a handle on the same ones.
#[derive(Debug, Clone)]
pub(super) struct Inbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: SecretFile,
    state: Mutex<State>,
    arrived: watch::Sender<()>,
    news: mpsc::UnboundedSender<Message>,
}

#[derive(Debug)]
struct State {
    /// The rows that were read and lie behind the cursor on disk; without a message once there is nothing to do about it.
    rows: VecDeque<(String, Option<Message>)>,
    /// The ids of the last rows that were read.
    known: VecDeque<String>,
    /// Behind the last row that was read.
    read: Position,
    /// Before the first of `rows`, as it is on disk.
    kept: Position,
}

impl Inbox {
    /// The inbox whose cursor is kept in `folder`, and what arrives in it from now on.
    pub(super) fn open(folder: &StateDir) -> (Self, mpsc::UnboundedReceiver<Message>) {
        let file = folder.inbox_cursor();
        let kept = match file.read() {
            Ok(cursor) => cursor.map(|cursor| secrecy::ExposeSecret::expose_secret(&cursor).to_owned()),
            Err(error) => {
                tracing::warn!(error = error.detail(), "the cursor of the inbox cannot be read; it begins anew");
                None
            }
        };
        let (news, receiver) = mpsc::unbounded_channel();
        let kept = Position::of(kept.as_deref());
        let state = State { rows: VecDeque::new(), known: VecDeque::new(), read: kept.clone(), kept };
        let state = Mutex::new(state);
        (Self(Arc::new(Shared { file, state, arrived: watch::Sender::default(), news })), receiver)
    }

    /// The row to read on from, unless there is no room for more.
    pub(super) fn position(&self) -> Option<Position> {
        let state = self.lock();
        (state.messages().count() < CAPACITY).then(|| state.read.clone())
    }

    /// Begins behind the row `before`, or at the start where there is none.
    pub(super) fn begin(&self, before: Option<String>) {
        let mut state = self.lock();
        let position = before.map_or(Position::Start, Position::After);
        state.read = position.clone();
        self.keep(&mut state, position);
    }

    /// Takes in `rows`, oldest first, of the log of workspace `own`.
    pub(super) fn take(&self, own: &WorkspaceId, rows: &[Value]) {
        let mut state = self.lock();
        for row in rows {
            let Some(id) = row.get("id").and_then(Value::as_str) else { continue };
            state.read = Position::After(id.to_owned());
            if state.known.iter().any(|known| known == id) {
                continue;
            }
            state.known.push_back(id.to_owned());
            if state.known.len() > KNOWN {
                state.known.pop_front();
            }
            let message = message(own, id, row);
            if let Some(message) = &message {
                // Nobody listens when push is off.
                let _ = self.0.news.send(message.clone());
            }
            state.rows.push_back((id.to_owned(), message));
        }
        self.settle(&mut state);
        drop(state);
        self.0.arrived.send_replace(());
    }

    /// Begins anew: the platform does not know the cursor any more. What was read is known again.
    pub(super) fn forget(&self) {
        let mut state = self.lock();
        (state.read, state.kept) = (Position::Unknown, Position::Unknown);
        if let Err(error) = self.0.file.remove() {
            tracing::warn!(error = error.detail(), "the cursor of the inbox stays");
        }
    }

    /// The first `limit` messages.
    pub(super) fn peek(&self, limit: usize) -> Vec<Message> {
        self.lock().messages().take(limit).cloned().collect()
    }

    /// Removes a message; false when there is none of that id.
    pub(super) fn pop(&self, activity_id: &str) -> bool {
        let mut state = self.lock();
        let row = state.rows.iter_mut().find(|(id, message)| id == activity_id && message.is_some());
        let is_there = row.is_some_and(|(_, message)| message.take().is_some());
        self.settle(&mut state);
        is_there
    }

    /// The first message, waiting for one up to `timeout`.
    pub(super) async fn wait(&self, timeout: Duration) -> Option<Message> {
        let mut arrived = self.0.arrived.subscribe();
        let first = async {
            loop {
                if let Some(message) = self.peek(1).pop() {
                    return message;
                }
                // The sender lives as long as this inbox.
                let _ = arrived.changed().await;
            }
        };
        tokio::time::timeout(timeout, first).await.ok()
    }

    /// Moves the cursor on disk up to the oldest message.
    fn settle(&self, state: &mut State) {
        let mut kept = state.kept.clone();
        while let Some((_, None)) = state.rows.front() {
            kept = state.rows.pop_front().map_or(kept, |(id, _)| Position::After(id));
        }
        self.keep(state, kept);
    }

    fn keep(&self, state: &mut State, position: Position) {
        if position == state.kept {
            return;
        }
        state.kept = position;
        if let Some(cursor) = state.kept.cursor()
            && let Err(error) = self.0.file.write(&cursor.into())
        {
            tracing::warn!(error = error.detail(), "the cursor of the inbox cannot be kept; messages may come twice");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every assignment leaves a whole state, so a panic elsewhere spoils nothing.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn messages(&self) -> impl Iterator<Item = &Message> {
        self.rows.iter().filter_map(|(_, message)| message.as_ref())
    }
}

/// The message in a row of the log; `None` for what the workspace said itself.
fn message(own: &WorkspaceId, id: &str, row: &Value) -> Option<Message> {
    let text_of = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (source, method) = (text_of("source_id"), text_of("method"));
    if source == own.to_string() || (source.is_empty() && method == "notify") {
        return None;
    }
    // It goes into addresses.
    let peer_id = source.parse::<WorkspaceId>().map(|peer| peer.to_string()).unwrap_or_default();
    Some(Message {
        activity_id: id.to_owned(),
        text: said(row),
        kind: if source.is_empty() { "canvas_user" } else { "peer_agent" },
        peer_id,
        method,
        created_at: text_of("created_at"),
    })
}

fn said(row: &Value) -> String {
    let body = row.get("request_body").unwrap_or(&Value::Null);
    let places = ["/params/message", "/params", ""];
    let texts = places.iter().filter_map(|place| body.pointer(place)).map(parts).find(|texts| !texts.is_empty());
    let text = texts.map(|texts| texts.join("\n"));
    let summary = || row.get("summary")?.as_str().filter(|summary| !summary.is_empty()).map(str::to_owned);
    text.or_else(summary).unwrap_or_else(|| "(empty A2A message)".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OWN: &str = "6f9619ff-8b86-d011-b42d-00cf4fc964ff";
    const PEER: &str = "7f9619ff-8b86-d011-b42d-00cf4fc964ff";

    fn own() -> WorkspaceId {
        OWN.parse().unwrap()
    }

    fn row(id: &str, source: Option<&str>) -> Value {
        json!({"id": id, "source_id": source, "method": "message/send", "created_at": "2026-01-01T00:00:00Z",
            "request_body": {"params": {"message": {"parts": [{"kind": "text", "text": format!("text of {id}")}]}}}})
    }

    fn folder() -> (tempfile::TempDir, StateDir) {
        let root = tempfile::tempdir().unwrap();
        let folder = StateDir::resolve(Some(root.path()), None).unwrap();
        (root, folder)
    }

    fn ids(inbox: &Inbox) -> Vec<String> {
        inbox.peek(CAPACITY).into_iter().map(|message| message.activity_id).collect()
    }

    #[test]
    fn messages_say_who_and_what() {
        let user = message(&own(), "a", &row("a", None)).unwrap();
        assert_eq!((user.kind, user.peer_id.as_str(), user.text.as_str()), ("canvas_user", "", "text of a"));
        let peer = message(&own(), "a", &row("a", Some(PEER))).unwrap();
        assert_eq!((peer.kind, peer.peer_id.as_str()), ("peer_agent", PEER));
        let odd = message(&own(), "a", &row("a", Some("../admin"))).unwrap();
        assert_eq!((odd.kind, odd.peer_id.as_str()), ("peer_agent", ""));
        assert_eq!(message(&own(), "a", &row("a", Some(OWN))), None);
        assert_eq!(message(&own(), "a", &json!({"method": "notify"})), None);
    }

    #[test]
    fn the_text_is_found_in_every_shape() {
        for (row, expected) in [
            (json!({"request_body": {"params": {"parts": [{"type": "text", "text": "a"}]}}}), "a"),
            (json!({"request_body": {"parts": [{"text": "a"}, {"text": "b"}]}}), "a\nb"),
            (json!({"request_body": null, "summary": "s"}), "s"),
            (json!({"summary": ""}), "(empty A2A message)"),
        ] {
            assert_eq!(said(&row), expected, "{row}");
        }
    }

    #[test]
    fn the_cursor_on_disk_stays_before_what_was_not_popped() {
        let (_root, folder) = folder();
        let (inbox, _news) = Inbox::open(&folder);
        let kept = || Inbox::open(&folder).0.position().unwrap();
        let after = |id: &str| Position::After(id.to_owned());
        assert_eq!(inbox.position(), Some(Position::Unknown));
        inbox.begin(None);
        assert_eq!((inbox.position(), kept()), (Some(Position::Start), Position::Start));
        inbox.begin(Some("z".into()));
        assert_eq!((inbox.position(), kept()), (Some(after("z")), after("z")));
        inbox.take(&own(), &[row("a", Some(OWN)), row("b", None), row("c", None), row("b", None)]);
        assert_eq!((ids(&inbox), kept()), (vec!["b".into(), "c".into()], after("a")));
        // The last row that was read came before.
        assert_eq!(inbox.position(), Some(after("b")));
        inbox.take(&own(), &[row("c", None)]);
        assert!(inbox.pop("c") && !inbox.pop("c") && !inbox.pop("a"));
        assert_eq!(kept(), after("a"));
        assert!(inbox.pop("b"));
        assert_eq!(kept(), after("c"));
        inbox.forget();
        assert_eq!((kept(), inbox.position()), (Position::Unknown, Some(Position::Unknown)));
        inbox.take(&own(), &[row("b", None), row("d", None)]);
        assert_eq!(ids(&inbox), ["d"], "what was popped does not come again");
    }

    #[test]
    fn what_has_no_room_stays_with_the_platform() {
        let (_root, folder) = folder();
        let (inbox, mut news) = Inbox::open(&folder);
        let rows: Vec<Value> = (0..CAPACITY).map(|index| row(&format!("r{index}"), None)).collect();
        inbox.take(&own(), &rows);
        assert_eq!(inbox.position(), None);
        assert!(inbox.pop("r7"));
        assert_eq!(inbox.position(), Some(Position::After(format!("r{}", CAPACITY - 1))));
        assert_eq!(news.try_recv().unwrap().activity_id, "r0");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_with_a_message_or_in_time() {
        let (_root, folder) = folder();
        let (inbox, _news) = Inbox::open(&folder);
        assert_eq!(inbox.wait(Duration::from_secs(300)).await, None);
        let waiting = inbox.clone();
        let (found, ()) = tokio::join!(waiting.wait(Duration::from_secs(300)), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            inbox.take(&own(), &[row("a", None)]);
        });
        assert_eq!(found.unwrap().activity_id, "a");
    }
}
