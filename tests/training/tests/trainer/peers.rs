//! The benchmarks beside peers run from a folder of nothing, and print ratios. How large these are depends on the machine.

use std::process::Command;

use helpers::{binary, folder, golden, python_output, repository};
use training::torch_python;

/// A benchmark of a crate, run by the Python that has torch.
fn benchmark(script: &str) -> Option<Command> {
    torch_python(repository().join(script).to_str().expect("a path of text"))
}

/// The numbers of the cells of a printed table in the row that begins with `name`; bold or not.
fn cells(printed: &str, name: &str) -> Vec<f64> {
    let row = printed.lines().find(|line| line.starts_with(&format!("| {name}")));
    let row = row.unwrap_or_else(|| panic!("no row {name} in\n{printed}"));
    let numbers = row.split('|').filter_map(|cell| cell.trim().trim_matches('*').parse().ok()).collect::<Vec<f64>>();
    assert!(numbers.iter().all(|number| number.is_finite() && *number >= 0.0), "{row}");
    numbers
}

#[test]
fn the_trainers_peer_is_the_reference_model() {
    let Some(mut peer) = benchmark("trainer/benches/peers/train.py") else { return };
    let printed = python_output(peer.arg("--golden").arg(golden()));
    let differences: Vec<(&str, f64)> = printed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, value)| (name, value.parse().expect("a number")))
        .collect();
    assert_eq!(differences.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["image", "report"]);
    assert!(differences.iter().all(|(_, difference)| *difference < 1e-5), "{printed}");
}

#[test]
fn a_training_step_is_compared_with_pytorch() {
    let Some(mut peer) = benchmark("trainer/benches/peers/train.py") else { return };
    peer.arg("--trainer").arg(binary("trainer")).args(["--preset", "mrm-vit-tiny", "--batch-size", "2", "--cpu-time"]);
    let printed = python_output(peer.args(["--steps", "2", "--runs", "1", "--threads", "1"]));
    assert_eq!(cells(&printed, "`trainer bench`").len(), 4, "{printed}");
    assert_eq!(cells(&printed, "PyTorch, eager").len(), 4, "{printed}");
    let ratios = cells(&printed, "ratio to eager");
    assert!(ratios.len() == 2 && ratios[0] > 0.0, "{printed}");
}

#[test]
fn ingest_is_compared_with_a_python_pipeline() {
    let Some(mut peer) = benchmark("ingest/benches/peers/ingest.py") else { return };
    let temporary = folder();
    peer.arg("--ingest").arg(binary("ingest")).arg("--work").arg(temporary.path().join("work"));
    let printed = python_output(peer.args(["--studies", "3", "--size", "600", "--runs", "1", "--jobs", "1"]));
    for kind in ["uncompressed DICOM", "JPEG-lossless DICOM", "JPEG |"] {
        // Images, both rates, their ratio, both processor times, their ratio.
        let row = cells(&printed, kind);
        assert!(row.len() == 7 && row[0] >= 3.0 && row[3] > 0.0, "{printed}");
    }
}
