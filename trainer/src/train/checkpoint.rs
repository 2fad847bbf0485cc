//! Checkpoints of a run: `checkpoints/step-N/` with the link `latest`, the best weights, and which checkpoints are kept.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail};
use dataset::LoaderState;
use dataset::store::files;
use safetensors::SafeTensorError;
use serde::{Deserialize, Serialize};
use tch::{TchError, Tensor};

use crate::train::amp::LossScaleState;
use crate::train::source_losses::SourceLosses;
use crate::weights::Tensors;
use crate::weights::load::check_finite;

/// The weights of a checkpoint.
pub const MODEL: &str = "model.safetensors";
/// The moving average of the weights.
pub const EMA: &str = "ema.safetensors";
/// What helps where a checkpoint cannot be used.
pub(super) const REMEDY: &str = "delete this checkpoint's folder, and the run continues from the checkpoint before";

/// The best weights of a run, beside its checkpoints.
pub const BEST: &str = "best.safetensors";
/// Folder of the checkpoints in a run.
pub(super) const FOLDER: &str = "checkpoints";
/// Link to the newest checkpoint.
pub(super) const LATEST: &str = "latest";
const OPTIMIZER: &str = "optimizer.safetensors";
/// The optimizer's file in checkpoints of older versions.
const OPTIMIZER_BEFORE: &str = "optimiser.safetensors";
const STATE: &str = "state.json";

/// What a checkpoint keeps beside tensors. Random numbers need no state: each step is seeded by its number.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Steps made.
    pub step: u64,
    /// Steps of the whole run; 0 in checkpoints of older versions.
    #[serde(default)]
    pub total: u64,
    /// Position of the loader.
    pub loader: LoaderState,
    /// Best evaluation so far, and the number of steps before it.
    #[serde(with = "exact")]
    pub best: Option<(f64, u64)>,
    /// Evaluations since the best one.
    #[serde(default)]
    pub since_best: u64,
    /// Steps that were skipped because the loss or a gradient was not finite.
    pub skipped: u64,
    /// How many of them were the last ones in a row.
    #[serde(default)]
    pub skipped_in_a_row: u64,
    /// The loss scale of float16.
    #[serde(default)]
    pub loss_scale: Option<LossScaleState>,
    /// Losses by dataset of a mixture since the last line of the log.
    #[serde(default, skip_serializing_if = "SourceLosses::is_empty")]
    pub source_losses: SourceLosses,
    /// Whether the evaluation after the last step is still to be made, because its records could not be read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub evaluation_due: bool,
}

impl State {
    /// Whether `patience` evaluations in a row brought no better score; a patience of 0 means no limit.
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
    /// Its folder.
    pub folder: PathBuf,
    /// What is not a tensor.
    pub state: State,
    /// The weights.
    pub model: Tensors,
    /// The optimizer's state.
    pub optimizer: Tensors,
    /// Name of the optimizer's file.
    pub optimizer_file: &'static str,
    /// The moving average of the weights, if the run keeps one.
    pub ema: Option<Tensors>,
}

/// Which checkpoints of a run are kept: the newest `keep_last`, at least one. The best weights are a file of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Number of checkpoints to keep.
    pub keep_last: usize,
}

impl Retention {
    /// The checkpoints to remove, of those at `steps` (ascending).
    fn expired(self, steps: &[u64]) -> &[u64] {
        &steps[..steps.len().saturating_sub(self.keep_last.max(1))]
    }
}

/// The checkpoints of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoints {
    run: PathBuf,
}

impl Checkpoints {
    /// The checkpoints of the run in a directory.
    pub fn of(run: &Path) -> Self {
        Self { run: run.to_path_buf() }
    }

    /// Writes a checkpoint atomically: a folder under a temporary name, synced, renamed; then `latest` points to it.
    ///
    /// # Errors
    /// When a file cannot be written; the checkpoints before it are not touched.
    pub fn save(&self, state: &State, model: &Tensors, optimizer: &Tensors, ema: Option<&Tensors>) -> Result<()> {
        let name = format!("step-{}", state.step);
        let folder = self.folder().join(&name);
        let temporary = self.folder().join(format!(".{name}.tmp"));
        let _ = fs::remove_dir_all(&temporary);
        let written = (|| -> Result<()> {
            fs::create_dir_all(&temporary).with_context(|| format!("cannot make {}", temporary.display()))?;
            let files = [(MODEL, Some(model)), (OPTIMIZER, Some(optimizer)), (EMA, ema)];
            for (file, tensors) in files.into_iter().filter_map(|(file, tensors)| Some((file, tensors?))) {
                Tensor::write_safetensors(tensors, temporary.join(file))?;
                sync(&temporary.join(file))?;
            }
            let path = temporary.join(STATE);
            let written = fs::write(&path, serde_json::to_vec_pretty(state)?);
            written.with_context(|| format!("cannot write {}", path.display()))?;
            sync(&path)?;
            files::sync_folder(&temporary)?;
            // A checkpoint of the same step is moved away first, since a folder cannot be renamed over another.
            let replaced = self.folder().join(format!(".{name}.replaced.tmp"));
            let _ = fs::remove_dir_all(&replaced);
            let _ = fs::rename(&folder, &replaced);
            if let Err(error) = files::publish(&temporary, &folder) {
                let _ = fs::rename(&replaced, &folder); // fails where the new checkpoint has its name already
                return Err(error.into());
            }
            let _ = fs::remove_dir_all(&replaced);
            Ok(())
        })();
        if let Err(error) = written {
            let _ = fs::remove_dir_all(&temporary);
            return Err(error
                .context(format!("the checkpoint of step {} was not written; the one before is whole", state.step)));
        }
        self.point_latest(&name)
    }

    /// Writes these weights as the best so far, atomically.
    ///
    /// # Errors
    /// When the file cannot be written; the best weights before are not touched.
    pub fn save_best(&self, model: &Tensors) -> Result<()> {
        let path = self.run.join(BEST);
        let temporary = files::temporary(&path);
        let written = (|| -> Result<()> {
            Tensor::write_safetensors(model, &temporary)?;
            sync(&temporary)?;
            Ok(files::publish(&temporary, &path)?)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.with_context(|| format!("{} was not written", path.display()))
    }

    /// The newest whole checkpoint, with `latest` pointing to it; none where the run has none.
    ///
    /// # Errors
    /// When it is damaged or of another step, or cannot be read.
    pub fn load_latest(&self) -> Result<Option<Checkpoint>> {
        let Some(step) = self.steps()?.pop() else { return Ok(None) };
        let name = format!("step-{step}");
        let folder = self.folder().join(&name);
        let path = folder.display();
        let problem = |is_unread: bool| {
            if is_unread {
                return format!("{path} cannot be read");
            }
            format!("{path} is damaged; {REMEDY}")
        };
        let state: State = files::read_json(&folder.join(STATE)).map_err(|error| {
            let is_unread = matches!(&error, dataset::Error::Io { cause, .. } if may_pass(cause));
            Error::from(error).context(problem(is_unread))
        })?;
        if state.step != step {
            bail!("{path}/{STATE} is the state after step {}, not after step {step}; {REMEDY}", state.step);
        }
        let read = |name: &str| {
            Tensor::read_safetensors(folder.join(name)).map_err(|error| {
                let cause = match &error {
                    TchError::SafeTensorError { err: SafeTensorError::IoError(cause), .. } => Some(cause),
                    _ => None,
                };
                let is_unread = cause.is_some_and(may_pass);
                Error::from(error).context(problem(is_unread))
            })
        };
        let ema = if exists(&folder.join(EMA))? { Some(read(EMA)?) } else { None };
        let has_old_name = !exists(&folder.join(OPTIMIZER))? && exists(&folder.join(OPTIMIZER_BEFORE))?;
        let optimizer_file = if has_old_name { OPTIMIZER_BEFORE } else { OPTIMIZER };
        let optimizer = read(optimizer_file)?;
        let model = read(MODEL)?;
        check_finite(&model).with_context(|| problem(false))?;
        self.point_latest(&name)?; // a kill may have come between the checkpoint and its link
        Ok(Some(Checkpoint { folder, state, model, optimizer, optimizer_file, ema }))
    }

    /// Removes the checkpoints that are not to be kept, and those that killed runs left half-written. The checkpoint that
    /// `latest` points to is kept.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn prune(&self, retention: Retention) -> Result<()> {
        let remove =
            |path: &Path| fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()));
        let (steps, latest) = (self.steps()?, self.latest()?);
        for step in retention.expired(&steps) {
            let name = format!("step-{step}");
            if latest.as_deref() != Some(OsStr::new(&name)) {
                remove(&self.folder().join(name))?;
            }
        }
        self.unfinished()?.iter().try_for_each(|path| remove(path))
    }

    /// Steps of the checkpoints, ascending.
    ///
    /// # Errors
    /// When their folder cannot be read. Where there is no such folder, there are no checkpoints.
    pub fn steps(&self) -> Result<Vec<u64>> {
        let step = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok();
        let mut steps: Vec<u64> = self.entries()?.iter().filter_map(step).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// Checkpoints that killed runs left half-written.
    ///
    /// # Errors
    /// As [`steps`](Self::steps).
    pub(super) fn unfinished(&self) -> Result<Vec<PathBuf>> {
        let is_unfinished = |path: &PathBuf| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with(".step-") && name.ends_with(".tmp"))
        };
        Ok(self.entries()?.into_iter().filter(is_unfinished).collect())
    }

    /// Paths of all that is in the folder of the checkpoints; none where there is no such folder.
    fn entries(&self) -> Result<Vec<PathBuf>> {
        let folder = self.folder();
        let unread = || format!("cannot read {}", folder.display());
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(unread),
        };
        entries.map(|entry| entry.map(|entry| entry.path()).with_context(unread)).collect()
    }

    /// Name of the checkpoint that `latest` points to; none where there is no such link.
    fn latest(&self) -> Result<Option<OsString>> {
        let link = self.run.join(LATEST);
        match fs::read_link(&link) {
            Ok(target) => Ok(target.file_name().map(OsStr::to_os_string)),
            // In a copy of a run, it may be a folder.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", link.display())),
        }
    }

    fn folder(&self) -> PathBuf {
        self.run.join(FOLDER)
    }

    /// Replaces the link `latest` atomically.
    fn point_latest(&self, name: &str) -> Result<()> {
        self.remove_copied_latest()?;
        let temporary = temporary_link(&self.run);
        let _ = fs::remove_file(&temporary);
        std::os::unix::fs::symlink(format!("{FOLDER}/{name}"), &temporary)
            .with_context(|| format!("cannot make {}", temporary.display()))?;
        Ok(files::publish(&temporary, &self.run.join(LATEST))?)
    }

    /// Removes a `latest` that is a copy of a checkpoint in place of the link: programs that follow links leave it when they copy a
    /// run.
    fn remove_copied_latest(&self) -> Result<()> {
        let copy = self.run.join(LATEST);
        if copy.is_symlink() || !copy.is_dir() {
            return Ok(());
        }
        let path = copy.join(STATE);
        let state = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let is_kept = |step: &u64| {
            fs::read(self.folder().join(format!("step-{step}")).join(STATE)).is_ok_and(|kept| kept == state)
        };
        if self.steps()?.iter().any(is_kept) {
            return fs::remove_dir_all(&copy).with_context(|| format!("cannot remove {}", copy.display()));
        }
        bail!(
            "{} is a folder with a checkpoint that is not in {}; move it there under the name step-N",
            copy.display(),
            self.folder().display()
        )
    }
}

/// Whether there is a file or folder.
///
/// # Errors
/// When the system does not tell, so that a fault of the disk or network is not taken for a missing file.
pub(super) fn exists(path: &Path) -> Result<bool> {
    match path.try_exists() {
        // The path leads through a file.
        Err(error) if error.kind() == ErrorKind::NotADirectory => Ok(false),
        found => found.with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Makes the content of a file durable.
fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).with_context(|| format!("cannot sync {}", path.display()))
}

/// Whether a file that could not be read for this reason may still be whole: its disk or network has a fault.
fn may_pass(cause: &io::Error) -> bool {
    !matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::InvalidData | ErrorKind::InvalidInput)
}

/// The temporary name of the link `latest`.
pub(super) fn temporary_link(run: &Path) -> PathBuf {
    run.join(format!(".{LATEST}.tmp"))
}

/// The folder of a run's newest whole checkpoint. The link `latest` may be lost, or one behind after a kill; it is used
/// only where `checkpoints` has none, as in a copy of a part of a run, or cannot be read.
pub fn newest_checkpoint(run: &Path) -> Option<PathBuf> {
    let is_whole = |folder: &PathBuf| folder.join(MODEL).is_file() && folder.join(STATE).is_file();
    let steps = Checkpoints::of(run).steps().unwrap_or_default().into_iter().rev();
    let folders = steps.map(|step| run.join(FOLDER).join(format!("step-{step}")));
    folders.chain([run.join(LATEST)]).find(is_whole)
}

/// The state of a run's newest checkpoint; none without one, or where it cannot be read.
pub fn newest_state(run: &Path) -> Option<State> {
    files::read_json(&newest_checkpoint(run)?.join(STATE)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_newest_checkpoints_are_kept() {
        let expired = |keep_last| Retention { keep_last }.expired(&[2, 4, 6]).to_vec();
        assert_eq!([expired(0), expired(1), expired(2), expired(9)], [vec![2, 4], vec![2, 4], vec![2], vec![]]);
    }

    #[test]
    fn a_state_of_an_older_version_is_read() {
        let json = r#"{"step": 3, "loader": {"epoch": 0, "batch": 3}, "best": ["0.1", 2], "skipped": 1,
                       "loss_scale": {"scale": 512.0, "updates": 7.0}}"#;
        let state: State = serde_json::from_str(json).unwrap();
        assert_eq!((state.step, state.total, state.best, state.skipped), (3, 0, Some((0.1, 2)), 1));
        assert_eq!(state.loss_scale, Some(LossScaleState { scale: 512.0, steps: 7.0 }));
    }

    #[test]
    fn the_optimizers_file_is_read_under_its_name_of_older_versions() {
        let run = std::env::temp_dir().join(format!("trainer-checkpoint-{}", std::process::id()));
        fs::create_dir_all(run.join(FOLDER)).unwrap();
        let tensors = |value: f32| -> Tensors { vec![("weight".to_owned(), Tensor::from_slice(&[value]))] };
        let checkpoints = Checkpoints::of(&run);
        let state = State { step: 5, ..State::default() };
        checkpoints.save(&state, &tensors(1.0), &tensors(2.0), None).unwrap();
        let folder = newest_checkpoint(&run).unwrap();
        fs::rename(folder.join(OPTIMIZER), folder.join(OPTIMIZER_BEFORE)).unwrap();
        let read = checkpoints.load_latest().unwrap().unwrap();
        let values: BTreeMap<String, Tensor> = read.optimizer.into_iter().collect();
        assert_eq!((read.state.step, values["weight"].double_value(&[0])), (5, 2.0));
        // Where both are there, today's name counts.
        checkpoints.save(&state, &tensors(1.0), &tensors(3.0), None).unwrap();
        Tensor::write_safetensors(&tensors(4.0), folder.join(OPTIMIZER_BEFORE)).unwrap();
        let read = checkpoints.load_latest().unwrap().unwrap();
        assert_eq!(read.optimizer[0].1.double_value(&[0]), 3.0);
        fs::remove_dir_all(&run).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one() {
        let run = std::env::temp_dir().join(format!("trainer-checkpoint-unread-{}", std::process::id()));
        let checkpoints = Checkpoints::of(&run);
        assert!(checkpoints.steps().unwrap().is_empty());
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join(FOLDER), "").unwrap();
        let message = format!("{:#}", checkpoints.steps().unwrap_err());
        assert!(message.contains(&format!("cannot read {}: ", run.join(FOLDER).display())), "{message}");
        assert!(checkpoints.load_latest().is_err() && checkpoints.prune(Retention { keep_last: 1 }).is_err());
        fs::remove_dir_all(&run).unwrap();
    }

    #[test]
    fn the_checkpoint_that_the_link_names_is_kept() {
        let run = std::env::temp_dir().join(format!("trainer-checkpoint-linked-{}", std::process::id()));
        let checkpoints = Checkpoints::of(&run);
        for step in [3, 5, 7, 9] {
            fs::create_dir_all(run.join(FOLDER).join(format!("step-{step}"))).unwrap();
        }
        checkpoints.point_latest("step-5").unwrap();
        checkpoints.prune(Retention { keep_last: 1 }).unwrap();
        assert_eq!(checkpoints.steps().unwrap(), [5, 9]);
        fs::remove_dir_all(&run).unwrap();
    }

    #[test]
    fn a_state_of_another_step_is_refused() {
        let run = std::env::temp_dir().join(format!("trainer-checkpoint-stale-{}", std::process::id()));
        let tensors: Tensors = vec![("weight".to_owned(), Tensor::from_slice(&[1.0f32]))];
        let checkpoints = Checkpoints::of(&run);
        fs::create_dir_all(run.join(FOLDER)).unwrap();
        checkpoints.save(&State { step: 5, ..State::default() }, &tensors, &tensors, None).unwrap();
        fs::rename(run.join(FOLDER).join("step-5"), run.join(FOLDER).join("step-7")).unwrap();
        let Err(error) = checkpoints.load_latest() else { panic!("a state of step 5 was read as that of step 7") };
        let message = error.to_string();
        assert!(message.contains("step-7/state.json is the state after step 5, not after step 7"), "{message}");
        fs::remove_dir_all(&run).unwrap();
    }

    #[test]
    fn incomplete_checkpoints_are_passed_over_and_only_unfinished_ones_removed() {
        let run = std::env::temp_dir().join(format!("trainer-checkpoint-whole-{}", std::process::id()));
        let tensors: Tensors = vec![("weight".to_owned(), Tensor::from_slice(&[1.0f32]))];
        let checkpoints = Checkpoints::of(&run);
        fs::create_dir_all(run.join(FOLDER)).unwrap();
        checkpoints.save(&State { step: 5, ..State::default() }, &tensors, &tensors, None).unwrap();
        let whole = newest_checkpoint(&run).unwrap();
        for (step, file) in [(7, MODEL), (9, STATE)] {
            let folder = run.join(FOLDER).join(format!("step-{step}"));
            fs::create_dir(&folder).unwrap();
            fs::copy(whole.join(file), folder.join(file)).unwrap();
        }
        assert_eq!(newest_checkpoint(&run), Some(whole));
        for name in [".step-3.tmp", ".step-3.replaced.tmp", ".step-mine", "mine.tmp"] {
            fs::create_dir(run.join(FOLDER).join(name)).unwrap();
        }
        checkpoints.prune(Retention { keep_last: 9 }).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(run.join(FOLDER)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".step-mine", "mine.tmp", "step-5", "step-7", "step-9"]);
        fs::remove_dir_all(&run).unwrap();
    }
}
