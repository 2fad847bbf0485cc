//! The subcommand `tokenizer`: one tokenizer for several datasets.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dataset::Dataset;
use dataset::commands::cli::{self, count, counted};
use dataset::store::files;

use crate::error::Error;
use crate::report::tokenizer;

pub const EXAMPLES: &str = "Examples:
  ingest tokenizer data/mimic data/padchest --out shared.json --vocabulary 30000
  ingest openi /raw/openi data/openi --tokenizer shared.json
  trainer pretrain --data data/mimic --data data/padchest --tokenizer shared.json --run runs/both";

#[derive(Args)]
pub struct TokenizerArguments {
    /// Directories or URLs of datasets; their order does not matter.
    #[arg(required = true, value_name = "DATASET")]
    data: Vec<PathBuf>,
    /// The tokenizer.json to write, for --tokenizer of `ingest` and `trainer`.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Size of the vocabulary.
    #[arg(long, alias = "vocab-size", value_name = "N", default_value_t = tokenizer::VOCABULARY)]
    #[arg(value_parser = count::<1_000_000>)]
    vocabulary: usize,
    /// Replace the file.
    #[arg(long)]
    overwrite: bool,
}

impl TokenizerArguments {
    /// Trains the tokenizer, and prints what it was trained on.
    pub fn run(&self) -> Result<u8> {
        let out = self.out.display();
        if self.out.exists() && !self.overwrite {
            return Err(cli::UsageError::of(anyhow::anyhow!("{out} exists; give another --out, or --overwrite")));
        }
        let datasets = self.data.iter().map(Dataset::open).collect::<Result<Vec<_>, _>>()?;
        let texts = tokenizer::reports(&datasets)?;
        if texts.is_empty() {
            return Err(Error::Tokenizer("none of these datasets has a report to train on".to_owned()).into());
        }
        let trained = tokenizer::train(&texts, self.vocabulary)?;
        let text = trained.to_string(true).map_err(|error| Error::Tokenizer(error.to_string()))?;
        files::write_atomic(&self.out, text.as_bytes())?;
        let pieces = counted(trained.get_vocab_size(true), "piece");
        let datasets = counted(datasets.len(), "dataset");
        dataset::cli_println!("{out}: {pieces}, trained on {} of {datasets}", counted(texts.len(), "report"));
        Ok(0)
    }
}
