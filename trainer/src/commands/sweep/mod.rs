//! `trainer sweep`: fine-tuning over ratios, seeds, splits, recipes and initializations, averaged in tables and a chart.

mod grid;
mod run;
mod table;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::config::{CommonKeys, ConfigFile, RANDOM, Recipe};
use crate::task::{
    DataSource, EvaluationOptions, Registry, Request, Stage, Task, check_options, check_recipe, shared_model,
};
use crate::train::run_dir;

pub use grid::{Axis, GridPoint, parse_axis};
pub use run::Progress;
pub use table::{Cell, table};

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
    /// Ways of fine-tuning.
    pub recipes: Vec<Recipe>,
    /// Seeds of the fine-tuning; none: those of each recipe.
    pub seeds: Option<Vec<u64>>,
    /// Initializations.
    pub inits: Vec<InitChoice>,
    /// Settings of which each cell tries all combinations.
    pub grid: Vec<Axis>,
    /// Whether each run gets its learning rate from a range test.
    pub lr_auto: bool,
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

/// The result of a sweep.
#[derive(Debug, Clone)]
pub struct Swept {
    /// One cell an initialization, ratio and recipe.
    pub cells: Vec<Cell>,
    /// Key and title of the headline metric.
    pub headline: (String, String),
    /// Key and title of the metric that BenchX reports for segmentation and for tasks of one finding; none where the task has
    /// no such metric.
    pub benchx: Option<(String, String)>,
    /// The directories of the evaluated runs.
    pub runs: Vec<PathBuf>,
    /// Stopped by a signal before its end.
    pub stopped: bool,
}

/// What a run of a cell is trained with: everything that a sweep varies but the grid.
#[derive(Debug, Clone, Copy)]
struct Trial<'a> {
    /// Position of its data source.
    source: usize,
    init: &'a InitChoice,
    recipe: Recipe,
    ratio: f64,
    seed: u64,
}

/// One run of a sweep.
struct Job {
    /// Its directory.
    path: PathBuf,
    /// Its configuration; its learning rate may be replaced by that of a range test.
    config: ConfigFile,
    point: GridPoint,
}

/// A sweep whose runs can all begin.
pub struct Plan<'a> {
    sweep: &'a Sweep<'a>,
    registry: &'a Registry,
    task: &'a dyn Task,
    sources: Vec<DataSource>,
    /// The model of a pretrained run, which initializations that are no run take, too.
    shared: Option<CommonKeys>,
    /// Each with the runs of its grid.
    trials: Vec<(Trial<'a>, Vec<Job>)>,
    /// Which model all runs train, if an initialization is a run.
    pub model: Option<String>,
    /// Warnings about the runs, each once.
    pub warnings: Vec<String>,
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
        let task = registry.named(Stage::Finetuning, self.task)?;
        check_options(registry, task, &self.options, &format!("the task `{}` is {}", self.task, task.title()))?;
        self.recipes.iter().try_for_each(|recipe| check_recipe(task, self.task, *recipe))?;
        if self.out.join("config.toml").exists() {
            bail!("{} is a run: give a folder for the sweep's runs to --out", self.out.display());
        }
        let open = |split: &String| DataSource::open_joined(self.data, Some(split), &self.joins);
        let sources: Vec<DataSource> = self.splits.iter().map(open).collect::<Result<_>>()?;
        let weights = self.inits.iter().flat_map(|init| {
            let of_split = |split: &String| Some((format!("{}={}", init.name, init.path), init.weights(split)?));
            self.splits.iter().filter_map(of_split)
        });
        let (shared, model) = match shared_model(registry, &weights.collect::<Vec<_>>(), self.preset)? {
            Some((run, message)) => (Some(registry.load(&run)?.common()?), Some(message)),
            None => (None, None),
        };
        let mut plan =
            Plan { sweep: self, registry, task, sources, shared, trials: Vec::new(), model, warnings: Vec::new() };
        for trial in self.trials() {
            let jobs = plan.jobs(&trial)?;
            plan.trials.push((trial, jobs));
        }
        Ok(plan)
    }

    /// All runs but for the grid, in the order of their training.
    fn trials(&'a self) -> Vec<Trial<'a>> {
        let mut trials = Vec::new();
        for source in 0..self.splits.len() {
            for init in &self.inits {
                for &ratio in &self.ratios {
                    for &recipe in &self.recipes {
                        let seeds = self.seeds.as_deref().unwrap_or(recipe.seeds());
                        trials.extend(seeds.iter().map(|&seed| Trial { source, init, recipe, ratio, seed }));
                    }
                }
            }
        }
        trials
    }

    /// Directory of a run. The default recipe has no name in it, as before there was another one.
    fn path(&self, trial: &Trial, point: &GridPoint) -> PathBuf {
        let Trial { source, init, recipe, ratio, seed } = trial;
        let (split, suffix) = (&self.splits[*source], point.suffix());
        let recipe = if *recipe == Recipe::default() { String::new() } else { format!("-{recipe}") };
        self.out.join(format!("{}{recipe}-{split}-{ratio}-seed{seed}{suffix}", init.name))
    }
}

impl Plan<'_> {
    /// The runs of a trial, one a point of the grid.
    fn jobs(&mut self, trial: &Trial) -> Result<Vec<Job>> {
        let source = &self.sources[trial.source];
        let mut jobs = Vec::<Job>::new();
        for point in grid::points(&self.sweep.grid) {
            let config = self.configuration(trial, &point.settings)?;
            for warning in self.task.prepare(&config, source)?.warnings {
                if !self.warnings.contains(&warning) {
                    self.warnings.push(warning);
                }
            }
            let path = self.sweep.path(trial, &point);
            let others = self.trials.iter().flat_map(|(_, jobs)| jobs);
            if others.chain(&jobs).any(|job| job.path == path) {
                bail!(
                    "{} would be made twice: a split, ratio, recipe, seed or name of an initialization is repeated",
                    path.display()
                );
            }
            jobs.push(Job { path, config, point });
        }
        Ok(jobs)
    }

    /// The configuration of one run, with further settings.
    fn configuration(&self, trial: &Trial, further: &[String]) -> Result<ConfigFile> {
        let Trial { source, init, recipe, ratio, seed } = *trial;
        let Sweep { settings, steps, epochs, file, preset, task, .. } = self.sweep;
        let source = &self.sources[source];
        let weights = init.weights(&source.split()?.name);
        let own = match weights.as_deref().filter(|weights| run_dir::run_of(weights).is_ok()) {
            Some(weights) => self.registry.pretrained(Some(weights))?,
            None => None,
        };
        let mut settings = settings.clone();
        settings.push(format!("run.seed={seed}"));
        settings.extend_from_slice(further);
        let model = own.as_ref().or(self.shared.as_ref());
        self.task.resolve(&Request {
            task,
            init: weights.as_deref(),
            init_name: Some(&init.name),
            model,
            preset: if model.is_some() { None } else { *preset },
            recipe,
            source,
            ratio,
            steps: *steps,
            epochs: *epochs,
            file: *file,
            settings: &settings,
        })
    }
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
}
