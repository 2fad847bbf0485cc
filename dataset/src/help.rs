//! Shell completions and manual pages, made from what a program's command line is: they cannot say anything else.
//!
//! All three programs have these two subcommands.

use std::io::Write;
use std::path::PathBuf;

use clap_complete::Shell;

use crate::error::{Error, Result};

/// Subcommands that write help files.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum HelpFiles {
    /// Print a script that completes this program's arguments in a shell.
    #[command(after_help = "Examples (of dataset; ingest and trainer alike):
  dataset completions bash > ~/.local/share/bash-completion/completions/dataset
  dataset completions zsh > ~/.zfunc/_dataset
  dataset completions fish > ~/.config/fish/completions/dataset.fish")]
    Completions {
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the manual pages of this program and its subcommands into a folder.
    #[command(
        after_help = "Example (of dataset; ingest and trainer alike): dataset man ~/.local/share/man/man1, then man dataset-split"
    )]
    Man {
        /// Folder to write, made where it is missing.
        dir: PathBuf,
    },
}

impl HelpFiles {
    /// Writes the help files of a command line: a script to the standard output, or pages into a folder.
    pub fn write(&self, mut command: clap::Command) -> Result<()> {
        let name = command.get_name().to_owned();
        match self {
            Self::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut command, name, &mut script);
                match std::io::stdout().write_all(&script) {
                    // A reader that has seen enough is no failure.
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
                    written => written.map_err(Error::io("standard output".as_ref())),
                }
            }
            Self::Man { dir } => {
                std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
                clap_mangen::generate_to(command, dir).map_err(Error::io(dir))
            }
        }
    }
}

/// A number from 1 to `MOST`, for clap.
///
/// # Errors
/// When it is none, in words.
pub fn count<const MOST: usize>(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(number) if (1..=MOST).contains(&number) => Ok(number),
        _ => Err(format!("give a number from 1 to {MOST}")),
    }
}
