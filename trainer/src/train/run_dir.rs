//! A run's directory: `config.toml`, `metrics.jsonl`, TensorBoard events, `checkpoints/step-N/`, `latest`, `best`.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dataset::LoaderState;
use dataset::store::files;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::train::amp::LossScaleState;
use crate::train::tensorboard::{self, TIME};
use crate::weights::load::LoadReport;

/// File names of a checkpoint.
pub const MODEL: &str = "model.safetensors";
/// The moving average of the weights.
const EMA: &str = "ema.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
const CONFIG: &str = "config.toml";
const METRICS: &str = "metrics.jsonl";
/// Names within a run.
const CHECKPOINTS: &str = "checkpoints";
const LATEST: &str = "latest";
const BEST: &str = "best.safetensors";
const LOCK: &str = ".lock";

/// What a checkpoint keeps beside tensors. Random numbers need no state: each step is seeded by its number.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Updates made.
    pub step: u64,
    /// Updates that the run is to make; 0 in checkpoints of older builds.
    #[serde(default)]
    pub total: u64,
    pub loader: LoaderState,
    /// Best evaluation so far, and after how many updates.
    #[serde(with = "exact")]
    pub best: Option<(f64, u64)>,
    /// Evaluations since then.
    #[serde(default)]
    pub since_best: u64,
    /// Updates that were skipped because the loss or a gradient was no number.
    pub skipped: u64,
    /// How many of them were the last ones in a row.
    #[serde(default)]
    pub skipped_in_a_row: u64,
    /// The loss scale of float16.
    #[serde(default)]
    pub loss_scale: Option<LossScaleState>,
    /// Whether the evaluation after the last update is still to be made: it failed because its records could not be read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub evaluation_due: bool,
}

impl State {
    /// Whether as many evaluations as a patience allows have brought no better score; a patience of 0 allows all.
    pub fn is_out_of_patience(&self, patience: u64) -> bool {
        patience > 0 && self.since_best >= patience
    }
}

/// A score as text, since a JSON number may be read one bit off.
mod exact {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub fn serialize<S: Serializer>(best: &Option<(f64, u64)>, serializer: S) -> Result<S::Ok, S::Error> {
        best.map(|(score, step)| (format!("{score:?}"), step)).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<(f64, u64)>, D::Error> {
        let best = Option::<(String, u64)>::deserialize(deserializer)?;
        best.map(|(score, step)| Ok((score.parse().map_err(serde::de::Error::custom)?, step))).transpose()
    }
}

/// A checkpoint that was read.
pub struct Checkpoint {
    pub state: State,
    pub model: Tensors,
    pub optimizer: Tensors,
    /// The moving average of the weights, if the run keeps one.
    pub ema: Option<Tensors>,
}

/// Named tensors.
pub type Tensors = Vec<(String, Tensor)>;

/// A run's directory, locked while it is held.
pub struct RunDir {
    path: PathBuf,
    /// Whether this process made it.
    fresh: bool,
    _lock: File,
}

impl RunDir {
    /// Opens or makes the directory for a run of this configuration, which comes to `total` updates. A run that is there may
    /// become longer, or shorter than it was to be, but not shorter than it is.
    ///
    /// # Errors
    /// When it holds a run of another configuration or one that has made more updates, or another process works on it.
    pub fn open<C: Serialize + DeserializeOwned + PartialEq>(path: &Path, config: &C, total: u64) -> Result<Self> {
        files::make_folder(&path.join(CHECKPOINTS)).with_context(|| format!("cannot make {}", path.display()))?;
        let lock = File::create(path.join(LOCK)).with_context(|| format!("cannot lock {}", path.display()))?;
        if !files::lock(&lock, path)? {
            bail!("another trainer works on {} now", path.display());
        }
        let text = toml::to_string(config)?;
        let kept = path.join(CONFIG);
        let fresh = !kept.exists();
        if fresh && let Some(foreign) = foreign_file(path)? {
            bail!("{} holds other files ({foreign}) and no run; take another --run directory", path.display());
        }
        if !fresh && has_begun(path) {
            let before: toml::Table = load_config(path)?;
            let now: toml::Table = text.parse()?;
            let other_length = LENGTH.map(|key| setting(&before, key)) != LENGTH.map(|key| setting(&now, key));
            if deciding(before, other_length) != deciding(now, other_length) {
                let changed = changed_lines(&files::read_text(&kept)?, &text);
                bail!(
                    "{} holds a run of another configuration ({changed}); take another directory, or delete it",
                    path.display()
                );
            }
            if other_length {
                check_length(path, steps(path).pop().unwrap_or(0), total)?;
            }
        }
        files::write_atomic(&kept, text.as_bytes())?;
        Ok(Self { path: path.to_path_buf(), fresh, _lock: lock })
    }

    /// Where the run lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a checkpoint in one step: a folder under a temporary name, synced, renamed; then `latest` points to it.
    pub fn save(&self, state: &State, model: &Tensors, optimizer: &Tensors, ema: Option<&Tensors>) -> Result<()> {
        let name = format!("step-{}", state.step);
        let folder = self.path.join(CHECKPOINTS).join(&name);
        let temporary = self.path.join(CHECKPOINTS).join(format!(".{name}.tmp"));
        let _ = fs::remove_dir_all(&temporary);
        let written = (|| -> Result<()> {
            fs::create_dir_all(&temporary)?;
            let files = [(MODEL, Some(model)), (OPTIMIZER, Some(optimizer)), (EMA, ema)];
            for (file, tensors) in files.into_iter().filter_map(|(file, tensors)| Some((file, tensors?))) {
                Tensor::write_safetensors(tensors, temporary.join(file))?;
                File::open(temporary.join(file))?.sync_all()?;
            }
            fs::write(temporary.join(STATE), serde_json::to_vec_pretty(state)?)?;
            File::open(temporary.join(STATE))?.sync_all()?;
            files::sync_folder(&temporary)?;
            // One of the same step is moved away first, since a folder cannot be renamed over another.
            let replaced = self.path.join(CHECKPOINTS).join(format!(".{name}.replaced.tmp"));
            let _ = fs::remove_dir_all(&replaced);
            let _ = fs::rename(&folder, &replaced);
            files::publish(&temporary, &folder)?;
            let _ = fs::remove_dir_all(&replaced);
            Ok(())
        })();
        if let Err(error) = written {
            let _ = fs::remove_dir_all(&temporary);
            return Err(error
                .context(format!("the checkpoint of step {} was not written; the one before is whole", state.step)));
        }
        self.point(LATEST, &format!("{CHECKPOINTS}/{name}"))
    }

    /// Keeps these weights as the best so far.
    pub fn save_best(&self, model: &Tensors) -> Result<()> {
        let path = self.path.join(BEST);
        let temporary = files::temporary(&path);
        let written = (|| -> Result<()> {
            Tensor::write_safetensors(model, &temporary)?;
            File::open(&temporary)?.sync_all()?;
            Ok(files::publish(&temporary, &path)?)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.with_context(|| format!("{} was not written", path.display()))
    }

    /// Makes a symbolic link anew in one step.
    fn point(&self, link: &str, target: &str) -> Result<()> {
        let temporary = self.path.join(format!(".{link}.tmp"));
        let _ = fs::remove_file(&temporary);
        std::os::unix::fs::symlink(target, &temporary)?;
        Ok(files::publish(&temporary, &self.path.join(link))?)
    }

    /// The newest whole checkpoint.
    pub fn load_latest(&self) -> Result<Option<Checkpoint>> {
        let Some(step) = steps(&self.path).pop() else { return Ok(None) };
        let name = format!("{CHECKPOINTS}/step-{step}");
        let folder = self.path.join(&name);
        self.point(LATEST, &name)?; // a kill may have come between the checkpoint and this
        let damaged = || {
            format!(
                "{} is damaged; delete this folder, and the run goes on from the checkpoint before",
                folder.display()
            )
        };
        let state: State = files::read_json(&folder.join(STATE)).with_context(damaged)?;
        let read = |name: &str| Tensor::read_safetensors(folder.join(name)).with_context(damaged);
        let ema = if folder.join(EMA).exists() { Some(read(EMA)?) } else { None };
        Ok(Some(Checkpoint { state, model: read(MODEL)?, optimizer: read(OPTIMIZER)?, ema }))
    }

    /// Removes all but the last `keep` checkpoints, and what killed runs left half-written.
    pub fn prune(&self, keep: usize) -> Result<()> {
        let (steps, folder) = (steps(&self.path), self.path.join(CHECKPOINTS));
        let remove =
            |path: &Path| fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()));
        for step in &steps[..steps.len().saturating_sub(keep.max(1))] {
            remove(&folder.join(format!("step-{step}")))?;
        }
        unfinished_checkpoints(&folder).iter().try_for_each(|path| remove(path))
    }

    /// The metrics log, cut back to what had happened by `step`.
    pub fn metrics(&self, step: u64) -> Result<MetricsLog> {
        let path = self.path.join(METRICS);
        // The lines are kept as they are: numbers may change when they are read and written.
        let (kept, lines): (Vec<Vec<u8>>, Vec<serde_json::Value>) = metrics_lines(&path)?
            .into_iter()
            .filter(|(_, line)| line["step"].as_u64().is_some_and(|at| at <= step))
            .unzip();
        files::write_atomic(&path, &kept.concat())?;
        let events = tensorboard::Events::create(&self.path, &lines)?;
        Ok(MetricsLog { file: OpenOptions::new().append(true).open(&path)?, events })
    }
}

/// Settings that say how long a run is, and those that keep their share of it.
const LENGTH: [&str; 2] = ["steps", "epochs"];
const SHARES_OF_LENGTH: [&str; 3] = ["warmup", "warmup_epochs", "evaluate_every"];

/// A setting of how a run optimizes.
fn setting<'a>(config: &'a toml::Table, key: &str) -> Option<&'a toml::Value> {
    config.get("optimizer")?.get(key)
}

/// An error where a run that has made so many updates cannot become one of `steps`; else a line that says how it goes on.
fn check_length(run: &Path, made: u64, steps: u64) -> Result<()> {
    if steps <= made {
        bail!(
            "{} has made {made} updates, and is to have {steps}: ask for more (--steps or --epochs), or take another --run \
             directory",
            run.display()
        );
    }
    if made > 0 {
        dataset::cli_eprintln!(
            "{} goes on from update {made} to {steps}; from here on its learning rate is that of a run of {steps} updates",
            run.display()
        );
    }
    Ok(())
}

/// Whether anything came of a run yet.
fn has_begun(path: &Path) -> bool {
    let logged = fs::metadata(path.join(METRICS)).is_ok_and(|metrics| metrics.len() > 0);
    logged || !steps(path).is_empty() || path.join(BEST).exists()
}

/// Steps of the checkpoints of a run, ascending.
fn steps(run: &Path) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(run.join(CHECKPOINTS)) else { return Vec::new() };
    let mut steps: Vec<u64> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.strip_prefix("step-")?.parse().ok()).collect();
    steps.sort_unstable();
    steps
}

/// What killed runs left of checkpoints that they were writing.
fn unfinished_checkpoints(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_unfinished = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with(".step-") && name.ends_with(".tmp"))
    };
    entries.map(|entry| entry.path()).filter(is_unfinished).collect()
}

/// The folder of a run's newest whole checkpoint. The link `latest` may be lost, or one behind after a kill; it counts
/// where `checkpoints` has none, as in a copy of a part of a run.
pub fn newest_checkpoint(run: &Path) -> Option<PathBuf> {
    let is_whole = |folder: &PathBuf| folder.join(MODEL).is_file() && folder.join(STATE).is_file();
    let kept = steps(run).into_iter().rev().map(|step| run.join(CHECKPOINTS).join(format!("step-{step}")));
    kept.chain([run.join(LATEST)]).find(is_whole)
}

/// A configuration without what decides no number of a run: these settings may change when it goes on.
/// With `other_length`, so may those that say how long it is.
fn deciding(mut config: toml::Table, other_length: bool) -> toml::Table {
    if let Some(optimizer) = config.get_mut("optimizer").and_then(toml::Value::as_table_mut) {
        optimizer.remove("patience");
        for key in LENGTH.iter().chain(&SHARES_OF_LENGTH).filter(|_| other_length) {
            optimizer.remove(*key);
        }
    }
    if let Some(run) = config.get_mut("run").and_then(toml::Value::as_table_mut) {
        for key in ["threads", "loader_threads", "log_every", "checkpoint_every", "keep_last", "skip_limit"] {
            run.remove(key);
        }
    }
    config
}

/// Temporary files that a run may leave in its folder when it is killed.
fn temporary_files(run: &Path) -> [PathBuf; 4] {
    let link = run.join(format!(".{LATEST}.tmp"));
    let [config, metrics, events] = [CONFIG, METRICS, tensorboard::NAME].map(|name| files::temporary(&run.join(name)));
    [config, metrics, events, link]
}

/// A file in a folder that is to become a run, which no run's beginning left there.
fn foreign_file(path: &Path) -> Result<Option<String>> {
    let own = temporary_files(path);
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let (name, at) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        // Its checkpoints at that time are unfinished ones.
        let is_empty = || Ok::<_, std::io::Error>(fs::read_dir(&at)?.count() == unfinished_checkpoints(&at).len());
        if !(name == LOCK || own.contains(&at) || (name == CHECKPOINTS && is_empty()?)) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

impl Drop for RunDir {
    /// A run that failed before anything came of it leaves no configuration in the way of the next try.
    fn drop(&mut self) {
        if !self.fresh || has_begun(&self.path) {
            return;
        }
        for file in temporary_files(&self.path) {
            let _ = fs::remove_file(file);
        }
        for folder in unfinished_checkpoints(&self.path.join(CHECKPOINTS)) {
            let _ = fs::remove_dir_all(folder);
        }
        for file in [CONFIG, METRICS, tensorboard::NAME, LOCK] {
            let _ = fs::remove_file(self.path.join(file));
        }
        for folder in [&self.path.join(CHECKPOINTS), &self.path] {
            let _ = fs::remove_dir(folder); // where nothing else is in it
        }
    }
}

/// `metrics.jsonl`, one object a line, and the same numbers as TensorBoard events.
pub struct MetricsLog {
    file: File,
    events: tensorboard::Events,
}

impl MetricsLog {
    /// Appends one line, with the time of day.
    pub fn write(&mut self, mut line: serde_json::Value) -> Result<()> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        line[TIME] = now.as_secs_f64().into();
        self.file.write_all(format!("{line}\n").as_bytes())?;
        self.events.write(&line)
    }

    /// Makes the lines so far durable, as those up to a checkpoint must be.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().context("the metrics were not written")
    }
}

/// The lines of a run's metrics; damaged ones are left out, as is the last one where a kill cut it.
pub fn read_metrics(run: &Path) -> Result<Vec<serde_json::Value>> {
    Ok(metrics_lines(&run.join(METRICS))?.into_iter().map(|(_, line)| line).collect())
}

/// The lines of a log that can be read, each as it is there and as JSON; none where there is no log.
fn metrics_lines(path: &Path) -> Result<Vec<(Vec<u8>, serde_json::Value)>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let bytes = files::read(path, files::MAX_TABLE_BYTES)?;
    let (mut lines, mut damaged) = (Vec::new(), 0);
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(value) => lines.push(([line.trim_ascii_end(), b"\n"].concat(), value)),
            // The last line may still be being written, or cut by a kill.
            Err(_) => damaged += usize::from(line.ends_with(b"\n") && !line.trim_ascii().is_empty()),
        }
    }
    if damaged > 0 {
        dataset::cli_eprintln!("warning: {}: {damaged} damaged lines are left out", path.display());
    }
    Ok(lines)
}

/// Where a run keeps its configuration.
pub fn config_path(run: &Path) -> PathBuf {
    run.join(CONFIG)
}

/// The stored configuration of a run.
pub fn load_config<C: DeserializeOwned>(run: &Path) -> Result<C> {
    let path = config_path(run);
    if !run.exists() {
        bail!("{} does not exist", run.display());
    }
    let text = files::read_text(&path).map_err(|error| {
        if path.exists() {
            return error.into();
        }
        if run.join(MODEL).is_file() {
            return anyhow::anyhow!(
                "{0} is not a run; `trainer import {0} --out FILE.safetensors` makes weights of it",
                run.display()
            );
        }
        anyhow::anyhow!("{} is not a run: it has no {CONFIG}{}", run.display(), runs_inside(run))
    })?;
    toml::from_str(&text).map_err(|error| match kind(&text) {
        Some(PRETRAINING) => anyhow::anyhow!(
            "{0} is {PRETRAINING}, which this command does not take; `trainer finetune --init {0}` makes one that it does",
            run.display()
        ),
        Some(kind) => anyhow::anyhow!("{} is {kind}, which this command does not take", run.display()),
        None => anyhow::Error::from(error).context(format!("{} is no configuration of a run", path.display())),
    })
}

/// `; did you mean A or B?` for a folder of runs; nothing if no run is in it.
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

const PRETRAINING: &str = "a pre-training run";

/// What kind of run a configuration is of, in words.
fn kind(text: &str) -> Option<&'static str> {
    let config: toml::Table = text.parse().ok()?;
    if config.get("model")?.get("decoder").is_some() {
        return Some(PRETRAINING);
    }
    if config.contains_key("prediction") {
        return Some("a segmentation run");
    }
    config.contains_key("findings").then_some("a run fine-tuned for classification")
}

/// The run that weights belong to: the folder itself, or the nearest one above a file that holds a configuration.
pub fn run_of(weights: &Path) -> Result<PathBuf> {
    let is_run = |folder: &&Path| {
        load_config::<toml::Table>(folder)
            .is_ok_and(|config| config.contains_key("preset") && config.contains_key("run"))
    };
    if !weights.exists() {
        bail!("{} does not exist", weights.display());
    }
    // An absolute path: a relative one ends above the folder it begins in.
    let path = std::path::absolute(weights)?;
    let steps = path.ancestors().position(|folder| is_run(&folder));
    let given = || weights.ancestors().map(Path::to_path_buf).filter(|folder| !folder.as_os_str().is_empty());
    steps
        .and_then(|steps| given().nth(steps).or_else(|| path.ancestors().nth(steps).map(Path::to_path_buf)))
        .with_context(|| format!("{} lies in no run: no {CONFIG} in it or above it", weights.display()))
}

/// What the newest checkpoint of a run keeps; none without one.
pub fn newest_state(run: &Path) -> Option<State> {
    files::read_json(&newest_checkpoint(run)?.join(STATE)).ok()
}

/// Whether a run has nothing left to do: it has made so many updates, or is out of the patience that it is configured with.
pub fn is_finished(run: &Path, steps: u64) -> bool {
    let config: toml::Table = load_config(run).unwrap_or_default();
    let patience = setting(&config, "patience").and_then(toml::Value::as_integer).unwrap_or(0);
    newest_state(run).is_some_and(|state| {
        !state.evaluation_due && (state.step >= steps || state.is_out_of_patience(patience.max(0) as u64))
    })
}

/// Says on the standard error where a run that is to be used has not made all its updates.
pub fn remark_unfinished(run: &Path, steps: u64) {
    if let Some(remark) = unfinished(run, steps) {
        dataset::cli_eprintln!("warning: {remark}");
    }
}

/// A remark if a run that is to be used has not made all its updates. `steps` is 0 for a run that counts in epochs: its
/// checkpoint has the number.
pub fn unfinished(run: &Path, steps: u64) -> Option<String> {
    let state = newest_state(run)?;
    let (made, all) = (state.step, if steps == 0 { state.total } else { steps });
    (made > 0 && !is_finished(run, all))
        .then(|| format!("{} has made {made} of its {all} updates: these are its weights so far", run.display()))
}

/// The weights of a run (the best ones, else the newest: their moving average, if there is one) or of a safetensors file.
pub fn weights(source: &Path) -> Result<Tensors> {
    let found = weights_file(source)?;
    Tensor::read_safetensors(&found).with_context(|| {
        let mut start = Vec::new();
        let _ = File::open(&found).and_then(|file| file.take(2).read_to_end(&mut start));
        let path = found.display();
        if start == b"PK" || start.first() == Some(&0x80) {
            return format!("{path} is a PyTorch file: `trainer import {path} --out FILE.safetensors` first");
        }
        format!("{path} is no safetensors file, or a damaged one")
    })
}

/// The file that [`weights`] reads.
pub fn weights_file(source: &Path) -> Result<PathBuf> {
    let newest = newest_checkpoint(source).map(|folder| [folder.join(EMA), folder.join(MODEL)]);
    let mut candidates =
        [source.join(BEST)].into_iter().chain(newest.into_iter().flatten()).chain([source.to_path_buf()]);
    let found = candidates.find(|path| path.is_file());
    if found.is_none() && source.join(CONFIG).is_file() {
        bail!("{} has no checkpoint yet; give its training command again, or let it go on", source.display());
    }
    found.with_context(|| format!("{} is neither a run with a checkpoint nor a safetensors file", source.display()))
}

/// Loads tensors into a store and says what fitted.
pub fn load(store: &tch::nn::VarStore, tensors: &Tensors) -> Result<LoadReport> {
    Ok(crate::weights::load::load_state(store, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)))?)
}

/// Loads start weights into a store but for those to `leave`, and says what fitted. `hint` says which sizes weights have
/// that do not fit.
///
/// # Errors
/// When they are of a model of other sizes, or of another kind: none of the encoder's blocks fits.
pub fn start_from(
    store: &tch::nn::VarStore,
    source: &Path,
    leave: fn(&str) -> bool,
    hint: fn(&[(String, Tensor)]) -> String,
) -> Result<()> {
    let mut tensors = weights(source)?;
    tensors.retain(|(name, _)| !leave(name));
    let report = load(store, &tensors)?;
    let of_encoder = |name: &str| name.starts_with("blocks.") || name.starts_with("patch_embed.");
    let loaded = report.matched.iter().any(|name| of_encoder(name));
    if let Some(name) = report.missing.iter().chain(&report.unexpected).find(|name| of_encoder(name) && loaded) {
        bail!(
            "{} holds an encoder of another depth or kind ({name}); choose the --preset it was made with{}",
            source.display(),
            hint(&tensors)
        );
    }
    if let Some(change) = report.mismatched.iter().find(|change| of_encoder(&change.name)) {
        bail!(
            "{} holds weights of another size: {} is {:?} there and {:?} here; choose the --preset they were made with{}",
            source.display(),
            change.name,
            change.from,
            change.to,
            hint(&tensors)
        );
    }
    if !loaded {
        bail!("{} holds no weights of an encoder: {report}", source.display());
    }
    dataset::cli_println!("{}: {report}", source.display());
    Ok(())
}

fn changed_lines(before: &str, now: &str) -> String {
    let new: Vec<&str> = now.lines().filter(|line| !before.lines().any(|old| old == *line)).take(3).collect();
    let was = |line: &str| {
        let key = line.split_once(" = ").map_or(line, |(key, _)| key);
        let old = before.lines().filter(|old| !now.lines().any(|line| line == *old));
        old.filter_map(|old| old.split_once(" = ")).find(|(name, _)| *name == key).map(|(_, value)| value.to_owned())
    };
    let told = |line: &&str| match was(line) {
        Some(value) => format!("{line}, was {value}"),
        None => (*line).to_owned(),
    };
    if new.is_empty() {
        return "settings were removed".to_owned();
    }
    format!("now {}", new.iter().map(told).collect::<Vec<_>>().join("; "))
}
