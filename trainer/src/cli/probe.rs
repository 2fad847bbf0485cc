//! `trainer probe`.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use clap::Args;
use dataset::commands::cli::{self, UsageError};
use serde::{Deserialize, Serialize};

use super::options::{DeviceOption, Program, Subgroups, draws, subgroups};
use super::training::warn;
use crate::commands::{self, Probe, probe_table};
use crate::config::{FindingTask, PRESETS, RANDOM, overlay};
use crate::model::vit::{POOLINGS, Pooling};
use crate::probe::Method;
use crate::task::classify::LabelPolicy;

#[derive(Args)]
pub(super) struct Arguments {
    /// The dataset: a directory or a URL (s3://BUCKET/PREFIX).
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The frozen encoder: a run, a safetensors file, or `random` for random weights of the preset.
    #[arg(long, value_name = "RUN|FILE|random")]
    weights: PathBuf,
    /// Sizes of weights that are in no run; replaces the sizes of a run.
    #[arg(long, value_parser = PRESETS)]
    preset: Option<String>,
    /// What stands for an image: the mean over patch tokens, or the class token after the final norm. Default: as the encoder
    /// was trained (DINO, DINOv2, CLIP: cls; others: mean).
    #[arg(long, value_parser = POOLINGS)]
    pooling: Option<String>,
    /// What tables and charts call the encoder [default: from the weights].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The findings: nih14, chexpert5, rsna, covid, viral, or labels:A,B.
    #[arg(long, value_name = "TASK")]
    task: String,
    /// Names of splits; `dataset split` makes one.
    #[arg(long, value_name = "A,B", value_delimiter = ',', required = true)]
    split: Vec<String>,
    /// Percentages of the training labels.
    #[arg(long, alias = "ratios", value_name = "1,10,100", value_delimiter = ',', default_value = "100", value_parser = cli::percent)]
    ratio: Vec<f64>,
    /// Seeds of random weights.
    #[arg(long, value_name = "0,1,2", value_delimiter = ',', default_value = "0")]
    seeds: Vec<u64>,
    /// What is learned from the features: logistic regression, votes of the nearest training records.
    #[arg(long, value_name = "linear,knn", value_delimiter = ',', default_value = "linear,knn", value_parser = method)]
    method: Vec<Method>,
    /// Use the labels, boxes, masks and texts of this join instead of the dataset's own; may be repeated.
    #[arg(long, value_name = "NAME")]
    join: Vec<String>,
    /// How labels are read: data.uncertain, data.uncertain_by_finding, data.missing; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Bootstrap draws.
    #[arg(long, default_value_t = 1000, value_parser = draws)]
    draws: usize,
    /// Report sensitivity at this specificity [default: 0.9].
    #[arg(long, value_name = "0..1", value_parser = cli::share)]
    specificity: Option<f64>,
    /// Metrics also by the groups of these columns, as in `evaluate`.
    #[arg(long, value_name = "COLUMN[=EDGES],…", value_parser = subgroups)]
    subgroups: Option<Subgroups>,
    /// Folder of the features and of the results.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceOption,
}

/// The settings that `--set` takes here.
#[derive(Serialize, Deserialize)]
struct Settings {
    data: LabelPolicy,
}

fn method(text: &str) -> Result<Method, String> {
    Method::ALL.into_iter().find(|method| method.name() == text).ok_or_else(|| "give linear, knn or both".to_owned())
}

pub(super) fn run(arguments: Arguments, program: &Program) -> Result<()> {
    let device = commands::device(&arguments.device.device)?;
    let task = FindingTask::parse(&arguments.task).map_err(UsageError::of)?;
    let settings = overlay(&Settings { data: LabelPolicy::of(&task) }, None, &arguments.set)?;
    for (name, repeated) in [
        ("--split", repeats(&arguments.split)),
        ("--ratio", repeats(&arguments.ratio)),
        ("--seeds", repeats(&arguments.seeds)),
        ("--method", repeats(&arguments.method)),
    ] {
        if repeated {
            return Err(UsageError::of(anyhow!("{name}: give each value once")));
        }
    }
    let is_random = arguments.weights == Path::new(RANDOM) && !arguments.weights.exists();
    let probe = Probe {
        data: &arguments.data,
        out: &arguments.out,
        weights: (!is_random).then_some(arguments.weights.as_path()),
        preset: arguments.preset.as_deref(),
        pooling: arguments.pooling.as_deref().and_then(Pooling::parse),
        name: arguments.name.as_deref(),
        task,
        policy: settings.data,
        joins: arguments.join,
        splits: arguments.split,
        ratios: arguments.ratio,
        seeds: arguments.seeds,
        methods: arguments.method,
        draws: arguments.draws,
        specificity: arguments.specificity,
        subgroups: arguments.subgroups.unwrap_or_default().0,
    };
    let probed = probe.run(program.registry, device, &|line| dataset::cli_println!("{line}"))?;
    warn(&probed.warnings);
    dataset::cli_println!("\n{}", probe_table(&probed.results));
    dataset::cli_eprintln!("written to {0}; next: trainer report {0} --out report.html", arguments.out.display());
    Ok(())
}

/// Whether a value occurs twice.
fn repeats<T: PartialEq>(values: &[T]) -> bool {
    (0..values.len()).any(|at| values[..at].contains(&values[at]))
}
