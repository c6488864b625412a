//! The heartbeat loop, on a thread that never asks for the interpreter.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use molecule_core::{
    Error, ErrorKind, Result,
    agent::{self, Beat, LoopStatus, Program, RuntimeMetadata, heartbeat::LONGEST_INTERVAL},
    clock::SystemEntropy,
};
use pyo3::{IntoPyObjectExt, prelude::*, types::PyTuple};
use tokio::{
    runtime::Builder,
    sync::{oneshot, watch},
};

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
    running: bool,
    accepted: u64,
    auth_failures: u32,
    other_failures: u32,
    last: Option<&'static str>,
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

#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
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

    #[getter]
    fn agent(&self, py: Python<'_>) -> Py<Agent> {
        self.agent.clone_ref(py)
    }

    #[getter]
    fn status(&self) -> HeartbeatStatus {
        let state = lock(&self.state);
        HeartbeatStatus::of(&state.status.borrow(), state.running.is_some())
    }

    fn start(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = lock(&self.state);
        if state.running.is_none() {
            *state = self.spawn(self.agent.get()).map_err(|error| raised(py, &error))?;
        }
        Ok(())
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| stop(&self.state));
    }

    fn stop_async<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        on_a_thread(this, "stop", &[])
    }

    #[pyo3(signature = (timeout=30.0))]
    fn wait_accepted(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        wait(py, accepted(lock(&self.state).status.clone(), shared::duration("timeout", timeout)?))
    }

    #[pyo3(signature = (timeout=30.0))]
    fn wait_accepted_async<'py>(this: &Bound<'py, Self>, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        on_a_thread(this, "wait_accepted", &[("timeout", timeout.into_bound_py_any(this.py())?)])
    }

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
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Unexpected, "the heartbeat loop cannot be started").caused_by(error)
        };
        let beats = agent::HeartbeatLoop::new(agent.client()?, Program::PYTHON, Arc::new(SystemEntropy));
        let beats = beats.every(self.interval);
        let status = beats.status();
        let (stop, stopped) = oneshot::channel();
        let (body, started) = (Arc::clone(&self.beat), Instant::now());
        let say = move || Beat { uptime_seconds: started.elapsed().as_secs(), ..lock(&body).clone() };
        let tell = tell(status.clone(), self.on_beat.clone());
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let run = move || {
            runtime.block_on(async {
                let stopped = async {
                    // Told to stop, or the loop was dropped: the same.
                    let _ = stopped.await;
                };
                tokio::select! {
                    () = beats.run(say, stopped) => {}
                    () = tell => {}
                }
            });
            // A name that is being resolved is not waited for.
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name("molecule-heartbeat".into()).spawn(run).map_err(failed)?;
        Ok(State { status, running: Some(Running { stop, thread }) })
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
    if let Some(Running { stop, thread }) = running {
        // It may have ended by itself; a panic was told by its thread.
        let _ = stop.send(());
        let _ = thread.join();
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every assignment leaves a whole value, so a panic elsewhere spoils nothing.
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
