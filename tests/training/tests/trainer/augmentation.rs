//! Training with augmentations: set by a list, stored, the same for any threads; and what the log says about time.

use std::fs;

use helpers::{args, fails, folder, ok};
use serde_json::Value;
use trainer::train::logger::read_metrics;
use training::{dataset, numbers, pretraining};

const LIST: &str = r#"data.augment=[{kind="affine", degrees=[-10, 10], translate=[0.1, 0.1]}, {kind="gaussian_noise", sigma=[0, 0.1], probability=0.5}]"#;

#[test]
fn an_augmented_run_repeats_for_any_threads_and_its_limit_is_found() {
    let temporary = folder();
    let data = dataset(temporary.path(), 40);
    let run = |name: &str| temporary.path().join(name);
    let train = |name: &str, steps: u64, set: &[&str]| ok("trainer", pretraining(&data, &run(name), steps, set));
    train("plain", 6, &[]);
    train("whole", 6, &["--set", LIST]);
    assert_ne!(numbers(&run("whole"))[0]["loss"], numbers(&run("plain"))[0]["loss"], "images are augmented");
    let stored = fs::read_to_string(run("whole").join("config.toml")).expect("a configuration");
    assert!(stored.contains("[[data.augment]]\nkind = \"affine\"\n"), "{stored}");
    train("threads", 6, &["--set", LIST, "--set", "run.loader_threads=3"]);
    assert_eq!(numbers(&run("threads")), numbers(&run("whole")));
    let other = fails("trainer", 1, pretraining(&data, &run("whole"), 7, &[]));
    assert!(other.contains("another configuration"), "{other}");

    // A run of an older version, whose configuration has no such key, continues.
    let path = run("plain").join("config.toml");
    let older = fs::read_to_string(&path).expect("a configuration");
    assert!(older.contains("\naugment = []\n"), "{older}");
    fs::write(&path, older.replace("\naugment = []\n", "\n")).expect("written");
    train("plain", 7, &[]);

    let lines = read_metrics(&run("whole")).expect("metrics").lines;
    for line in &lines {
        assert_eq!(line["step_records"], 8.0, "{line}");
        let [step, wait, sent] = ["step_s", "loader_wait_s", "transfer_s"].map(|key| line[key].as_f64().expect(key));
        assert!(step > 0.0 && wait >= 0.0 && sent > 0.0 && wait + sent <= step * 1.001, "{line}");
        assert!(line["loader_ready"].as_f64() >= Some(0.0), "{line}");
    }
    let examined = ok(
        "dataset",
        args!["doctor", &data, "--with-trainer", run("whole"), "--size", "32", "--seconds", "0.05", "--json"],
    );
    let report: Value = serde_json::from_str(&examined).expect("JSON");
    assert!(report["training"]["step_seconds"].as_f64() > Some(0.0), "{report}");
    assert!(report["finding"]["text"].as_str().is_some_and(|text| text.contains("images/s")), "{report}");
}
