//! Python programs that check what the binaries wrote.

use std::path::PathBuf;
use std::process::Command;

use crate::text;

/// The Python of `MRM_PYTHON` (`python3` where it is not set), which has the packages of `tests/requirements.txt`.
pub fn python() -> Command {
    Command::new(std::env::var("MRM_PYTHON").unwrap_or_else(|_| "python3".to_owned()))
}

/// The Python of `MRM_CLUSTER_PYTHON`, which has the packages of `tests/requirements-cluster.txt`; `None`, with a line that says
/// so, where it is not set.
///
/// # Panics
/// With `MRM_REQUIRE_CLUSTER=1` where it is not set.
pub fn cluster_python() -> Option<PathBuf> {
    let found = std::env::var_os("MRM_CLUSTER_PYTHON").map(PathBuf::from).filter(|path| path.is_file());
    if found.is_none() {
        assert!(!requires_cluster(), "MRM_CLUSTER_PYTHON names no Python");
        eprintln!("skipped: MRM_CLUSTER_PYTHON names no Python with tests/requirements-cluster.txt");
    }
    found
}

/// Whether tests of schedulers must run (`MRM_REQUIRE_CLUSTER=1`), and fail where they would be skipped.
pub fn requires_cluster() -> bool {
    std::env::var("MRM_REQUIRE_CLUSTER").as_deref() == Ok("1")
}

/// Runs Python, which must succeed, and returns its standard output.
pub fn python_output(command: &mut Command) -> String {
    let output = command.output().expect("Python starts");
    assert!(
        output.status.success(),
        "{}\n(MRM_PYTHON: a Python with tests/requirements.txt; MRM_TORCH_PYTHON: with tests/requirements-torch.txt)",
        text(&output.stderr)
    );
    text(&output.stdout)
}
