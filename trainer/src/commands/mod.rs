//! What the subcommands do, from a resolved configuration on.

mod bench;
mod compare;
mod embed;
mod evaluate;
mod evaluate_segmentation;
mod export;
mod finetune;
mod import;
mod predict;
mod pretrain;
mod reconstruct;
mod report;
mod same_model;
mod segment;
mod sweep;
mod training_rows;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, bail};
use dataset::loader::LoaderBuilder;
use dataset::{Dataset, Label, Loader, Split, Subset, random};
use tch::nn::VarStore;
use tch::{Device, Tensor};

use crate::config::{AnyConfig, RunConfig};
use crate::task::objective::loader_for;
use crate::train::run_dir;
use crate::train::threads::{self, Threads};
use crate::weights;

pub use bench::{Measured, bench};
pub use compare::{Comparison, compare};
pub use embed::embed;
pub use evaluate::{EvaluationReport, FindingScores, evaluate};
pub use evaluate_segmentation::{SegmentationReport, evaluate_segmentation, segmentation_picture};
pub use export::{Exported, TARGETS, export};
pub use finetune::{Finetuning, Request, prepare_finetune, resolve_finetune};
pub use import::{Imported, import};
pub use predict::predict_records;
pub use pretrain::{pretrain, pretrain_steps, pretrain_transform, resolve_pretrain};
pub use reconstruct::reconstruct;
pub use report::report;
pub use same_model::without_init;
pub use segment::{Segmenting, is_segmentation, prepare_segmentation, resolve_segmentation};
pub(crate) use sweep::ratio_key;
pub use sweep::{Cell, Spread, Sweep, Swept, parse_start, sweep, table as sweep_table};

/// `auto`, `cpu` or `cuda:N`.
pub fn device(name: &str) -> Result<Device> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "auto" => Ok(Device::cuda_if_available()),
        other => {
            let index = other.strip_prefix("cuda:").and_then(|index| index.parse::<usize>().ok());
            let index = index.with_context(|| format!("no device `{other}`: give auto, cpu or cuda:N"))?;
            let found = tch::Cuda::device_count();
            if (index as i64) < found {
                return Ok(Device::Cuda(index));
            }
            bail!("no device cuda:{index} here ({found} CUDA devices found)")
        }
    }
}

/// A device as it is typed.
pub(crate) fn device_name(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".to_owned(),
        Device::Cuda(index) => format!("cuda:{index}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// Sets the threads of a run, and says where it computes and with how many.
fn place(device: Device, run: &RunConfig) -> String {
    let Threads { count, from } = threads::set(run.threads);
    let loader = loader_threads(device, run);
    let threads = dataset::commands::cli::counted(count, "thread");
    format!("{} with {threads} ({from}) and {loader} of the loader", device_name(device))
}

fn loader_threads(device: Device, run: &RunConfig) -> usize {
    if run.loader_threads == 0 { threads::of_loader(device) } else { run.loader_threads }
}

/// Where a run's data comes from.
pub struct DataSource {
    pub dataset: Arc<Dataset>,
    pub split: Option<Split>,
    labels: OnceLock<Arc<Codes>>,
}

/// Label codes by record and finding.
type Codes = Vec<Vec<Option<i8>>>;

impl DataSource {
    /// Opens a dataset and, if one is named, its split.
    pub fn open(folder: &Path, split: Option<&str>) -> Result<Self> {
        let dataset = Arc::new(Dataset::open(folder)?);
        let split = split.map(|name| Split::load(&dataset, name)).transpose()?;
        Ok(Self { dataset, split, labels: OnceLock::new() })
    }

    /// What dataset this is: source, records, and a digest of its manifest, which has the digests of all shards.
    pub fn identity(&self) -> String {
        let manifest = self.dataset.manifest();
        let digest = random::digest(&serde_json::to_string(manifest).unwrap_or_default());
        format!("{}, {} records, {digest:016x}", manifest.source, self.dataset.len())
    }

    /// Identity of the dataset, name of the split, and a digest of who is in which of its subsets; without a split, no
    /// text for both.
    pub fn identities(&self) -> (String, String, String) {
        let split = self.split.as_ref();
        let members = split.map_or_else(String::new, |split| {
            let subset = |member: &dataset::split::Member| member.subset.map_or("", Subset::name);
            let lines = split.members.iter().map(|member| format!("{} {}\n", member.record_id, subset(member)));
            format!("{:016x}", random::digest(&lines.collect::<String>()))
        });
        (self.identity(), split.map_or_else(String::new, |split| split.name.clone()), members)
    }

    /// Digest of the dataset's tokenizer; no text without one.
    pub fn tokenizer(&self) -> String {
        self.dataset.manifest().text.tokenizer_sha256.chars().take(16).collect()
    }

    /// The label codes of all records, read once.
    fn labels(&self) -> Result<Arc<Codes>> {
        if let Some(labels) = self.labels.get() {
            return Ok(labels.clone());
        }
        let codes = |row: Vec<Option<Label>>| row.into_iter().map(|label| label.map(Label::code)).collect();
        let labels = Arc::new(self.dataset.labels()?.into_iter().map(codes).collect());
        Ok(self.labels.get_or_init(|| labels).clone())
    }

    /// A loader of shuffled batches to train on; a last batch that is not full is left out where there are full ones.
    fn training_loader(&self, rows: &[u32], batch_size: usize, run: &RunConfig, device: Device) -> LoaderBuilder {
        let threads = loader_threads(device, run);
        // Each batch ahead is as much pinned memory: no more of them than keep every thread at work.
        let ahead = if device.is_cuda() { threads + 2 } else { 0 };
        loader_for(device, Loader::builder(&self.dataset))
            .prefetch(ahead)
            .rows(rows.to_vec())
            .batch_size(batch_size)
            .seed(run.seed)
            .drop_last(rows.len() >= batch_size)
            .threads(threads)
    }

    /// Identifiers of rows; numbers where they cannot be read.
    fn record_ids(&self, rows: &[u32]) -> Vec<String> {
        let ids = self.dataset.texts("record_id").unwrap_or_default();
        let id = |&row: &u32| ids.get(row as usize).cloned().flatten().unwrap_or_else(|| format!("row {row}"));
        rows.iter().map(id).collect()
    }

    /// All rows, or those of the split, or of one of its subsets.
    ///
    /// # Errors
    /// When a subset is unknown, or given without a split.
    pub fn rows(&self, subset: Option<&str>) -> Result<Vec<u32>> {
        let Some(split) = &self.split else { return Ok(self.dataset.all_rows()?) };
        let Some(name) = subset else {
            let all = [Subset::Train, Subset::Validate, Subset::Test];
            let mut rows: Vec<u32> = all.into_iter().flat_map(|subset| split.rows(subset, None)).collect();
            rows.sort_unstable();
            return Ok(rows);
        };
        Ok(split.rows(Subset::parse(name).context("an unknown subset")?, None))
    }

    fn split(&self) -> Result<&Split> {
        self.split.as_ref().context("this needs --split NAME; `dataset split` makes one")
    }
}

/// Says where start weights, or what these began with, were trained on records of this dataset that its split may test on.
/// `identities` are those of the dataset and the split ([`DataSource::identities`]).
fn seen_before(init: &str, (dataset, name, members): (&str, &str, &str)) -> Option<String> {
    let mut init = init.to_owned();
    // Runs that began with runs: no chain is longer than this.
    for _ in 0..16 {
        let run = run_dir::run_of(Path::new(&init)).ok()?;
        let config = AnyConfig::load(&run).ok()?;
        let (seen, split, seen_members, before) = config.trained_on();
        if seen == dataset && seen_members != members {
            let how = if split.is_empty() { "all records".to_owned() } else { format!("split `{split}`") };
            return Some(format!(
                "{} was trained on {how} of this dataset: split `{name}` may test on patients it has seen, and figures on \
                 that subset are then too good",
                run.display()
            ));
        }
        before.clone_into(&mut init);
    }
    None
}

/// A remark if start weights are those of a run that has not made all its updates. A file is what the user chose.
fn unfinished_start(init: &str) -> Option<String> {
    let run = Path::new(init);
    let config = run.is_dir().then(|| AnyConfig::load(run).ok()).flatten()?;
    run_dir::unfinished(run, config.steps())
}

/// Warns about a run that has not made all its steps.
fn warn_unfinished(run: &Path, steps: u64) {
    run_dir::unfinished(run, steps).iter().for_each(|message| dataset::cli_eprintln!("warning: {message}"));
}

/// Initializes a model with pretrained weights, except for the names that `skip` selects, and prints what was loaded.
fn initialize(
    store: &VarStore,
    source: &Path,
    skip: fn(&str) -> bool,
    hint: fn(&[(String, Tensor)]) -> String,
) -> Result<()> {
    let report = weights::source::initialize(store, source, skip, hint)?;
    dataset::cli_println!("{}: {report}", source.display());
    Ok(())
}

/// Sets torch's generator, from which start values come.
fn seed_start_values(run: &RunConfig) {
    tch::manual_seed(random::mix(&[run.seed, random::digest("start values")]) as i64);
}

/// Rows to look at: so many of the test subset (or of all records) drawn with a seed, or those named.
fn choose_rows(source: &DataSource, wanted: &str, seed: u64) -> Result<Vec<u32>> {
    let Ok(count) = wanted.parse::<usize>() else {
        return wanted.split(',').map(|id| Ok(source.dataset.row_of(id.trim())? as u32)).collect();
    };
    let mut rows = match &source.split {
        Some(split) => split.rows(Subset::Test, None),
        None => source.dataset.all_rows()?,
    };
    random::Stream::new(&[seed, random::digest("rows")]).shuffle(&mut rows);
    rows.truncate(count);
    if rows.is_empty() {
        bail!("no record to restore");
    }
    Ok(rows)
}
