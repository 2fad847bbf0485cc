//! `trainer sweep`: fine-tuning over ratios, seeds, splits and start weights, summed up in one table and chart.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use dataset::Subset;
use dataset::commands::cli::UsageError;
use dataset::store::files;
use serde::{Deserialize, Serialize};
use tch::Device;

use super::evaluate::check_specificity;
use super::finetune::Start;
use super::same_model;
use super::{DataSource, EvaluationReport, Finetuning, Request, evaluate, prepare_finetune, resolve_finetune};
use crate::config::{FinetuneConfig, RANDOM, SEGMENTATION_TASK};
use crate::train::checkpoint::newest_state;
use crate::train::run_dir::{self, RunDir};
use crate::train::train_loop::{Outcome, stop_requested};

/// What a sweep varies, and what it keeps.
#[derive(Debug, Clone)]
pub struct Sweep<'a> {
    pub data: &'a Path,
    pub out: &'a Path,
    pub task: &'a str,
    pub preset: Option<&'a str>,
    pub splits: Vec<String>,
    pub ratios: Vec<f64>,
    pub seeds: Vec<u64>,
    /// What tables call them, and where they are: a run or a file, where `{split}` stands for the split's name, or
    /// `random`.
    pub starts: Vec<(String, String)>,
    pub steps: Option<u64>,
    /// In place of `steps`.
    pub epochs: Option<f64>,
    pub file: Option<&'a str>,
    pub settings: Vec<String>,
    pub draws: usize,
    pub specificity: f64,
}

/// Mean and sample standard deviation over the runs of one start and ratio.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cell {
    pub start: String,
    pub ratio: f64,
    pub runs: usize,
    /// Mean test AUROC over findings; none where it is defined in no run.
    pub auroc: Option<Spread>,
    pub average_precision: Option<Spread>,
}

/// A mean and its spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub mean: f64,
    /// Sample standard deviation; 0 for one value.
    pub sd: f64,
    /// How many values were defined.
    pub values: usize,
}

impl Spread {
    /// Of some values; none of no value.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len();
        let mean = (count > 0).then(|| values.iter().sum::<f64>() / count as f64)?;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Some(Self { mean, sd: if count > 1 { (squares / (count - 1) as f64).sqrt() } else { 0.0 }, values: count })
    }
}

/// What a sweep came to.
#[derive(Debug, Clone)]
pub struct Swept {
    pub cells: Vec<Cell>,
    /// The runs' directories.
    pub runs: Vec<PathBuf>,
    /// Stopped by a signal before its end.
    pub stopped: bool,
}

/// Parses `NAME=RUN` or `NAME=random`, for clap.
///
/// # Errors
/// When the name is missing, or cannot be part of a folder's name.
pub fn parse_start(text: &str) -> Result<(String, String), String> {
    let named = |name: &str| format!("give NAME=RUN or NAME=random; did you mean `{name}={text}`?");
    let Some((name, path)) = text.split_once('=') else {
        let last = Path::new(text.trim_end_matches('/')).file_name().and_then(|name| name.to_str());
        return Err(match last {
            _ if text == RANDOM => named("scratch"),
            Some(last) if !last.contains('{') => named(last),
            _ => "give NAME=RUN or NAME=random".to_owned(),
        });
    };
    if name.is_empty() || name.contains(['/', '{']) || path.is_empty() {
        return Err("give NAME=RUN or NAME=random; NAME becomes part of a folder's name".to_owned());
    }
    Ok((name.to_owned(), path.to_owned()))
}

/// Runs what is not done yet, evaluates it on the test subset, and writes `sweep.json` and `sweep.md` into `out`.
pub fn sweep(plan: &Sweep, device: Device) -> Result<Swept> {
    if plan.task == SEGMENTATION_TASK {
        return Err(UsageError::of(anyhow!("sweeps are of classification tasks; `{SEGMENTATION_TASK}` is not one")));
    }
    if plan.out.join("config.toml").exists() {
        bail!("{} is a run: give a folder for the sweep's runs to --out", plan.out.display());
    }
    let mut sources = Vec::new();
    for split in &plan.splits {
        sources.push((split, DataSource::open(plan.data, Some(split))?));
    }
    check_specificity(plan.specificity)?;
    let pretrained = plan.starts.iter().filter(|(_, path)| path != RANDOM).flat_map(|(name, path)| {
        plan.splits.iter().map(move |split| (format!("{name}={path}"), weights_of(path, split)))
    });
    let model = same_model::of_starts(&pretrained.collect::<Vec<_>>(), plan.preset)?;
    // Everything is looked at before the first run begins.
    let mut told = HashSet::new();
    let mut jobs: Vec<(PathBuf, Finetuning, &DataSource)> = Vec::new();
    for (split, source) in &sources {
        for (name, path) in &plan.starts {
            for &ratio in &plan.ratios {
                for &seed in &plan.seeds {
                    let config = configuration(plan, source, (name, path), model.as_deref(), ratio, seed)?;
                    let prepared = prepare_finetune(config, source)?;
                    for remark in prepared.remarks() {
                        if told.insert(remark.clone()) {
                            dataset::cli_eprintln!("warning: {remark}");
                        }
                    }
                    let path = plan.out.join(format!("{name}-{split}-{ratio}-seed{seed}"));
                    if jobs.iter().any(|(other, ..)| *other == path) {
                        bail!(
                            "{} would be made twice: a split, ratio, seed or name of a start is repeated",
                            path.display()
                        );
                    }
                    jobs.push((path, prepared, source));
                }
            }
        }
    }
    let (count, mut runs, mut reports) = (jobs.len(), Vec::new(), Vec::new());
    for (number, (path, prepared, source)) in jobs.into_iter().enumerate() {
        let done = path.join("evaluation-test.json");
        dataset::cli_println!("run {} of {count}: {}", number + 1, path.display());
        let (split, optimizer) = (prepared.config().split.clone(), &prepared.config().optimizer);
        let run = RunDir::open(&path, prepared.config(), optimizer.steps)?;
        let finished = run_dir::is_finished(&path, optimizer.steps);
        let updates = newest_state(&path).map_or(0, |state| state.step);
        let as_asked = |report: &EvaluationReport| {
            report.split == split
                && report.specificity == plan.specificity
                && report.draws == plan.draws
                && report.updates == updates
        };
        if !(finished && files::read_json::<EvaluationReport>(&done).is_ok_and(|report| as_asked(&report))) {
            let outcome = prepared.train(&run, device)?;
            if matches!(outcome, Outcome::Stopped { .. }) || stop_requested()? {
                return Ok(Swept { cells: summary(&reports), runs, stopped: true });
            }
            let report = evaluate(&path, source, Subset::Test, device, plan.draws, plan.specificity)?;
            dataset::cli_println!(
                "  test AUROC {}",
                report.mean.auroc.map_or("undefined".to_owned(), |i| format!("{:.3}", i.value))
            );
        }
        reports.push(files::read_json::<EvaluationReport>(&done)?);
        runs.push(path);
    }
    let cells = summary(&reports);
    files::write_json(&plan.out.join("sweep.json"), &cells)?;
    files::write_atomic(&plan.out.join("sweep.md"), table(&cells).as_bytes())?;
    Ok(Swept { cells, runs, stopped: false })
}

/// The weights that a start means for a split.
fn weights_of(path: &str, split: &str) -> PathBuf {
    PathBuf::from(path.replace("{split}", split))
}

/// The configuration of one run. `model` is the pre-trained run whose model is taken by starts that are no run.
fn configuration(
    plan: &Sweep,
    source: &DataSource,
    (name, path): (&str, &str),
    model: Option<&Path>,
    ratio: f64,
    seed: u64,
) -> Result<FinetuneConfig> {
    let path = weights_of(path, &source.split()?.name);
    let init = (path != Path::new(RANDOM)).then_some(path.as_path());
    let is_run = init.is_some_and(|init| run_dir::run_of(init).is_ok());
    let mut settings = plan.settings.clone();
    settings.push(format!("run.seed={seed}"));
    let request = Request {
        task: plan.task,
        init,
        preset: if is_run { None } else { plan.preset },
        source,
        ratio,
        steps: plan.steps,
        epochs: plan.epochs,
        file: plan.file,
        settings: &settings,
    };
    let mut config = match model {
        Some(_) if !is_run => {
            let of_model = resolve_finetune(&Request { init: model, preset: None, ..request })?;
            FinetuneConfig { init: Start::of(&request)?.init, ..of_model }
        }
        _ => resolve_finetune(&request)?,
    };
    name.clone_into(&mut config.start);
    Ok(config)
}

/// A ratio as a number that keeps the order, for maps.
pub(crate) fn ratio_key(ratio: f64) -> u64 {
    ratio.to_bits() // of two positive numbers the greater has the greater bits
}

/// One cell a start and ratio, over splits and seeds.
fn summary(reports: &[EvaluationReport]) -> Vec<Cell> {
    let mut groups: BTreeMap<(&str, u64), Vec<&EvaluationReport>> = BTreeMap::new();
    for report in reports {
        groups.entry((&report.start, ratio_key(report.ratio))).or_default().push(report);
    }
    let cell = |((start, _), group): ((&str, u64), Vec<&EvaluationReport>)| {
        let defined = |value: fn(&EvaluationReport) -> Option<f64>| {
            Spread::of(&group.iter().filter_map(|report| value(report)).collect::<Vec<_>>())
        };
        Cell {
            start: start.to_owned(),
            ratio: group[0].ratio,
            runs: group.len(),
            auroc: defined(|report| Some(report.mean.auroc?.value)),
            average_precision: defined(|report| Some(report.mean.average_precision?.value)),
        }
    };
    groups.into_iter().map(cell).collect()
}

/// The cells as a table: a line a start, a column a ratio.
pub fn table(cells: &[Cell]) -> String {
    let mut ratios: Vec<f64> = cells.iter().map(|cell| cell.ratio).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    ratios.dedup();
    let mut starts: Vec<&str> = cells.iter().map(|cell| cell.start.as_str()).collect();
    starts.dedup();
    let heads: String = ratios.iter().map(|ratio| format!(" {ratio}% |")).collect();
    let mut text = format!("| test AUROC, mean ± sd |{heads}\n| --- |{}\n", " --- |".repeat(ratios.len()));
    for start in starts {
        text += &format!("| {start} |");
        for ratio in &ratios {
            let cell = cells.iter().find(|cell| cell.start == start && cell.ratio == *ratio);
            text += &match cell.and_then(|cell| Some((cell, cell.auroc?))) {
                Some((cell, auroc)) if cell.runs == 1 => format!(" {:.3} (1 run) |", auroc.mean),
                Some((cell, auroc)) if auroc.values == cell.runs => {
                    format!(" {:.3} ± {:.3} ({} runs) |", auroc.mean, auroc.sd, cell.runs)
                }
                Some((cell, auroc)) => {
                    format!(
                        " {:.3} ± {:.3} (defined in {} of {} runs) |",
                        auroc.mean, auroc.sd, auroc.values, cell.runs
                    )
                }
                None => " undefined |".to_owned(),
            };
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_without_a_name_is_given_one() {
        assert_eq!(parse_start("mrm=runs/mrm-{split}"), Ok(("mrm".to_owned(), "runs/mrm-{split}".to_owned())));
        assert!(parse_start("random").unwrap_err().ends_with("did you mean `scratch=random`?"));
        assert!(parse_start("runs/mrm/").unwrap_err().ends_with("did you mean `mrm=runs/mrm/`?"));
        for text in ["=random", "a/b=random", "mrm=", "runs/mrm-{split}"] {
            assert!(!parse_start(text).unwrap_err().contains("did you mean"), "{text}");
        }
    }

    #[test]
    fn cells_stand_in_a_table() {
        let cell = |start: &str, ratio, values: &[f64]| Cell {
            start: start.to_owned(),
            ratio,
            runs: 3,
            auroc: Spread::of(values),
            average_precision: None,
        };
        let cells = [cell("mrm", 1.0, &[0.6, 0.7, 0.8]), cell("mrm", 10.0, &[0.8]), cell("none", 1.0, &[])];
        let text = table(&cells);
        assert!(text.contains("| mrm | 0.700 ± 0.100 (3 runs) | 0.800 ± 0.000 (defined in 1 of 3 runs) |"), "{text}");
        assert!(text.ends_with("| none | undefined | undefined |\n"), "{text}");
    }
}
