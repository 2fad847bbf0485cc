//! What the command lines of all three programs share: numbers with their ranges, and two subcommands that write shell
//! completions and manual pages.

use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use clap_complete::Shell;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::{Error, Result, panic_text};

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

/// Parses a program's command line.
pub fn parse<P: clap::Parser>() -> P {
    parsed(&matches(P::command()))
}

/// What was matched as the arguments of a program; ends the process where they are none.
pub fn parsed<P: clap::Parser>(matches: &clap::ArgMatches) -> P {
    P::from_arg_matches(matches).unwrap_or_else(|error| error.format(&mut P::command()).exit())
}

/// Matches the command line of this process. A negative number is the value of the option before it, out of its range or
/// not, and no option of its own. The process may from then on open as many files as the system lets it: a dataset keeps
/// its shards open, and the usual limit is 1,024.
pub fn matches(command: clap::Command) -> clap::ArgMatches {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    command.mut_subcommands(|command| command.allow_negative_numbers(true)).get_matches()
}

/// Does a program's work, and says in one line why it failed.
///
/// What breaks off in a decoder is caught where it belongs to a record; here it would only blur the progress bar. A panic
/// that nobody catches becomes a line that names its place.
pub fn outcome(work: impl FnOnce() -> anyhow::Result<ExitCode>) -> ExitCode {
    match caught(work) {
        Ok(code) => code,
        Err(error) => {
            crate::cli_eprintln!("error: {error:#}");
            exit_code(&error)
        }
    }
}

/// An error in what the user typed, whatever the data are: the program ends with exit code 2, as clap's own errors do.
#[derive(Debug)]
pub struct UsageError(String);

impl UsageError {
    /// Marks an error as one of usage; for `map_err`.
    pub fn of(error: anyhow::Error) -> anyhow::Error {
        Self(format!("{error:#}")).into()
    }
}

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// The exit code of an error: 2 for one of usage, else 1.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<UsageError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
}

fn caught(work: impl FnOnce() -> anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    static PLACE: Mutex<String> = Mutex::new(String::new());
    let last = || PLACE.lock().unwrap_or_else(PoisonError::into_inner);
    std::panic::set_hook(Box::new(move |panic| {
        *last() = panic.location().map_or_else(String::new, ToString::to_string);
    }));
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(work));
    let _ = std::panic::take_hook();
    outcome.unwrap_or_else(|panic| {
        let first = panic_text(panic.as_ref()).lines().next().unwrap_or_default();
        Err(anyhow::anyhow!("a defect of this program, at {}: {first}; please tell its makers", last()))
    })
}

/// A count with its noun: `1 study`, `2 studies`.
pub fn counted(count: usize, noun: &str) -> String {
    match noun.strip_suffix('y') {
        _ if count == 1 => format!("1 {noun}"),
        Some(stem) => format!("{count} {stem}ies"),
        None => format!("{count} {noun}s"),
    }
}

/// A share from 0 to 1, for clap.
///
/// # Errors
/// When it is none, in words.
pub fn share(text: &str) -> Result<f64, String> {
    within(text, |share| (0.0..=1.0).contains(&share), "a share from 0 to 1")
}

/// A share from 0 to below 1, for clap.
///
/// # Errors
/// When it is none, in words.
pub fn part(text: &str) -> Result<f64, String> {
    within(text, |share| (0.0..1.0).contains(&share), "a share from 0 to below 1")
}

/// A percentage above 0, for clap.
///
/// # Errors
/// When it is none, in words.
pub fn percent(text: &str) -> Result<f64, String> {
    within(text, |percent| percent > 0.0 && percent <= 100.0, "a percentage above 0 and at most 100")
}

/// A number above 0, for clap.
///
/// # Errors
/// When it is none, in words.
pub fn positive(text: &str) -> Result<f64, String> {
    within(text, |number| number > 0.0 && number.is_finite(), "a number above 0")
}

/// The path of a picture to be written, for clap.
///
/// # Errors
/// When its name does not end in `.png`.
pub fn png(text: &str) -> Result<PathBuf, String> {
    ending(text, "png")
}

/// The path of a table to be written, for clap.
///
/// # Errors
/// When its name does not end in `.parquet`.
pub fn parquet(text: &str) -> Result<PathBuf, String> {
    ending(text, "parquet")
}

/// The path of a table to be written as CSV or Parquet, for clap.
///
/// # Errors
/// When its name ends in neither.
pub fn csv_or_parquet(text: &str) -> Result<PathBuf, String> {
    ending(text, "csv")
        .or_else(|_| ending(text, "parquet"))
        .map_err(|_| "give a name that ends in .csv or .parquet".to_owned())
}

fn ending(text: &str, wanted: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension() {
        Some(extension) if extension.eq_ignore_ascii_case(wanted) => Ok(path),
        _ => Err(format!("give a name that ends in .{wanted}")),
    }
}

fn within(text: &str, fits: impl Fn(f64) -> bool, wanted: &str) -> Result<f64, String> {
    text.trim().parse().ok().filter(|number| fits(*number)).ok_or_else(|| format!("give {wanted}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lie_in_their_ranges() {
        assert_eq!(["0", "0.5 ", "1"].map(share), [Ok(0.0), Ok(0.5), Ok(1.0)]);
        assert!(["-0.1", "1.1", "NaN", "", "ten"].map(share).iter().all(Result::is_err));
        assert_eq!((percent(" 10"), percent("100")), (Ok(10.0), Ok(100.0)));
        assert!(["0", "-1", "100.1", "inf"].map(percent).iter().all(Result::is_err));
        assert!(positive("1e-3").is_ok() && ["0", "inf", "-2"].map(positive).iter().all(Result::is_err));
        assert_eq!(count::<5>("6"), Err("give a number from 1 to 5".to_owned()));
        assert!(png("a/look.PNG").is_ok() && png("look.jpg").is_err() && png("png").is_err());
        assert_eq!(
            [counted(1, "study"), counted(0, "study"), counted(2, "shard")],
            ["1 study", "0 studies", "2 shards"]
        );
    }

    #[test]
    fn a_panic_that_nobody_catches_is_told_in_one_line() {
        let told = caught(|| panic!("on purpose\nsecond line")).unwrap_err().to_string();
        assert!(told.starts_with("a defect of this program, at dataset/src/commands/cli.rs:"), "{told}");
        assert!(told.ends_with(": on purpose; please tell its makers"), "{told}");
        assert!(caught(|| Ok(ExitCode::SUCCESS)).is_ok());
    }
}
