//! The extension module `mrm._mrm`.

mod commands;

/// The extension module of the package `mrm`.
#[pyo3::pymodule]
mod _mrm {
    #[pymodule_export]
    use crate::commands::run_command;
}
