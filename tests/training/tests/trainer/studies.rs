//! Pre-training on studies, on weighted tokens, and on reports without images.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use ::dataset::tokenizer::ReportTokenizer;
use ::dataset::{Dataset, Split, Subset};
use helpers::{args, fails, folder, ingest, ok, phantom_of, text};
use serde_json::Value;
use training::{MINIATURE, dataset, finetuning, kill_after, numbers, pretraining, weights};

#[test]
fn an_epoch_has_one_view_of_each_study_and_a_killed_run_continues() {
    let temporary = folder();
    let data = dataset(temporary.path(), 60);
    let at = |name: &str| temporary.path().join(name);
    let opened = Dataset::open(&data).expect("a dataset");
    let rows = Split::load(&opened, "main").expect("a split").rows(Subset::Train, None);
    let study = |row: &u32| {
        let record = opened.record_without_image(*row as usize).expect("a record");
        (record.patient_id, record.study_id)
    };
    let studies = rows.iter().map(study).collect::<BTreeSet<_>>().len();
    assert!(studies < rows.len());
    let settings = ["--set", "data.studies=1", "--set", "run.checkpoint_every=5"];
    let run = |name: &str| pretraining(&data, &at(name), 16, &settings);
    let printed = ok("trainer", run("whole"));
    assert!(printed.contains(&format!("{studies} studies of {} records", rows.len())), "{printed}");
    assert!(printed.contains(&format!("{:.1} steps an epoch", (studies / 8) as f64)), "{printed}");

    kill_after(7, &at("killed"), run("killed"));
    ok("trainer", run("killed"));
    assert_eq!(numbers(&at("killed")), numbers(&at("whole")));
    assert!(weights(&at("killed")) == weights(&at("whole")));

    let refused = fails("trainer", 2, pretraining(&data, &at("two"), 2, &["--set", "data.studies=2"]));
    assert!(refused.contains("takes one view of a study") && refused.contains("--objective mvmae"), "{refused}");
    assert!(!at("two").exists());
    // A run on records is another one.
    let other = fails("trainer", 1, pretraining(&data, &at("whole"), 20, &["--set", "run.checkpoint_every=5"]));
    assert!(other.contains("holds a run of another configuration"), "{other}");
}

#[test]
fn several_views_of_a_study_are_reconstructed_and_aligned() {
    let temporary = folder();
    let data = dataset(temporary.path(), 60);
    let at = |name: &str| temporary.path().join(name);
    let run = |name: &str, objective: &str, more: &[&str]| {
        pretraining(
            &data,
            &at(name),
            16,
            &[&["--objective", objective, "--set", "run.checkpoint_every=5"], more].concat(),
        )
    };
    ok("trainer", run("whole", "mvmae-v2t", &[]));
    let log = numbers(&at("whole"));
    for line in &log {
        let part = |name: &str| line[name].as_f64().expect("a part of the loss");
        let weight = (part("step") - 1.0) / 16.0; // it rises from 0 over the run
        let total = part("loss_image") + part("loss_report") + weight * part("loss_alignment");
        assert!((total - part("loss")).abs() < 1e-4 * total && part("loss_alignment") > 0.0, "{line}");
    }
    kill_after(7, &at("killed"), run("killed", "mvmae-v2t", &[]));
    ok("trainer", run("killed", "mvmae-v2t", &[]));
    assert_eq!(numbers(&at("killed")), log);
    assert!(weights(&at("killed")) == weights(&at("whole")));

    // Images alone, in a mixture.
    let second = at("second");
    ingest("chexpert", &phantom_of("chexpert", temporary.path(), 30), &second, &[]);
    ok("dataset", args!["split", &second, "--name", "main", "--ratios", "50,100"]);
    let mut mixture = run("mixture", "mvmae", &["--set", "model.views.align_ramp=0"]);
    mixture.extend(args!["--data", &second]);
    ok("trainer", mixture);
    let log = numbers(&at("mixture"));
    for name in ["loss_image/set", "loss_image/second", "loss_alignment/set"] {
        assert!(log.iter().any(|line| line[name].is_f64()), "{name}: {log:?}");
    }
    assert!(log.iter().all(|line| line.get("loss_report").is_none()));

    // The other commands take its runs.
    ok("trainer", finetuning(&data, &at("tuned"), &at("whole"), &[]));
    ok("trainer", args!["embed", "--data", &data, "--weights", at("mixture"), "--out", at("features.parquet")]);
    ok("trainer", args!["export", at("mixture"), "--to", "timm", "--out", at("timm")]);
    ok("trainer", args!["reconstruct", "--data", &data, "--weights", at("whole"), "--rows", "2"]);
    let report = at("report.html");
    ok("trainer", args!["report", at("whole"), "--out", &report]);
    assert!(fs::read_to_string(report).expect("a page").contains("alignment of views"));
    let message =
        fails("trainer", 1, args!["predict", "--data", &data, "--weights", at("whole"), "--out", at("p.csv")]);
    assert!(message.contains("multi-view pre-training"), "{message}");
    for (settings, problem) in [
        (["--set", "data.studies=1"], "needs at least 2, not 1"),
        (["--set", "data.studies=17"], "data.studies"),
        (["--set", "model.views.align_weight=-1"], "views.align_weight"),
    ] {
        let message = fails("trainer", 2, run("refused", "mvmae", &settings));
        assert!(message.contains(problem), "{message}");
    }
    assert!(!at("refused").exists());
}

#[test]
fn the_report_loss_is_weighted_by_tokens() {
    let temporary = folder();
    let data = dataset(temporary.path(), 20);
    let at = |name: &str| temporary.path().join(name);
    let opened = Dataset::open(&data).expect("a dataset");
    let pieces = ReportTokenizer::of(&opened).expect("readable").expect("a tokenizer").pieces();
    let write = |name: &str, weight: &dyn Fn(usize) -> f32| -> PathBuf {
        let table: BTreeMap<&str, f32> =
            pieces.iter().enumerate().map(|(id, piece)| (piece.as_str(), weight(id))).collect();
        fs::write(at(name), serde_json::to_string(&table).expect("JSON")).expect("written");
        at(name)
    };
    let train = |name: &str, table: Option<&Path>| {
        let table =
            table.map_or_else(String::new, |table| format!("data.token_weights={:?}", table.display().to_string()));
        let mut more = vec!["--set", "model.report_loss=masked"];
        more.extend(if table.is_empty() { vec![] } else { vec!["--set", &table] });
        pretraining(&data, &at(name), 3, &more)
    };
    let losses = |name: &str| -> Vec<f64> {
        let of = |line: &Value| line["loss_report"].as_f64().expect("a finite loss");
        numbers(&at(name)).iter().map(of).collect()
    };
    let ones = write("ones.json", &|_| 1.0);
    let others = write("others.json", &|id| (id % 5) as f32);
    ok("trainer", train("plain", None));
    ok("trainer", train("ones", Some(&ones)));
    ok("trainer", train("others", Some(&others)));
    for (plain, ones) in losses("plain").iter().zip(losses("ones")) {
        assert!((plain / ones - 1.0).abs() < 1e-4, "{plain} {ones}");
    }
    assert!(losses("plain").iter().zip(losses("others")).all(|(plain, other)| *plain != other));

    // Another table is another run; a wrong one is refused before the run begins.
    write("others.json", &|id| (id % 3) as f32);
    let mut continued = train("others", Some(&others));
    let steps = continued.iter().position(|word| word == "--steps").expect("an option");
    continued[steps + 1] = "5".into();
    let refused = fails("trainer", 1, continued);
    assert!(refused.contains("holds a run of another configuration"), "{refused}");
    fs::write(at("wrong.json"), "{\"no-such-token\": 2}").expect("written");
    let refused = fails("trainer", 1, train("wrong", Some(&at("wrong.json"))));
    assert!(refused.contains("`no-such-token` is no token of the tokenizer"), "{refused}");
    let refused = fails("trainer", 1, train("missing", Some(&at("missing.json"))));
    assert!(refused.contains("missing.json"), "{refused}");
    let table = format!("data.token_weights={:?}", ones.display().to_string());
    let image_only = ["--set", &table, "--set", "model.reconstruct=image-only"];
    let refused = fails("trainer", 2, pretraining(&data, &at("image-only"), 1, &image_only));
    assert!(refused.contains("does not reconstruct reports"), "{refused}");
}

#[test]
fn reports_without_images_are_in_the_report_loss_alone() {
    let temporary = folder();
    let at = |name: &str| temporary.path().join(name);
    for (source, name, more) in [("mimic-cxr", "images", &[][..]), ("openi", "reports", &["--no-images"])] {
        ingest(source, &phantom_of(source, temporary.path(), 24), &at(name), more);
        ok("dataset", args!["split", at(name), "--name", "main", "--validation", "0.1", "--test", "0.1"]);
    }
    let pretrain = |run: &str, weights: [&str; 2], batch: &str, more: &[&str]| {
        let mut all = args!["pretrain", "--run", at(run), "--preset", "mrm-vit-tiny", "--split", "main"].to_vec();
        all.extend(args!["--device", "cpu", "--steps", "20", "--batch-size", batch]);
        for (name, weight) in ["images", "reports"].iter().zip(weights) {
            all.extend(args!["--data", format!("{}{weight}", at(name).display())]);
        }
        all.extend(MINIATURE.iter().chain(more).map(Into::into));
        all
    };
    let number = |line: &Value, key: &str| line[key].as_f64().unwrap_or_else(|| panic!("{key} in {line}"));
    ok("trainer", pretrain("mixed", ["=0.5", "=0.5"], "6", &[]));
    let mut of_reports = 0;
    let mut before = 0.0;
    for line in numbers(&at("mixed")) {
        let images = number(&line, "records/images") - before;
        before += images;
        // The image loss is that of the records with images.
        assert!(line.get("loss_image/reports").is_none(), "{line}");
        if images > 0.0 {
            assert!((number(&line, "loss_image/images") / number(&line, "loss_image") - 1.0).abs() < 1e-5, "{line}");
        }
        of_reports += usize::from(line.get("loss_report/reports").is_some_and(|loss| loss.as_f64() > Some(1.0)));
    }
    assert!(of_reports > 15, "{of_reports}");

    // Batches of two: most have no image at all.
    ok("trainer", pretrain("few", ["=0.1", "=0.9"], "2", &[]));
    let lines = numbers(&at("few"));
    let without = lines.iter().filter(|line| number(line, "loss_image") == 0.0).count();
    assert!((10..20).contains(&without), "{without}");
    assert!(lines.iter().all(|line| number(line, "loss_report") > 0.0 && number(line, "loss").is_finite()));

    let images = pretrain("image-only", ["=0.5", "=0.5"], "6", &["--set", "model.reconstruct=image-only"]);
    let refused = fails("trainer", 1, images);
    assert!(refused.contains("reports") && refused.contains("--no-images"), "{refused}");
    assert!(!text(refused.as_bytes()).contains("panicked"));
}
