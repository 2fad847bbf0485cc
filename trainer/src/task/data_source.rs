//! The data of a run: a dataset, and the split that it is trained or evaluated with.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, bail};
use dataset::loader::LoaderBuilder;
use dataset::{Dataset, Label, Loader, Ratio, Split, Subset, random};
use tch::Device;

use crate::config::{DatasetId, Provenance, RANDOM, RunConfig};
use crate::task::objective::loader_for;
use crate::train::threads;

/// A dataset, and a split of it where one is named.
pub struct DataSource {
    /// The dataset.
    pub dataset: Arc<Dataset>,
    /// The split.
    pub split: Option<Split>,
    labels: OnceLock<Arc<LabelCodes>>,
}

/// Label codes by record and finding: 1, 0, -1 (uncertain), or none.
pub type LabelCodes = Vec<Vec<Option<i8>>>;

/// Which records of a dataset, or of a split's test subset, a command looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowChoice {
    /// So many, drawn with a seed.
    Count(usize),
    /// Those with these identifiers.
    Records(Vec<String>),
}

impl DataSource {
    /// Opens a dataset and, if one is named, its split.
    ///
    /// # Errors
    /// When there is no such dataset or split, or the split fails its checks.
    pub fn open(folder: &Path, split: Option<&str>) -> Result<Self> {
        let dataset = Arc::new(Dataset::open(folder)?);
        let split = split.map(|name| Split::load(&dataset, name)).transpose()?;
        Ok(Self { dataset, split, labels: OnceLock::new() })
    }

    /// What dataset this is.
    pub fn dataset_id(&self) -> DatasetId {
        let manifest = self.dataset.manifest();
        let digest = random::digest(&serde_json::to_string(manifest).unwrap_or_default());
        DatasetId(manifest.source.clone(), self.dataset.len() as u64, format!("{digest:016x}"))
    }

    /// The provenance of a run on this data from random initialization.
    pub fn provenance(&self) -> Provenance {
        let split = self.split.as_ref();
        let split_members = split.map_or_else(String::new, |split| {
            let subset = |member: &dataset::split::Member| member.subset.map_or("", Subset::name);
            let lines = split.members.iter().map(|member| format!("{} {}\n", member.record_id, subset(member)));
            format!("{:016x}", random::digest(&lines.collect::<String>()))
        });
        Provenance {
            dataset: Some(self.dataset_id()),
            split: split.map_or_else(String::new, |split| split.name.clone()),
            split_members,
            init: RANDOM.to_owned(),
        }
    }

    /// Digest of the dataset's tokenizer; empty without one.
    pub fn tokenizer(&self) -> String {
        self.dataset.manifest().text.tokenizer_sha256.chars().take(16).collect()
    }

    /// The label codes of all records, read once.
    ///
    /// # Errors
    /// When the dataset cannot be read.
    pub fn labels(&self) -> Result<Arc<LabelCodes>> {
        if let Some(labels) = self.labels.get() {
            return Ok(labels.clone());
        }
        let codes = |row: Vec<Option<Label>>| row.into_iter().map(|label| label.map(Label::code)).collect();
        let labels = Arc::new(self.dataset.labels()?.into_iter().map(codes).collect());
        Ok(self.labels.get_or_init(|| labels).clone())
    }

    /// A builder of the loader that a run trains with: shuffled batches; an incomplete last batch is left out where there
    /// are complete ones.
    pub fn training_loader(&self, rows: &[u32], batch_size: usize, run: &RunConfig, device: Device) -> LoaderBuilder {
        let threads = loader_threads(device, run);
        // On CUDA, each batch ahead takes pinned memory: only as many as keep every thread busy.
        let ahead = if device.is_cuda() { threads + 2 } else { 0 };
        loader_for(device, Loader::builder(&self.dataset))
            .prefetch(ahead)
            .rows(rows.to_vec())
            .batch_size(batch_size)
            .seed(run.seed)
            .drop_last(rows.len() >= batch_size)
            .threads(threads)
    }

    /// Identifiers of rows; row numbers where they cannot be read.
    pub fn record_ids(&self, rows: &[u32]) -> Vec<String> {
        let ids = self.dataset.texts("record_id").unwrap_or_default();
        let id = |&row: &u32| ids.get(row as usize).cloned().flatten().unwrap_or_else(|| format!("row {row}"));
        rows.iter().map(id).collect()
    }

    /// A column of texts for some rows, in their order; empty where a record has none.
    ///
    /// # Errors
    /// When the dataset cannot be read.
    pub fn texts_of(&self, column: &str, rows: &[u32]) -> Result<Vec<String>> {
        let values = self.dataset.texts(column)?;
        Ok(rows.iter().map(|&row| values[row as usize].clone().unwrap_or_default()).collect())
    }

    /// All rows, or those of the split, or of one of its subsets.
    ///
    /// # Errors
    /// When a subset is unknown.
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

    /// The rows of a subset of the split; of the training subset at a percentage of its labels, where `percent` is given.
    ///
    /// # Errors
    /// When no split is named, or `percent` is not above 0 and at most 100.
    pub fn subset(&self, subset: Subset, percent: Option<f64>) -> Result<Vec<u32>> {
        Ok(self.split()?.rows(subset, percent.map(Ratio::from_percent).transpose()?))
    }

    /// An error unless the split has a training subset of this percentage of the labels.
    ///
    /// # Errors
    /// When it has none, or no split is named.
    pub fn check_ratio(&self, percent: f64) -> Result<()> {
        Ok(self.split()?.check_ratio(Ratio::from_percent(percent)?)?)
    }

    /// A warning where a ratio is far from its share of the training subset, or from the prevalence of a finding.
    ///
    /// # Errors
    /// When no split is named, or `percent` is not above 0 and at most 100.
    pub fn ratio_warning(&self, percent: f64, findings: &[String]) -> Result<Option<String>> {
        Ok(self.split()?.ratio_warning(Ratio::from_percent(percent)?, findings))
    }

    /// The chosen rows; those that are drawn come from the split's test subset, or from all records without a split.
    ///
    /// # Errors
    /// When a record is unknown, or there is none to draw.
    pub fn chosen_rows(&self, choice: &RowChoice, seed: u64) -> Result<Vec<u32>> {
        let count = match choice {
            RowChoice::Count(count) => *count,
            RowChoice::Records(ids) => {
                return ids.iter().map(|id| Ok(self.dataset.row_of(id)? as u32)).collect();
            }
        };
        let mut rows = match &self.split {
            Some(split) => split.rows(Subset::Test, None),
            None => self.dataset.all_rows()?,
        };
        random::Stream::new(&[seed, random::digest("rows")]).shuffle(&mut rows);
        rows.truncate(count);
        if rows.is_empty() {
            bail!("no record to reconstruct");
        }
        Ok(rows)
    }

    /// The split.
    ///
    /// # Errors
    /// When none is named.
    pub fn split(&self) -> Result<&Split> {
        self.split.as_ref().context("this needs --split NAME; `dataset split` makes one")
    }
}

/// Threads of a run's loader.
pub(super) fn loader_threads(device: Device, run: &RunConfig) -> usize {
    if run.loader_threads == 0 { threads::of_loader(device) } else { run.loader_threads }
}
