//! Training and evaluation on splits that warn, or that were changed.

use std::fs;
use std::path::Path;

use dataset::split::certificate_path;
use helpers::splits::{certificate, refused_changes, write_large_patients};
use helpers::{args, fails, folder, ingest, ok, phantom, text};

/// With patients of 22 images no set is near 1%: training and evaluation warn.
#[test]
fn a_split_far_from_its_share_is_reported() {
    let temporary = folder();
    let data = temporary.path().join("set");
    write_large_patients(&data);
    ok("dataset", args!["split", &data, "--name", "main", "--ratios", "1,50,100"]);
    let stated = certificate(&data, "main");
    let share = stated.warnings.iter().find(|warning| warning.part == "1%" && warning.finding.is_none());
    let share = share.expect("a warning");
    let (train, one) = (stated.parts[0].records, stated.parts[3].records);
    let share =
        format!("the 1% set has {:.1}% of the training records ({one} of {train}), not 1%", 100.0 * share.found);

    let run = temporary.path().join("run");
    let finetune = |ratio: &str, run: &Path| {
        let mut all = args!["finetune", "--data", &data, "--run", run, "--split", "main", "--ratio", ratio].to_vec();
        all.extend(args![
            "--task",
            "labels:Edema,Mass,Nodule",
            "--preset",
            "mrm-vit-tiny",
            "--device",
            "cpu",
            "--steps",
            "1"
        ]);
        all.extend(args!["--batch-size", "4", "--set", "model.vit.num_layers=1", "--set", "model.vit.image_size=32"]);
        all
    };
    let output = helpers::run("trainer", finetune("1", &run));
    let warned = format!("warning: split `main`: {share}");
    assert!(output.status.success() && text(&output.stderr).contains(&warned), "{}", text(&output.stderr));
    let evaluate = args!["evaluate", "--data", &data, "--run", &run, "--split", "main", "--draws", "10"];
    let output = helpers::run("trainer", evaluate.clone());
    assert!(output.status.success() && text(&output.stderr).contains(&warned), "{}", text(&output.stderr));
    let output = helpers::run("trainer", finetune("100", &temporary.path().join("other")));
    assert!(output.status.success() && !text(&output.stderr).contains("warning: split"), "{}", text(&output.stderr));

    // With a certificate without warnings, as older versions wrote it, they are given too.
    let path = data.join(certificate_path("main"));
    let mut older: serde_json::Value = dataset::store::files::read_json(&path).expect("a certificate");
    assert!(older.as_object_mut().expect("an object").remove("warnings").is_some());
    fs::write(&path, older.to_string()).expect("written");
    ok("dataset", args!["verify", &data]);
    let output = helpers::run("trainer", evaluate);
    assert!(output.status.success() && text(&output.stderr).contains(&warned), "{}", text(&output.stderr));
}

#[test]
fn a_changed_split_is_refused() {
    let temporary = folder();
    let data = temporary.path().join("set");
    ingest("mimic-cxr", &phantom(temporary.path(), 40), &data, &[]);
    ok("dataset", args!["split", &data, "--name", "main", "--ratios", "50,100"]);
    refused_changes(&data, || {
        let run = temporary.path().join("run");
        let refused = fails(
            "trainer",
            1,
            args![
                "finetune",
                "--data",
                &data,
                "--run",
                &run,
                "--split",
                "main",
                "--task",
                "labels:Edema",
                "--preset",
                "mrm-vit-tiny",
                "--ratio",
                "50"
            ],
        );
        assert!(!run.exists(), "no partial output");
        let remedy = "make the split again: dataset split ";
        let arguments = "--name main --unit patient --seed 0 --ratios 50,100 --validation 0.1 --test 0.2";
        assert!(refused.contains(remedy) && refused.contains(arguments), "{refused}");
        refused
    });
}
