//! A run's directory: `config.toml`, `metrics.jsonl`, TensorBoard events, `checkpoints/step-N/`, `latest`, and the best
//! weights.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dataset::store::files;

use crate::config::{ConfigFile, IMPORTED};
use crate::train::checkpoint::{self, BEST, Checkpoints, MODEL, newest_state};
use crate::train::logger;

const CONFIG: &str = "config.toml";
const LOCK: &str = ".lock";

/// Files of the curve of a learning rate range test.
pub const RANGE_TEST: [&str; 2] = ["lr-range-test.json", "lr-range-test.csv"];

/// A run's directory, locked as long as this value exists.
pub struct RunDir {
    path: PathBuf,
    /// Whether this process made it.
    fresh: bool,
    notice: Option<String>,
    _lock: File,
}

impl RunDir {
    /// Opens or makes the directory for a run of this configuration with `total` steps. The number of steps of an existing
    /// run may change, but not to less than it has made.
    ///
    /// # Errors
    /// When the directory holds a run of another configuration or one that has made more steps, or another process uses it.
    pub fn open(path: &Path, config: &ConfigFile, total: u64) -> Result<Self> {
        files::make_folder(&path.join(checkpoint::FOLDER))
            .with_context(|| format!("cannot make {}", path.display()))?;
        let lock = File::create(path.join(LOCK)).with_context(|| format!("cannot lock {}", path.display()))?;
        if !files::lock(&lock, path)? {
            bail!("another trainer uses {} now", path.display());
        }
        let kept = path.join(CONFIG);
        let fresh = !checkpoint::exists(&kept)?;
        if fresh && let Some(foreign) = foreign_file(path)? {
            bail!("{} holds other files ({foreign}) and no run; take another --run directory", path.display());
        }
        let mut notice = None;
        if !fresh && has_results(path)? {
            let before = load_config(path)?;
            let before = config.complete(&before).unwrap_or(before);
            let tables = [before.table(), config.table()];
            let [old_length, new_length] = tables.map(|table| LENGTH.map(|key| setting(table, key)));
            let other_length = old_length != new_length;
            let [old, new] = tables.map(|table| deciding(table.clone(), other_length));
            if before.kind() != config.kind() || old != new {
                let changed = changed_lines(before.text(), config.text(), &differing(&old, &new));
                bail!(
                    "{} holds a run of another configuration ({changed}); take another directory, or delete it",
                    path.display()
                );
            }
            let made = Checkpoints::of(path).steps()?.pop().unwrap_or(0);
            if other_length {
                notice = check_length(path, made, total)?;
            }
            let [old, new] = tables.map(|table| table.get(MIXTURE).and_then(toml::Value::as_str));
            if old != new {
                let change = mixture_change(old.unwrap_or_default(), new.unwrap_or_default(), made);
                notice = Some(notice.map_or_else(|| change.clone(), |notice| format!("{notice}\n{change}")));
            }
        }
        files::write_atomic(&kept, config.text().as_bytes())?;
        Ok(Self { path: path.to_path_buf(), fresh, notice, _lock: lock })
    }

    /// Path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A message for the user about a run whose number of steps has changed.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }
}

/// Settings of the length of a run, and those that are a share of it.
const LENGTH: [&str; 2] = ["steps", "epochs"];
const SHARES_OF_LENGTH: [&str; 4] = ["warmup", "warmup_epochs", "evaluate_every", "cosine_steps"];

/// Shares and length of an epoch of a mixture of datasets.
const MIXTURE: &str = "mixture";

/// The message about a run whose mixture has changed after `made` steps.
fn mixture_change(old: &str, new: &str, made: u64) -> String {
    format!("the mixture is {new} from step {made} on, it was {old}; each dataset continues where it was")
}

/// A setting of the optimizer.
fn setting<'a>(config: &'a toml::Table, key: &str) -> Option<&'a toml::Value> {
    config.get("optimizer")?.get(key)
}

/// The message about a run with `made` steps that continues to `steps`; none where it has made no step.
///
/// # Errors
/// When it has made as many steps already.
fn check_length(run: &Path, made: u64, steps: u64) -> Result<Option<String>> {
    if steps <= made {
        bail!(
            "{} has made {made} steps, and {steps} are asked for: ask for more (--steps or --epochs), or take another --run \
             directory",
            run.display()
        );
    }
    Ok((made > 0).then(|| {
        format!(
            "{} continues from step {made} to {steps}; from here on its learning rate is that of a run of {steps} steps",
            run.display()
        )
    }))
}

/// Whether a run has results: a log, a checkpoint or best weights. One that cannot be read counts as a run with results, so
/// that none of its files is replaced or removed.
pub fn has_begun(path: &Path) -> bool {
    has_results(path).unwrap_or(true)
}

/// As [`has_begun`].
///
/// # Errors
/// When the run cannot be read.
fn has_results(path: &Path) -> Result<bool> {
    let [metrics, _] = logger::files(path);
    // `has_lines` takes a log that cannot be read for one without lines.
    if checkpoint::exists(&metrics)? && logger::has_lines(path) {
        return Ok(true);
    }
    Ok(!Checkpoints::of(path).steps()?.is_empty() || checkpoint::exists(&path.join(BEST))?)
}

/// Keys of `[run]` that no number depends on.
const RUNNING: [&str; 10] = [
    "threads",
    "loader_threads",
    "log_every",
    "checkpoint_every",
    "keep_last",
    "skip_limit",
    "master_weights",
    "gradient_sync",
    "join_timeout",
    "stall_timeout",
];

/// A configuration without the settings that may change when a run continues, since no number of it depends on them. With
/// `other_length`, the settings of its length are left out, too.
fn deciding(mut config: toml::Table, other_length: bool) -> toml::Table {
    config.remove(MIXTURE);
    if let Some(optimizer) = config.get_mut("optimizer").and_then(toml::Value::as_table_mut) {
        optimizer.remove("patience");
        optimizer.remove("lr_from");
        for key in LENGTH.iter().chain(&SHARES_OF_LENGTH).filter(|_| other_length) {
            optimizer.remove(*key);
        }
    }
    if let Some(run) = config.get_mut("run").and_then(toml::Value::as_table_mut) {
        run.retain(|key, _| !RUNNING.contains(&key));
    }
    config
}

/// Files that a killed or failed run may leave in its folder: temporary ones, and the curve of a range test.
fn left_files(run: &Path) -> Vec<PathBuf> {
    let [metrics, events] = logger::files(run).map(|path| files::temporary(&path));
    let mut all = vec![files::temporary(&run.join(CONFIG)), metrics, events, checkpoint::temporary_link(run)];
    for curve in RANGE_TEST.map(|name| run.join(name)) {
        all.extend([files::temporary(&curve), curve]);
    }
    all
}

/// A file in the folder of a new run that no run has left there.
fn foreign_file(path: &Path) -> Result<Option<String>> {
    let own = left_files(path);
    let unread = |path: &Path| format!("cannot read {}", path.display());
    for entry in fs::read_dir(path).with_context(|| unread(path))? {
        let entry = entry.with_context(|| unread(path))?;
        let (name, at) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        // A killed run may have left unfinished checkpoints.
        let is_empty = || -> Result<bool> {
            let entries = fs::read_dir(&at).with_context(|| unread(&at))?.count();
            Ok(entries == Checkpoints::of(path).unfinished()?.len())
        };
        if !(name == LOCK || own.contains(&at) || (name == checkpoint::FOLDER && is_empty()?)) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

impl Drop for RunDir {
    /// Removes the files of a run that failed without results, so that the next run can use the directory.
    fn drop(&mut self) {
        if !self.fresh || has_begun(&self.path) {
            return;
        }
        for file in left_files(&self.path) {
            let _ = fs::remove_file(file);
        }
        // What cannot be read or removed is left.
        for folder in Checkpoints::of(&self.path).unfinished().unwrap_or_default() {
            let _ = fs::remove_dir_all(folder);
        }
        let [metrics, events] = logger::files(&self.path);
        for file in [self.path.join(CONFIG), metrics, events, self.path.join(LOCK)] {
            let _ = fs::remove_file(file);
        }
        for folder in [&self.path.join(checkpoint::FOLDER), &self.path] {
            let _ = fs::remove_dir(folder); // fails where it holds anything else
        }
    }
}

/// Path of a run's configuration.
pub fn config_path(run: &Path) -> PathBuf {
    run.join(CONFIG)
}

/// The stored configuration of a run; keys of older versions are translated.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn load_config(run: &Path) -> Result<ConfigFile> {
    let path = config_path(run);
    if !checkpoint::exists(run)? {
        bail!("{} does not exist", run.display());
    }
    let text = files::read_text(&path).map_err(|error| {
        if checkpoint::exists(&path).unwrap_or(true) {
            return error.into();
        }
        if run.join(MODEL).is_file() {
            return anyhow::anyhow!(
                "{0} is not a run; `trainer import {0} --out FILE.safetensors` converts its weights",
                run.display()
            );
        }
        anyhow::anyhow!("{} is not a run: it has no {CONFIG}{}", run.display(), runs_inside(run))
    })?;
    ConfigFile::parse(&text, &path.display().to_string())
}

/// `; did you mean A or B?` for a folder of runs; empty if no run is in it, or it cannot be read.
fn runs_inside(folder: &Path) -> String {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut runs: Vec<String> =
        entries.filter(|run| run.join(CONFIG).is_file()).map(|run| run.display().to_string()).collect();
    runs.sort();
    match runs.len() {
        0 => String::new(),
        1..=3 => format!("; did you mean {}?", runs.join(" or ")),
        more => format!("; it holds {more} runs, {} among them", runs[0]),
    }
}

/// The run that weights belong to: the folder itself, or the nearest folder above them with a configuration.
///
/// # Errors
/// When there is none.
pub fn run_of(weights: &Path) -> Result<PathBuf> {
    let is_run = |folder: &&Path| {
        load_config(folder).is_ok_and(|config| {
            config.get("preset").is_some() && (config.get("run").is_some() || config.kind() == IMPORTED)
        })
    };
    if !weights.exists() {
        bail!("{} does not exist", weights.display());
    }
    // An absolute path: the ancestors of a relative path end at the working directory.
    let path = std::path::absolute(weights)?;
    let levels = path.ancestors().position(|folder| is_run(&folder));
    let given = || weights.ancestors().map(Path::to_path_buf).filter(|folder| !folder.as_os_str().is_empty());
    levels
        .and_then(|levels| given().nth(levels).or_else(|| path.ancestors().nth(levels).map(Path::to_path_buf)))
        .with_context(|| format!("{} is not in a run: no {CONFIG} in it or above it", weights.display()))
}

/// Whether a run has nothing left to do: it has made `steps` steps, or is out of its configured patience.
pub fn is_finished(run: &Path, steps: u64) -> bool {
    let config = load_config(run).ok();
    let patience = config.as_ref().and_then(|config| config.get("optimizer.patience")?.as_integer()).unwrap_or(0);
    newest_state(run).is_some_and(|state| {
        !state.evaluation_due && (state.step >= steps || state.is_out_of_patience(patience.max(0) as u64))
    })
}

/// A message about a run that has not made all its steps, for commands that use its weights. `steps` is 0 for a run that
/// counts in epochs: its checkpoint has the number.
pub fn unfinished(run: &Path, steps: u64) -> Option<String> {
    let state = newest_state(run)?;
    let (made, all) = (state.step, if steps == 0 { state.total } else { steps });
    (made > 0 && !is_finished(run, all))
        .then(|| format!("{} has made {made} of its {all} steps: these are its weights so far", run.display()))
}

/// The keys, without their sections, in which two configurations differ; and `kind`.
fn differing(old: &toml::Table, new: &toml::Table) -> BTreeSet<String> {
    let mut all = BTreeSet::from(["kind".to_owned()]);
    for key in old.keys().chain(new.keys()) {
        let values = [old, new].map(|table| table.get(key));
        let sections = values.map(|value| value.and_then(toml::Value::as_table).cloned());
        match sections {
            [None, None] if values[0] == values[1] => {}
            [None, None] => drop(all.insert(key.clone())),
            [old, new] => all.append(&mut differing(&old.unwrap_or_default(), &new.unwrap_or_default())),
        }
    }
    all
}

/// What has changed between two configurations in some keys: up to three lines.
fn changed_lines(before: &str, now: &str, keys: &BTreeSet<String>) -> String {
    let decides = |line: &&str| line.split_once(" = ").is_some_and(|(key, _)| keys.contains(key));
    let is_new = |line: &&str| !before.lines().any(|old| old == *line);
    let new: Vec<&str> = now.lines().filter(decides).filter(is_new).take(3).collect();
    let was = |line: &str| {
        let key = line.split_once(" = ").map_or(line, |(key, _)| key);
        let old = before.lines().filter(|old| !now.lines().any(|line| line == *old));
        old.filter_map(|old| old.split_once(" = ")).find(|(name, _)| *name == key).map(|(_, value)| value.to_owned())
    };
    let with_old_value = |line: &&str| match was(line) {
        Some(value) => format!("{line}, was {value}"),
        None => (*line).to_owned(),
    };
    if new.is_empty() {
        return "settings were removed".to_owned();
    }
    format!("now {}", new.iter().map(with_old_value).collect::<Vec<_>>().join("; "))
}
