//! From the errors of the core to those of the package.

use molecule_core::{Error, ErrorKind, error::Retry};
use pyo3::{
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyModule},
};

/// The class and the code of each kind, both in the package's words.
fn class_and_code(kind: ErrorKind) -> (&'static str, &'static str) {
    match kind {
        ErrorKind::InvalidInput => ("InvalidInputError", "invalid_input"),
        ErrorKind::Unauthenticated => ("AuthenticationError", "unauthenticated"),
        ErrorKind::PermissionDenied => ("AuthenticationError", "permission_denied"),
        ErrorKind::BudgetExceeded => ("RateLimitedError", "budget_exceeded"),
        ErrorKind::NotFound => ("RemovedError", "not_found"),
        ErrorKind::Removed => ("RemovedError", "removed"),
        ErrorKind::Conflict => ("MoleculeError", "conflict"),
        ErrorKind::TooLarge => ("InvalidInputError", "too_large"),
        ErrorKind::LimitReached => ("RateLimitedError", "limit_reached"),
        ErrorKind::Unsupported => ("MoleculeError", "unsupported"),
        ErrorKind::Unavailable => ("UnavailableError", "unavailable"),
        ErrorKind::Upstream => ("UnavailableError", "upstream"),
        // What the core adds later is unexpected here until it has a line.
        _ => ("MoleculeError", "unexpected"),
    }
}

/// Every kind of error of the core with its class and code, for the tests.
#[pyfunction]
pub(crate) fn error_table() -> Vec<(String, &'static str, &'static str)> {
    let line = |kind: &ErrorKind| {
        let (class, code) = class_and_code(*kind);
        (format!("{kind:?}"), class, code)
    };
    ErrorKind::ALL.iter().map(line).collect()
}

/// `error` as the exception that Python sees.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    exception(py, error).unwrap_or_else(|failed| failed)
}

fn exception(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || py.import("molecule._errors").map(Bound::unbind))?;
    let (class, code) = class_and_code(error.kind());
    let arguments = PyDict::new(py);
    arguments.set_item("code", code)?;
    arguments.set_item("retryable", error.retry() == Retry::Maybe)?;
    let retry_after = error.members().iter().find(|(name, _)| *name == "retry_after");
    arguments.set_item("retry_after", retry_after.and_then(|(_, value)| value.as_u64()))?;
    let exception = module.bind(py).getattr(class)?.call((error.message(),), Some(&arguments))?;
    Ok(PyErr::from_value(exception))
}
