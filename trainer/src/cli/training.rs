//! What `pretrain` and `finetune` print, and the training itself.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::config::ConfigFile;
use crate::task::{DataSource, Task};
use crate::train::run_dir::RunDir;
use crate::train::train_loop::Outcome;

/// Trains a configured run in a directory; `next` is the command to show after it.
pub(super) fn train(
    task: &dyn Task,
    config: &ConfigFile,
    source: &DataSource,
    directory: &Path,
    device: tch::Device,
    next: &str,
) -> Result<()> {
    let prepared = task.prepare(config, source)?;
    warn(&prepared.warnings);
    dataset::cli_println!("{}", config.text());
    let run = RunDir::open(directory, config, prepared.steps)?;
    let training = prepared.begin(device)?;
    training.notes.iter().for_each(|note| dataset::cli_println!("{note}"));
    let outcome = training.train(&run, &|message| dataset::cli_eprintln!("{message}"))?;
    // Without a slash at its end.
    let path: PathBuf = run.path().components().collect();
    let path = path.display();
    match outcome {
        Outcome::Done { best: Some(best) } => dataset::cli_println!("done: {path}, best validation score {best:.4}"),
        Outcome::Done { best: None } => dataset::cli_println!("done: {path}"),
        Outcome::Stopped { step } => {
            dataset::cli_println!("stopped after step {step}; give the same command again to continue ({path})");
            return Ok(());
        }
    }
    dataset::cli_eprintln!("the log: {path}/metrics.jsonl; next: {next}");
    Ok(())
}

/// Prints warnings.
pub(super) fn warn<'a>(warnings: impl IntoIterator<Item = &'a String>) {
    warnings.into_iter().for_each(|warning| dataset::cli_eprintln!("warning: {warning}"));
}

/// A path as an argument in a shell.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:=+,".contains(c));
    if plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
