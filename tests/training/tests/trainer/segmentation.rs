//! Segmentation: `trainer` as a user runs it on masks.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use arrow_array::{Float64Array, StringArray, UInt64Array};
use helpers::{args, fails, folder, ingest, ok, phantom, phantom_of, text};
use ingest::image::mask::Runs;
use serde_json::Value;
use tch::Tensor;
use training::{numbers, stop_after, weights};

/// An encoder and heads of a few thousand weights, on 32 pixels.
const SMALL: [&str; 14] = [
    "--set",
    "model.vit.image_size=32",
    "--set",
    "model.vit.embed_dim=32",
    "--set",
    "model.vit.num_layers=2",
    "--set",
    "model.channels=16",
    "--set",
    "model.auxiliary_channels=16",
    "--set",
    "optimizer.evaluate_every=4",
    "--set",
    "run.log_every=1",
];

/// A small split dataset with masks.
pub(crate) fn dataset(folder: &Path, studies: usize) -> PathBuf {
    let raw = phantom_of("siim", folder, studies);
    let out = folder.join("set");
    ingest("siim", &raw, &out, &[]);
    ok("dataset", args!["split", &out, "--name", "main", "--ratios", "50,100", "--validation", "0.2", "--test", "0.3"]);
    out
}

/// Arguments of a short segmentation run.
pub(crate) fn finetuning(data: &Path, run: &Path, steps: u64, more: &[&str]) -> Vec<OsString> {
    let mut all = args!["finetune", "--data", data, "--run", run, "--task", "siim", "--split", "main"].to_vec();
    all.extend(args!["--device", "cpu", "--preset", "mrm-vit-tiny", "--steps", steps.to_string(), "--batch-size", "4"]);
    all.extend(SMALL.iter().chain(more).map(Into::into));
    all
}

/// BenchX's recipe: the encoder stays as it was, the heads learn, and the Dice over classes is that of the written masks.
#[test]
fn benchx_trains_the_heads_on_a_frozen_encoder() {
    let temporary = folder();
    let data = dataset(temporary.path(), 60);
    let run = temporary.path().join("benchx");
    let settings = ["--set", "run.checkpoint_every=1", "--set", "run.keep_last=9", "--recipe", "benchx"];
    let printed = ok("trainer", finetuning(&data, &run, 8, &settings));
    for line in ["recipe = \"benchx\"", "freeze_encoder = true", "loss = \"cross-entropy\"", "crop = \"whole\""] {
        assert!(printed.contains(line), "{line}: {printed}");
    }
    let weights = |step: u32| -> BTreeMap<String, Tensor> {
        let file = run.join(format!("checkpoints/step-{step}/model.safetensors"));
        Tensor::read_safetensors(file).expect("weights").into_iter().collect()
    };
    let (mut frozen, mut moved) = (0, 0);
    for ((name, first), (other, last)) in weights(1).into_iter().zip(weights(8)) {
        assert_eq!(name, other);
        if ["blocks.", "cls_token", "pos_embed", "patch_embed."].iter().any(|start| name.starts_with(start)) {
            assert_eq!(first, last, "{name}");
            frozen += 1;
        } else if name.ends_with("weight") {
            moved += usize::from(first != last);
        }
    }
    assert!(frozen > 10 && moved > 10, "{frozen} and {moved}");
    let logged = numbers(&run);
    let step = logged.iter().find(|line| line["loss"].is_f64()).expect("a step");
    assert!(step["loss_auxiliary"].is_f64() && step["loss_focal"].is_null(), "{step}");
    assert!(logged.iter().any(|line| line["validate_mdice"].is_f64()), "{logged:?}");

    let message = ok("trainer", args!["evaluate", "--data", &data, "--run", &run, "--split", "main", "--draws", "50"]);
    assert!(message.contains("mDice (mean over background and foreground, all pixels together): "), "{message}");
    let report: Value = dataset::store::files::read_json(&run.join("evaluation-test.json")).expect("a report");
    let batches = dataset::format::table::read_table(&run.join("predictions-test.parquet")).expect("predictions");
    let (mut both, mut either, mut pixels) = (0.0, 0.0, 0.0);
    for batch in &batches {
        let column =
            |name| dataset::format::table::column::<UInt64Array>(batch, name).expect("areas").values().to_vec();
        let dice = dataset::format::table::column::<Float64Array>(batch, "dice").expect("numbers").values().to_vec();
        for ((dice, predicted), target) in dice.iter().zip(column("predicted_area")).zip(column("target_area")) {
            let areas = (predicted + target) as f64;
            // Dice is 2 · both / areas where something is drawn.
            both += if target > 0 { dice * areas / 2.0 } else { 0.0 };
            either += areas;
            pixels += 32.0 * 32.0;
        }
    }
    let (foreground, background) = (2.0 * both / either, 2.0 * (pixels - either + both) / (2.0 * pixels - either));
    let found = report["mdice"]["value"].as_f64().expect("a value");
    assert!((found - f64::midpoint(foreground, background)).abs() < 1e-9, "{found}: {foreground}, {background}");
    assert_eq!(report["recipe"], "benchx");
}

#[test]
fn a_segmenter_is_trained_and_evaluated_on_masks() {
    let temporary = folder();
    let data = dataset(temporary.path(), 60);
    let run = temporary.path().join("upernet");
    let message = ok("trainer", finetuning(&data, &run, 12, &[]));
    assert!(message.contains(" an epoch), 12 steps") && message.contains("best validation score"), "{message}");
    assert!(message.contains("blocks = [0, 0, 0, 1]"), "the resolved configuration is shown: {message}");
    let logged = numbers(&run);
    let trained = logged.iter().find(|line| line["loss"].is_f64()).expect("a step");
    assert!(["loss_focal", "loss_dice", "loss_auxiliary"].iter().all(|part| trained[*part].is_f64()), "{trained}");
    assert!(logged.iter().any(|line| line["validate_dice"].is_f64() && line["validate_dice_positive"].is_f64()));
    let weights = Tensor::read_safetensors(run.join("best.safetensors")).expect("weights");
    assert!(weights.iter().any(|(name, _)| name == "decode_head.bottleneck.bn.running_var"), "with its statistics");

    let evaluate = |more: &[&str]| {
        let mut all = args!["evaluate", "--data", &data, "--run", &run, "--split", "main", "--draws", "50"].to_vec();
        all.extend(more.iter().map(Into::into));
        ok("trainer", all)
    };
    let message = evaluate(&[]);
    assert!(message.contains("Dice (95%)") && message.contains("with something drawn"), "{message}");
    let report: Value = dataset::store::files::read_json(&run.join("evaluation-test.json")).expect("a report");
    let batches = dataset::format::table::read_table(&run.join("predictions-test.parquet")).expect("predictions");
    let [batch] = batches.as_slice() else { panic!("one batch") };
    let floats = |name| dataset::format::table::column::<Float64Array>(batch, name).expect("numbers").values().to_vec();
    let areas = |name| dataset::format::table::column::<UInt64Array>(batch, name).expect("areas").values().to_vec();
    let (dice, target, predicted) = (floats("dice"), areas("target_area"), areas("predicted_area"));
    let close = |value: &Value, expected: f64| (value["value"].as_f64().expect("a value") - expected).abs() < 1e-9;
    assert_eq!(report["records"].as_u64().expect("records") as usize, dice.len());
    assert!(close(&report["dice"], dice.iter().sum::<f64>() / dice.len() as f64), "{report}");
    let positive: Vec<f64> = dice.iter().zip(&target).filter(|(_, area)| **area > 0).map(|(dice, _)| *dice).collect();
    assert_eq!(report["positives"].as_u64().expect("positives") as usize, positive.len());
    assert!(!positive.is_empty() && positive.len() < dice.len(), "the phantom has both");
    assert!(close(&report["dice_positive"], positive.iter().sum::<f64>() / positive.len() as f64), "{report}");
    // The masks have the encoding of the challenge.
    let masks = dataset::format::table::column::<StringArray>(batch, "mask").expect("masks");
    for (mask, area) in masks.iter().zip(&predicted) {
        let drawn = Runs::parse(mask.expect("a mask")).expect("run lengths").draw(32, 32).expect("within the image");
        assert_eq!(drawn.iter().map(|&pixel| u64::from(pixel)).sum::<u64>(), *area);
    }
    let montage = dataset::format::image_codec::decode(&fs::read(run.join("segmentation-test.png")).expect("an image"));
    let montage = montage.expect("a PNG");
    assert_eq!((montage.width, montage.height), (3 * 32 + 8, 6 * 32 + 5 * 4), "image, drawn, predicted");

    // No mask is that large: every image without a mask is correct then, every other one wrong.
    evaluate(&["--min-area", "1025"]);
    let report: Value = dataset::store::files::read_json(&run.join("evaluation-test.json")).expect("a report");
    assert_eq!(report["empty_found_empty"], report["empty"]);
    assert!(close(&report["dice_positive"], 0.0), "{report}");
    assert!(report["rule"].as_str().expect("words").contains("fewer than 1025 pixels"), "{report}");

    // Masks are not probabilities of findings.
    let out = temporary.path().join("scores.csv");
    let message = fails("trainer", 1, args!["predict", "--data", &data, "--weights", &run, "--out", &out]);
    assert!(message.contains("is a segmentation run") && message.contains("`trainer evaluate`"), "{message}");
    let csv = fs::read_to_string(run.join("predictions-test.csv")).expect("a table");
    assert!(csv.starts_with("record_id,patient_id,dice,iou,predicted_area,target_area,mask\n"), "{csv}");
    assert_eq!(csv.lines().count(), dice.len() + 1);

    let setr = temporary.path().join("setr");
    ok("trainer", finetuning(&data, &setr, 3, &["--set", "model.head=setr", "--ratio", "50"]));
    assert!(numbers(&setr).iter().all(|line| line["loss_auxiliary"].is_null()));
    let page = temporary.path().join("report.html");
    ok("trainer", args!["report", &run, &setr, "--out", &page]);
    let html = fs::read_to_string(&page).expect("a page");
    for part in
        ["<h2>Segmentation</h2>", "random initialization", "image, drawn mask, predicted mask", "validation Dice"]
    {
        assert!(html.contains(part), "{part}");
    }
}

#[test]
fn a_stopped_run_resumes_to_the_same_numbers() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let (whole, stopped) = (temporary.path().join("whole"), temporary.path().join("stopped"));
    let arguments = |run: &Path| finetuning(&data, run, 24, &["--set", "run.checkpoint_every=5"]);
    ok("trainer", arguments(&whole));
    let output = stop_after(3, &stopped, arguments(&stopped));
    assert!(output.status.success() && text(&output.stdout).contains("give the same command again"), "{output:?}");
    assert!(numbers(&stopped).len() < numbers(&whole).len());
    ok("trainer", arguments(&stopped));
    assert_eq!(numbers(&stopped), numbers(&whole));
    assert!(weights(&stopped) == weights(&whole), "including running statistics");
}

#[test]
fn a_run_continues_to_more_epochs_and_ends_by_patience() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let run = temporary.path().join("run");
    let for_epochs = |epochs: &str| {
        let mut all = finetuning(&data, &run, 1, &[]);
        let steps = all.iter().position(|word| word == "--steps").expect("an option");
        all.splice(steps..steps + 2, args!["--epochs", epochs]);
        all
    };
    let message = ok("trainer", for_epochs("1"));
    assert!(message.contains("patience = 10"), "{message}");
    let last = |lines: &[Value]| lines.iter().rfind(|line| line["loss"].is_f64()).expect("a step").clone();
    assert_eq!(last(&numbers(&run))["epoch"], 1.0);
    let steps = last(&numbers(&run))["step"].as_u64().expect("a step");
    ok("trainer", for_epochs("2"));
    let log = numbers(&run);
    assert_eq!((&last(&log)["epoch"], &last(&log)["step"]), (&2.0.into(), &(2 * steps).into()));
    let message = fails("trainer", 1, for_epochs("1"));
    assert!(message.contains(&format!("has made {} steps, and {steps} are asked for", 2 * steps)), "{message}");

    // A threshold that no pixel exceeds: Dice does not change.
    let still = ["--set", "prediction.threshold=0.999", "--patience", "2", "--set", "optimizer.evaluate_every=1"];
    let run = temporary.path().join("still");
    let output = helpers::run("trainer", finetuning(&data, &run, 20, &still));
    assert!(text(&output.stderr).contains("ended after 3 of 20 steps"), "{output:?}");
}

#[test]
fn a_segmenter_is_initialized_from_a_pretrained_encoder() {
    let temporary = folder();
    let reports = temporary.path().join("reports");
    ingest("mimic-cxr", &phantom(temporary.path(), 12), &reports, &[]);
    let mrm = temporary.path().join("mrm");
    let mut pretraining = args!["pretrain", "--data", &reports, "--run", &mrm, "--preset", "mrm-vit-tiny"].to_vec();
    pretraining.extend(args!["--device", "cpu", "--steps", "1", "--batch-size", "4"]);
    for setting in ["model.vit.embed_dim=32", "model.vit.num_layers=2", "model.reconstruct=image-only"] {
        pretraining.extend(args!["--set", setting]);
    }
    ok("trainer", pretraining);
    let data = dataset(temporary.path(), 20);
    let init = mrm.to_string_lossy().into_owned();
    let run = |name: &str| temporary.path().join(name);
    let printed = ok("trainer", finetuning(&data, &run("tuned"), 2, &["--init", &init]));
    assert!(printed.contains("pos_embed [1, 65, 32] -> [1, 17, 32]"), "{printed}");
    assert!(printed.contains("decode_head.*") && !printed.contains(" blocks.*"), "all of the encoder: {printed}");

    let wide =
        fails("trainer", 1, finetuning(&data, &run("wide"), 2, &["--init", &init, "--set", "model.vit.embed_dim=64"]));
    assert!(wide.contains("holds weights of another size: ") && wide.lines().count() == 1, "{wide}");
    let ratio = fails("trainer", 1, finetuning(&data, &run("ratio"), 2, &["--ratio", "5"]));
    assert!(ratio.contains("split `main`: it has no ratio of 5% (there are: 50, 100)"), "{ratio}");
    ok("dataset", args!["split", &reports, "--name", "main", "--ratios", "100"]);
    let none = fails("trainer", 1, finetuning(&reports, &run("none"), 2, &[]));
    assert!(none.lines().last().is_some_and(|line| line.contains("this dataset has no masks")), "{none}");
    for name in ["wide", "ratio", "none"] {
        assert!(!run(name).exists(), "no partial output");
    }
    let area =
        fails("trainer", 1, args!["evaluate", "--data", &data, "--run", &mrm, "--split", "main", "--min-area", "3"]);
    assert!(area.contains("--min-area is for segmentation runs"), "{area}");
}

/// Sweeps, comparisons and the report work as they do for classification.
#[test]
fn segmentation_runs_are_swept_and_compared() {
    let temporary = folder();
    let data = dataset(temporary.path(), 40);
    let out = temporary.path().join("sweep");
    let mut all = args!["sweep", "--data", &data, "--out", &out, "--task", "siim", "--split", "main"].to_vec();
    all.extend(args!["--ratios", "50,100", "--seeds", "0,1", "--init", "scratch=random", "--preset", "mrm-vit-tiny"]);
    all.extend(args!["--steps", "3", "--draws", "20", "--device", "cpu", "--set", "optimizer.batch_size=4"]);
    all.extend(SMALL.iter().map(Into::into));
    let printed = ok("trainer", &all);
    assert!(printed.contains("run 4 of 4") && printed.contains("| test Dice, mean ± sd | 50% | 100% |"), "{printed}");
    let report = |run: &Path| -> Value {
        dataset::store::files::read_json(&run.join("evaluation-test.json")).expect("an evaluation")
    };
    let run = |ratio: u32, seed: u32| out.join(format!("scratch-main-{ratio}-seed{seed}"));
    let dice = |ratio, seed| report(&run(ratio, seed))["dice"]["value"].as_f64().expect("a mean");
    let cells: Value = dataset::store::files::read_json(&out.join("sweep.json")).expect("cells");
    let cell = cells.as_array().expect("a list").iter().find(|cell| cell["ratio"] == 100.0).expect("a cell");
    let mean = cell["dice"]["mean"].as_f64().expect("a mean");
    assert!((mean - f64::midpoint(dice(100, 0), dice(100, 1))).abs() < 1e-12, "{cell}");
    assert!(cell["init_name"] == "scratch" && cell["iou_positive"]["values"] == 2, "{cell}");
    let html = fs::read_to_string(out.join("report.html")).expect("a page");
    for part in ["Label efficiency: siim", "Mean Dice on the test subset", "<h2>Segmentation</h2>", "2 runs"] {
        assert!(html.contains(part), "{part}");
    }
    // Finished runs are not repeated.
    let modified =
        |run: &Path| fs::metadata(run.join("evaluation-test.json")).expect("a file").modified().expect("a time");
    let before = modified(&run(100, 1));
    ok("trainer", &all);
    assert_eq!(modified(&run(100, 1)), before);
    // With another smallest area they are evaluated anew.
    ok("trainer", all.iter().cloned().chain(args!["--min-area", "1025"]));
    assert_eq!(report(&run(100, 1))["prediction"]["min_area"], 1025);
    ok("trainer", &all);

    let file = temporary.path().join("difference.json");
    let printed = ok("trainer", args!["compare", run(100, 0), run(100, 1), "--draws", "50", "--out", &file]);
    assert!(printed.contains("Dice, something drawn") && printed.contains(" p "), "{printed}");
    let difference: Value = dataset::store::files::read_json(&file).expect("a comparison");
    let value = difference["metrics"]["dice"]["value"].as_f64().expect("a difference");
    assert!((value - (dice(100, 1) - dice(100, 0))).abs() < 1e-12, "{difference}");
    assert!(difference["metrics"]["iou_positive"]["p"].as_f64().is_some_and(|p| p > 0.0 && p <= 1.0), "{difference}");
    let printed = ok("trainer", args!["compare", run(100, 0), run(100, 0), "--draws", "20"]);
    assert!(printed.contains("+0.000 (+0.000 to +0.000) p = 1.000"), "{printed}");

    let specificity = [&all[..], &args!["--specificity", "0.5"]].concat();
    assert!(fails("trainer", 1, specificity).contains("--specificity is for classification runs"));
    let former = [&all[..], &args!["--start", "scratch=random"]].concat();
    assert!(fails("trainer", 2, former).contains("--start is now --init"));
}
