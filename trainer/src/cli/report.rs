//! `trainer report`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::options::Program;
use super::training::warn;
use crate::report;

#[derive(Args)]
pub(super) struct Arguments {
    /// Runs, or folders with runs in them.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// The page to write.
    #[arg(long, value_name = "FILE.html")]
    out: PathBuf,
}

pub(super) fn run(arguments: &Arguments, program: &Program) -> Result<()> {
    let Arguments { runs, out } = arguments;
    warn(&report::report(program.registry, runs, out)?.warnings);
    dataset::cli_println!("written to {}", out.display());
    Ok(())
}
