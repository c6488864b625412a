//! The compiled part of the Python package `molecule`: it converts, releases the interpreter, and calls the core.

mod agent;
mod delivery;
mod errors;
mod files;
mod heartbeat;
mod logs;
mod mcp;
mod per_process;
mod runtime;
mod shared;

use pyo3::prelude::*;

/// Nothing here is for users: `molecule` re-exports what is.
#[pymodule]
mod _molecule {
    use super::{Bound, PyAnyMethods, PyModule, PyModuleMethods, PyResult, wrap_pyfunction};
    #[pymodule_export]
    use super::{
        agent::Agent,
        errors::error_table,
        files::{FileAnswer, Files, Upload},
        heartbeat::{HeartbeatLoop, HeartbeatStatus},
        mcp::{is_mcp_verbose, run_mcp},
        shared::{auth_headers, get_token, redact, refresh_cache, save_token, self_source_headers},
    };

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::logs::start();
        let close = wrap_pyfunction!(super::delivery::close, module)?;
        module.py().import("atexit")?.call_method1("register", (close,))?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
