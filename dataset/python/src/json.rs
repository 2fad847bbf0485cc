//! JSON as Python's values.

use pyo3::prelude::*;

/// A JSON text as Python's values.
pub fn json<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("json")?.call_method1("loads", (text,))
}
