//! Waiting for Rust from Python.

use std::{io, pin::pin, sync::Arc, time::Duration};

use molecule_core::{Error, ErrorKind, Result};
use pyo3::{intern, prelude::*, types::PyDict};
use tokio::runtime::{Builder, Runtime};

use crate::{errors::raised, per_process::PerProcess};

/// How often a wait looks whether Python was interrupted.
const SLICE: Duration = Duration::from_millis(100);

/// The threads of every call. None of them ever asks for the interpreter, which could end under it.
pub(crate) fn runtime() -> Result<Arc<Runtime>> {
    static RUNTIME: PerProcess<Runtime> = PerProcess::new();
    let failed = |error: io::Error| Error::new(ErrorKind::Unexpected, "threads cannot be started").caused_by(error);
    let build = || Builder::new_multi_thread().worker_threads(2).thread_name("molecule").enable_all().build();
    RUNTIME.get_or_try_init(|| build().map_err(failed))
}

/// Waits for `future` with the interpreter released. Ctrl-C ends the wait.
pub(crate) fn wait<T: Send>(py: Python<'_>, future: impl Future<Output = Result<T>> + Send) -> PyResult<T> {
    let runtime = runtime().map_err(|error| raised(py, &error))?;
    let mut future = pin!(future);
    loop {
        let slice = py.detach(|| runtime.block_on(async { tokio::time::timeout(SLICE, future.as_mut()).await }));
        match slice {
            Ok(result) => return result.map_err(|error| raised(py, &error)),
            Err(_) => py.check_signals()?,
        }
    }
}

/// The coroutine of calling the method `name` of `of` on a thread of asyncio's, which waits for it at its end.
///
/// A thread of Rust's that brought the result itself could still hold the interpreter when it ends, and take the process
/// with it.
pub(crate) fn on_a_thread<'py>(
    of: &Bound<'py, PyAny>,
    name: &str,
    arguments: &[(&str, Bound<'py, PyAny>)],
) -> PyResult<Bound<'py, PyAny>> {
    let py = of.py();
    let keywords = PyDict::new(py);
    for (name, value) in arguments {
        keywords.set_item(name, value)?;
    }
    let method = of.getattr(name)?;
    py.import(intern!(py, "asyncio"))?.call_method(intern!(py, "to_thread"), (method,), Some(&keywords))
}
