//! Those who listen to a server: on its feed, and on the stream of one workspace.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use reqwest::{Response, StatusCode, Upgraded, header};
use serde_json::Value;
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::{client::generate_key, derive_accept_key},
        protocol::Role,
    },
};

use crate::{case::Verdict, http::Call};

/// How long something may take that a listener waits for. What the server looks at every 5 seconds comes within it.
const PATIENCE: Duration = Duration::from_secs(9);

/// A listener on the feed.
#[derive(Debug)]
pub(crate) struct Feed {
    socket: WebSocketStream<Upgraded>,
    /// The protocol that the server chose.
    pub(crate) protocol: Option<String>,
}

/// How a feed ended, or what came on it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(String),
    Ping,
    Pong(Vec<u8>),
    /// The server closed it, with a code where it gave one.
    Closed(Option<u16>),
}

impl Feed {
    /// The next frame, whatever it is.
    pub(crate) async fn frame(&mut self) -> Result<Frame, Verdict> {
        loop {
            return Ok(match self.received().await? {
                Some(Ok(Message::Text(text))) => Frame::Text(text.to_string()),
                Some(Ok(Message::Ping(_))) => Frame::Ping,
                Some(Ok(Message::Pong(bytes))) => Frame::Pong(bytes.to_vec()),
                Some(Ok(Message::Close(frame))) => Frame::Closed(frame.map(|frame| frame.code.into())),
                Some(Ok(Message::Binary(_))) => return Err(failed("a frame of the feed is binary")),
                Some(Ok(Message::Frame(_))) => continue,
                // Broken off without a word.
                Some(Err(_)) | None => Frame::Closed(None),
            });
        }
    }

    async fn received(&mut self) -> Result<Option<tokio_tungstenite::tungstenite::Result<Message>>, Verdict> {
        timeout(PATIENCE, self.socket.next()).await.map_err(|_| failed("nothing came on the feed"))
    }

    /// The next event, as it came.
    pub(crate) async fn event(&mut self) -> Result<Value, Verdict> {
        loop {
            match self.frame().await? {
                Frame::Text(text) => {
                    return serde_json::from_str(&text)
                        .map_err(|_| failed(&format!("a frame of the feed is no JSON: {text:?}")));
                }
                Frame::Ping | Frame::Pong(_) => {}
                Frame::Closed(code) => return Err(failed(&format!("the feed was closed with {code:?}"))),
            }
        }
    }

    /// The next event of this kind about this workspace, whatever comes before it.
    pub(crate) async fn event_of(&mut self, kind: &str, workspace_id: impl ToString) -> Result<Value, Verdict> {
        let id = workspace_id.to_string();
        loop {
            let event = self.event().await?;
            if event["event"] == kind && event["workspace_id"] == id.as_str() {
                return Ok(event);
            }
        }
    }

    /// The code that the server closes with, after whatever else it sends.
    pub(crate) async fn close_code(&mut self) -> Result<Option<u16>, Verdict> {
        loop {
            if let Frame::Closed(code) = self.frame().await? {
                return Ok(code);
            }
        }
    }

    pub(crate) async fn say(&mut self, text: &str) {
        // That the server is gone is found by who reads next.
        let _ = self.socket.send(Message::text(text)).await;
    }

    pub(crate) async fn ping(&mut self, bytes: &'static [u8]) {
        let _ = self.socket.send(Message::Ping(bytes.into())).await;
    }
}

/// A listener on a stream of server-sent events.
#[derive(Debug)]
pub(crate) struct Stream {
    response: Response,
    text: String,
}

impl Stream {
    /// The value of a header of the answer.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// What comes before the next blank line; none at the end.
    pub(crate) async fn piece(&mut self) -> Result<Option<String>, Verdict> {
        loop {
            if let Some((piece, rest)) = self.text.split_once("\n\n") {
                let (piece, rest) = (piece.to_owned(), rest.to_owned());
                self.text = rest;
                return Ok(Some(piece));
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await;
            match chunk.map_err(|_| failed("nothing came on the stream"))? {
                Ok(Some(chunk)) => self.text.push_str(&String::from_utf8_lossy(&chunk)),
                Ok(None) | Err(_) => return Ok(None),
            }
        }
    }

    /// The next event with its id, where it has one; none at the end.
    pub(crate) async fn event(&mut self) -> Result<Option<(Option<String>, Value)>, Verdict> {
        loop {
            let Some(piece) = self.piece().await? else { return Ok(None) };
            if let Some(event) = read(&piece)? {
                return Ok(Some(event));
            }
        }
    }
}

/// The event of a piece of a stream, with its id where it has one; none of a remark.
fn read(piece: &str) -> Result<Option<(Option<String>, Value)>, Verdict> {
    if piece.starts_with(':') {
        return Ok(None);
    }
    let wrong = || failed(&format!("a piece of the stream is no event: {piece:?}"));
    let (before, data) = piece.split_once("data: ").ok_or_else(wrong)?;
    let id = match before {
        "" => None,
        before => Some(before.strip_prefix("id: ").and_then(|id| id.strip_suffix('\n')).ok_or_else(wrong)?),
    };
    let data = serde_json::from_str(data).map_err(|_| wrong())?;
    Ok(Some((id.map(str::to_owned), data)))
}

fn failed(what: &str) -> Verdict {
    Verdict::Failed(what.to_owned())
}

impl Call<'_> {
    /// Asks for a WebSocket, so far without saying which protocol.
    fn handshake(self) -> (Self, String) {
        let key = generate_key();
        let call = self.header("connection", "Upgrade").header("upgrade", "websocket");
        (call.header("sec-websocket-version", "13").header("sec-websocket-key", &key), key)
    }

    /// Opens a WebSocket.
    pub(crate) async fn feed(self) -> Result<Feed, Verdict> {
        let (call, key) = self.handshake();
        let response = call.open().await?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        if response.status() != StatusCode::SWITCHING_PROTOCOLS
            || header(header::SEC_WEBSOCKET_ACCEPT) != Some(derive_accept_key(key.as_bytes()))
        {
            return Err(failed(&format!("expected a WebSocket, got {}", response.status())));
        }
        let protocol = header(header::SEC_WEBSOCKET_PROTOCOL);
        let upgraded = response.upgrade().await.map_err(|error| failed(&format!("no WebSocket came: {error}")))?;
        Ok(Feed { socket: WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await, protocol })
    }

    /// Asks for a WebSocket that is refused, and gives the status.
    pub(crate) async fn refused_feed(self) -> Result<u16, Verdict> {
        Ok(self.handshake().0.open().await?.status().as_u16())
    }

    /// Opens a stream of server-sent events.
    pub(crate) async fn stream(self) -> Result<Stream, Verdict> {
        let response = self.open().await?;
        match response.status() {
            StatusCode::OK => Ok(Stream { response, text: String::new() }),
            status => Err(failed(&format!("expected a stream, got {status}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_older_servers_are_read() {
        let recorded: Value = serde_json::from_str(include_str!("../../fixtures/wire/frames.json")).unwrap();
        let pieces = recorded["stream"].as_array().unwrap().iter().map(|piece| piece.as_str().unwrap());
        let read: Vec<_> = pieces.map(|piece| read(piece).unwrap()).collect();
        assert_eq!(read[0], None);
        let told = read
            .iter()
            .flatten()
            .map(|(id, event)| (id.is_some(), event["type"].as_str(), event["timestamp"].as_i64()));
        let expected = [
            (true, Some("WORKSPACE_ONLINE"), Some(1_777_629_601_000)),
            (true, Some("WORKSPACE_AWAITING_AGENT"), Some(1_777_629_600_250)),
            (false, Some("TASK_UPDATED"), Some(1_777_629_603_000)),
        ];
        assert!(told.eq(expected), "{read:?}");
        assert!(read.iter().flatten().all(|(_, event)| event["data"].is_object()), "{read:?}");
        assert!(super::read("event: x").is_err());
    }
}
