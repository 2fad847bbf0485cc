//! What an evaluation of a classifier has beside AUROC: decisions at a threshold, curves, subgroups; and DeLong's test.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use arrow_array::{Array, Float32Array, Float64Array, Int8Array, StringArray, UInt64Array};
use dataset::Dataset;
use dataset::format::table::{column, read_table};
use dataset::store::files::read_json;
use helpers::{args, fails, folder, ok};
use serde_json::Value;
use trainer::eval::metrics::auroc;
use training::{finetuning, pretrained};

/// Identifier, score and label of each record of a finding, as an evaluation wrote them.
fn predictions(run: &Path, stem: &str, finding: &str) -> Vec<(String, f32, Option<bool>)> {
    let mut rows = Vec::new();
    for batch in read_table(&run.join(format!("predictions-{stem}.parquet"))).expect("predictions") {
        let ids = column::<StringArray>(&batch, "record_id").expect("identifiers");
        let scores = column::<Float32Array>(&batch, &format!("score {finding}")).expect("scores");
        let labels = column::<Int8Array>(&batch, &format!("label {finding}")).expect("labels");
        let label = |row: usize| labels.is_valid(row).then(|| labels.value(row) == 1);
        rows.extend((0..ids.len()).map(|row| (ids.value(row).to_owned(), scores.value(row), label(row))));
    }
    rows
}

/// True and false positives, false and true negatives from a threshold on.
fn confusion(rows: &[(String, f32, Option<bool>)], threshold: f32) -> [u64; 4] {
    let count = |predicted: bool, label: bool| {
        rows.iter().filter(|row| (row.1 >= threshold) == predicted && row.2 == Some(label)).count() as u64
    };
    [count(true, true), count(true, false), count(false, true), count(false, false)]
}

fn f1([tp, fp, missed, _]: [u64; 4]) -> f64 {
    (2 * tp) as f64 / (2 * tp + fp + missed) as f64
}

fn evaluating(data: &Path, run: &Path, more: &[&str]) -> Vec<std::ffi::OsString> {
    let mut all = args!["evaluate", "--data", data, "--run", run, "--split", "main", "--draws", "40"].to_vec();
    all.extend(more.iter().map(Into::into));
    all
}

/// Whether an interval has this value; null for none.
fn is_close(interval: &Value, expected: Option<f64>) -> bool {
    match expected {
        Some(expected) => (number(&interval["value"]) - expected).abs() < 1e-12,
        None => interval.is_null(),
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn decisions_curves_and_subgroups_follow_from_the_predictions() {
    let temporary = folder();
    let (data, mrm) = pretrained(temporary.path(), 90);
    let run = temporary.path().join("runs/tuned");
    ok("trainer", finetuning(&data, &run, &mrm, &[]));
    let groups = ["--subgroups", "sex,age=0,55,view,Edema"];
    let message = ok("trainer", evaluating(&data, &run, &groups));
    for words in
        ["at a threshold chosen for the highest F1 on the validate subset", "by sex; ", "macro (mean", "TP/FP/FN/TN"]
    {
        assert!(message.contains(words), "{words}: {message}");
    }
    assert_eq!(message.contains(")*"), message.contains("* defined in fewer than nine of ten draws"), "{message}");
    let file = run.join("evaluation-test.json");
    let report: Value = read_json(&file).expect("an evaluation");
    let first = fs::read(&file).expect("an evaluation");

    // The thresholds are the best ones on the validation subset, by trying all scores that occur.
    ok("trainer", evaluating(&data, &run, &["--subset", "validate"]));
    let decisions = &report["at_threshold"];
    assert_eq!(decisions["chosen_on"], "validate");
    let mut all = [0; 4];
    let mut f1s = Vec::new();
    for (at, finding) in ["Cardiomegaly", "Edema"].into_iter().enumerate() {
        let row = &decisions["findings"][at];
        let threshold = number(&row["threshold"]) as f32;
        let validated = predictions(&run, "validate", finding);
        assert_eq!(decisions["chosen_on_records"], validated.len());
        let best = validated.iter().map(|row| f1(confusion(&validated, row.1))).fold(0.0, f64::max);
        assert!((f1(confusion(&validated, threshold)) - best).abs() < 1e-12, "{finding}: {threshold}");
        let tested = predictions(&run, "test", finding);
        let counts = confusion(&tested, threshold);
        let names = ["true_positives", "false_positives", "false_negatives", "true_negatives"];
        assert_eq!(names.map(|name| row["confusion"][name].as_u64()), counts.map(Some), "{finding}");
        let [tp, fp, missed, tn] = counts.map(|count| count as f64);
        for (name, expected) in [
            ("f1", f1(counts)),
            ("accuracy", (tp + tn) / (tp + fp + missed + tn)),
            ("sensitivity", tp / (tp + missed)),
            ("specificity", tn / (tn + fp)),
            ("ppv", tp / (tp + fp)),
            ("npv", tn / (tn + missed)),
        ] {
            if expected.is_nan() {
                assert!(row[name].is_null(), "{finding} {name}: {row}");
                continue;
            }
            let value = |key: &str| number(&row[name][key]);
            assert!((value("value") - expected).abs() < 1e-12, "{finding} {name}: {row}");
            assert!(value("low") <= value("value") && value("value") <= value("high"), "{finding} {name}: {row}");
        }
        all.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        f1s.push(f1(counts));
    }
    assert!((number(&decisions["macro"]["f1"]["value"]) - f64::midpoint(f1s[0], f1s[1])).abs() < 1e-12);
    assert!((number(&decisions["micro"]["f1"]["value"]) - f1(all)).abs() < 1e-12);

    // The same bytes with the stored thresholds, and without them.
    ok("trainer", evaluating(&data, &run, &groups));
    assert!(fs::read(&file).expect("an evaluation") == first);
    fs::remove_file(run.join("thresholds.json")).expect("thresholds");
    ok("trainer", evaluating(&data, &run, &groups));
    assert!(fs::read(&file).expect("an evaluation") == first);

    metrics_are_those_of_the_evaluation(&run, &report);
    curves_have_the_areas(&run, &report);
    groups_have_their_records(&data, &run, &report);

    // Without --subgroups no table of an earlier evaluation stays.
    assert!(run.join("subgroups-test.csv").is_file());
    ok("trainer", evaluating(&data, &run, &[]));
    assert!(!run.join("subgroups-test.csv").exists() && !run.join("subgroups-test.parquet").exists());
    for (columns, words) in [
        ("gender", "this dataset has no column `gender`; it has: age, subset, view"),
        ("source_width", "give the edges of its bands, as source_width=0,1000,2000"),
        ("sex=0,1", "a column of texts, which have no bands"),
    ] {
        let message = fails("trainer", 1, evaluating(&data, &run, &["--subgroups", columns]));
        assert!(message.contains(words), "{message}");
    }
    assert!(fails("trainer", 2, evaluating(&data, &run, &["--subgroups", "sex,sex"])).contains("each column once"));
}

/// Of each finding and metric: value, low, high, draws.
type Metrics = BTreeMap<(String, String), [Option<f64>; 4]>;

/// The numbers of an interval; nulls for none.
fn interval(value: &Value) -> [&Value; 4] {
    ["value", "low", "high", "draws"].map(|key| &value[key])
}

/// The table of metrics has all metrics, counts and thresholds of the evaluation, and no other row.
fn metrics_are_those_of_the_evaluation(run: &Path, report: &Value) {
    let mut expected = Metrics::new();
    let mut add = |finding: &str, metric: &str, numbers: [&Value; 4]| {
        let before = expected.insert((finding.to_owned(), metric.to_owned()), numbers.map(Value::as_f64));
        assert_eq!(before, None, "{finding} {metric}");
    };
    let none = &Value::Null;
    let scores = ["auroc", "average_precision", "sensitivity", "brier", "calibration_error"];
    let decisions = ["f1", "accuracy", "sensitivity", "specificity", "ppv", "npv"];
    let rows = |section: &Value| section.as_array().expect("rows").clone();
    let name = |row: &Value| row["finding"].as_str().expect("a name").to_owned();
    for row in &rows(&report["findings"]) {
        let delong = &row["auroc_delong"];
        for key in ["positives", "negatives"] {
            add(&name(row), key, [&row[key], none, none, none]);
        }
        let auroc = if delong.is_null() { none } else { &row["auroc"]["value"] };
        add(&name(row), "auroc_delong", [auroc, &delong["low"], &delong["high"], none]);
        add(&name(row), "auroc_delong.standard_error", [&delong["standard_error"], none, none, none]);
        scores.iter().for_each(|key| add(&name(row), key, interval(&row[key])));
    }
    scores.iter().for_each(|key| add("mean", key, interval(&report["mean"][key])));
    let at_threshold = &report["at_threshold"];
    for row in &rows(&at_threshold["findings"]) {
        add(&name(row), "at_threshold.threshold", [&row["threshold"], none, none, none]);
        for key in ["true_positives", "false_positives", "false_negatives", "true_negatives"] {
            let count = &row["confusion"][key];
            add(&name(row), &format!("at_threshold.confusion.{key}"), [count, none, none, none]);
        }
        decisions.iter().for_each(|key| add(&name(row), &format!("at_threshold.{key}"), interval(&row[key])));
    }
    for row in ["macro", "micro"] {
        for key in decisions {
            add(row, &format!("at_threshold.{key}"), interval(&at_threshold[row][key]));
        }
    }
    for row in &rows(&report["calibration"]) {
        let error = &row["adaptive_calibration_error"];
        add(&name(row), "calibration.adaptive_calibration_error", interval(error));
    }

    let mut found = Metrics::new();
    for batch in read_table(&run.join("metrics-test.parquet")).expect("metrics") {
        let text = |name: &str, row: usize| column::<StringArray>(&batch, name).expect("texts").value(row).to_owned();
        let number = |name: &str, row: usize| {
            let numbers = column::<Float64Array>(&batch, name).expect("numbers");
            numbers.is_valid(row).then(|| numbers.value(row))
        };
        let draws = column::<UInt64Array>(&batch, "draws").expect("draws");
        for row in 0..batch.num_rows() {
            let [value, low, high] = ["value", "low", "high"].map(|name| number(name, row));
            let numbers = [value, low, high, draws.is_valid(row).then(|| draws.value(row) as f64)];
            assert_eq!(found.insert((text("finding", row), text("metric", row)), numbers), None);
        }
    }
    assert!(found.keys().eq(expected.keys()), "{found:?}");
    for (metric, numbers) in &expected {
        // JSON is read with an error in the last digit.
        let is_close = |(a, b): (&Option<f64>, &Option<f64>)| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() < 1e-12,
            (a, b) => a == b,
        };
        assert!(numbers.iter().zip(&found[metric]).all(is_close), "{metric:?}: {numbers:?}, {:?}", found[metric]);
    }
    let csv = fs::read_to_string(run.join("metrics-test.csv")).expect("metrics");
    let (head, lines) = csv.split_once('\n').expect("a head");
    assert_eq!(head, "finding,metric,value,low,high,draws");
    let of_csv = lines.lines().map(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        let number = |at: usize| fields[at].parse::<f64>().ok();
        ((fields[0].to_owned(), fields[1].to_owned()), [number(2), number(3), number(4), number(5)])
    });
    assert_eq!(of_csv.collect::<Metrics>(), found);
}

/// The tables of curves have the areas that the evaluation states, and its bins.
fn curves_have_the_areas(run: &Path, report: &Value) {
    let batches = read_table(&run.join("curves-test.parquet")).expect("curves");
    let points = |finding: &str, curve: &str| -> Vec<(f64, f64)> {
        let mut points = Vec::new();
        for batch in &batches {
            let texts = |name| column::<StringArray>(batch, name).expect("texts");
            let numbers = |name| column::<Float64Array>(batch, name).expect("numbers");
            let wanted = |row: &usize| texts("finding").value(*row) == finding && texts("curve").value(*row) == curve;
            points.extend(
                (0..batch.num_rows()).filter(wanted).map(|row| (numbers("x").value(row), numbers("y").value(row))),
            );
        }
        points
    };
    for (at, finding) in ["Cardiomegaly", "Edema"].into_iter().enumerate() {
        let row = &report["findings"][at];
        let roc = points(finding, "roc");
        let area: f64 = roc.windows(2).map(|pair| (pair[1].0 - pair[0].0) * f64::midpoint(pair[0].1, pair[1].1)).sum();
        assert!((area - number(&row["auroc"]["value"])).abs() < 1e-12, "{finding}: {area}");
        let mut recall = 0.0;
        let step = |(x, y): (f64, f64)| {
            let area = (x - recall) * y;
            recall = x;
            area
        };
        let precision: f64 = points(finding, "precision-recall").into_iter().map(step).sum();
        assert!((precision - number(&row["average_precision"]["value"])).abs() < 1e-12, "{finding}: {precision}");
        let calibration = &report["calibration"][at];
        assert_eq!(calibration["finding"], finding);
        for (key, curve) in [("equal_width", "calibration"), ("adaptive", "calibration-adaptive")] {
            let bins = calibration[key].as_array().expect("bins");
            let of_table: Vec<(f64, f64)> =
                bins.iter().map(|bin| (number(&bin["mean_score"]), number(&bin["positive_share"]))).collect();
            // JSON is read with an error in the last digit.
            let close = |a: &(f64, f64), b: &(f64, f64)| (a.0 - b.0).abs() < 1e-12 && (a.1 - b.1).abs() < 1e-12;
            let points = points(finding, curve);
            assert!(
                of_table.len() == points.len() && of_table.iter().zip(&points).all(|(a, b)| close(a, b)),
                "{finding}"
            );
            let records: u64 = bins.iter().filter_map(|bin| bin["records"].as_u64()).sum();
            assert_eq!(Some(records), row["positives"].as_u64().zip(row["negatives"].as_u64()).map(|(p, n)| p + n));
        }
        // The adaptive error is that of its bins.
        let (mut gaps, mut records) = (0.0, 0.0);
        for bin in calibration["adaptive"].as_array().expect("bins") {
            let gap = (number(&bin["mean_score"]) - number(&bin["positive_share"])).abs();
            gaps += gap * number(&bin["records"]);
            records += number(&bin["records"]);
        }
        let error = &calibration["adaptive_calibration_error"];
        assert!(is_close(error, Some(gaps / records)), "{finding}: {error}");
        assert!(number(&error["low"]) < number(&error["high"]) && error["draws"] == 40, "{finding}: {error}");
    }
}

/// Groups have the records that the dataset says, and their AUROC.
fn groups_have_their_records(data: &Path, run: &Path, report: &Value) {
    let dataset = Dataset::open(data).expect("a dataset");
    let column_of = |name: &str| {
        report["subgroups"]
            .as_array()
            .expect("subgroups")
            .iter()
            .find(|column| column["column"] == name)
            .expect("a column")
    };
    let record = |id: &str| dataset.record_without_image(dataset.row_of(id).expect("a row")).expect("a record");
    let edema = dataset.findings().iter().position(|finding| finding == "Edema").expect("a finding");
    let group = |column: &str, id: &str| {
        let record = record(id);
        let name = match column {
            "sex" => record.sex,
            "view" => record.view,
            "age" => record.age_years.map(|age| if age < 55.0 { "0 to below 55" } else { "55 and above" }.to_owned()),
            _ => record.labels[edema].map(|label| match label.code() {
                1 => "positive".to_owned(),
                0 => "negative".to_owned(),
                _ => "uncertain".to_owned(),
            }),
        };
        name.unwrap_or_else(|| "not stated".to_owned())
    };
    for name in ["sex", "age", "view", "Edema"] {
        let of_column = &column_of(name)["findings"][0];
        let mut expected: BTreeMap<String, Vec<(f32, Option<bool>)>> = BTreeMap::new();
        for (id, score, label) in predictions(run, "test", "Cardiomegaly") {
            expected.entry(group(name, &id)).or_default().push((score, label));
        }
        let groups = of_column["groups"].as_array().expect("groups");
        assert_eq!(groups.len(), expected.len(), "{name}: {groups:?}");
        let mut aurocs = Vec::new();
        for group in groups {
            let rows = &expected[group["group"].as_str().expect("a name")];
            let count = |wanted: bool| rows.iter().filter(|row| row.1 == Some(wanted)).count();
            assert_eq!((&group["positives"], &group["negatives"]), (&count(true).into(), &count(false).into()));
            let (scores, labels): (Vec<f32>, Vec<Option<bool>>) = rows.iter().copied().unzip();
            let value = auroc(&scores, &labels);
            assert!(is_close(&group["auroc"], value), "{name}: {group}");
            let compared = count(true) >= 10 && count(false) >= 10 && group["group"] != "not stated";
            assert_eq!(group["compared"], compared);
            aurocs.extend(value.filter(|_| compared));
        }
        let gap = aurocs.iter().fold(0.0, |a: f64, b| a.max(*b)) - aurocs.iter().fold(1.0, |a: f64, b| a.min(*b));
        assert!(is_close(&of_column["gap"]["auroc"], (aurocs.len() > 1).then_some(gap)), "{name}");
    }
    // The first row of the table is the first group of the first column.
    let first = &report["subgroups"][0]["findings"][0]["groups"][0]["auroc"];
    let table = read_table(&run.join("subgroups-test.parquet")).expect("subgroups");
    let draws = column::<UInt64Array>(&table[0], "auroc draws").expect("draws");
    assert_eq!(draws.is_valid(0).then(|| draws.value(0)), first["draws"].as_u64());
}

#[test]
fn other_datasets_take_the_thresholds_of_the_run() {
    let temporary = folder();
    let (data, mrm) = pretrained(temporary.path(), 60);
    let run = temporary.path().join("runs/tuned");
    ok("trainer", finetuning(&data, &run, &mrm, &[]));
    let raw = helpers::phantom_of("chexpert", temporary.path(), 40);
    let outside = temporary.path().join("outside");
    helpers::ingest("chexpert", &raw, &outside, &[]);
    ok("dataset", args!["split", &outside, "--name", "main"]);
    let stored = || -> Value { read_json(&run.join("evaluation-test-on-outside.json")).expect("an evaluation") };
    let message = ok("trainer", evaluating(&outside, &run, &[]));
    assert!(message.contains("no metrics at a threshold") && message.contains("evaluate it there first"), "{message}");
    assert!(stored()["at_threshold"].is_null() && stored()["without_threshold"].is_string());
    ok("trainer", evaluating(&data, &run, &[]));
    let own: Value = read_json(&run.join("evaluation-test.json")).expect("an evaluation");
    ok("trainer", evaluating(&outside, &run, &[]));
    let thresholds = |report: &Value| -> Vec<Value> {
        let findings = report["at_threshold"]["findings"].as_array().expect("findings").iter();
        findings.map(|finding| finding["threshold"].clone()).collect()
    };
    assert_eq!(thresholds(&stored()), thresholds(&own));
    // Thresholds of other weights are chosen again.
    let path = run.join("thresholds.json");
    let text = fs::read_to_string(&path).expect("thresholds");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    let weights = run.join(own["weights"].as_str().expect("a file"));
    assert_eq!(json["weights_sha256"], dataset::store::files::sha256(&weights).expect("a digest"));
    let digest = json["weights_sha256"].as_str().expect("a digest");
    let mut other = json.clone();
    other["findings"][0]["threshold"] = 2.0.into();
    fs::write(&path, other.to_string()).expect("written");
    ok("trainer", evaluating(&data, &run, &[]));
    assert_eq!(thresholds(&read_json(&run.join("evaluation-test.json")).expect("an evaluation"))[0], 2.0);
    fs::write(&path, other.to_string().replace(digest, "0")).expect("written");
    ok("trainer", evaluating(&data, &run, &[]));
    assert_eq!(fs::read_to_string(&path).expect("thresholds"), text);
    assert_eq!(read_json::<Value>(&run.join("evaluation-test.json")).expect("an evaluation"), own);
}

#[test]
fn comparisons_have_delongs_test() {
    let temporary = folder();
    let (data, mrm) = pretrained(temporary.path(), 60);
    let runs = temporary.path().join("runs");
    let [first, second] = ["first", "second"].map(|name| runs.join(name));
    for (run, seed) in [(&first, "0"), (&second, "1")] {
        ok("trainer", finetuning(&data, run, &mrm, &["--seed", seed]));
        ok("trainer", evaluating(&data, run, &[]));
    }
    let out = temporary.path().join("difference.json");
    let message = ok("trainer", args!["compare", &first, &second, "--draws", "20", "--out", &out]);
    assert!(
        message.contains("DeLong's test of the AUROC") && message.contains("all records as independent"),
        "{message}"
    );
    let difference: Value = read_json(&out).expect("a comparison");
    for (at, finding) in ["Cardiomegaly", "Edema"].into_iter().enumerate() {
        let row = &difference["findings"][at];
        let [a, b] = [&first, &second].map(|run| predictions(run, "test", finding));
        // All pairs of a positive and a negative: the structural components by their definition.
        let components = |rows: &[(String, f32, Option<bool>)]| {
            let of =
                |wanted: bool| rows.iter().filter(|row| row.2 == Some(wanted)).map(|row| row.1).collect::<Vec<_>>();
            let (positives, negatives) = (of(true), of(false));
            let above = |x: f32, y: f32| if x > y { 1.0 } else { f64::from(u8::from(x == y)) / 2.0 };
            let mean = |values: &mut dyn Iterator<Item = f64>, count: usize| values.sum::<f64>() / count as f64;
            let of_positives: Vec<f64> =
                positives.iter().map(|&x| mean(&mut negatives.iter().map(|&y| above(x, y)), negatives.len())).collect();
            let of_negatives: Vec<f64> =
                negatives.iter().map(|&y| mean(&mut positives.iter().map(|&x| above(x, y)), positives.len())).collect();
            [of_positives, of_negatives]
        };
        let variance: f64 = components(&a)
            .iter()
            .zip(&components(&b))
            .map(|(a, b)| {
                let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| b - a).collect();
                let (count, mean) =
                    (differences.len() as f64, differences.iter().sum::<f64>() / differences.len() as f64);
                differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (count - 1.0) / count
            })
            .sum();
        assert!((number(&row["delong"]["variance"]) - variance).abs() < 1e-12, "{row}");
        assert!((number(&row["delong"]["difference"]) - number(&row["auroc"]["value"])).abs() < 1e-12, "{row}");
        let p = number(&row["delong"]["p"]);
        assert!(p > 0.0 && p <= 1.0, "{row}");
    }
}
