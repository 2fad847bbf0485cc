//! The command line of the program `ingest`: one file for each group of subcommands.

mod arguments;
mod folder;
mod join;
mod phantom;
mod request;
mod run;
mod sources;
mod status;
mod tokenizer;

use std::ffi::OsString;

use anyhow::Result;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use dataset::commands::cli::{self, HelpFiles};

use crate::run::plan::Source;
use arguments::CommonArguments;
use sources::SourceCommand;
use status::StatusArguments;
use tokenizer::TokenizerArguments;

pub use join::JoinArguments;
pub use phantom::PhantomArguments;
pub use request::{Complete, Listener, Notice, Outcome, Request};

/// Convert raw radiographs (DICOM, PNG, JPEG) and reports to Parquet shards with resized images and token ids.
///
/// A killed run, started again with the same command, continues and ends with the same bytes.
#[derive(Parser)]
#[command(name = "ingest", version, arg_required_else_help = true, subcommand_required = true)]
#[command(after_help = "To begin without any data:
  ingest phantom mimic-cxr raw --studies 200
  ingest mimic-cxr raw data

`ingest SOURCE --help` lists the options of a source. Exit codes: 0 done, 1 failed, 2 usage, 3 done but too many rejects.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[expect(clippy::large_enum_variant, reason = "there is one value, parsed once")]
#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Source(SourceCommand),
    #[command(after_help = phantom::EXAMPLE)]
    Phantom(PhantomArguments),
    #[command(after_help = join::EXAMPLES)]
    Join(JoinArguments),
    /// Show the progress of tasks (--task) that make a dataset together.
    #[command(after_help = status::EXAMPLES)]
    Status(StatusArguments),
    /// Train one tokenizer on the reports of several datasets.
    #[command(after_help = tokenizer::EXAMPLES)]
    Tokenizer(TokenizerArguments),
    #[command(flatten)]
    Help(HelpFiles),
}

/// Runs the program on a command line, which begins with its name, and returns the exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    main_with(&[], arguments)
}

/// Runs the program with further sources. Each is a subcommand of its name and has the options that all sources share.
pub fn main_with(sources: &[&dyn Source], arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let command = |source: &&dyn Source| CommonArguments::augment_args(clap::Command::new(source.name()));
    cli::outcome(|| {
        let matches = cli::matches(Cli::command().subcommands(sources.iter().map(command)), arguments)?;
        let given = matches.subcommand();
        let custom =
            given.and_then(|(name, given)| Some((sources.iter().find(|source| source.name() == name)?, given)));
        match custom {
            Some((source, given)) => run::ingest(*source, &CommonArguments::from_arg_matches(given)?, None),
            None => dispatch(cli::parsed(&matches)?),
        }
    })
}

fn dispatch(cli: Cli) -> Result<u8> {
    match cli.command {
        Command::Source(command) => {
            let Request { source, arguments, path_map } = command.request(None);
            run::ingest(source.as_ref(), &arguments, path_map.as_deref())
        }
        Command::Join(arguments) => arguments.run(),
        Command::Phantom(arguments) => arguments.run(),
        Command::Status(arguments) => arguments.run(),
        Command::Tokenizer(arguments) => arguments.run(),
        Command::Help(files) => files.write(Cli::command()).map(|()| 0).map_err(Into::into),
    }
}
