//! `trainer evaluate`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use dataset::Subset;

use super::options::{EvaluationArguments, Program, RunOptions, Subgroups, subgroups};
use super::training::warn;
use crate::commands;
use crate::task::{DataSource, EvaluationOptions, ZeroShot, evaluate};

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    run: RunOptions,
    /// Name of the split; `dataset split` makes one.
    #[arg(long)]
    split: String,
    /// The subset of the split.
    #[arg(long, value_parser = ["train", "validate", "test"], default_value = "test")]
    subset: String,
    /// Use the labels, boxes, masks and texts of this join instead of the dataset's own; may be repeated [default: on the run's
    /// own dataset, the joins that it was trained with].
    #[arg(long, value_name = "NAME")]
    join: Vec<String>,
    /// Classification: metrics also by the groups of these columns (of the dataset or of its joins), and the gap between the
    /// groups. Numbers are the edges of bands: sex,view,age=0,18,40,60,80.
    #[arg(long, value_name = "COLUMN[=EDGES],…", value_parser = subgroups)]
    subgroups: Option<Subgroups>,
    #[command(flatten)]
    evaluation: EvaluationArguments,
    /// Contrast runs: also classify findings by prompts, without training: chexpert5, …, or labels:A,B.
    #[arg(long, value_name = "TASK")]
    zero_shot: Option<String>,
    /// Prompts for --zero-shot [default: "{finding}" against "no {finding}"].
    #[arg(long, value_name = "FILE.toml|FILE.json", requires = "zero_shot")]
    prompts: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, program: &Program) -> Result<()> {
    let Arguments { run, split, subset, join, subgroups, evaluation, zero_shot, prompts } = arguments;
    let device = commands::device(&run.device.device)?;
    let trained_on = program.registry.open(&run.run)?.1.common()?.provenance;
    let source = DataSource::open(&run.data, Some(split))?.seen_as(&trained_on, join)?;
    let subset = Subset::parse(subset).context("an unknown subset")?;
    let zero_shot = zero_shot.clone().map(|task| ZeroShot { task, prompts: prompts.clone() });
    let subgroups = subgroups.clone().unwrap_or_default().0;
    let options = EvaluationOptions { subgroups, zero_shot, ..evaluation.options() };
    let evaluated = evaluate(program.registry, &run.run, &source, subset, device, options)?;
    warn(&evaluated.warnings);
    dataset::cli_eprintln!("{}", evaluated.written);
    dataset::cli_println!("{}", evaluated.text);
    Ok(())
}
