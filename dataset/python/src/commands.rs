//! The command lines of `ingest` and `dataset`, for the console scripts.

use std::ffi::OsString;
use std::io::Write;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Runs the program `ingest` or `dataset` with arguments and returns its exit code. It prints as the program does.
///
/// # Errors
/// ValueError for the name of another program.
#[pyfunction]
pub fn run_command(py: Python<'_>, name: &str, arguments: Vec<OsString>) -> PyResult<u8> {
    let main: fn(Vec<OsString>) -> u8 = match name {
        "ingest" => ::ingest::cli::main,
        "dataset" => ::dataset::commands::arguments::main,
        _ => return Err(PyValueError::new_err(format!("no program `{name}`: give ingest or dataset"))),
    };
    let mut line = vec![name.into()];
    line.extend(arguments);
    let code = py.detach(|| main(line));
    // Only a program in Rust does this at its end.
    let _ = std::io::stdout().flush();
    Ok(code)
}
