//! The notebooks run on a small dataset from the first cell to the last, and show the expected output.

use std::collections::BTreeMap;
use std::fs;

use helpers::{args, folder, ok, python_output, repository};
use serde_json::Value;
use training::{dataset, pretraining, torch_python};

/// Printed text of all cells, and the number of images and HTML outputs.
fn outputs(notebook: &Value) -> (String, usize) {
    let (mut printed, mut shown) = (String::new(), 0);
    for cell in notebook["cells"].as_array().expect("cells") {
        for output in cell["outputs"].as_array().into_iter().flatten() {
            assert_ne!(output["output_type"], "error", "{output}");
            let lines = &output["text"];
            printed += &lines.as_array().map_or_else(
                || lines.as_str().unwrap_or_default().to_owned(),
                |lines| lines.iter().filter_map(Value::as_str).collect(),
            );
            let data = &output["data"];
            shown += usize::from(data.get("image/png").is_some() || data.get("text/html").is_some());
        }
    }
    (printed, shown)
}

#[test]
fn the_notebooks_run() {
    let Some(mut notebooks) = torch_python("notebooks.py") else { return };
    let temporary = folder();
    let data = dataset(temporary.path(), 60);
    let runs = temporary.path().join("runs");
    ok("trainer", pretraining(&data, &runs.join("mrm"), 6, &[]));
    let rows = args!["--rows", "2", "--split", "main"];
    ok("trainer", args!["reconstruct", "--data", &data, "--weights", runs.join("mrm")].into_iter().chain(rows));
    let mut sweep = args!["sweep", "--data", &data, "--out", runs.join("sweep"), "--task", "chexpert5"].to_vec();
    sweep.extend(args!["--split", "main", "--ratios", "50,100", "--seeds", "0,1", "--steps", "3", "--draws", "20"]);
    sweep.extend(args!["--init", format!("mrm={}", runs.join("mrm").display()), "--device", "cpu"]);
    sweep.extend(args!["--init", "scratch=random", "--preset", "mrm-vit-tiny", "--set", "optimizer.batch_size=8"]);
    ok("trainer", sweep);

    notebooks.args([&repository().join("notebooks"), temporary.path()]);
    notebooks.envs([("MRM_DATASET", &data), ("MRM_RUNS", &runs)]).env("EPOCHS", "1");
    python_output(&mut notebooks);

    let wanted = [
        ("1-explore", "mimic-cxr {'records'", 3),
        ("2-split", "patients in more than one subset: 0", 1),
        ("3-pretraining", "masked tokens predicted correctly", 4),
        ("4-label-efficiency", "8 evaluated runs", 1),
        ("5-another-trainer", "test AUROC", 1),
    ];
    let found: BTreeMap<String, (String, usize)> = wanted
        .iter()
        .map(|(name, ..)| {
            let path = temporary.path().join(format!("{name}.ipynb"));
            let notebook = serde_json::from_slice(&fs::read(&path).expect("an executed notebook")).expect("JSON");
            ((*name).to_owned(), outputs(&notebook))
        })
        .collect();
    for (name, words, images) in wanted {
        let (printed, shown) = &found[name];
        assert!(printed.contains(words) && *shown >= images, "{name}: {shown} shown\n{printed}");
    }
    assert_eq!(
        fs::read_dir(repository().join("notebooks"))
            .expect("notebooks")
            .flatten()
            .filter(|entry| { entry.path().extension().is_some_and(|extension| extension == "ipynb") })
            .count(),
        wanted.len()
    );
}
