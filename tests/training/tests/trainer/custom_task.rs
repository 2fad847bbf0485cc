//! The example of a task of your own, `trainer/examples/custom_task.rs`: all commands work for it.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use helpers::{args, fails, folder, ingest, ok, phantom_of};
use serde_json::Value;
use training::numbers;

const PROGRAM: &str = "examples/custom_task";

#[test]
fn all_commands_work_for_a_custom_task() {
    let temporary = folder();
    let data = temporary.path().join("set");
    ingest("chexpert", &phantom_of("chexpert", temporary.path(), 60), &data, &[]);
    ok(
        "dataset",
        args!["split", &data, "--name", "main", "--ratios", "50,100", "--validation", "0.2", "--test", "0.3"],
    );
    let run = |name: &str| temporary.path().join("runs").join(name);
    let small = ["model.vit.num_layers=1", "run.log_every=1", "optimizer.evaluate_every=3", "run.checkpoint_every=2"];
    let finetune = |run: &Path, steps: &str, more: &[&str]| -> Vec<OsString> {
        let mut all = args!["finetune", "--data", &data, "--run", run, "--task", "age", "--split", "main"].to_vec();
        all.extend(args!["--device", "cpu", "--steps", steps, "--batch-size", "8"]);
        all.extend(small.iter().flat_map(|setting| args!["--set", setting]));
        all.extend(more.iter().map(Into::into));
        all
    };
    let tiny = ["--preset", "mrm-vit-tiny"];
    let printed = ok(PROGRAM, finetune(&run("first"), "6", &tiny));
    assert!(
        printed.contains("kind = \"age\"") && printed.contains(" records of known age, 6 steps, on cpu"),
        "{printed}"
    );
    assert!(printed.contains("done: ") && printed.contains("best validation score -"), "{printed}");
    let evaluate =
        |name: &str| args!["evaluate", "--data", &data, "--run", run(name), "--split", "main", "--draws", "50"];
    let printed = ok(PROGRAM, evaluate("first"));
    assert!(printed.contains("mean absolute error "), "{printed}");
    let report: Value = dataset::store::files::read_json(&run("first").join("evaluation-test.json")).expect("a report");
    let table = fs::read_to_string(run("first").join("predictions-test.csv")).expect("a table");
    let mut lines = table.lines();
    assert_eq!(lines.next(), Some("record_id,patient_id,age,predicted,error_years"));
    let errors: Vec<f64> = lines
        .map(|line| {
            let numbers: Vec<f64> = line.rsplit(',').take(3).map(|text| text.parse().expect("a number")).collect();
            assert!((numbers[0] - (numbers[1] - numbers[2]).abs()).abs() < 1e-3, "{line}");
            numbers[0]
        })
        .collect();
    let mean = errors.iter().sum::<f64>() / errors.len() as f64;
    assert!((report["error_years"]["value"].as_f64().expect("a value") - mean).abs() < 1e-3, "{report}");
    assert_eq!(report["kind"], "age");

    // A run that continues has the numbers of one that was not interrupted.
    ok(PROGRAM, finetune(&run("halves"), "6", &tiny));
    fs::remove_dir_all(run("halves").join("checkpoints/step-6")).expect("removed");
    ok(PROGRAM, finetune(&run("halves"), "6", &tiny));
    assert_eq!(numbers(&run("halves")), numbers(&run("first")));

    // Another task's run starts from its encoder, and it from another one's.
    ok(PROGRAM, finetune(&run("second"), "3", &["--init", &run("first").to_string_lossy()]));
    ok(PROGRAM, evaluate("second"));
    let printed = ok(PROGRAM, args!["compare", run("first"), run("second"), "--draws", "50"]);
    assert!(printed.contains("error in years") && printed.contains(" p "), "{printed}");
    let sweep = temporary.path().join("sweep");
    let mut all = args!["sweep", "--data", &data, "--out", &sweep, "--task", "age", "--split", "main"].to_vec();
    all.extend(args!["--ratios", "50,100", "--init", format!("age={}", run("first").display()), "--steps", "2"]);
    all.extend(args!["--draws", "20", "--device", "cpu", "--set", "optimizer.batch_size=8"]);
    let printed = ok(PROGRAM, all);
    assert!(printed.contains("test error in years") && printed.contains("| age | "), "{printed}");
    let page = temporary.path().join("report.html");
    ok(PROGRAM, args!["report", run("first"), run("second"), "--out", &page]);
    let html = fs::read_to_string(&page).expect("a page");
    for part in ["Label efficiency: age", "Evaluations: age regression", "validation error in years"] {
        assert!(html.contains(part), "{part}");
    }
    ok(
        PROGRAM,
        args!["embed", "--data", &data, "--weights", run("first"), "--out", temporary.path().join("f.parquet")],
    );

    // The names of all tasks are in the help; the built-in program does not have this one.
    assert!(ok(PROGRAM, args!["finetune", "--help"]).contains("age (age regression)"));
    let message = fails("trainer", 2, finetune(&run("x"), "1", &tiny));
    assert!(message.contains("no task `age`; there are: nih14, chexpert5"), "{message}");
    let message = fails("trainer", 1, evaluate("first"));
    assert!(message.contains("this program has no task of kind `age`"), "{message}");
    let message = fails(PROGRAM, 1, [&evaluate("first")[..], &args!["--min-area", "3"]].concat());
    assert!(message.contains("--min-area is for segmentation runs"), "{message}");
}
