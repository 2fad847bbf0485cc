//! What `pretrain` and `finetune` print, and the training itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::options::TrainingOptions;
use crate::commands;
use crate::config::{ConfigFile, RunConfig};
use crate::task::{DataSource, Task};
use crate::train::distributed::{Agreement, Compute, Launch, ProcessGroup, Timeouts};
use crate::train::lr_range_test::lr_for;
use crate::train::run_dir::RunDir;
use crate::train::train_loop::Outcome;

/// A run to be trained, alone or together with other processes.
pub(super) struct RunRequest<'a> {
    pub task: &'a dyn Task,
    pub config: &'a ConfigFile,
    pub source: &'a DataSource,
    pub options: &'a TrainingOptions,
    /// The other processes, if there are any.
    pub launch: Option<&'a Launch>,
    /// Exit code of a run that was stopped with a checkpoint.
    pub stop_exit_code: u8,
    /// The configuration with a learning rate from a range test; none where the one of `config` is used.
    pub with_tested_lr: Option<&'a dyn Fn(f64) -> Result<ConfigFile>>,
    /// The command to show after the run.
    pub next: &'a str,
}

/// Trains a run. Of several processes, the main one alone prints and writes.
pub(super) fn train(request: &RunRequest) -> Result<u8> {
    let RunRequest { task, source, options, launch, .. } = request;
    let mut config = request.config.clone();
    let mut prepared = task.prepare(&config, source)?;
    let rank = launch.map_or(0, |launch| launch.rank);
    let notify = |message: &str| {
        let whose = if rank == 0 { String::new() } else { format!("rank {rank}: ") };
        dataset::cli_eprintln!("{whose}{message}");
    };
    let compute = compute(&options.device.device, *launch, &prepared.run, &config, &notify)?;
    let is_main = compute.group.is_main();
    let mut range_test = None;
    if let Some(with_lr) = request.with_tested_lr {
        let test = || prepared.begin(&compute)?.range_test(&notify);
        let Some(tested) = lr_for(&options.run, &compute.group, test)? else {
            if is_main {
                dataset::cli_println!(
                    "stopped in the range test of the learning rate, which the same command begins again"
                );
            }
            return Ok(request.stop_exit_code);
        };
        config = with_lr(tested.lr)?;
        prepared = task.prepare(&config, source)?;
        range_test = tested.test;
    }
    if is_main {
        warn(&prepared.warnings);
        dataset::cli_println!("{}", config.text());
    }
    let directory = is_main.then(|| RunDir::open(&options.run, &config, prepared.steps)).transpose()?;
    if let (Some(directory), Some(test)) = (&directory, &range_test) {
        test.write(directory.path())?;
        dataset::cli_println!("learning rate {} from a range test: {}", test.lr, test.rule);
    }
    let training = prepared.begin(&compute)?;
    training.notes.iter().filter(|_| is_main).for_each(|note| dataset::cli_println!("{note}"));
    let outcome = training.train(directory.as_ref(), &notify)?;
    compute.group.leave()?;
    // Without a slash at its end.
    let path: PathBuf = options.run.components().collect();
    let path = path.display();
    match outcome {
        Outcome::Stopped { step } => {
            if is_main {
                dataset::cli_println!("stopped after step {step}; give the same command again to continue ({path})");
            }
            return Ok(request.stop_exit_code);
        }
        Outcome::Done { .. } if !is_main => return Ok(0),
        Outcome::Done { best: Some(best) } => dataset::cli_println!("done: {path}, best validation score {best:.4}"),
        Outcome::Done { best: None } => dataset::cli_println!("done: {path}"),
    }
    dataset::cli_eprintln!("the log: {path}/metrics.jsonl; next: {}", request.next);
    Ok(0)
}

/// The device of this process, and its group, joined.
fn compute(
    device: &str,
    launch: Option<&Launch>,
    run: &RunConfig,
    config: &ConfigFile,
    notify: &dyn Fn(&str),
) -> Result<Compute> {
    let Some(launch) = launch else { return Ok(Compute::on(commands::device(device)?)) };
    let own_device = device == "auto";
    let device = if own_device { commands::device_of_rank(launch.local_rank)? } else { commands::device(device)? };
    let provenance = config.common()?.provenance;
    let agreement: Agreement = vec![
        ("version of the program", env!("CARGO_PKG_VERSION").to_owned()),
        ("dataset", format!("{:?}", provenance.dataset)),
        ("split", provenance.split),
        ("content of the split", provenance.split_members),
        ("kind of device", if device.is_cuda() { "CUDA" } else { "CPU" }.to_owned()),
        ("configuration", config.text().to_owned()),
    ];
    let timeouts =
        Timeouts { join: Duration::from_secs(run.join_timeout), stall: Duration::from_secs(run.stall_timeout) };
    let group = ProcessGroup::join(launch, device, own_device, &agreement, timeouts, notify)?;
    Ok(Compute { device, group })
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
