//! What Rust threads have to say to Python, brought by a thread of its own.
//!
//! Whoever has something to say leaves it here and goes on: no heartbeat ever waits for the interpreter. What is too
//! much to keep is dropped.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use molecule_core::agent::LoopStatus;
use pyo3::{intern, prelude::*};
use tracing::Level;

use crate::{heartbeat::HeartbeatStatus, per_process::PerProcess};

/// How much is kept for an interpreter that is busy.
const KEPT: usize = 1024;

/// How long the end of the interpreter waits for a callback.
const LAST_CALL: Duration = Duration::from_secs(1);

/// Something for Python.
pub(crate) enum Message {
    /// A line for the logger `molecule`.
    Log(Level, String),
    /// What came of a beat, for who asked to be told.
    Beat(Arc<Py<PyAny>>, LoopStatus),
    /// Nothing; the end.
    Close,
}

/// Leaves `message` for Python.
pub(crate) fn send(message: Message) {
    let Ok(queue) = QUEUE.get_or_try_init(|| Ok::<_, Infallible>(Queue::start()));
    if let Some(queue) = &*queue {
        let _ = queue.messages.try_send(message);
    }
}

/// Calls nobody back from now on, and waits a moment for the lines that are left: the last ones tell why a program ends.
///
/// Called when the interpreter is about to end: one that ends under a thread takes the process with it.
#[pyfunction]
pub(crate) fn close(py: Python<'_>) {
    CLOSED.store(true, Ordering::SeqCst);
    let Some(queue) = QUEUE.get() else { return };
    let Some(queue) = &*queue else { return };
    py.detach(|| {
        // A message to wake up for; where there is no room for one there are others.
        let _ = queue.messages.try_send(Message::Close);
        let ended = queue.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(LAST_CALL);
    });
}

/// `None` inside when there can be no thread: then nothing is told, and everything else goes on.
static QUEUE: PerProcess<Option<Queue>> = PerProcess::new();

static CLOSED: AtomicBool = AtomicBool::new(false);

struct Queue {
    messages: SyncSender<Message>,
    /// Tells when the thread has ended.
    ended: Mutex<Receiver<()>>,
}

impl Queue {
    fn start() -> Option<Self> {
        let (messages, receiver) = sync_channel(KEPT);
        let (alive, ended) = channel();
        let deliver = move || deliver(&receiver, &alive);
        thread::Builder::new().name("molecule-delivery".into()).spawn(deliver).ok()?;
        Some(Self { messages, ended: Mutex::new(ended) })
    }
}

fn deliver(messages: &Receiver<Message>, _alive: &Sender<()>) {
    for message in messages {
        match message {
            Message::Close => return,
            Message::Beat(..) if CLOSED.load(Ordering::SeqCst) => {}
            message if Python::try_attach(|py| hand_over(py, &message)).is_none() => return,
            _ => {}
        }
    }
}

fn hand_over(py: Python<'_>, message: &Message) {
    match message {
        Message::Close => {}
        Message::Log(level, line) => {
            if let Err(error) = log(py, *level, line) {
                error.write_unraisable(py, None);
            }
        }
        Message::Beat(callback, status) => {
            let callback = callback.bind(py);
            if let Err(error) = callback.call1((HeartbeatStatus::of(status, true),)) {
                error.write_unraisable(py, Some(callback));
            }
        }
    }
}

fn log(py: Python<'_>, level: Level, line: &str) -> PyResult<()> {
    let number = match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        _ => 10,
    };
    let logger = py.import(intern!(py, "logging"))?.call_method1(intern!(py, "getLogger"), ("molecule",))?;
    logger.call_method1(intern!(py, "log"), (number, "%s", line))?;
    Ok(())
}
