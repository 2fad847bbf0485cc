//! Metrics of an evaluation.

use serde_json::Value;
use trainer::eval::metrics::{Ranking, auroc, mean_defined};
use trainer::eval::overlap::Overlap;
use training::golden::{DOUBLE, Golden, check_number};

fn optional(value: &Value) -> Option<f64> {
    assert!(value.is_null() || value.is_number());
    value.as_f64()
}

fn check_optional(name: &str, got: Option<f64>, expected: Option<f64>) {
    assert_eq!(got.is_some(), expected.is_some(), "{name}: {got:?} and {expected:?}");
    if let (Some(got), Some(expected)) = (got, expected) {
        check_number(name, got, expected, DOUBLE);
    }
}

fn label(value: &Value) -> Option<bool> {
    value.as_i64().map(|label| label == 1)
}

#[test]
fn golden_metrics_binary() {
    let golden = Golden::read("metrics");
    let cases = golden.value("/binary").as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let scores: Vec<f32> = serde_json::from_value(case["scores"].clone()).unwrap();
        let labels: Vec<Option<bool>> = case["labels"].as_array().unwrap().iter().map(label).collect();
        check_optional(name, auroc(&scores, &labels), optional(&case["auroc"]));
        check_optional(
            name,
            Ranking::new(&scores, &labels).scores().average_precision,
            optional(&case["average_precision"]),
        );
    }
}

#[test]
fn golden_metrics_multilabel() {
    let golden = Golden::read("metrics");
    let case = golden.value("/multilabel");
    let scores: Vec<Vec<f32>> = serde_json::from_value(case["scores"].clone()).unwrap();
    let labels = case["labels"].as_array().unwrap();
    let classes = case["auroc_per_class"].as_array().unwrap().len();
    let mut aurocs = Vec::new();
    for class in 0..classes {
        let column = scores.iter().zip(labels).map(|(scores, labels)| (scores[class], label(&labels[class])));
        let metrics = Ranking::of(column).scores();
        let name = format!("class {class}");
        check_optional(&name, metrics.auroc, optional(&case["auroc_per_class"][class]));
        check_optional(&name, metrics.average_precision, optional(&case["average_precision_per_class"][class]));
        aurocs.push(metrics.auroc);
    }
    check_optional("mean", mean_defined(aurocs), optional(&case["mean_auroc_over_defined"]));
}

#[test]
fn golden_metrics_dice() {
    let golden = Golden::read("metrics");
    let mask = |value: &Value| serde_json::from_value::<Vec<Vec<u8>>>(value.clone()).unwrap().concat();
    let mut values = Vec::new();
    for image in golden.value("/dice/images").as_array().unwrap() {
        let value = Overlap::of(&mask(&image["pred"]), &mask(&image["target"])).dice();
        check_number(image["name"].as_str().unwrap(), value, image["dice"].as_f64().unwrap(), DOUBLE);
        values.push(Some(value));
    }
    assert!(values.len() > 3);
    check_optional("mean", mean_defined(values), optional(golden.value("/dice/mean")));
}
