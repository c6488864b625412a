//! The WebSocket of the server.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use molecule_core::error::{Error, ErrorKind, Result};
use reqwest::{Method, StatusCode, Upgraded, header};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout_at};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};

use super::client::{Client, REQUEST_TIMEOUT};

/// How often the server is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(20);

/// The silence after which it is not.
const LOST_AFTER: Duration = Duration::from_secs(75);

/// Events as they happen.
#[derive(Debug)]
pub(crate) struct EventStream {
    socket: WebSocketStream<Upgraded>,
    pings: Interval,
    heard: Instant,
}

/// Why a stream ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// More happened than this side took in time.
    FellBehind,
    /// The server said goodbye, or is gone.
    Lost(String),
}

impl EventStream {
    /// Opens the stream, with the token and by the connection rules of every other call.
    pub(crate) async fn open(client: &Client) -> Result<Self> {
        let key = generate_key();
        let request = client
            .request(Method::GET, &["ws"])
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, &key);
        let response = client.send(request, REQUEST_TIMEOUT).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(client.failure(response).await);
        }
        let accepted = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
        if accepted.is_none_or(|accepted| accepted.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(no_websocket(client));
        }
        let upgraded = response.upgrade().await.map_err(|_| no_websocket(client))?;
        let socket = WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await;
        let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { socket, pings, heard: Instant::now() })
    }

    /// The next frame of text, or why there is none.
    pub(crate) async fn next(&mut self) -> Result<String, End> {
        loop {
            let frame = tokio::select! {
                frame = timeout_at(self.heard + LOST_AFTER, self.socket.next()) => frame,
                _ = self.pings.tick() => {
                    // Failing to write says that the server is gone, not that all it sent has been read: the
                    // next read gives what is left, and then the loss.
                    let _ = self.socket.send(Message::Ping(Vec::new().into())).await;
                    continue;
                }
            };
            self.heard = Instant::now();
            match frame {
                Ok(Some(Ok(Message::Text(text)))) => return Ok(text.to_string()),
                Ok(Some(Ok(Message::Close(frame)))) => return Err(closed(frame)),
                // Pings are answered by the library.
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(error))) => return Err(lost(error)),
                Ok(None) => return Err(End::Lost("the server closed the connection".to_owned())),
                Err(_) => return Err(End::Lost("the server fell silent".to_owned())),
            }
        }
    }
}

fn closed(frame: Option<CloseFrame>) -> End {
    match frame {
        Some(frame) if frame.code == CloseCode::Again => End::FellBehind,
        Some(frame) if !frame.reason.is_empty() => {
            End::Lost(format!("the server closed the connection: {}", frame.reason))
        }
        _ => End::Lost("the server closed the connection".to_owned()),
    }
}

fn lost(error: tokio_tungstenite::tungstenite::Error) -> End {
    End::Lost(error.to_string())
}

fn no_websocket(client: &Client) -> Error {
    Error::new(ErrorKind::Upstream, format!("{} opened no WebSocket; check --server", client.server()))
}
