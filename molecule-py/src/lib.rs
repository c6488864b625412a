//! The compiled part of the Python package `molecule`.

use pyo3::prelude::*;

/// Nothing here is for users: `molecule` re-exports what is.
#[pymodule]
mod _molecule {
    use super::{Bound, PyModule, PyModuleMethods, PyResult};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
