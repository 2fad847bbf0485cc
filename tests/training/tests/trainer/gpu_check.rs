//! `trainer/gpu_check` at its smallest sizes on the CPU: every check gives figures, or says why it has none.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use helpers::{args, binary, folder, repository, text};
use serde_json::Value;
use training::torch_python;

/// The newest executable of the golden tests, which is beside that of this test.
fn golden_tests() -> PathBuf {
    let here = std::env::current_exe().expect("a path");
    let files = fs::read_dir(here.parent().expect("a folder")).expect("a folder").flatten().map(|entry| entry.path());
    let name = |path: &PathBuf| path.file_name().and_then(OsStr::to_str).unwrap_or_default().to_owned();
    let built = files.filter(|path| name(path).starts_with("golden-") && path.extension().is_none());
    let newest = built.max_by_key(|path| fs::metadata(path).and_then(|data| data.modified()).expect("a time"));
    newest.expect("the golden tests are built with this test")
}

#[test]
fn every_check_of_a_gpu_has_figures_or_a_reason() {
    let Some(mut check) = torch_python(repository().join("trainer/gpu_check").to_str().expect("a path of text")) else {
        return;
    };
    let temporary = folder();
    let out = temporary.path().join("out");
    let bin = binary("trainer").parent().expect("a folder").to_owned();
    check.args(args!["--bin", bin, "--device", "cpu", "--tiny", "--out", &out, "--golden-tests", golden_tests()]);
    let python = check.get_program().to_owned();
    let output = check.arg("--python").arg(python).output().expect("Python starts");
    let (printed, log) = (text(&output.stdout), text(&output.stderr));
    let rows: Vec<Value> =
        serde_json::from_slice(&fs::read(out.join("gpu-check.json")).expect("a report")).expect("JSON");
    // What a CPU cannot show, and what a trainer may lack that trains with one process.
    let optional = ["out of memory", "ranks", "PyTorch, compiled"];
    let sections =
        ["machine", "golden, fp32", "golden, bf16", "step", "PyTorch, eager", "data", "resume", "loader", "training"];
    for section in sections.into_iter().chain(optional) {
        let mut of = rows.iter().filter(|row| row["section"] == section).peekable();
        assert!(of.peek().is_some(), "no row of {section}\n{printed}\n{log}");
        for row in of {
            assert!(row["text"].as_str().is_some_and(|text| !text.is_empty()), "{row}");
            let figures = row["figures"].as_object().expect("an object");
            match row["status"].as_str() {
                Some("ok") => assert!(!figures.is_empty(), "{row}"),
                Some("not available") if optional.contains(&section) => {}
                _ => panic!("{row}\n{log}"),
            }
        }
    }
    let row = |section: &str| rows.iter().find(|row| row["section"] == section).expect("a row");
    assert!(row("golden, fp32")["figures"]["passed"].as_u64() > Some(10));
    assert_eq!(row("golden, fp32")["figures"]["passed"], row("golden, fp32")["figures"]["of"]);
    // Stopped and continued to the same numbers, as on every CPU.
    assert_eq!(row("resume")["figures"]["largest_relative_difference"], 0.0);
    assert!(row("training")["figures"]["images_per_second"].as_f64() > Some(0.0));
    assert!(output.status.success(), "{log}");
    let table = fs::read_to_string(out.join("gpu-check.md")).expect("a table");
    assert!(printed == table && table.lines().count() == rows.len() + 2, "{table}");
    assert_eq!(fs::read_dir(&out).expect("a folder").count(), 2, "only the two reports remain");
}

#[test]
fn a_device_that_is_not_there_is_the_reason_of_every_check() {
    let Some(mut check) = torch_python(repository().join("trainer/gpu_check").to_str().expect("a path of text")) else {
        return;
    };
    let temporary = folder();
    let out = temporary.path().join("out");
    let bin = binary("trainer").parent().expect("a folder").to_owned();
    // No machine has this many.
    check.args(args!["--bin", bin, "--device", "cuda:99", "--tiny", "--out", &out, "--python", "/none"]);
    let output = check.output().expect("Python starts");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let rows: Vec<Value> =
        serde_json::from_slice(&fs::read(out.join("gpu-check.json")).expect("a report")).expect("JSON");
    for row in rows.iter().filter(|row| !["machine", "data"].contains(&row["section"].as_str().expect("a name"))) {
        assert!(row["status"] == "not available" && row["text"].as_str().is_some_and(|text| text.contains("cuda:99")));
    }
}
