//! The heartbeat loop, on a thread that never asks for the interpreter.

use std::{
    collections::BTreeMap,
    process,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use molecule_core::{
    Error, ErrorKind, Result,
    agent::{self, Beat, Beating, LoopStatus, Program, RuntimeMetadata, heartbeat::LONGEST_INTERVAL},
    clock::SystemEntropy,
};
use pyo3::{IntoPyObjectExt, prelude::*, types::PyTuple};
use tokio::sync::watch;

use crate::{
    agent::Agent,
    delivery::{self, Message},
    errors::raised,
    runtime::{on_a_thread, wait},
    shared,
};

/// How a loop was doing when it was asked.
#[pyclass(frozen, module = "molecule", get_all)]
#[derive(Debug)]
pub(crate) struct HeartbeatStatus {
    /// Whether the loop was started and not stopped.
    running: bool,
    /// How many heartbeats the platform accepted.
    accepted: u64,
    /// How many were rejected for the token, or because the workspace is gone, since the last accepted one.
    auth_failures: u32,
    /// How many failed otherwise since the last accepted one.
    other_failures: u32,
    /// What came of the last one: ``ok``, ``unauthorized``, ``removed``, ``rate_limited``, ``server_error`` or ``unreachable``.
    last: Option<&'static str>,
    /// The same in words.
    message: String,
}

#[pymethods]
impl HeartbeatStatus {
    fn __repr__(&self) -> String {
        let Self { running, accepted, auth_failures, other_failures, last, message } = self;
        format!(
            "HeartbeatStatus(running={}, accepted={accepted}, auth_failures={auth_failures}, \
             other_failures={other_failures}, last={}, message={message:?})",
            if *running { "True" } else { "False" },
            last.map_or("None".to_owned(), |last| format!("'{last}'")),
        )
    }
}

impl HeartbeatStatus {
    pub(crate) fn of(status: &LoopStatus, running: bool) -> Self {
        Self {
            running,
            accepted: status.state.accepted,
            auth_failures: status.state.auth_failures,
            other_failures: status.state.other_failures,
            last: status.last.as_ref().map(agent::BeatOutcome::name),
            message: said(status),
        }
    }
}

/// Keeps a workspace alive in the eyes of its platform, on a thread that never waits for Python.
///
/// It beats at once and then every ``interval`` seconds, of at most 20, a little earlier or later by chance; where the
/// platform asks for another pace, it is followed. It ends only when it is stopped: failures are counted, logged, and
/// tried again. Secrets that the platform sends are kept, and a token that another process saved is taken up.
///
/// ``on_beat`` is called with the status after each beat, on a thread of its own, one call after the other. When the
/// interpreter is busy it is called later, and when it is busy for very long, for some beats not at all.
///
/// ``with`` and ``async with`` start the loop and stop it at the end.
#[pyclass(frozen, module = "molecule")]
#[derive(Debug)]
pub(crate) struct HeartbeatLoop {
    agent: Py<Agent>,
    interval: Duration,
    on_beat: Option<Arc<Py<PyAny>>>,
    beat: Arc<Mutex<Beat>>,
    state: Mutex<State>,
}

/// What starting and stopping change.
#[derive(Debug)]
struct State {
    /// Of the loop that runs or that ran last.
    status: watch::Receiver<LoopStatus>,
    running: Option<Running>,
}

/// A loop, and the process that it runs in: one that was forked off has no part of it.
#[derive(Debug)]
struct Running {
    beating: Beating,
    process: u32,
}

impl State {
    fn is_running(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.process == process::id() && running.beating.is_running())
    }
}

#[pymethods]
impl HeartbeatLoop {
    #[new]
    #[pyo3(signature = (agent=None, *, interval=20.0, on_beat=None))]
    fn new(py: Python<'_>, agent: Option<Py<Agent>>, interval: f64, on_beat: Option<Py<PyAny>>) -> PyResult<Self> {
        let agent = match agent {
            Some(agent) => agent,
            None => Py::new(py, Agent::from_environment(py)?)?,
        };
        let (_, status) = watch::channel(LoopStatus::default());
        Ok(Self {
            agent,
            interval: shared::duration("interval", interval)?.min(LONGEST_INTERVAL),
            on_beat: on_beat.map(Arc::new),
            beat: Arc::default(),
            state: Mutex::new(State { status, running: None }),
        })
    }

    /// The agent it beats for; the one that the environment describes when none was given.
    #[getter]
    fn agent(&self, py: Python<'_>) -> Py<Agent> {
        self.agent.clone_ref(py)
    }

    /// How the loop is doing now, or did when it was stopped.
    #[getter]
    fn status(&self) -> HeartbeatStatus {
        let state = lock(&self.state);
        HeartbeatStatus::of(&state.status.borrow(), state.is_running())
    }

    /// Starts the loop. A loop that runs is left alone; one that was stopped starts anew.
    fn start(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = lock(&self.state);
        if !state.is_running() {
            *state = self.spawn(self.agent.get()).map_err(|error| raised(py, &error))?;
        }
        Ok(())
    }

    /// Stops the loop and waits until its thread is done. A loop that does not run is left alone.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| stop(&self.state));
    }

    /// ``stop()`` for asyncio.
    fn stop_async<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        on_a_thread(this, "stop", &[])
    }

    /// Waits until the last heartbeat is an accepted one.
    ///
    /// Raises ``UnavailableError`` after ``timeout`` seconds, saying what came of the last one.
    #[pyo3(signature = (timeout=30.0))]
    fn wait_accepted(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        wait(py, accepted(lock(&self.state).status.clone(), shared::duration("timeout", timeout)?))
    }

    /// ``wait_accepted()`` for asyncio.
    #[pyo3(signature = (timeout=30.0))]
    fn wait_accepted_async<'py>(this: &Bound<'py, Self>, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        on_a_thread(this, "wait_accepted", &[("timeout", timeout.into_bound_py_any(this.py())?)])
    }

    /// Changes what the next heartbeats say; what is ``None`` stays, and an empty string is taken back.
    ///
    /// ``error_rate`` is from 0 to 1, ``monthly_spend`` in US cents; ``runtime_state`` is ``wedged`` when the agent lives and
    /// cannot work.
    #[pyo3(signature = (*, error_rate=None, sample_error=None, active_tasks=None, current_task=None,
        runtime_state=None, monthly_spend=None, capabilities=None, idle_timeout_seconds=None))]
    #[expect(clippy::too_many_arguments, reason = "keywords in Python")]
    fn update(
        &self,
        error_rate: Option<f64>,
        sample_error: Option<String>,
        active_tasks: Option<u32>,
        current_task: Option<String>,
        runtime_state: Option<String>,
        monthly_spend: Option<i64>,
        capabilities: Option<BTreeMap<String, bool>>,
        idle_timeout_seconds: Option<u64>,
    ) {
        let mut beat = lock(&self.beat);
        beat.error_rate = error_rate.unwrap_or(beat.error_rate);
        beat.active_tasks = active_tasks.unwrap_or(beat.active_tasks);
        beat.monthly_spend = monthly_spend.or(beat.monthly_spend);
        if let Some(error) = sample_error {
            beat.sample_error = error;
        }
        if let Some(task) = current_task {
            beat.current_task = Some(task).filter(|task| !task.is_empty());
        }
        if let Some(state) = runtime_state {
            beat.runtime_state = Some(state).filter(|state| !state.is_empty());
        }
        if capabilities.is_some() || idle_timeout_seconds.is_some() {
            let metadata = beat.runtime_metadata.get_or_insert_with(RuntimeMetadata::default);
            metadata.capabilities = capabilities.unwrap_or_else(|| std::mem::take(&mut metadata.capabilities));
            metadata.idle_timeout_seconds = idle_timeout_seconds.or(metadata.idle_timeout_seconds);
        }
    }

    fn __enter__(this: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        this.get().start(this.py())?;
        Ok(this)
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) {
        self.stop(py);
    }

    fn __aenter__<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        on_a_thread(this, "__enter__", &[])
    }

    #[pyo3(signature = (*_exception))]
    fn __aexit__<'py>(this: &Bound<'py, Self>, _exception: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        on_a_thread(this, "stop", &[])
    }

    fn __repr__(&self) -> String {
        format!("HeartbeatLoop({}, {})", self.agent.get().id, self.status().__repr__())
    }
}

impl HeartbeatLoop {
    fn spawn(&self, agent: &Agent) -> Result<State> {
        let beats = agent::HeartbeatLoop::new(agent.client()?, Program::PYTHON, Arc::new(SystemEntropy));
        let beats = beats.every(self.interval);
        let status = beats.status();
        let (body, started) = (Arc::clone(&self.beat), Instant::now());
        let say = move || Beat { uptime_seconds: started.elapsed().as_secs(), ..lock(&body).clone() };
        let tell = tell(status.clone(), self.on_beat.clone());
        let beating = beats.spawn(say, tell)?;
        Ok(State { status, running: Some(Running { beating, process: process::id() }) })
    }
}

/// Tells `callback` of every beat, and never ends.
async fn tell(mut status: watch::Receiver<LoopStatus>, callback: Option<Arc<Py<PyAny>>>) {
    if let Some(callback) = callback {
        while status.changed().await.is_ok() {
            let status = status.borrow_and_update().clone();
            delivery::send(Message::Beat(Arc::clone(&callback), status));
        }
    }
    std::future::pending().await
}

async fn accepted(mut status: watch::Receiver<LoopStatus>, timeout: Duration) -> Result<()> {
    let wanted = status.wait_for(|status| matches!(status.last, Some(agent::BeatOutcome::Ok { .. })));
    match tokio::time::timeout(timeout, wanted).await.map(|found| found.is_ok()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::invalid("the heartbeat loop is not running: start it first")),
        Err(_) => Err(Error::new(
            ErrorKind::Unavailable,
            format!("no heartbeat was accepted within {timeout:?}: {}", said(&status.borrow())),
        )),
    }
}

fn said(status: &LoopStatus) -> String {
    status.last.as_ref().map_or_else(|| "there was no answer yet".to_owned(), ToString::to_string)
}

/// Stops the loop and waits until its thread is done; does nothing when it does not run.
fn stop(state: &Mutex<State>) {
    let running = lock(state).running.take();
    // What another process runs is not ours to wait for.
    match running {
        Some(Running { beating, process }) if process == process::id() => beating.stop(),
        Some(Running { beating, .. }) => std::mem::forget(beating),
        None => {}
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every assignment leaves a whole value, so a panic elsewhere spoils nothing.
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
