//! What the user asked for when a run is configured, and the initialization that follows from it.

use std::path::{Component, Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use dataset::commands::cli::UsageError;

use super::{DataSource, Task};
use crate::config::{CommonKeys, Encoder, PRESETS, RANDOM, RANDOM_NAME, Recipe};
use crate::train::run_dir;

/// What was asked of a run that is to be trained.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Name of the task, as `--task` takes it.
    pub task: &'a str,
    /// Pretrained weights, a run or a file; none for random initialization.
    pub init: Option<&'a Path>,
    /// What tables call the initialization; none: a name that follows from `init`.
    pub init_name: Option<&'a str>,
    /// Preset and encoder of the run that `init` is or belongs to ([`Registry::pretrained`](super::Registry::pretrained)), or
    /// of another run whose model is to be trained; none: those of the preset.
    pub model: Option<&'a CommonKeys>,
    /// None: that of the pretrained run, else the first one.
    pub preset: Option<&'a str>,
    /// The way of fine-tuning; one of those that the task has ([`check_recipe`]).
    pub recipe: Recipe,
    /// The dataset, with the split to train on.
    pub source: &'a DataSource,
    /// Percentage of the training labels.
    pub ratio: f64,
    /// Number of steps.
    pub steps: Option<u64>,
    /// Number of epochs, in place of `steps`.
    pub epochs: Option<f64>,
    /// Text of a configuration file.
    pub file: Option<&'a str>,
    /// Settings, `key=value`.
    pub settings: &'a [String],
}

/// An error unless a task, named `name` on the command line, has a recipe: an error of usage.
///
/// # Errors
/// When it does not.
pub fn check_recipe(task: &dyn Task, name: &str, recipe: Recipe) -> Result<()> {
    let known = task.recipes();
    if known.contains(&recipe) {
        return Ok(());
    }
    let names = known.iter().map(|recipe| recipe.name()).collect::<Vec<_>>().join(", ");
    Err(UsageError::of(anyhow!("--recipe {recipe}: the task `{name}` has these recipes: {names}")))
}

/// The initialization of a fine-tuning run.
#[derive(Debug)]
pub struct Initialization {
    /// The preset.
    pub preset: String,
    /// The encoder of the pretrained run; none without a run.
    pub encoder: Option<Encoder>,
    /// The pretrained run or file, or [`RANDOM`].
    pub init: String,
    /// What tables call it.
    pub name: String,
}

impl Initialization {
    /// The initialization that a request asks for.
    ///
    /// # Errors
    /// When there is no such run or file, or the run is of another preset than the request's.
    pub fn of(request: &Request) -> Result<Self> {
        let (init, name) = match request.init {
            None => (RANDOM.to_owned(), RANDOM_NAME.to_owned()),
            Some(init) if init == Path::new(RANDOM) && !init.exists() => {
                return Err(UsageError::of(anyhow!("--init {RANDOM}: leave --init out for {RANDOM_NAME}")));
            }
            Some(init) => {
                let named = run_of_init(init).unwrap_or_else(|| init.to_path_buf());
                let name = named.file_name().unwrap_or(named.as_os_str()).to_string_lossy().into_owned();
                (normalized(init), format!("pretrained ({name})"))
            }
        };
        let name = request.init_name.map_or(name, str::to_owned);
        let Some(CommonKeys { preset, encoder, .. }) = request.model.cloned() else {
            let preset = request.preset.unwrap_or(PRESETS[0]).to_owned();
            return Ok(Self { preset, encoder: None, init, name });
        };
        if let Some(wanted) = request.preset
            && preset != wanted
        {
            bail!("{init} is of a run of preset {preset}, not {wanted}: leave --preset out");
        }
        Ok(Self { preset, encoder: Some(encoder), init, name })
    }
}

/// The run that pretrained weights belong to: a file belongs to the run that it is in, if it is in one; a folder must be a
/// run.
pub(super) fn run_of_init(init: &Path) -> Option<PathBuf> {
    if init.is_file() { run_dir::run_of(init).ok() } else { Some(init.to_path_buf()) }
}

/// The same path is written in one way: without a slash at its end, and without `./` before it.
fn normalized(path: &Path) -> String {
    let path: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
    path.to_string_lossy().into_owned()
}
