//! `trainer sweep`: fine-tuning over ratios, seeds, splits and initializations, averaged in one table and chart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use dataset::Subset;
use dataset::store::files;
use serde::Serialize;
use tch::Device;

use crate::config::{CommonKeys, ConfigFile, RANDOM};
use crate::eval::metrics::SPECIFICITY;
use crate::report::{StoredEvaluation, Summary, ratio_key};
use crate::task::{
    DataSource, Evaluated, EvaluationOptions, Metric, Prepared, Registry, Request, Task, check_options, evaluate,
    shared_model,
};
use crate::train::checkpoint::newest_state;
use crate::train::distributed::Compute;
use crate::train::run_dir::{self, RunDir};
use crate::train::stop::stop_requested;
use crate::train::train_loop::Outcome;

/// What tables call an initialization, and where its weights are: a run or a file, in whose path `{split}` stands for the
/// split's name, or `random`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitChoice {
    /// The name.
    pub name: String,
    /// The path, or `random`.
    pub path: String,
}

impl InitChoice {
    /// The weights for a split; none for random initialization.
    fn weights(&self, split: &str) -> Option<PathBuf> {
        (self.path != RANDOM).then(|| PathBuf::from(self.path.replace("{split}", split)))
    }
}

/// What a sweep varies, and what all of its runs share.
#[derive(Debug, Clone)]
pub struct Sweep<'a> {
    /// The dataset.
    pub data: &'a Path,
    /// The folder of the runs.
    pub out: &'a Path,
    /// Name of the task.
    pub task: &'a str,
    /// The preset; none: that of the pretrained runs, else the first one.
    pub preset: Option<&'a str>,
    /// The joins that the dataset is seen with.
    pub joins: Vec<String>,
    /// Names of splits.
    pub splits: Vec<String>,
    /// Percentages of the training labels.
    pub ratios: Vec<f64>,
    /// Seeds of the fine-tuning.
    pub seeds: Vec<u64>,
    /// Initializations.
    pub inits: Vec<InitChoice>,
    /// Number of steps.
    pub steps: Option<u64>,
    /// Number of epochs, in place of `steps`.
    pub epochs: Option<f64>,
    /// Text of a configuration file.
    pub file: Option<&'a str>,
    /// Settings, `key=value`.
    pub settings: Vec<String>,
    /// How each run is evaluated.
    pub options: EvaluationOptions,
}

/// Means over the runs of one initialization and ratio.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// Name of the initialization.
    pub init_name: String,
    /// Percentage of the training labels.
    pub ratio: f64,
    /// Number of runs.
    pub runs: usize,
    /// The task's metrics on the test subset by key; none where a metric is defined in no run.
    #[serde(flatten)]
    pub metrics: BTreeMap<String, Option<Summary>>,
}

/// The result of a sweep.
#[derive(Debug, Clone)]
pub struct Swept {
    /// One cell an initialization and ratio.
    pub cells: Vec<Cell>,
    /// Key and title of the headline metric.
    pub headline: (String, String),
    /// The runs' directories.
    pub runs: Vec<PathBuf>,
    /// Stopped by a signal before its end.
    pub stopped: bool,
}

/// One run of a sweep.
pub struct Job {
    /// Its directory.
    pub path: PathBuf,
    /// Its configuration.
    config: ConfigFile,
    /// Position of its data source.
    source: usize,
}

/// A sweep whose runs can all begin.
pub struct Plan<'a> {
    registry: &'a Registry,
    task: &'a dyn Task,
    out: &'a Path,
    options: EvaluationOptions,
    sources: Vec<DataSource>,
    jobs: Vec<Job>,
    /// Which model all runs train, if an initialization is a run.
    pub model: Option<String>,
    /// Warnings about the runs, each once.
    pub warnings: Vec<String>,
}

/// Where a sweep shows its progress.
pub struct Progress<'a> {
    /// Gets a line of results.
    pub line: &'a dyn Fn(&str),
    /// Gets a message of a run.
    pub message: &'a dyn Fn(&str),
}

/// Parses `NAME=RUN` or `NAME=random`, for clap.
///
/// # Errors
/// When the name is missing, or cannot be part of a folder's name.
pub fn parse_init(text: &str) -> Result<InitChoice, String> {
    let suggestion = |name: &str| format!("give NAME=RUN or NAME=random; did you mean `{name}={text}`?");
    let Some((name, path)) = text.split_once('=') else {
        let last = Path::new(text.trim_end_matches('/')).file_name().and_then(|name| name.to_str());
        return Err(match last {
            _ if text == RANDOM => suggestion("scratch"),
            Some(last) if !last.contains('{') => suggestion(last),
            _ => "give NAME=RUN or NAME=random".to_owned(),
        });
    };
    if name.is_empty() || name.contains(['/', '{']) || path.is_empty() {
        return Err("give NAME=RUN or NAME=random; NAME becomes part of a folder's name".to_owned());
    }
    Ok(InitChoice { name: name.to_owned(), path: path.to_owned() })
}

impl<'a> Sweep<'a> {
    /// Checks all runs before the first one begins.
    ///
    /// # Errors
    /// When one of them cannot begin, or two would have the same directory.
    pub fn plan(&'a self, registry: &'a Registry) -> Result<Plan<'a>> {
        let task = registry.named(self.task)?;
        check_options(registry, task, &self.options, &format!("the task `{}` is {}", self.task, task.title()))?;
        if self.out.join("config.toml").exists() {
            bail!("{} is a run: give a folder for the sweep's runs to --out", self.out.display());
        }
        let open = |split: &String| DataSource::open_joined(self.data, Some(split), &self.joins);
        let sources: Vec<DataSource> = self.splits.iter().map(open).collect::<Result<_>>()?;
        let weights = self.inits.iter().flat_map(|init| {
            let of_split = |split: &String| Some((format!("{}={}", init.name, init.path), init.weights(split)?));
            self.splits.iter().filter_map(of_split)
        });
        let shared = shared_model(registry, &weights.collect::<Vec<_>>(), self.preset)?;
        let (model, message) = match shared {
            Some((run, message)) => (Some(registry.load(&run)?.common()?), Some(message)),
            None => (None, None),
        };
        let (mut jobs, mut warnings) = (Vec::<Job>::new(), Vec::new());
        for (position, (split, source)) in self.splits.iter().zip(&sources).enumerate() {
            for init in &self.inits {
                for &ratio in &self.ratios {
                    for &seed in &self.seeds {
                        let config = self.configuration(registry, task, source, init, model.as_ref(), ratio, seed)?;
                        for warning in task.prepare(&config, source)?.warnings {
                            if !warnings.contains(&warning) {
                                warnings.push(warning);
                            }
                        }
                        let path = self.out.join(format!("{}-{split}-{ratio}-seed{seed}", init.name));
                        if jobs.iter().any(|job| job.path == path) {
                            bail!(
                                "{} would be made twice: a split, ratio, seed or name of an initialization is repeated",
                                path.display()
                            );
                        }
                        jobs.push(Job { path, config, source: position });
                    }
                }
            }
        }
        Ok(Plan {
            registry,
            task,
            out: self.out,
            options: self.options.clone(),
            sources,
            jobs,
            model: message,
            warnings,
        })
    }

    /// The configuration of one run. `model` is that of a pretrained run, which initializations that are no run take, too.
    #[expect(clippy::too_many_arguments, reason = "one for each thing that a sweep varies")]
    fn configuration(
        &self,
        registry: &Registry,
        task: &dyn Task,
        source: &DataSource,
        init: &InitChoice,
        model: Option<&CommonKeys>,
        ratio: f64,
        seed: u64,
    ) -> Result<ConfigFile> {
        let weights = init.weights(&source.split()?.name);
        let own = match weights.as_deref().filter(|weights| run_dir::run_of(weights).is_ok()) {
            Some(weights) => registry.pretrained(Some(weights))?,
            None => None,
        };
        let mut settings = self.settings.clone();
        settings.push(format!("run.seed={seed}"));
        let model = own.as_ref().or(model);
        task.resolve(&Request {
            task: self.task,
            init: weights.as_deref(),
            init_name: Some(&init.name),
            model,
            preset: if model.is_some() { None } else { self.preset },
            source,
            ratio,
            steps: self.steps,
            epochs: self.epochs,
            file: self.file,
            settings: &settings,
        })
    }
}

impl Plan<'_> {
    /// Trains what is not done yet, evaluates it on the test subset, and writes `sweep.json` and `sweep.md`.
    ///
    /// # Errors
    /// When a run fails; those before it are kept.
    pub fn run(self, device: Device, progress: &Progress) -> Result<Swept> {
        let (mut runs, mut evaluations) = (Vec::new(), Vec::new());
        for (number, job) in self.jobs.iter().enumerate() {
            (progress.line)(&format!("run {} of {}: {}", number + 1, self.jobs.len(), job.path.display()));
            if !self.finish(job, device, progress)? {
                return self.swept(&evaluations, runs, true);
            }
            evaluations.push(StoredEvaluation::read(&job.path, Subset::Test.name())?);
            runs.push(job.path.clone());
        }
        let swept = self.swept(&evaluations, runs, false)?;
        files::write_json(&self.out.join("sweep.json"), &swept.cells)?;
        files::write_atomic(&self.out.join("sweep.md"), table(&swept).as_bytes())?;
        Ok(swept)
    }

    /// Trains and evaluates a run, unless that is done. Returns whether it is; a signal may have stopped it.
    fn finish(&self, job: &Job, device: Device, progress: &Progress) -> Result<bool> {
        let source = &self.sources[job.source];
        let prepared: Prepared = self.task.prepare(&job.config, source)?;
        let steps = prepared.steps;
        let run = RunDir::open(&job.path, &job.config, steps)?;
        if run_dir::is_finished(&job.path, steps) && self.is_evaluated(job) {
            return Ok(true);
        }
        let training = prepared.begin(&Compute::on(device))?;
        training.notes.iter().for_each(|note| (progress.line)(note));
        let outcome = training.train(Some(&run), progress.message)?;
        if matches!(outcome, Outcome::Stopped { .. }) || stop_requested()? {
            return Ok(false);
        }
        drop(training);
        let Evaluated { json, warnings, .. } =
            evaluate(self.registry, &job.path, source, Subset::Test, device, self.options.clone())?;
        warnings.iter().for_each(|warning| (progress.message)(&format!("warning: {warning}")));
        if let Some(metric) = self.task.metrics(&json)?.first() {
            let value = metric.value.map_or("undefined".to_owned(), |i| format!("{:.3}", i.value));
            (progress.line)(&format!("  test {} {value}", metric.title));
        }
        Ok(true)
    }

    /// Whether a run's newest weights were evaluated on the test subset with the options of this sweep.
    fn is_evaluated(&self, job: &Job) -> bool {
        let Ok(StoredEvaluation { header, json, .. }) = StoredEvaluation::read(&job.path, Subset::Test.name()) else {
            return false;
        };
        let split = job.config.get("split").and_then(toml::Value::as_str);
        let asked = |given: Option<serde_json::Value>, default: serde_json::Value, stored: &str| {
            json.pointer(stored).is_none_or(|stored| *stored == given.unwrap_or(default))
        };
        let specificity = SPECIFICITY.into();
        let min_area = job.config.get("prediction.min_area").and_then(toml::Value::as_integer).unwrap_or(0).into();
        Some(header.split.as_str()) == split
            && header.draws == self.options.draws
            && header.steps == newest_state(&job.path).map_or(0, |state| state.step)
            && asked(self.options.specificity.map(Into::into), specificity, "/specificity")
            && asked(self.options.min_area.map(Into::into), min_area, "/prediction/min_area")
    }

    /// One cell an initialization and ratio, over splits and seeds.
    fn swept(&self, evaluations: &[StoredEvaluation], runs: Vec<PathBuf>, stopped: bool) -> Result<Swept> {
        let mut groups: BTreeMap<(&str, u64), Vec<Vec<Metric>>> = BTreeMap::new();
        let mut headline = (String::new(), String::new());
        for StoredEvaluation { header, json, .. } in evaluations {
            let metrics = self.task.metrics(json)?;
            if let Some(first) = metrics.first() {
                headline = (first.key.to_owned(), first.title.to_owned());
            }
            groups.entry((&header.init_name, ratio_key(header.ratio))).or_default().push(metrics);
        }
        let cell = |((name, ratio), group): ((&str, u64), Vec<Vec<Metric>>)| {
            let keys: BTreeSet<&str> = group.iter().flatten().map(|metric| metric.key).collect();
            let values = |key: &str| -> Vec<f64> {
                let of_key = group.iter().flatten().filter(|metric| metric.key == key);
                of_key.filter_map(|metric| Some(metric.value?.value)).collect()
            };
            Cell {
                init_name: name.to_owned(),
                ratio: f64::from_bits(ratio),
                runs: group.len(),
                metrics: keys.into_iter().map(|key| (key.to_owned(), Summary::of(&values(key)))).collect(),
            }
        };
        Ok(Swept { cells: groups.into_iter().map(cell).collect(), headline, runs, stopped })
    }
}

/// The cells as a table of the headline metric: a line an initialization, a column a ratio.
pub fn table(swept: &Swept) -> String {
    let Swept { cells, headline: (key, title), .. } = swept;
    let mut ratios: Vec<f64> = cells.iter().map(|cell| cell.ratio).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    ratios.dedup();
    let mut names: Vec<&str> = cells.iter().map(|cell| cell.init_name.as_str()).collect();
    names.dedup();
    let heads: String = ratios.iter().map(|ratio| format!(" {ratio}% |")).collect();
    let mut text = format!("| test {title}, mean ± sd |{heads}\n| --- |{}\n", " --- |".repeat(ratios.len()));
    for name in names {
        text += &format!("| {name} |");
        for ratio in &ratios {
            let cell = cells.iter().find(|cell| cell.init_name == name && cell.ratio == *ratio);
            text += &match cell.and_then(|cell| Some((cell, (*cell.metrics.get(key)?)?))) {
                Some((cell, metric)) if cell.runs == 1 => format!(" {:.3} (1 run) |", metric.mean),
                Some((cell, metric)) if metric.values == cell.runs => {
                    format!(" {:.3} ± {:.3} ({} runs) |", metric.mean, metric.sd, cell.runs)
                }
                Some((cell, metric)) => {
                    format!(
                        " {:.3} ± {:.3} (defined in {} of {} runs) |",
                        metric.mean, metric.sd, metric.values, cell.runs
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
    fn an_initialization_without_a_name_gets_a_suggestion() {
        let mrm = InitChoice { name: "mrm".to_owned(), path: "runs/mrm-{split}".to_owned() };
        assert_eq!(parse_init("mrm=runs/mrm-{split}"), Ok(mrm));
        assert!(parse_init("random").unwrap_err().ends_with("did you mean `scratch=random`?"));
        assert!(parse_init("runs/mrm/").unwrap_err().ends_with("did you mean `mrm=runs/mrm/`?"));
        for text in ["=random", "a/b=random", "mrm=", "runs/mrm-{split}"] {
            assert!(!parse_init(text).unwrap_err().contains("did you mean"), "{text}");
        }
    }

    #[test]
    fn the_table_has_a_line_an_initialization() {
        let cell = |name: &str, ratio, values: &[f64]| Cell {
            init_name: name.to_owned(),
            ratio,
            runs: 3,
            metrics: [("auroc".to_owned(), Summary::of(values))].into(),
        };
        let cells = vec![cell("mrm", 1.0, &[0.6, 0.7, 0.8]), cell("mrm", 10.0, &[0.8]), cell("none", 1.0, &[])];
        let headline = ("auroc".to_owned(), "AUROC".to_owned());
        let text = table(&Swept { cells, headline, runs: Vec::new(), stopped: false });
        assert!(text.starts_with("| test AUROC, mean ± sd | 1% | 10% |\n"), "{text}");
        assert!(text.contains("| mrm | 0.700 ± 0.100 (3 runs) | 0.800 ± 0.000 (defined in 1 of 3 runs) |"), "{text}");
        assert!(text.ends_with("| none | undefined | undefined |\n"), "{text}");
    }
}
