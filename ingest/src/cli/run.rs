//! Runs a source with the common arguments, and prints what happens and the result.

use std::path::Path;

use anyhow::{Result, bail};
use dataset::commands::cli::{UsageError, counted};
use dataset::commands::progress::Meter;

use super::arguments::CommonArguments;
use super::request::{Complete, Listener, Outcome, run_source};
use crate::error::Error;
use crate::run::plan::Source;
use crate::run::tasks::{Task, TaskSummary};
use crate::run::{CheckedFiles, Summary};

/// Exit code where more inputs were rejected than the user allows.
const TOO_MANY_REJECTS: u8 = 3;

/// Names of changed inputs that are printed.
const SHOWN: usize = 20;

/// Ingests a source. With `path_map`, writes the table of hashes and paths.
pub fn ingest(source: &dyn Source, arguments: &CommonArguments, path_map: Option<&Path>) -> Result<u8> {
    let meter = Meter::new("radiographs");
    let listener =
        Listener { notice: &|notice| dataset::cli_eprintln!("{notice}"), progress: &|step| meter.step(step) };
    let outcome = run_source(source, &|| source.plan(&arguments.raw_dir), arguments, path_map, listener);
    meter.finish();
    let out = &arguments.out;
    let outcome = outcome.map_err(|error| match error {
        Error::Options(_) => UsageError::of(error.into()),
        error => error.into(),
    });
    match outcome? {
        Outcome::Preview(page) => dataset::cli_println!("{}", page.trim_end()),
        Outcome::Differences(differences) => print_differences(&differences, out)?,
        Outcome::Task(task, summary) => print_task(task, &summary, out),
        Outcome::Complete(complete) => return Ok(end(&complete, out)),
    }
    Ok(0)
}

/// Prints the shards of a task.
fn print_task(task: Task, summary: &TaskSummary, out: &Path) {
    dataset::cli_println!(
        "task {task}: {} done{}; {} of {} of the dataset missing (`ingest status {}` shows all tasks)",
        counted(summary.shards, "shard"),
        if summary.resumed_shards > 0 { format!(", {} of them before", summary.resumed_shards) } else { String::new() },
        summary.missing,
        counted(summary.all_shards, "shard"),
        out.display()
    );
}

/// Prints the result of a run, and returns the exit code.
fn end(complete: &Complete, out: &Path) -> u8 {
    print(&complete.summary, out);
    complete.reasons.iter().for_each(|line| dataset::cli_eprintln!("{line}"));
    match &complete.too_many_rejects {
        Some(line) => {
            dataset::cli_eprintln!("{line}");
            TOO_MANY_REJECTS
        }
        None => 0,
    }
}

/// Prints how the input differs from that of the finished dataset; fails where it does.
fn print_differences(differences: &[String], out: &Path) -> Result<()> {
    if differences.is_empty() {
        dataset::cli_println!("{}: the input is unchanged", out.display());
        return Ok(());
    }
    differences.iter().take(SHOWN).for_each(|difference| dataset::cli_println!("{difference}"));
    if differences.len() > SHOWN {
        dataset::cli_println!("… and {} more", differences.len() - SHOWN);
    }
    bail!(
        "{}: {} of the dataset changed; take another OUT or --overwrite to ingest anew",
        out.display(),
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
    summary.guards.warnings().iter().for_each(|warning| dataset::cli_eprintln!("warning: {warning}"));
    if let Some(checked) = &summary.checked {
        let CheckedFiles { matched, damaged, missing, unlisted } = checked;
        let files = |count: &u64| counted(*count as usize, "file");
        dataset::cli_println!(
            "checksums: {} as listed, {} damaged, {} listed and missing, {} in no list",
            files(matched),
            files(damaged),
            files(missing),
            files(unlisted)
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
