//! The runs of a sweep: training what is not done yet, choosing on the validation subset, evaluating on the test subset.

use anyhow::{Context, Result};
use dataset::Subset;
use tch::Device;

use super::table::{BENCHX, Evaluated, cells, write};
use super::{Job, Plan, Swept, Trial};
use crate::config::ConfigFile;
use crate::eval::metrics::SPECIFICITY;
use crate::report::StoredEvaluation;
use crate::task::{self, Metric, Prepared, evaluate};
use crate::train::checkpoint::newest_state;
use crate::train::distributed::{Compute, ProcessGroup};
use crate::train::lr_range_test::{lr_for, settings_of};
use crate::train::run_dir::{self, RunDir};
use crate::train::stop::stop_requested;
use crate::train::train_loop::Outcome;

/// Where a sweep shows its progress.
pub struct Progress<'a> {
    /// Gets a line of results.
    pub line: &'a dyn Fn(&str),
    /// Gets a message of a run.
    pub message: &'a dyn Fn(&str),
}

/// The run that was chosen for a trial, and what was chosen, in words.
struct Chosen<'p> {
    job: &'p Job,
    words: String,
}

impl Plan<'_> {
    /// Trains what is not done yet, evaluates it on the test subset, and writes `sweep.json`, `sweep.csv` and `sweep.md`.
    ///
    /// # Errors
    /// When a run fails; those before it are kept.
    pub fn run(self, device: Device, progress: &Progress) -> Result<Swept> {
        let count: usize = self.trials.iter().map(|(_, jobs)| jobs.len()).sum();
        let mut number = 0;
        let mut done: Vec<(&Trial, Chosen, StoredEvaluation)> = Vec::new();
        for (trial, jobs) in &self.trials {
            let mut scores = Vec::new();
            for job in jobs {
                number += 1;
                (progress.line)(&format!("run {number} of {count}: {}", job.path.display()));
                let Some(lr) = self.train(trial, job, device, progress)? else { return self.swept(&done, true) };
                scores.push((job, self.words(job, lr)));
            }
            let chosen = choose(scores)?;
            if jobs.len() > 1 {
                (progress.line)(&format!("  chosen on the validation subset: {}", chosen.words));
            }
            if !self.finish(trial, chosen.job, device, progress)? {
                return self.swept(&done, true);
            }
            let evaluation = StoredEvaluation::read(&chosen.job.path, Subset::Test.name())?;
            done.push((trial, chosen, evaluation));
        }
        let swept = self.swept(&done, false)?;
        write(&swept, self.sweep.out)?;
        Ok(swept)
    }

    /// What was chosen for a run: its point of the grid, and its learning rate if that is from a range test.
    fn words(&self, job: &Job, lr: f64) -> String {
        let lr = if self.sweep.lr_auto { format!("lr={lr}") } else { String::new() };
        [job.point.name(), lr].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
    }

    /// Trains a run, unless that is done. Returns its highest learning rate, or none where a signal has stopped it.
    fn train(&self, trial: &Trial, job: &Job, device: Device, progress: &Progress) -> Result<Option<f64>> {
        let source = &self.sources[trial.source];
        let mut config = job.config.clone();
        let mut prepared: Prepared = self.task.prepare(&config, source)?;
        let mut range_test = None;
        if self.sweep.lr_auto {
            let test = || prepared.begin(&Compute::on(device))?.range_test(progress.message);
            let Some(tested) = lr_for(&job.path, &ProcessGroup::single(), test)? else { return Ok(None) };
            let further = [&job.point.settings[..], &settings_of(tested.lr)?].concat();
            config = self.configuration(trial, &further)?;
            prepared = self.task.prepare(&config, source)?;
            range_test = tested.test;
        }
        let lr = config.get("optimizer.lr").and_then(toml::Value::as_float).unwrap_or(f64::NAN);
        let steps = prepared.steps;
        let run = RunDir::open(&job.path, &config, steps)?;
        if let Some(test) = range_test {
            test.write(run.path())?;
            (progress.line)(&format!("  learning rate {} from a range test: {}", test.lr, test.rule));
        }
        if run_dir::is_finished(&job.path, steps) {
            return Ok(Some(lr));
        }
        let training = prepared.begin(&Compute::on(device))?;
        training.notes.iter().for_each(|note| (progress.line)(note));
        let outcome = training.train(Some(&run), progress.message)?;
        let stopped = matches!(outcome, Outcome::Stopped { .. }) || stop_requested()?;
        Ok((!stopped).then_some(lr))
    }

    /// Evaluates a trained run on the test subset, unless that is done. Returns whether it is; a signal may have stopped it.
    fn finish(&self, trial: &Trial, job: &Job, device: Device, progress: &Progress) -> Result<bool> {
        if self.is_evaluated(job) {
            return Ok(true);
        }
        if stop_requested()? {
            return Ok(false);
        }
        let source = &self.sources[trial.source];
        let task::Evaluated { json, warnings, .. } =
            evaluate(self.registry, &job.path, source, Subset::Test, device, self.sweep.options.clone())?;
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
        let options = &self.sweep.options;
        let split = job.config.get("split").and_then(toml::Value::as_str);
        let asked = |given: Option<serde_json::Value>, default: serde_json::Value, stored: &str| {
            json.pointer(stored).is_none_or(|stored| *stored == given.unwrap_or(default))
        };
        let specificity = SPECIFICITY.into();
        let min_area = integer(&job.config, "prediction.min_area").into();
        Some(header.split.as_str()) == split
            && header.draws == options.draws
            && header.steps == newest_state(&job.path).map_or(0, |state| state.step)
            && asked(options.specificity.map(Into::into), specificity, "/specificity")
            && asked(options.min_area.map(Into::into), min_area, "/prediction/min_area")
    }

    /// The results so far.
    fn swept(&self, done: &[(&Trial, Chosen, StoredEvaluation)], stopped: bool) -> Result<Swept> {
        let named = |metric: &Metric| (metric.key.to_owned(), metric.title.to_owned());
        let (mut evaluated, mut headline, mut benchx) = (Vec::new(), (String::new(), String::new()), None);
        for (trial, chosen, evaluation) in done {
            let metrics = self.task.metrics(&evaluation.json)?;
            if let Some(first) = metrics.first() {
                headline = named(first);
            }
            benchx = metrics.iter().find(|metric| BENCHX.contains(&metric.key)).map(named);
            let (init_name, chosen) = (trial.init.name.as_str(), chosen.words.clone());
            evaluated.push(Evaluated { init_name, ratio: trial.ratio, recipe: trial.recipe, chosen, metrics });
        }
        let runs = done.iter().map(|(_, chosen, _)| chosen.job.path.clone()).collect();
        Ok(Swept { cells: cells(evaluated), headline, benchx, runs, stopped })
    }
}

fn integer(config: &ConfigFile, key: &str) -> i64 {
    config.get(key).and_then(toml::Value::as_integer).unwrap_or(0)
}

/// Of several trained runs, that with the best score on the validation subset; of equal ones the first. The test subset has no
/// part in it.
fn choose(mut trained: Vec<(&Job, String)>) -> Result<Chosen<'_>> {
    let mut best = 0;
    if trained.len() > 1 {
        let score = |(job, _): &(&Job, String)| {
            let state = newest_state(&job.path);
            state.and_then(|state| state.best).map(|(score, _)| score).with_context(|| {
                format!(
                    "{} has no score on the validation subset, on which a grid is selected: its records lack a finding with \
                     both classes",
                    job.path.display()
                )
            })
        };
        let scores = trained.iter().map(score).collect::<Result<Vec<f64>>>()?;
        best = (1..scores.len()).fold(0, |best, at| if scores[at] > scores[best] { at } else { best });
    }
    let (job, words) = trained.swap_remove(best);
    Ok(Chosen { job, words })
}
