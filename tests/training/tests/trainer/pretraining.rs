//! Pre-training, and the way from there to an evaluated classifier; messages for invalid settings.

use std::ffi::OsString;
use std::fs;

use ::dataset::format::record::{ImageEncoding, Record};
use ::dataset::{Dataset, Split, Subset};
use helpers::{args, contents, fails, folder, ingest, made_record, ok, real_data, write_dataset};
use serde_json::Value;
use training::{MINIATURE, dataset, numbers, pretraining};

#[test]
fn from_pretraining_to_an_evaluated_classifier() {
    let temporary = folder();
    let data = dataset(temporary.path(), 80);
    let run = |name: &str| temporary.path().join("runs").join(name);
    ok("trainer", pretraining(&data, &run("mrm"), 6, &[]));
    let printed = ok(
        "trainer",
        args![
            "reconstruct",
            "--data",
            &data,
            "--weights",
            run("mrm").join("latest/model.safetensors"),
            "--rows",
            "2",
            "--split",
            "main"
        ],
    );
    assert!(printed.matches("mimic-cxr/").count() == 2 && printed.contains('['), "{printed}");
    let montage =
        dataset::format::image_codec::decode(&fs::read(run("mrm").join("reconstruction.png")).expect("an image"))
            .expect("a PNG");
    assert_eq!((montage.width, montage.height), (3 * 64 + 8, 2 * 64 + 4), "masked, reconstructed, original");

    let finetune = |name: &str, more: &[&str]| -> Vec<OsString> {
        let mut all = args![
            "finetune",
            "--data",
            &data,
            "--run",
            run(name),
            "--task",
            "labels:Cardiomegaly,Pleural Effusion",
            "--split",
            "main",
            "--device",
            "cpu"
        ]
        .to_vec();
        all.extend(args!["--steps", "8", "--batch-size", "8"]);
        all.extend(more.iter().map(Into::into));
        all
    };
    let init = run("mrm").to_string_lossy().into_owned();
    let printed = ok("trainer", finetune("half", &["--init", &init, "--ratio", "50"]));
    assert!(
        printed.contains("missing, left at their initialization: 4") && printed.contains("best validation score"),
        "{printed}"
    );
    ok("trainer", finetune("scratch", &["--preset", "mrm-vit-tiny", "--set", "model.vit.num_layers=1"]));
    for name in ["half", "scratch"] {
        let printed =
            ok("trainer", args!["evaluate", "--data", &data, "--run", run(name), "--split", "main", "--draws", "50"]);
        assert!(printed.contains("Pleural Effusion") && printed.contains("mean over defined findings"), "{printed}");
    }
    // The predictions give the printed AUROC.
    let report: Value = dataset::store::files::read_json(&run("half").join("evaluation-test.json")).expect("a report");
    let batches =
        dataset::format::table::read_table(&run("half").join("predictions-test.parquet")).expect("predictions");
    let scores =
        dataset::format::table::column::<arrow_array::Float32Array>(&batches[0], "score Cardiomegaly").expect("scores");
    let labels =
        dataset::format::table::column::<arrow_array::Int8Array>(&batches[0], "label Cardiomegaly").expect("labels");
    let labels: Vec<Option<bool>> = labels.iter().map(|label| label.map(|code| code == 1)).collect();
    let auroc = trainer::eval::metrics::auroc(scores.values(), &labels);
    assert_eq!(report["findings"][0]["auroc"]["value"].as_f64(), auroc);
    assert_eq!(report["records"].as_u64().expect("records") as usize, labels.len());

    let page = temporary.path().join("report.html");
    ok("trainer", args!["report", run("mrm"), run("half"), run("scratch"), "--out", &page]);
    let html = fs::read_to_string(&page).expect("a page");
    for part in ["Label efficiency", "data:image/png;base64,", "class=\"words\"", "random initialization", "<svg"] {
        assert!(html.contains(part), "{part}");
    }
    assert!(
        !html.contains("http://") || html.matches("http://").count() == html.matches("http://www.w3.org").count(),
        "self-contained"
    );
}

#[test]
fn the_real_covid_set_is_trained_on() {
    let Some(real) = real_data() else { return };
    let temporary = folder();
    let data = temporary.path().join("set");
    ingest("covid", &real.join("covid-chestxray"), &data, &["--max-reject-rate", "0.1"]);
    ok("dataset", args!["split", &data, "--name", "main", "--ratios", "10,100"]);
    let (mrm, tuned) = (temporary.path().join("mrm"), temporary.path().join("covid"));
    ok("trainer", pretraining(&data, &mrm, 3, &[]));
    let mut arguments =
        args!["finetune", "--data", &data, "--run", &tuned, "--task", "covid", "--split", "main"].to_vec();
    arguments.extend(args!["--init", &mrm, "--steps", "3", "--device", "cpu"]);
    let printed = ok("trainer", arguments);
    // A classifier of COVID-19 against other pneumonia does not use records without a label or without pneumonia.
    let labels = Dataset::open(&data).expect("a dataset");
    let split = Split::load(&labels, "main").expect("a split");
    let pneumonia = labels.findings().iter().position(|name| name == "Pneumonia").expect("a finding");
    let (rows, codes) = (split.rows(Subset::Train, Some(dataset::Ratio::ALL)), helpers::dataset_codes(&labels));
    let counted = rows.iter().filter(|&&row| codes[row as usize][pneumonia] == Some(1)).count();
    assert!(counted < rows.len() && printed.contains(&format!("{counted} labeled records, 3 steps")), "{printed}");
    let printed =
        ok("trainer", args!["evaluate", "--data", &data, "--run", &tuned, "--split", "main", "--draws", "20"]);
    assert!(printed.contains("Pneumonia/Viral/COVID-19"), "{printed}");
}

#[test]
fn each_ablation_is_one_setting() {
    let temporary = folder();
    let data = dataset(temporary.path(), 20);
    let plain = temporary.path().join("plain");
    ok("trainer", pretraining(&data, &plain, 2, &[]));
    let plain = numbers(&plain);
    for (name, switch, part) in [
        ("image", "model.reconstruct=image-only", "loss_image"),
        ("report", "model.reconstruct=report-only", "loss_report"),
        ("same-size", "model.super_resolution=1", "loss_image"),
        ("all", "model.report_loss=all", "loss_report"),
        ("patches", "model.mask_ratio=0.25", "loss_image"),
        ("words", "data.report_mask_ratio=0.3", "loss_report"),
        ("image-weight", "model.image_weight=3.0", "loss"),
        ("report-weight", "model.report_weight=0.2", "loss"),
    ] {
        let run = temporary.path().join(name);
        ok("trainer", pretraining(&data, &run, 2, &["--set", switch]));
        let line = &numbers(&run)[1];
        assert!(line[part].is_f64(), "{name}: {line}");
        let own = plain[1][part].as_f64().expect("a loss");
        assert!(switch.ends_with("-only") || line[part].as_f64() != Some(own), "{name}: the switch changes nothing");
        let parts = usize::from(line["loss_image"].is_f64()) + usize::from(line["loss_report"].is_f64());
        assert_eq!(parts, if switch.ends_with("-only") { 1 } else { 2 }, "{name}: {line}");
    }
}

/// Records without a report are not trained on as reports of padding.
#[test]
fn records_without_a_report_enter_only_the_image_loss() {
    let temporary = folder();
    let record = |row: usize, tokens: &dyn Fn(usize) -> Vec<i32>| Record {
        token_ids: tokens(row),
        ..made_record(row, (40, 40), 1)
    };
    let made = |name: &str, records: usize, tokens: &dyn Fn(usize) -> Vec<i32>| {
        let data = temporary.path().join(name);
        let records = (0..records).map(|row| record(row, tokens)).collect();
        write_dataset(&data, &["Edema"], ImageEncoding::Raw, &[records]);
        ok("dataset", args!["split", &data, "--name", "main", "--validation", "0", "--test", "0"]);
        data
    };
    // One record in eight has a report, which fills all positions; another one has `[CLS]` alone, and nothing to reconstruct.
    let words = |row: usize| -> Vec<i32> {
        std::iter::once(2).chain((1..64).map(|at| 4 + ((row * 7 + at * 5) % 96) as i32)).collect()
    };
    let some = |row: usize| match row % 8 {
        0 => words(row),
        1 => vec![2],
        _ => Vec::new(),
    };
    let data = made("some", 48, &some);
    let run = |name: &str| temporary.path().join(name);
    let all = ["--set", "model.report_loss=all", "--set", "optimizer.base_lr=0.3"];
    let message = ok("trainer", pretraining(&data, &run("both"), 30, &all));
    assert!(
        message.contains("48 records (6 with a report; the others take part in the image loss alone), "),
        "{message}"
    );
    let losses = |run: &str, part: &str| -> Vec<f64> {
        numbers(&temporary.path().join(run)).iter().map(|line| line[part].as_f64().expect("a finite loss")).collect()
    };
    let reports = losses("both", "loss_report");
    // Padding alone is learned in a few steps (a loss near 0); random tokens cannot be.
    let learned: Vec<f64> = reports[20..].iter().copied().filter(|loss| *loss != 0.0).collect();
    assert!(!learned.is_empty() && learned.iter().all(|loss| *loss > 2.0), "{reports:?}");

    // Batches of two: most are without a report.
    let mut small = pretraining(&data, &run("small"), 24, &all);
    let size = small.iter().position(|word| word == "--batch-size").expect("an option");
    small[size + 1] = "2".into();
    ok("trainer", small);
    let (reports, images) = (losses("small", "loss_report"), losses("small", "loss_image"));
    assert!(reports.iter().filter(|loss| **loss == 0.0).count() >= 12 && reports.iter().any(|loss| *loss > 0.0));
    assert!(images.iter().all(|loss| *loss > 0.0));

    // Without the image loss they are left out.
    let report_only = ["--set", "model.reconstruct=report-only"];
    let message = ok("trainer", pretraining(&data, &run("report-only"), 2, &report_only));
    assert!(message.contains("6 records with a report (the other 42 are left out), "), "{message}");
    let message = ok("trainer", pretraining(&data, &run("image-only"), 1, &["--set", "model.reconstruct=image-only"]));
    assert!(message.contains("48 records, "), "{message}");
    assert!(
        ok("trainer", pretraining(&made("all", 8, &words), &run("whole"), 1, &all)).contains("(all with a report)")
    );

    let without = made("none", 8, &|_| Vec::new());
    for more in [&all[..], &report_only] {
        let message = fails("trainer", 1, pretraining(&without, &run("none-of-it"), 1, more));
        let words = "none of the 8 records of the training subset of split `main` has a report to reconstruct: set \
                     model.reconstruct=image-only";
        assert!(message.contains(words) && !run("none-of-it").exists(), "{message}");
    }
}

#[test]
fn invalid_settings_are_refused_with_one_line() {
    let temporary = folder();
    let data = dataset(temporary.path(), 20);
    let run = temporary.path().join("run");
    let says = |code: i32, arguments: Vec<OsString>, words: &str| {
        let message = fails("trainer", code, arguments);
        assert!(message.contains(words), "{message}");
    };
    let with = |more: &[&str]| pretraining(&data, &run, 2, more);
    says(
        2,
        with(&["--set", "optimizer.bach_size=4"]),
        "no key `optimizer.bach_size`; did you mean `optimizer.batch_size`?",
    );
    says(2, with(&["--set", "model.vit.num_heads=5"]), "num_heads");
    says(2, args!["pretrain", "--data", &data, "--run", &run, "--preset", "huge"].to_vec(), "mrm-vit-tiny");
    says(1, args!["pretrain", "--data", temporary.path(), "--run", &run].to_vec(), "is not a dataset");
    says(1, args!["pretrain", "--data", &data, "--run", &run, "--split", "other"].to_vec(), "there are: main");
    let unsplit = temporary.path().join("unsplit");
    write_dataset(&unsplit, &["Edema"], ImageEncoding::Raw, &[vec![made_record(0, (32, 32), 1)]]);
    let none = args!["finetune", "--data", &unsplit, "--run", &run, "--split", "main", "--task", "labels:Edema"];
    says(1, none.to_vec(), "this dataset has no split; make one: dataset split");
    says(1, args!["pretrain", "--data", &data, "--run", &run, "--device", "cuda:9"].to_vec(), "no device cuda:9 here");
    says(2, with(&["--set", "run.cuda_graph=true"]), "run.cuda_graph: needs a CUDA device");
    assert!(!run.exists(), "no partial output");
    // Epochs replace the steps of the preset: two epochs of fewer than 64 records.
    let epochs_run = temporary.path().join("epochs");
    let mut epochs =
        args!["pretrain", "--data", &data, "--run", &epochs_run, "--preset", "mrm-vit-tiny", "--split", "main"]
            .to_vec();
    epochs.extend(args!["--epochs", "2", "--batch-size", "2", "--device", "cpu"]);
    epochs.extend(MINIATURE.iter().map(Into::into));
    ok("trainer", epochs);
    let logged = numbers(&epochs_run);
    assert!(logged.len() < 40 && logged.last().is_some_and(|line| line["epoch"] == 2.0), "{logged:?}");
    // The warm-up keeps its share of a fifth: the highest learning rate comes early, and the last one is near 0.
    let lrs: Vec<f64> = logged.iter().filter_map(|line| line["lr"].as_f64()).collect();
    let highest = lrs.iter().copied().fold(0.0, f64::max);
    let place = lrs.iter().position(|lr| *lr == highest).expect("a place");
    assert!(place <= lrs.len() / 3 && lrs[lrs.len() - 1] < highest / 4.0, "{lrs:?}");

    ok("trainer", with(&[]));
    let before = contents(&run);
    says(1, with(&["--seed", "5"]), "holds a run of another configuration (now seed = 5, was 0)");
    assert_eq!(contents(&run), before);
    let finetune = |task: &str| {
        args![
            "finetune",
            "--data",
            &data,
            "--run",
            temporary.path().join("f"),
            "--split",
            "main",
            "--preset",
            "mrm-vit-tiny",
            "--task",
            task
        ]
        .to_vec()
    };
    says(1, finetune("nih14"), "has no label `Effusion`; it has: Atelectasis");
    says(2, finetune("CheXpert5"), "did you mean `chexpert5`?");
    says(1, finetune("labels:Pleural_Effusion"), "did you mean `Pleural Effusion`?");
    let mut other = finetune("labels:Edema");
    other.extend(args!["--ratio", "5"]);
    says(1, other, "split `main`: it has no ratio of 5% (there are: 50, 100)");
    says(2, finetune("everything"), "there are: nih14, chexpert5");
    says(
        1,
        args!["evaluate", "--data", &data, "--run", temporary.path().join("f"), "--split", "main"].to_vec(),
        "does not exist",
    );
}
