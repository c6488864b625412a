//! An agent on a real socket that does to each call what its script says.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};

/// What the agent does to one call, once it has read it.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Answers with this status and body.
    Answer(u16, String),
    /// As `Answer`, one byte at a time.
    ByteByByte(String),
    /// Says nothing and keeps the connection.
    Hang,
    /// Closes the connection without a word.
    Close,
    /// As `Close` for a message of this id, `Answer` with 200 for others.
    CloseOn(&'static str, String),
    /// As `Answer` with 200, once it is told to.
    WhenTold(Arc<Notify>, String),
    /// Sends the head of an answer with this status, and closes.
    CloseAfterHead(u16),
    /// Promises more than it sends.
    LieAboutLength(String),
    /// Sends these bytes.
    Raw(String),
    /// Sends these bytes a few at a time, with a pause in between.
    Slowly(String, Duration),
    /// Sends events: the first ones at once, the others when it is told to.
    Events {
        first: String,
        others: String,
        go_on: Arc<Notify>,
        /// Whether it says that there are no more.
        ends: bool,
    },
}

/// Gone with the value.
#[derive(Debug)]
pub(crate) struct Agent {
    address: SocketAddr,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Vec<Value>>,
    script: Mutex<VecDeque<Act>>,
    /// What it does when the script is over.
    then: Mutex<Option<Act>>,
}

impl Agent {
    /// Does each of `script` once and `then` from there on.
    pub(crate) async fn start(script: impl IntoIterator<Item = Act>, then: Act) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let shared = Arc::new(Shared::default());
        *shared.script.lock().unwrap() = script.into_iter().collect();
        *shared.then.lock().unwrap() = Some(then);
        let mut server = JoinSet::new();
        let all = Arc::clone(&shared);
        server.spawn(async move {
            let mut calls = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                calls.spawn(serve(stream, Arc::clone(&all)));
            }
        });
        Self { address, shared, _server: server }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.address.port())
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Value> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let Some(body) = read_request(&mut stream).await else { return };
    let request: Value = serde_json::from_slice(&body).expect("control planes send JSON");
    let message_id = request["params"]["message"]["messageId"].as_str().map(str::to_owned);
    shared.seen.lock().unwrap().push(request);
    let act = shared.script.lock().unwrap().pop_front().or_else(|| shared.then.lock().unwrap().clone());
    let head = |status: u16, length: usize| {
        format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    // The caller may have left.
    match act.expect("there is always something to do") {
        Act::Answer(status, body) => drop(stream.write_all((head(status, body.len()) + &body).as_bytes()).await),
        Act::ByteByByte(body) => {
            for byte in (head(200, body.len()) + &body).into_bytes() {
                if stream.write_all(&[byte]).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        }
        Act::Hang => drop(stream.read(&mut [0; 1]).await),
        Act::Close => {}
        Act::CloseOn(id, _) if message_id.as_deref() == Some(id) => {}
        Act::CloseOn(_, body) => drop(stream.write_all((head(200, body.len()) + &body).as_bytes()).await),
        Act::WhenTold(go_on, body) => {
            go_on.notified().await;
            drop(stream.write_all((head(200, body.len()) + &body).as_bytes()).await);
        }
        Act::CloseAfterHead(status) => drop(stream.write_all(head(status, 10).as_bytes()).await),
        Act::LieAboutLength(body) => drop(stream.write_all((head(200, body.len() + 7) + &body).as_bytes()).await),
        Act::Events { first, others, go_on, ends } => {
            let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
            let head = "HTTP/1.1 200 X\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
                        transfer-encoding: chunked\r\n\r\n";
            if stream.write_all((head.to_owned() + &chunk(&first)).as_bytes()).await.is_err() {
                return;
            }
            go_on.notified().await;
            let end = if ends { "0\r\n\r\n" } else { "" };
            drop(stream.write_all((chunk(&others) + end).as_bytes()).await);
        }
        Act::Slowly(bytes, pause) => {
            for bit in bytes.as_bytes().chunks(9) {
                if stream.write_all(bit).await.is_err() {
                    return;
                }
                tokio::time::sleep(pause).await;
            }
        }
        Act::Raw(bytes) => drop(stream.write_all(bytes.as_bytes()).await),
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 8192];
        let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
        if bytes.len() >= end + 4 + length? {
            return Some(bytes.split_off(end + 4));
        }
    }
}
