//! The extension module `mrm._mrm`: what the Python package `mrm` needs of the crates `dataset` and `ingest`.
//!
//! | file | contents |
//! | --- | --- |
//! | `array.rs` | arrays that other libraries use without a copy (DLPack, NumPy's array interface) |
//! | `table.rs` | tables in both directions (Arrow's PyCapsule interface) |
//! | `dataset.rs`, `record.rs`, `split.rs` | an opened dataset, one record, a split |
//! | `loader.rs`, `batch.rs`, `pinned.rs` | the loader's threads, batches, lent memory |
//! | `ingest.rs`, `join.rs`, `calls.rs` | ingest and phantom; join; split, export and verify |
//! | `long_call.rs`, `options.rs`, `table_text.rs` | what these share: signals and progress; keyword arguments; tables of Python |
//! | `commands.rs` | the command lines of `ingest` and `dataset` |
//! | `process.rs` | what works after a fork |
//! | `errors.rs` | Rust errors as exceptions of `mrm.errors` |
//!
//! Long work runs without the interpreter's lock. Locks of this crate are taken either while attached and then held only for
//! a moment, or while detached; never while attached for a time that depends on another thread.

mod array;
mod batch;
mod calls;
mod commands;
mod dataset;
mod errors;
mod image;
mod ingest;
mod join;
mod json;
mod loader;
mod long_call;
mod options;
mod pinned;
mod process;
mod record;
mod split;
mod table;
mod table_text;

/// The extension module of the package `mrm`.
#[pyo3::pymodule]
mod _mrm {
    #[pymodule_export]
    use crate::array::{Array, array_of_bytes, row_array};
    #[pymodule_export]
    use crate::batch::{Batch, Text};
    #[pymodule_export]
    use crate::calls::{export, split, verify};
    #[pymodule_export]
    use crate::commands::run_command;
    #[pymodule_export]
    use crate::dataset::Dataset;
    #[pymodule_export]
    use crate::ingest::{ingest, phantom};
    #[pymodule_export]
    use crate::join::join;
    #[pymodule_export]
    use crate::loader::{Loader, RandomAccess, check_transform};
    #[pymodule_export]
    use crate::record::{BoundingBox, NamedText, Reading, Record};
    #[pymodule_export]
    use crate::split::Split;
    #[pymodule_export]
    use crate::table::Table;

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_init]
    fn init(_module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
        crate::process::imported()
    }
}
