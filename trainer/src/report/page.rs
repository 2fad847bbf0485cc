//! Writes the page.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use dataset::store::files;

use super::html::Section;
use super::run::Run;
use super::{curves, label_efficiency, settings};
use crate::task::Registry;

const STYLE: &str = include_str!("page.css");

/// What is to be said about a page that was written.
#[derive(Debug, Default)]
pub struct Report {
    /// Runs that were left out, and damaged lines of logs.
    pub warnings: Vec<String>,
}

/// Writes one self-contained HTML page over some runs, or folders with runs in them.
///
/// # Errors
/// When there is no run, an evaluation is damaged, or the page cannot be written.
pub fn report(registry: &Registry, runs: &[PathBuf], out: &Path) -> Result<Report> {
    let (mut runs_read, mut report) = (Vec::new(), Report::default());
    for path in with_inner(runs) {
        match Run::load(&path) {
            Ok((run, warnings)) => {
                runs_read.push(run);
                report.warnings.extend(warnings);
            }
            Err(error) => report.warnings.push(format!("left out: {error:#}")),
        }
    }
    if runs_read.is_empty() {
        bail!(
            "no run to report on{}",
            report.warnings.iter().map(|warning| format!("; {warning}")).collect::<String>()
        );
    }
    distinguish(&mut runs_read);
    let mut sections = label_efficiency::sections(registry, &runs_read)?;
    for task in registry.tasks() {
        let of_task: Vec<&Run> = runs_read.iter().filter(|run| run.kind == task.kind()).collect();
        sections.extend(task.report(&of_task)?);
    }
    sections.extend(curves::section(registry, &runs_read)?);
    sections.extend(settings::section(&runs_read)?);
    let body: String = sections.iter().map(Section::to_html).collect();
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>mrm report</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>Masked record modeling: report</h1>\n{body}</main>\n</body>\n</html>\n"
    );
    files::write_atomic(out, page.as_bytes())?;
    Ok(report)
}

/// Puts the folder above before the name of a run where another run has the same name.
fn distinguish(runs: &mut [Run]) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    runs.iter().for_each(|run| *counts.entry(run.name.clone()).or_default() += 1);
    for run in runs {
        if let (Some(2..), Some(above)) = (counts.get(&run.name), run.path.parent().and_then(Path::file_name)) {
            run.name = format!("{}/{}", above.to_string_lossy(), run.name);
        }
    }
}

/// The folders that are given, and in place of one that is no run itself the runs in it.
fn with_inner(paths: &[PathBuf]) -> Vec<PathBuf> {
    // A probe's results have evaluations only.
    let is_run = |path: &Path| path.join("config.toml").is_file() || path.join("evaluation-test.json").is_file();
    let mut all = Vec::new();
    for path in paths {
        let mut inside: Vec<PathBuf> = if is_run(path) {
            Vec::new()
        } else {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).filter(|inner| is_run(inner)).collect()
        };
        inside.sort();
        if inside.is_empty() {
            all.push(path.clone());
        }
        all.extend(inside);
    }
    all
}
