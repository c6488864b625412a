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
    engine: String,
    notes: Arc<Notes>,
    listening: JoinSet<()>,
    folder: tempfile::TempDir,
}

#[derive(Default)]
struct Notes {
    requests: Mutex<Vec<String>>,
    finished: Mutex<Vec<String>>,
    /// Requests that begin like this wait until it says otherwise.
    held: watch::Sender<Option<&'static str>>,
    /// Requests that begin like this are done, and their answer is lost.
    unheard: Mutex<Option<&'static str>>,
    lost: Mutex<Vec<String>>,
}

impl Proxy {
    /// Listens, passing everything on to `engine` but requests that begin with `held`.
    pub(crate) fn to(engine: &str, held: Option<&'static str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let notes = Arc::new(Notes::default());
        notes.held.send_replace(held);
        let host = format!("unix://{}", folder.path().join("engine.sock").display());
        let mut proxy = Self { host, engine: engine.to_owned(), notes, listening: JoinSet::new(), folder };
        proxy.open();
        proxy
    }

    /// Listens, and passes everything on again.
    pub(crate) fn open(&mut self) {
        let path = self.folder.path().join("engine.sock");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        self.listening.spawn(listen(listener, self.engine.clone(), Arc::clone(&self.notes)));
    }

    /// From now on holds back requests that begin like this.
    pub(crate) fn hold(&self, start: &'static str) {
        self.notes.held.send_replace(Some(start));
    }

    /// From now on loses the answers to requests that begin like this, or no more.
    pub(crate) fn lose(&self, start: Option<&'static str>) {
        *self.notes.unheard.lock().unwrap() = start;
    }

    /// How many answers were lost.
    pub(crate) fn lost(&self) -> usize {
        self.notes.lost.lock().unwrap().len()
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
    let unheard = notes.unheard.lock().unwrap().is_some_and(|start| request.starts_with(start));
    if let (true, Some(path)) = (unheard, engine.strip_prefix("unix://")) {
        let mut engine = UnixStream::connect(path).await.unwrap();
        engine.write_all(&start).await.unwrap();
        let (mut from, mut to) = client.split();
        let (mut answer, mut ask) = engine.split();
        let mut first = [0];
        tokio::select! {
            _ = tokio::io::copy(&mut from, &mut ask) => {}
            _ = answer.read(&mut first) => {}
        }
        let _ = to.shutdown().await;
        notes.lost.lock().unwrap().push(request);
        return;
    }
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
