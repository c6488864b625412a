//! Waiting for Rust from Python.

use std::{pin::pin, time::Duration};

use molecule_core::Result;
use pyo3::prelude::*;
use pyo3_async_runtimes::tokio::{future_into_py, get_runtime};

use crate::errors::raised;

/// How often a wait looks whether Python was interrupted.
const SLICE: Duration = Duration::from_millis(100);

/// Waits for `future` with the interpreter released. Ctrl-C ends the wait.
pub(crate) fn wait<T: Send>(py: Python<'_>, future: impl Future<Output = Result<T>> + Send) -> PyResult<T> {
    let mut future = pin!(future);
    loop {
        let slice = py.detach(|| get_runtime().block_on(async { tokio::time::timeout(SLICE, future.as_mut()).await }));
        match slice {
            Ok(result) => return result.map_err(|error| raised(py, &error)),
            Err(_) => py.check_signals()?,
        }
    }
}

/// An awaitable of `future`.
pub(crate) fn awaitable<T>(
    py: Python<'_>,
    future: impl Future<Output = Result<T>> + Send + 'static,
) -> PyResult<Bound<'_, PyAny>>
where
    T: for<'py> IntoPyObject<'py> + Send + 'static,
{
    future_into_py(py, async move { future.await.map_err(|error| Python::attach(|py| raised(py, &error))) })
}
