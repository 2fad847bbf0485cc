//! Runs a source with the common arguments: plan, dry run, check of the input, or ingest; prints the result.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use dataset::commands::cli::counted;
use dataset::commands::progress::Meter;

use super::arguments::{CommonArguments, TaskChoice};
use crate::run::check_input;
use crate::run::path_hash;
use crate::run::plan::{Plan, Source};
use crate::run::preview;
use crate::run::{self, Summary, tasks};

/// Exit code where more inputs were rejected than the user allows.
const TOO_MANY_REJECTS: u8 = 3;

/// Names of changed inputs that are printed.
const SHOWN: usize = 20;

/// Ingests a source. With `path_map`, writes the table of hashes and paths.
pub fn ingest(source: &dyn Source, arguments: &CommonArguments, path_map: Option<&Path>) -> Result<u8> {
    // Other errors (no permission, a server that does not answer) do not mean that the directory is wrong.
    let raw = std::fs::metadata(&arguments.raw_dir);
    if raw.as_ref().is_ok_and(|found| !found.is_dir())
        || raw.is_err_and(|error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory))
    {
        bail!(
            "{} is no directory; give the one that contains the raw data of `{}` (docs/datasets.md shows its layout)",
            arguments.raw_dir.display(),
            source.name()
        );
    }
    let options = arguments.options();
    if arguments.finish {
        let summary = tasks::finish(source, &arguments.raw_dir, &arguments.out, &options)?;
        return end(&summary, arguments, 0);
    }
    if let Some(choice) = arguments.task {
        return ingest_task(source, arguments, path_map, choice);
    }
    // Planning may take minutes, so everything that needs no plan is checked before.
    options.check()?;
    let mut plan = planned(source, arguments)?;
    if arguments.dry_run {
        if plan.records.is_empty() {
            return Err(preview::empty(source.name(), &arguments.raw_dir, &plan).into());
        }
        plan.records.truncate(options.limit.unwrap_or(usize::MAX));
        dataset::cli_println!("{}", preview::page(&plan).trim_end());
        return Ok(0);
    }
    if arguments.check_input {
        return compare(arguments, plan, options.jobs);
    }
    if let Some(path) = path_map {
        path_hash::write_map(path, &arguments.out, &plan)?;
    }
    let planned_rejects = plan.rejects.len() as u64;
    let meter = Meter::new("radiographs");
    let outcome =
        run::run(source.name(), &arguments.raw_dir, &arguments.out, plan, &options, &|step| meter.step(&step));
    meter.finish();
    end(&outcome?, arguments, planned_rejects)
}

/// Plans a source, and prints what the plan has.
fn planned(source: &dyn Source, arguments: &CommonArguments) -> crate::Result<Plan> {
    let started = Instant::now();
    let plan = source.plan(&arguments.raw_dir)?;
    dataset::cli_eprintln!(
        "{}: {} radiographs planned, {} inputs rejected, {:.1} s",
        source.name(),
        plan.records.len(),
        plan.rejects.len(),
        started.elapsed().as_secs_f64()
    );
    preview::plan_reasons(&plan, preview::FEW_REASONS).iter().for_each(|line| dataset::cli_eprintln!("{line}"));
    for warning in plan.warnings.iter().cloned().chain(source.warnings(&plan)) {
        dataset::cli_eprintln!("warning: {warning}");
    }
    Ok(plan)
}

/// Makes the shards of a task.
fn ingest_task(
    source: &dyn Source,
    arguments: &CommonArguments,
    path_map: Option<&Path>,
    choice: TaskChoice,
) -> Result<u8> {
    let task = match choice {
        TaskChoice::Given(task) => task,
        TaskChoice::Auto => {
            let variable = |name: &str| std::env::var(name).ok();
            tasks::variables::task(variable).map_err(|error| anyhow!("--task auto: {error}"))?
        }
    };
    let options = arguments.options();
    options.check()?;
    let plan = || {
        let plan = planned(source, arguments)?;
        if let Some(path) = path_map {
            path_hash::write_map(path, &arguments.out, &plan)?;
        }
        Ok(plan)
    };
    let meter = Meter::new("radiographs");
    let step = |step| meter.step(&step);
    let outcome = tasks::run_task(source, &arguments.raw_dir, &arguments.out, &plan, &options, task, &step);
    meter.finish();
    let summary = outcome?;
    if let Some(dataset) = &summary.dataset {
        return end(dataset, arguments, 0);
    }
    dataset::cli_println!(
        "task {task}: {} done{}; {} of {} of the dataset missing (`ingest status {}` shows all tasks)",
        counted(summary.shards, "shard"),
        if summary.resumed_shards > 0 { format!(", {} of them before", summary.resumed_shards) } else { String::new() },
        summary.missing,
        counted(summary.all_shards, "shard"),
        arguments.out.display()
    );
    Ok(0)
}

/// Prints the result of a run; `known_rejects` are printed already.
fn end(summary: &Summary, arguments: &CommonArguments, known_rejects: u64) -> Result<u8> {
    print(summary, &arguments.out);
    if summary.manifest.rejects.values().sum::<u64>() > known_rejects {
        for line in preview::dataset_reasons(&arguments.out, preview::FEW_REASONS)? {
            dataset::cli_eprintln!("{line}");
        }
    }
    if summary.reject_rate() > arguments.max_reject_rate {
        dataset::cli_eprintln!(
            "{:.1}% of the inputs were rejected, more than --max-reject-rate {}; `dataset inspect {} --rejects` lists them",
            summary.reject_rate() * 100.0,
            arguments.max_reject_rate,
            arguments.out.display()
        );
        return Ok(TOO_MANY_REJECTS);
    }
    Ok(0)
}

/// Compares the finished dataset with its input; fails where an input changed.
fn compare(arguments: &CommonArguments, plan: Plan, jobs: usize) -> Result<u8> {
    let meter = Meter::new("radiographs");
    let outcome = check_input::check_input(&arguments.raw_dir, &arguments.out, plan, jobs, &|step| meter.step(&step));
    meter.finish();
    let differences = outcome?;
    if differences.is_empty() {
        dataset::cli_println!("{}: the input is unchanged", arguments.out.display());
        return Ok(0);
    }
    differences.iter().take(SHOWN).for_each(|difference| dataset::cli_println!("{difference}"));
    if differences.len() > SHOWN {
        dataset::cli_println!("… and {} more", differences.len() - SHOWN);
    }
    bail!(
        "{}: {} of the dataset changed; take another OUT or --overwrite to ingest anew",
        arguments.out.display(),
        counted(differences.len(), "input")
    )
}

fn print(summary: &Summary, out: &Path) {
    let manifest = &summary.manifest;
    if summary.already_done {
        dataset::cli_println!("{} holds this dataset already: nothing to do", out.display());
    } else if summary.resumed_shards > 0 {
        dataset::cli_println!("continued after {}", counted(summary.resumed_shards, "finished shard"));
    }
    let totals = &manifest.totals;
    dataset::cli_println!(
        "{}: {} of {} and {}, {} with a report, {}, {:.1} MB",
        out.display(),
        counted(totals.records as usize, "record"),
        counted(totals.studies as usize, "study"),
        counted(totals.patients as usize, "patient"),
        totals.reports,
        counted(manifest.shards.len(), "shard"),
        totals.bytes as f64 / 1e6
    );
    dataset::cli_println!(
        "pixels: mean {:.4}, std {:.4}; vocabulary: {}",
        manifest.image.mean,
        manifest.image.std,
        manifest.text.vocabulary
    );
    if summary.unknown_views > 0 {
        let records = counted(summary.unknown_views as usize, "record");
        dataset::cli_println!(
            "views: {records} without one, since the ViewPosition of the DICOM header is no view code"
        );
    }
    for (stage, count) in &manifest.rejects {
        dataset::cli_println!(
            "rejects at stage {stage}: {count} (`dataset inspect {} --rejects` lists them)",
            out.display()
        );
    }
    if summary.refused > 0 {
        dataset::cli_println!(
            "inputs that could not be read: {}; when they can, run the same command with --retry-rejects to add them",
            summary.refused
        );
    }
}
