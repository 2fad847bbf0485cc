//! Runs of contrastive objectives: they learn, continue to the same bits, are evaluated, and serve as initializations.

use std::path::Path;

use helpers::{args, fails, folder, ingest, ok, phantom_of};
use serde_json::Value;
use training::{dataset, finetuning, kill_after, numbers, pretraining, weights};

fn objective(data: &Path, run: &Path, name: &str, steps: u64, more: &[&str]) -> Vec<std::ffi::OsString> {
    pretraining(data, run, steps, &[&["--objective", name][..], more].concat())
}

fn evaluation(run: &Path, stem: &str) -> Value {
    dataset::store::files::read_json(&run.join(format!("evaluation-{stem}.json"))).expect("an evaluation")
}

/// A column of the predictions; none where a field is empty.
fn predicted(run: &Path, stem: &str, name: &str) -> Vec<Option<f64>> {
    let table = std::fs::read_to_string(run.join(format!("predictions-{stem}.csv"))).expect("predictions");
    let mut lines = table.lines();
    let mut head = lines.next().expect("a head").split(',');
    let at = head.position(|column| column == name).unwrap_or_else(|| panic!("no column `{name}`"));
    lines.map(|line| line.split(',').nth(at).and_then(|field| field.parse().ok())).collect()
}

/// Whether an interval has this value; null for none.
fn is_close(interval: &Value, expected: Option<f64>) -> bool {
    match (interval["value"].as_f64(), expected) {
        (Some(value), Some(expected)) => (value - expected).abs() < 1e-12,
        (value, expected) => value == expected,
    }
}

/// The share of pairs of a positive and a negative in the right order; ties count one half.
fn auroc(rows: &[(f64, bool)]) -> Option<f64> {
    let (mut right, mut pairs) = (0.0, 0.0);
    for (positive, _) in rows.iter().filter(|row| row.1) {
        for (negative, _) in rows.iter().filter(|row| !row.1) {
            right += if positive > negative { 1.0 } else { f64::from(u8::from(positive == negative)) / 2.0 };
            pairs += 1.0;
        }
    }
    (pairs > 0.0).then(|| right / pairs)
}

/// Retrieval follows from the ranks of the predictions.
fn retrieval_has_its_ranks(run: &Path, stem: &str, retrieval: &Value) {
    for (direction, column, count) in
        [("image_to_report", "rank of report", "images"), ("report_to_image", "rank of image", "reports")]
    {
        let mut ranks: Vec<f64> = predicted(run, stem, column).into_iter().flatten().collect();
        ranks.sort_by(f64::total_cmp);
        assert_eq!(retrieval[count].as_u64(), Some(ranks.len() as u64), "{direction}");
        let of = &retrieval[direction];
        for (key, most) in [("recall_1", 1.0), ("recall_5", 5.0), ("recall_10", 10.0)] {
            let found = ranks.iter().filter(|rank| **rank <= most).count() as f64 / ranks.len() as f64;
            assert!(is_close(&of[key], Some(found)), "{direction} {key}: {found}, {of}");
        }
        assert!(is_close(&of["median_rank"], Some(ranks[(ranks.len() - 1) / 2])), "{direction}: {of}");
    }
}

/// Zero-shot classification follows from the scores and labels of the predictions.
fn findings_have_their_pairs(run: &Path, stem: &str, zero_shot: &Value) {
    let mut defined = Vec::new();
    for (at, finding) in ["Cardiomegaly", "Edema"].into_iter().enumerate() {
        let column = |what: &str| predicted(run, stem, &format!("{what} {finding}"));
        let rows: Vec<(f64, bool)> = (column("score").into_iter().zip(column("label")))
            .filter_map(|(score, label)| Some((score?, label? == 1.0)))
            .collect();
        let row = &zero_shot["findings"][at];
        assert_eq!(row["finding"], finding);
        let expected = auroc(&rows);
        assert!(is_close(&row["auroc"], expected), "{finding}: {expected:?}, {row}");
        defined.extend(expected);
    }
    assert!(!defined.is_empty(), "{zero_shot}");
    let mean = defined.iter().sum::<f64>() / defined.len() as f64;
    assert!(is_close(&zero_shot["mean"]["auroc"], Some(mean)), "{mean}: {zero_shot}");
}

/// The table of metrics has the numbers of the evaluation.
fn metrics_are_those_of_the_evaluation(run: &Path, stem: &str, evaluation: &Value) {
    let table = std::fs::read_to_string(run.join(format!("metrics-{stem}.csv"))).expect("metrics");
    let (retrieval, zero_shot) = (&evaluation["retrieval"], &evaluation["zero_shot"]);
    for (finding, metric, interval) in [
        ("image_to_report", "retrieval.recall_10", &retrieval["image_to_report"]["recall_10"]),
        ("report_to_image", "retrieval.recall_1", &retrieval["report_to_image"]["recall_1"]),
        ("report_to_image", "retrieval.median_rank", &retrieval["report_to_image"]["median_rank"]),
        ("Edema", "zero_shot.auroc", &zero_shot["findings"][1]["auroc"]),
        ("Cardiomegaly", "zero_shot.brier", &zero_shot["findings"][0]["brier"]),
        ("mean", "zero_shot.average_precision", &zero_shot["mean"]["average_precision"]),
    ] {
        let start = format!("{finding},{metric},");
        let rest = table.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("no {start}"));
        let found: Vec<Option<f64>> = rest.split(',').map(|field| field.parse().ok()).collect();
        let expected = ["value", "low", "high", "draws"].map(|key| interval[key].as_f64());
        let is_close = |(a, b): (&Option<f64>, &Option<f64>)| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() < 1e-12,
            (a, b) => a == b,
        };
        assert!(found.len() == 4 && found.iter().zip(&expected).all(is_close), "{start}: {found:?}, {expected:?}");
    }
}

#[test]
fn a_contrast_retrieves_reports_far_above_chance() {
    let temporary = folder();
    let data = training::dataset(temporary.path(), 120);
    let run = temporary.path().join("clip");
    // The defaults of mrm-vit-tiny, at a quarter of its width.
    let sizes = ["--set", "model.vit.image_size=64", "--set", "model.vit.num_layers=2", "--set", "run.seed=1"];
    let lr = ["--batch-size", "32", "--set", "optimizer.base_lr=0.02"];
    let mut arguments = objective(&data, &run, "clip", 200, &[&sizes[..], &lr].concat());
    let at = arguments.iter().position(|argument| argument == "--batch-size").expect("a batch size");
    arguments.drain(at..at + 2); // that of the helper
    ok("trainer", arguments);
    let log = numbers(&run);
    let loss = |line: &Value| line["loss_contrast"].as_f64().expect("a loss");
    let mean = |lines: &[Value]| lines.iter().map(loss).sum::<f64>() / lines.len() as f64;
    // ln 32 = 3.47 is the loss of vectors that say nothing.
    assert!(
        mean(&log[..3]) > 3.0 && mean(&log[log.len() - 20..]) < 2.0,
        "{} {}",
        mean(&log[..3]),
        mean(&log[log.len() - 20..])
    );
    assert!(log.iter().all(|line| (0.01..1.0).contains(&line["temperature"].as_f64().expect("a temperature"))));

    let arguments = |subset: &str| {
        args!["evaluate", "--data", &data, "--run", &run, "--split", "main", "--subset", subset, "--draws", "50"]
            .to_vec()
    };
    let printed = ok("trainer", arguments("train"));
    assert!(printed.contains("median rank") && !printed.contains("zero-shot"), "{printed}");
    let train = evaluation(&run, "train");
    let reports = train["retrieval"]["reports"].as_f64().expect("a number");
    for direction in ["image_to_report", "report_to_image"] {
        let found = train["retrieval"][direction]["recall_10"]["value"].as_f64().expect("a number");
        assert!(found > 3.0 * 10.0 / reports, "{direction}: {found} of {reports}");
        let median = train["retrieval"][direction]["median_rank"]["value"].as_f64().expect("a number");
        assert!(median < reports / 6.0, "{direction}: rank {median} of {reports}");
    }
    retrieval_has_its_ranks(&run, "train", &train["retrieval"]);
    println!("{printed}");

    // Test records, and findings by prompts.
    let mut all = arguments("test");
    all.extend(args!["--zero-shot", "labels:Cardiomegaly,Edema"]);
    let printed = ok("trainer", all);
    println!("{printed}");
    assert!(printed.contains("Cardiomegaly") && printed.contains("AUROC"), "{printed}");
    let test = evaluation(&run, "test");
    assert_eq!(
        (test["kind"].as_str(), test["task"].as_str(), test["ratio"].as_f64()),
        (Some("contrast"), Some("clip"), Some(100.0))
    );
    assert_eq!(test["zero_shot"]["prompts"]["negative"][0], "no {finding}");
    retrieval_has_its_ranks(&run, "test", &test["retrieval"]);
    findings_have_their_pairs(&run, "test", &test["zero_shot"]);
    metrics_are_those_of_the_evaluation(&run, "test", &test);
    let page = temporary.path().join("report.html");
    ok("trainer", args!["report", &run, "--out", &page]);
    let page = std::fs::read_to_string(page).expect("a page");
    assert!(page.contains("image–text retrieval") && page.contains("zero-shot AUROC"), "no section of the evaluation");
    let (_, section) = page.split_once("<h2>zero-shot classification: clip on test</h2>").expect("a section");
    let (section, _) = section.split_once("</section>").expect("an end");
    for name in ["Cardiomegaly", "Edema", "mean"] {
        assert!(section.contains(&format!("<tr><td>{name}</td>")), "{section}");
    }
}

#[test]
fn a_killed_contrast_continues_to_the_same_bits() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let (whole, killed) = (temporary.path().join("a"), temporary.path().join("b"));
    let settings = ["--set", "run.checkpoint_every=5", "--set", "run.ema=0.9", "--set", "optimizer.accumulation=2"];
    ok("trainer", objective(&data, &whole, "mrm-clip", 30, &settings));
    let expected = numbers(&whole);
    for part in ["loss_image", "loss_report", "loss_contrast", "temperature"] {
        assert!(expected.len() == 30 && expected.iter().all(|line| line[part].is_f64()), "{part}");
    }
    kill_after(12, &killed, objective(&data, &killed, "mrm-clip", 30, &settings));
    ok("trainer", objective(&data, &killed, "mrm-clip", 30, &settings));
    assert_eq!(numbers(&killed), expected);
    assert!(weights(&killed) == weights(&whole));
}

#[test]
fn runs_of_contrast_serve_other_commands() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let at = |name: &str| temporary.path().join(name);
    for (name, more) in [("clip", ["--set", "run.precision=bf16"]), ("maco", ["--set", "run.in_place_loss=true"])] {
        ok("trainer", objective(&data, &at(name), name, 4, &more));
    }
    let printed = ok("trainer", finetuning(&data, &at("tuned"), &at("clip"), &[]));
    assert!(printed.contains("loaded 18 tensors") || printed.contains("loaded "), "{printed}");
    ok("trainer", args!["embed", "--data", &data, "--weights", at("maco"), "--out", at("features.parquet")]);
    ok("trainer", args!["export", at("clip"), "--to", "timm", "--out", at("timm")]);
    ok("trainer", args!["reconstruct", "--data", &data, "--weights", at("maco"), "--rows", "2"]);
    assert!(at("maco/reconstruction.png").is_file());
    let message = fails("trainer", 1, args!["reconstruct", "--data", &data, "--weights", at("clip"), "--rows", "2"]);
    assert!(message.contains("a run of clip, which reconstructs nothing"), "{message}");
    let message = fails("trainer", 1, args!["predict", "--data", &data, "--weights", at("clip"), "--out", at("p.csv")]);
    assert!(message.contains("evaluate --zero-shot"), "{message}");
    // Options of other kinds of runs, and findings that are none.
    let evaluate = |run: &str, more: &[&str]| {
        let mut all = args!["evaluate", "--data", &data, "--run", at(run), "--split", "main"].to_vec();
        all.extend(more.iter().map(Into::into));
        all
    };
    let message = fails("trainer", 1, evaluate("tuned", &["--zero-shot", "labels:Edema"]));
    assert!(message.contains("--zero-shot is for contrast runs"), "{message}");
    let message = fails("trainer", 1, evaluate("clip", &["--zero-shot", "labels:Oedema"]));
    assert!(message.contains("no label `Oedema`"), "{message}");
    fails("trainer", 2, evaluate("clip", &["--prompts", "prompts.toml"]));
    let prompts = at("prompts.json");
    std::fs::write(&prompts, r#"{"positive": ["signs of {finding}"], "negative": ["{finding} is absent"]}"#)
        .expect("written");
    ok("trainer", evaluate("clip", &["--zero-shot", "labels:Edema", "--prompts", prompts.to_str().expect("a path")]));
    ok("trainer", evaluate("maco", &["--draws", "20"]));
    let printed = ok("trainer", args!["compare", at("clip"), at("maco"), "--subset", "test", "--draws", "20"]);
    assert!(printed.contains("image → report R@10"), "{printed}");
    let prompts = &evaluation(&at("clip"), "test")["zero_shot"]["prompts"];
    assert_eq!(prompts["positive"][0], "signs of {finding}");

    // A run on all records has seen every subset.
    let mut whole = objective(&data, &at("whole"), "siglip", 2, &[]);
    let place = whole.iter().position(|argument| argument == "--split").expect("a split");
    whole.drain(place..place + 2);
    ok("trainer", whole);
    let message = fails("trainer", 1, evaluate("whole", &[]));
    assert!(message.contains("was trained on all records of this dataset"), "{message}");

    let unknown = fails("trainer", 2, objective(&data, &at("x"), "clipp", 4, &[]));
    assert!(unknown.contains("no objective `clipp`") && unknown.contains("did you mean `clip`?"), "{unknown}");
    let nothing = ["--set", "model.reconstruct=none"];
    let message = fails("trainer", 2, pretraining(&data, &at("x"), 4, &nothing));
    assert!(message.contains("`none` leaves nothing to learn"), "{message}");
    assert!(!at("x").exists());
}

#[test]
fn records_without_a_report_take_part_in_the_reconstruction_alone() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let other = temporary.path().join("other");
    ingest("chexpert", &phantom_of("chexpert", temporary.path(), 30), &other, &[]);
    ok("dataset", args!["split", &other, "--name", "main", "--ratios", "50,100"]);
    let run = temporary.path().join("maco");
    let mut arguments = objective(&data, &run, "maco", 6, &[]);
    arguments.extend(args!["--data", &other]);
    let printed = ok("trainer", arguments);
    assert!(printed.contains("the others take part in the image loss alone"), "{printed}");
    let log = numbers(&run);
    assert!(log.iter().any(|line| line["loss_contrast/set"].is_f64()), "{log:?}");
    assert!(log.iter().all(|line| line.get("loss_contrast/other").is_none()), "{log:?}");
    assert!(log.iter().any(|line| line["loss_image/other"].is_f64()), "{log:?}");
    // Nothing but reports to learn from, and none there.
    let mut alone = objective(&other, &temporary.path().join("x"), "clip", 4, &[]);
    alone.extend(args!["--threads", "1"]);
    let message = fails("trainer", 1, alone);
    assert!(message.contains("no reports to contrast images with"), "{message}");
}
