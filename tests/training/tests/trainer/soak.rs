//! A minute of `tests/soak.py`: memory, open files and threads of trainings and of the loader stay flat.

use helpers::{binary, folder, python_output};
use training::torch_python;

#[test]
fn memory_files_and_threads_stay_flat() {
    let Some(mut python) = torch_python("../soak.py") else { return };
    let temporary = folder();
    let bin = binary("trainer");
    let printed = python_output(python.arg(temporary.path()).arg(bin.parent().expect("a folder")).arg("60"));
    println!("{printed}");
    // The samples are those of real work: checkpoints, evaluations, batches.
    assert!(temporary.path().join("pretrain/latest").exists(), "a checkpoint");
    let lines = std::fs::read_to_string(temporary.path().join("soak.csv")).expect("samples").lines().count();
    assert!(lines > 3 * 30 && temporary.path().join("soak.png").is_file(), "{lines} lines");
}
