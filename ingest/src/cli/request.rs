//! What a command line asks of a source, done without printing: plan, dry run, check of the input, or ingest. The program
//! and Python share it.

use std::fmt::{self, Display, Formatter};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use dataset::progress::OnProgress;

use super::arguments::{CommonArguments, TaskChoice};
use crate::error::{Error, Result};
use crate::run::check_input::check_input;
use crate::run::check_sums::CheckSums;
use crate::run::left_alone::left_alone_when_canceled;
use crate::run::plan::{Plan, Source};
use crate::run::tasks::{self, Task, TaskSummary};
use crate::run::{self, Summary, path_hash, preview};

/// A line about a run that is not at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// How many radiographs are planned, how many inputs are rejected, and how long the plan took.
    Planned(String),
    /// A warning, or a frequent reason of rejects with an example.
    Warning(String),
}

impl Display for Notice {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let (Self::Planned(line) | Self::Warning(line)) = self;
        f.write_str(line)
    }
}

/// Who learns what happens during a run.
#[derive(Clone, Copy)]
pub struct Listener<'a> {
    /// Gets lines about the plan.
    pub notice: &'a (dyn Fn(Notice) + Sync),
    /// Gets the progress, and cancels the run.
    pub progress: &'a OnProgress<'a>,
}

/// The outcome of a request.
#[derive(Debug)]
pub enum Outcome {
    /// The page of a dry run.
    Preview(String),
    /// The inputs that differ from those of the finished dataset, a line each.
    Differences(Vec<String>),
    /// A task made its shards, and those of other tasks are missing.
    Task(Task, TaskSummary),
    /// The dataset is complete.
    Complete(Complete),
}

/// A complete dataset.
#[derive(Debug)]
pub struct Complete {
    /// What the run did.
    pub summary: Summary,
    /// The most frequent reasons of rejects that no [`Notice`] has named.
    pub reasons: Vec<String>,
    /// A sentence, where more inputs were rejected than the caller allows.
    pub too_many_rejects: Option<String>,
}

/// A source and the arguments of its run.
pub struct Request {
    pub(super) source: Arc<dyn Source>,
    pub(super) arguments: CommonArguments,
    pub(super) path_map: Option<PathBuf>,
}

impl Request {
    /// Does what is asked for.
    ///
    /// # Errors
    /// As [`crate::run()`] and [`tasks::run_task`]; also where the raw directory is missing.
    pub fn run(&self, listener: Listener) -> Result<Outcome> {
        let plan = || {
            let (source, raw) = (self.source.clone(), self.arguments.raw_dir.clone());
            left_alone_when_canceled(listener.progress, move || source.plan(&raw))
        };
        run_source(self.source.as_ref(), &plan, &self.arguments, self.path_map.as_deref(), listener)
    }
}

/// Runs a source, whose plan `plan` makes. With `path_map`, writes the table of hashes and paths.
pub fn run_source(
    source: &dyn Source,
    plan: &(dyn Fn() -> Result<Plan> + Sync),
    arguments: &CommonArguments,
    path_map: Option<&Path>,
    listener: Listener,
) -> Result<Outcome> {
    let (raw, out) = (&arguments.raw_dir, &arguments.out);
    // Other errors (no permission, a server that does not answer) do not mean that the directory is wrong.
    let found = std::fs::metadata(raw);
    if found.as_ref().is_ok_and(|found| !found.is_dir())
        || found.is_err_and(|error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory))
    {
        return Err(Error::NoDirectory { path: raw.clone(), source_name: source.name() });
    }
    let options = arguments.options();
    if arguments.finish {
        return complete(tasks::finish(source, raw, out, &options)?, arguments, 0);
    }
    let task = arguments.task.map(chosen).transpose()?;
    // Planning may take minutes, so everything that needs no plan is checked before.
    options.check()?;
    let plan = || {
        let plan = planned(source, plan, listener)?;
        if let Some(path) = path_map.filter(|_| !arguments.dry_run && !arguments.check_input) {
            path_hash::write_map(path, out, &plan)?;
        }
        Ok(plan)
    };
    if let Some(task) = task {
        let summary = tasks::run_task(source, raw, out, &plan, &options, task, listener.progress)?;
        return match summary.dataset {
            Some(dataset) => complete(dataset, arguments, 0),
            None => Ok(Outcome::Task(task, summary)),
        };
    }
    let mut plan = plan()?;
    if arguments.dry_run {
        if plan.records.is_empty() {
            return Err(preview::empty(source.name(), raw, &plan));
        }
        CheckSums::load(raw, &options.check_sums)?.check_tables(&mut plan, listener.progress)?;
        plan.records.truncate(options.limit.unwrap_or(usize::MAX));
        return Ok(Outcome::Preview(preview::page(&plan)));
    }
    if arguments.check_input {
        return check_input(raw, out, plan, options.jobs, listener.progress).map(Outcome::Differences);
    }
    let planned_rejects = plan.rejects.len() as u64;
    complete(run::run(source.name(), raw, out, plan, &options, listener.progress)?, arguments, planned_rejects)
}

fn chosen(choice: TaskChoice) -> Result<Task> {
    match choice {
        TaskChoice::Given(task) => Ok(task),
        TaskChoice::Auto => tasks::variables::task(|name: &str| std::env::var(name).ok()).map_err(Error::TaskVariables),
    }
}

/// Makes the plan, and tells the listener what it has.
fn planned(source: &dyn Source, plan: &(dyn Fn() -> Result<Plan> + Sync), listener: Listener) -> Result<Plan> {
    let started = Instant::now();
    let plan = plan()?;
    (listener.notice)(Notice::Planned(format!(
        "{}: {} radiographs planned, {} inputs rejected, {:.1} s",
        source.name(),
        plan.records.len(),
        plan.rejects.len(),
        started.elapsed().as_secs_f64()
    )));
    let warnings = plan.warnings.iter().cloned().chain(source.warnings(&plan));
    let warnings = warnings.map(|warning| format!("warning: {warning}"));
    let lines = preview::plan_reasons(&plan, preview::FEW_REASONS).into_iter().chain(warnings);
    lines.for_each(|line| (listener.notice)(Notice::Warning(line)));
    Ok(plan)
}

/// The outcome of a complete dataset; a [`Notice`] has named the reasons of `known_rejects`.
fn complete(summary: Summary, arguments: &CommonArguments, known_rejects: u64) -> Result<Outcome> {
    let out = &arguments.out;
    let has_others = summary.manifest.rejects.values().sum::<u64>() > known_rejects;
    let reasons = if has_others { preview::dataset_reasons(out, preview::FEW_REASONS)? } else { Vec::new() };
    let rate = summary.reject_rate();
    let too_many_rejects = (rate > arguments.max_reject_rate).then(|| {
        format!(
            "{:.1}% of the inputs were rejected, more than --max-reject-rate {}; `dataset inspect {} --rejects` lists them",
            rate * 100.0,
            arguments.max_reject_rate,
            out.display()
        )
    });
    Ok(Outcome::Complete(Complete { summary, reasons, too_many_rejects }))
}
