//! `trainer evaluate`.

use anyhow::{Context, Result};
use clap::Args;
use dataset::Subset;

use super::options::{EvaluationArguments, Program, RunOptions, Subgroups, subgroups};
use super::training::warn;
use crate::commands;
use crate::task::{DataSource, EvaluationOptions, evaluate};

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
    /// See the dataset with this join; may be repeated [default: on the run's own dataset, the joins that it was trained with].
    #[arg(long, value_name = "NAME")]
    join: Vec<String>,
    /// Classification: metrics also by the groups of these columns (of the dataset or of its joins), and the gap between the
    /// groups. Numbers are the edges of bands: sex,view,age=0,18,40,60,80.
    #[arg(long, value_name = "COLUMN[=EDGES],…", value_parser = subgroups)]
    subgroups: Option<Subgroups>,
    #[command(flatten)]
    evaluation: EvaluationArguments,
}

pub(super) fn run(arguments: &Arguments, program: &Program) -> Result<()> {
    let Arguments { run, split, subset, join, subgroups, evaluation } = arguments;
    let device = commands::device(&run.device.device)?;
    let trained_on = program.registry.open(&run.run)?.1.common()?.provenance;
    let source = DataSource::open(&run.data, Some(split))?.seen_as(&trained_on, join)?;
    let subset = Subset::parse(subset).context("an unknown subset")?;
    let subgroups = subgroups.clone().unwrap_or_default().0;
    let options = EvaluationOptions { subgroups, ..evaluation.options() };
    let evaluated = evaluate(program.registry, &run.run, &source, subset, device, options)?;
    warn(&evaluated.warnings);
    dataset::cli_eprintln!("{}", evaluated.written);
    dataset::cli_println!("{}", evaluated.text);
    Ok(())
}
