//! `trainer compare`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dataset::commands::cli;
use dataset::store::files;

use super::options::{Program, draws, stem};
use super::training::warn;
use crate::commands;
use crate::eval::bootstrap::Bootstrap;
use crate::task::ComparisonRequest;

#[derive(Args)]
pub(super) struct Arguments {
    /// A fine-tuned run that was evaluated on the subset.
    first: PathBuf,
    /// Another one; differences are this one minus the first.
    second: PathBuf,
    /// train, validate, test, or test-on-NAME for an evaluation on another dataset.
    #[arg(long, default_value = "test", value_parser = stem)]
    subset: String,
    /// Bootstrap draws.
    #[arg(long, default_value_t = 1000, value_parser = draws)]
    draws: usize,
    /// Classification: compare sensitivity at this specificity [default: 0.9].
    #[arg(long, value_name = "0..1", value_parser = cli::share)]
    specificity: Option<f64>,
    /// Seed of the bootstrap.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write the differences as JSON, too.
    #[arg(long, value_name = "FILE.json")]
    out: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, program: &Program) -> Result<()> {
    let Arguments { first, second, subset, draws, specificity, seed, out } = arguments;
    let bootstrap = Bootstrap { draws: *draws, seed: *seed, ..Bootstrap::default() };
    let request = ComparisonRequest { first, second, subset, bootstrap, specificity: *specificity };
    let comparison = commands::compare(program.registry, &request)?;
    warn(&comparison.warnings);
    if let Some(out) = out {
        files::write_json(out, &comparison.json)?;
    }
    dataset::cli_println!("{}", comparison.text);
    Ok(())
}
