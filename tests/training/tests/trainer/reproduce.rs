//! The script that reproduces the published tables, rehearsed on synthetic radiographs in the same layouts.

use std::path::Path;
use std::process::{Command, Output};

use helpers::{binary, folder, repository, text};

fn reproduce(at: &Path, studies: &str, steps: &[&str]) -> Output {
    let mut command = Command::new(repository().join("trainer/experiments/reproduce.sh"));
    command.arg(at.join("raw")).arg(at.join("out")).args(steps);
    command.env("BIN", binary("trainer").parent().expect("a folder")).env("SCALE", "phantom").env("STUDIES", studies);
    command.env("SEEDS", "42").env("DEVICE", "cpu").env("OMP_NUM_THREADS", "1");
    command.output().expect("bash")
}

#[test]
fn the_published_tables_are_rehearsed() {
    let temporary = folder();
    let output = reproduce(temporary.path(), "100", &[]);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}\n{}", text(&output.stderr));
    for count in ["mimic: 100 studies, as expected", "nih: ", "chexpert: ", "rsna: 100 records, as expected"] {
        assert!(printed.contains(count), "{count}");
    }
    let table = std::fs::read_to_string(temporary.path().join("out/tables.md")).expect("the tables");
    for task in ["nih14", "chexpert5", "rsna", "siim"] {
        let after = table.split_once(&format!("{task}\n")).expect("a task").1;
        let lines: Vec<&str> = after.lines().take(3).collect();
        assert!(lines[0].ends_with("| 10%, release | 10%, benchx | 100%, release | 100%, benchx |"), "{table}");
        assert_eq!(lines[2].matches("(1 run)").count(), 4, "{table}");
    }
    // Again: everything is kept, and a wrong number of records ends it.
    let again = reproduce(temporary.path(), "100", &["finetune", "table"]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert_eq!(std::fs::read_to_string(temporary.path().join("out/tables.md")).expect("the tables"), table);
    let wrong = reproduce(temporary.path(), "99", &["ingest"]);
    assert_eq!(wrong.status.code(), Some(1), "{}", text(&wrong.stdout));
    assert!(text(&wrong.stderr).contains("mimic: 100 studies, not 99; docs/reproduce.md"), "{}", text(&wrong.stderr));
    let unknown = reproduce(temporary.path(), "100", &["train"]);
    assert_eq!(unknown.status.code(), Some(2));
}
