//! What the command lines of all three programs share: value parsers, exit codes, and the subcommands for shell completions
//! and manual pages.

use std::ffi::OsString;
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use clap_complete::Shell;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use crate::commands::wording::counted;
use crate::error::{Error, Result, panic_text};
use crate::split::ratio::Ratio;

/// Subcommands that write help files.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum HelpFiles {
    /// Print a script that completes the arguments of this program in a shell.
    #[command(after_help = "Examples (of dataset; ingest and trainer alike):
  dataset completions bash > ~/.local/share/bash-completion/completions/dataset
  dataset completions zsh > ~/.zfunc/_dataset
  dataset completions fish > ~/.config/fish/completions/dataset.fish")]
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the manual pages of this program and its subcommands into a folder.
    #[command(
        after_help = "Example (of dataset; ingest and trainer alike): dataset man ~/.local/share/man/man1, then man dataset-split"
    )]
    Man {
        /// Folder to write; it is created if it is missing.
        dir: PathBuf,
    },
}

impl HelpFiles {
    /// Writes the help files of a command line: a script to stdout, or pages into a folder.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, mut command: clap::Command) -> Result<()> {
        let name = command.get_name().to_owned();
        match self {
            Self::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut command, name, &mut script);
                match std::io::stdout().write_all(&script) {
                    // A closed pipe is not a failure.
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
                    written => written.map_err(Error::io("stdout".as_ref())),
                }
            }
            Self::Man { dir } => {
                std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
                clap_mangen::generate_to(command, dir).map_err(Error::io(dir))
            }
        }
    }
}

/// Matched arguments as the arguments of a program.
///
/// # Errors
/// When they are invalid.
pub fn parsed<P: clap::Parser>(matches: &clap::ArgMatches) -> Result<P, clap::Error> {
    P::from_arg_matches(matches).map_err(|error| error.format(&mut P::command()))
}

/// Matches a command line, which begins with the name of the program. A negative number is the value of the option before
/// it, not an option.
///
/// It also raises the limit of open files to the largest that the system allows, since a dataset keeps its shards open and
/// the usual limit is 1,024, and prints a line on stderr when requests to an object store keep failing.
///
/// # Errors
/// When the arguments are invalid, or ask for help or the version: see [`answer`].
pub fn matches(
    command: clap::Command,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<clap::ArgMatches, clap::Error> {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    #[cfg(feature = "cloud")]
    crate::store::retry::report_with(|line| crate::cli_eprintln!("{line}"));
    command.mut_subcommands(|command| command.allow_negative_numbers(true)).try_get_matches_from(arguments)
}

/// Prints help, version or usage error in place of a run, and returns the exit code.
pub fn answer(error: &clap::Error) -> u8 {
    let _ = error.print();
    error.exit_code() as u8
}

/// Does the work of a program, prints in one line why it failed, and returns the exit code.
///
/// The panic hook prints nothing: panics of decoders are caught where they concern a record, and any other panic becomes an
/// error with its location.
pub fn outcome(work: impl FnOnce() -> anyhow::Result<u8>) -> u8 {
    caught(work).unwrap_or_else(|error| {
        if let Some(error) = error.downcast_ref() {
            return answer(error);
        }
        crate::cli_eprintln!("error: {error:#}");
        exit_code(&error)
    })
}

/// An error in the arguments, independent of the data: the program ends with exit code 2, as for errors of clap.
#[derive(Debug)]
pub struct UsageError(String);

impl UsageError {
    /// Marks an error as one of usage, for `map_err`.
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

/// The exit code of an error: 2 for one of usage, otherwise 1.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<UsageError>() { 2 } else { 1 }
}

/// Does work whose panics become an error with their location. Meanwhile panics print nothing.
///
/// # Errors
/// Those of the work, and `internal error (a bug in mrm) at FILE:LINE …`; `out of memory` where a library could not allocate.
pub fn caught<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    silence_panics();
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(work));
    SILENCES.fetch_sub(1, Ordering::SeqCst);
    let location = last_panic().clone();
    outcome.unwrap_or_else(|panic| {
        let first = panic_text(panic.as_ref()).lines().next().unwrap_or_default();
        if first.contains(NO_CONTEXT) {
            return Err(anyhow::anyhow!("out of memory ({first})"));
        }
        Err(anyhow::anyhow!("internal error (a bug in mrm) at {location}: {first}. Please report it with this line"))
    })
}

/// What zstd's library says when it panics for want of memory.
const NO_CONTEXT: &str = "returned null pointer when creating new context";

/// Calls in progress during which panics of all threads print nothing.
static SILENCES: AtomicUsize = AtomicUsize::new(0);
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// Begins a call during which panics print nothing. Calls of several threads may overlap, so that the hook is installed once
/// and stays.
fn silence_panics() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if SILENCES.load(Ordering::SeqCst) == 0 {
                return print(panic);
            }
            *last_panic() = panic.location().map_or_else(String::new, ToString::to_string);
        }));
    });
    SILENCES.fetch_add(1, Ordering::SeqCst);
}

fn last_panic() -> MutexGuard<'static, String> {
    LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Parses a share from 0 to 1, for clap.
///
/// # Errors
/// Says what is expected.
pub fn share(text: &str) -> Result<f64, String> {
    within(text, |share| (0.0..=1.0).contains(&share), "a share from 0 to 1")
}

/// Parses a share from 0 to below 1, for clap.
///
/// # Errors
/// Says what is expected.
pub fn part(text: &str) -> Result<f64, String> {
    within(text, |share| (0.0..1.0).contains(&share), "a share from 0 to below 1")
}

/// Parses a label ratio in percent, for clap.
///
/// # Errors
/// Says what is expected.
pub fn ratio(text: &str) -> Result<Ratio, String> {
    text.parse().map_err(|_| "give a percentage above 0 and at most 100, with at most nine decimals".to_owned())
}

/// Parses a label ratio as a number in percent, for clap.
///
/// # Errors
/// Says what is expected.
pub fn percent(text: &str) -> Result<f64, String> {
    ratio(text).map(Ratio::percent)
}

/// Parses a number above 0, for clap.
///
/// # Errors
/// Says what is expected.
pub fn positive(text: &str) -> Result<f64, String> {
    within(text, |number| number > 0.0 && number.is_finite(), "a number above 0")
}

/// Parses the path of an image to write, for clap.
///
/// # Errors
/// When its name does not end in `.png`.
pub fn png(text: &str) -> Result<PathBuf, String> {
    ending(text, "png")
}

/// Parses the path of a table to write, for clap.
///
/// # Errors
/// When its name does not end in `.parquet`.
pub fn parquet(text: &str) -> Result<PathBuf, String> {
    ending(text, "parquet")
}

/// Parses the path of a table to write as CSV or Parquet, for clap.
///
/// # Errors
/// When its name does not end in `.csv` or `.parquet`.
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

/// Parses a number from 1 to `MAX`, for clap.
///
/// # Errors
/// Says what is expected.
pub fn count<const MAX: usize>(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(number) if (1..=MAX).contains(&number) => Ok(number),
        _ => Err(format!("give a number from 1 to {MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_their_ranges() {
        assert_eq!(["0", "0.5 ", "1"].map(share), [Ok(0.0), Ok(0.5), Ok(1.0)]);
        assert!(["-0.1", "1.1", "NaN", "", "ten"].map(share).iter().all(Result::is_err));
        assert_eq!((ratio(" 10"), ratio("100%")), (Ok(Ratio::TEN), Ok(Ratio::ALL)));
        assert!(["0", "-1", "100.1", "inf"].map(ratio).iter().all(Result::is_err));
        assert!(positive("1e-3").is_ok() && ["0", "inf", "-2"].map(positive).iter().all(Result::is_err));
        assert_eq!(count::<5>("6"), Err("give a number from 1 to 5".to_owned()));
        assert!(png("a/look.PNG").is_ok() && png("look.jpg").is_err() && png("png").is_err());
        assert_eq!(
            [counted(1, "study"), counted(0, "study"), counted(2, "shard")],
            ["1 study", "0 studies", "2 shards"]
        );
    }

    #[test]
    fn an_uncaught_panic_becomes_one_line() {
        let message = caught::<u8>(|| panic!("on purpose\nsecond line")).unwrap_err().to_string();
        assert!(message.starts_with("internal error (a bug in mrm) at dataset/src/commands/cli.rs:"), "{message}");
        assert!(message.contains(": on purpose. Please report it"), "{message}");
        assert!(caught(|| Ok(0)).is_ok());
    }
}
