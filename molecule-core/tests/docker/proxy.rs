//! Stands between a provisioner and the engine: notes what is asked, holds some of it back, or goes away.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpStream, UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
};

/// A socket that leads to the engine until it is closed.
pub(crate) struct Proxy {
    /// The address to connect to.
    pub(crate) host: String,
    notes: Arc<Notes>,
    listening: JoinSet<()>,
    _folder: tempfile::TempDir,
}

#[derive(Default)]
struct Notes {
    requests: Mutex<Vec<String>>,
    finished: Mutex<Vec<String>>,
    /// Requests that begin like this wait until it says otherwise.
    held: watch::Sender<Option<&'static str>>,
}

impl Proxy {
    /// Listens, passing everything on to `engine` but requests that begin with `held`.
    pub(crate) fn to(engine: &str, held: Option<&'static str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("engine.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let notes = Arc::new(Notes::default());
        notes.held.send_replace(held);
        let mut listening = JoinSet::new();
        listening.spawn(listen(listener, engine.to_owned(), Arc::clone(&notes)));
        Self { host: format!("unix://{}", path.display()), notes, listening, _folder: folder }
    }

    /// How many requests began with `start` and ended with `end`, and have their whole answer.
    pub(crate) fn finished(&self, start: &str, end: &str) -> usize {
        count(&self.notes.finished.lock().unwrap(), start, end)
    }

    /// How many requests began with `start`.
    pub(crate) fn asked(&self, start: &str) -> usize {
        count(&self.notes.requests.lock().unwrap(), start, "")
    }

    /// Lets held requests pass.
    pub(crate) fn release(&self) {
        self.notes.held.send_replace(None);
    }

    /// From now on nobody answers.
    pub(crate) async fn close(&mut self) {
        self.listening.shutdown().await;
    }
}

fn count(requests: &[String], start: &str, end: &str) -> usize {
    requests.iter().filter(|request| request.starts_with(start) && request.ends_with(end)).count()
}

async fn listen(listener: UnixListener, engine: String, notes: Arc<Notes>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(pass(client, engine.clone(), Arc::clone(&notes)));
    }
}

async fn pass(mut client: UnixStream, engine: String, notes: Arc<Notes>) {
    let mut start = Vec::new();
    while !start.contains(&b'\n') && matches!(client.read_buf(&mut start).await, Ok(1..)) {}
    let text = String::from_utf8_lossy(&start);
    // Method and path, without the query and the version of the protocol.
    let request = text.split([' ', '?']).take(2).collect::<Vec<_>>().join(" ");
    notes.requests.lock().unwrap().push(request.clone());
    let mut held = notes.held.subscribe();
    let _ = held.wait_for(|held| held.is_none_or(|start| !request.starts_with(start))).await;
    if let Some(path) = engine.strip_prefix("unix://") {
        let mut engine = UnixStream::connect(path).await.unwrap();
        engine.write_all(&start).await.unwrap();
        let _ = copy_bidirectional(&mut client, &mut engine).await;
    } else {
        let mut engine = TcpStream::connect(engine.split_once("://").unwrap().1).await.unwrap();
        engine.write_all(&start).await.unwrap();
        let _ = copy_bidirectional(&mut client, &mut engine).await;
    }
    notes.finished.lock().unwrap().push(request);
}
