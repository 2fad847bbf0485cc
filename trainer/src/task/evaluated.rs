//! What an evaluation gives: the fields at the beginning of `evaluation-STEM.json`, and the metrics that sweeps and the report
//! read.

use serde::{Deserialize, Serialize};

use crate::config::Recipe;
use crate::eval::bootstrap::Interval;

/// The fields that evaluations of all kinds begin with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluationHeader {
    /// The kind of task.
    pub kind: String,
    /// The task as `--task` names it, or the objective as `--objective` does.
    pub task: String,
    /// Name of the split.
    pub split: String,
    /// The subset.
    pub subset: String,
    /// Percentage of the training labels.
    pub ratio: f64,
    /// Seed of the run.
    #[serde(default)]
    pub seed: u64,
    /// The pretrained run or file, or `random`.
    pub init: String,
    /// What tables call the initialization.
    pub init_name: String,
    /// The way of fine-tuning.
    #[serde(default)]
    pub recipe: Recipe,
    /// Records of the subset with ground truth.
    pub records: usize,
    /// Patients of these records.
    pub patients: usize,
    /// Bootstrap draws that were asked for.
    #[serde(default)]
    pub draws: usize,
    /// File of the weights, within the run.
    #[serde(default)]
    pub weights: String,
    /// Steps that the run had made.
    #[serde(default)]
    pub steps: u64,
}

/// A metric of an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its key in JSON files.
    pub key: &'static str,
    /// Its name in tables.
    pub title: &'static str,
    /// Its value with an interval; none where it is undefined.
    pub value: Option<Interval>,
}

/// What an evaluation gave.
pub struct Evaluated {
    /// The table for the terminal.
    pub text: String,
    /// The content of `evaluation-STEM.json`.
    pub json: serde_json::Value,
    /// What may be wrong with the evaluation.
    pub warnings: Vec<String>,
    /// The weights, and the files that were written, in one line.
    pub written: String,
}
