//! Python programs that check what the binaries wrote.

use std::process::Command;

use crate::text;

/// The Python of `MRM_PYTHON` (`python3` where it is not set), which has the packages of `tests/requirements.txt`.
pub fn python() -> Command {
    Command::new(std::env::var("MRM_PYTHON").unwrap_or_else(|_| "python3".to_owned()))
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
