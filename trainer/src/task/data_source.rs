//! The data of a run: a dataset, and the split that it is trained or evaluated with.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, anyhow, bail};
use dataset::commands::cli::UsageError;
use dataset::commands::mixture::{MixtureArguments, WeightedData};
use dataset::loader::{EpochLength, LoaderBuilder, Mixture, MixturePart, Weights};
use dataset::tokenizer::ReportTokenizer;
use dataset::{Dataset, Label, Loader, Ratio, Split, Subset, random};
use tch::Device;

use crate::config::{DatasetId, JoinId, OtherDataset, Provenance, RANDOM, RunConfig};
use crate::task::objective::loader_for;
use crate::train::step::LoadedRecord;
use crate::train::threads;

/// A dataset, and a split of it where one is named; or the first of several ones that a run is trained on.
pub struct DataSource {
    /// The dataset.
    pub dataset: Arc<Dataset>,
    /// The split.
    pub split: Option<Split>,
    /// The further datasets of a mixture, which only tasks that [take mixtures](super::Task::takes_mixtures) get.
    pub others: Vec<DataSource>,
    /// Shares of the datasets, and the length of an epoch; none for one dataset alone.
    mixture: Option<(Weights, EpochLength)>,
    /// Makes the token ids of datasets with another tokenizer.
    tokenizer: Option<Arc<ReportTokenizer>>,
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
        Self::open_joined(folder, split, &[])
    }

    /// As [`Self::open`], of a dataset that is seen with joins.
    ///
    /// # Errors
    /// As [`Self::open`]; also when a join is missing, damaged, or of other shards.
    pub fn open_joined(folder: &Path, split: Option<&str>, joins: &[String]) -> Result<Self> {
        let dataset = Arc::new(Dataset::open(folder)?.with_joins(joins)?);
        let split = split.map(|name| Split::load(&dataset, name)).transpose()?;
        Ok(Self { dataset, split, others: Vec::new(), mixture: None, tokenizer: None, labels: OnceLock::new() })
    }

    /// Opens one dataset or the datasets of a mixture, each with its split of this name. Joins belong to one dataset.
    ///
    /// # Errors
    /// As [`Self::open_joined`], with the dataset that is concerned; also when the options of the mixture contradict each other
    /// or the tokenizer cannot be read.
    pub fn open_mixture(
        data: &[WeightedData],
        options: &MixtureArguments,
        split: Option<&str>,
        joins: &[String],
    ) -> Result<Self> {
        let mixture = options.mixture(data)?;
        if mixture.is_some() && !joins.is_empty() {
            return Err(UsageError::of(anyhow!("--join is for one dataset: give one --data")));
        }
        let open = |data: &WeightedData| {
            let source = Self::open_joined(&data.location, split, joins);
            let place = || format!("--data {}", data.location.display());
            if mixture.is_some() { source.with_context(place) } else { source }
        };
        let mut sources = data.iter().map(open).collect::<Result<Vec<_>>>()?;
        if sources.is_empty() {
            bail!("no dataset");
        }
        let others = sources.split_off(1);
        let first = sources.remove(0);
        Ok(Self { others, mixture, tokenizer: options.tokenizer()?, ..first })
    }

    /// The datasets, in the order of their numbers in a mixture.
    pub fn all(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.others)
    }

    /// Short names of the datasets for the log: the last part of the path, numbered where two are equal.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for source in self.all() {
            let place = source.dataset.storage().path("");
            let name = place.file_name().unwrap_or(place.as_os_str()).to_string_lossy().into_owned();
            let numbered = (2..).map(|number| format!("{name}-{number}"));
            let mut free = std::iter::once(name.clone()).chain(numbered).filter(|name| !names.contains(name));
            names.push(free.next().unwrap_or_default());
        }
        names
    }

    /// What dataset this is.
    pub fn dataset_id(&self) -> DatasetId {
        let manifest = self.dataset.manifest();
        DatasetId(manifest.source.clone(), self.dataset.len() as u64, format!("{:016x}", self.dataset.digest()))
    }

    /// The joins that the dataset is seen with.
    fn joins(&self) -> Vec<JoinId> {
        let id = |name: String| {
            let digest = self.dataset.join(&name).map_or(0, |join| join.digest());
            JoinId(name, format!("{digest:016x}"))
        };
        self.dataset.joined_names().into_iter().map(id).collect()
    }

    /// The dataset seen with the joins of these names or, without any, with those that a run was trained with, if it was
    /// trained on this dataset.
    ///
    /// # Errors
    /// When a join is missing, damaged, or of other shards, or was made anew since the run was trained.
    pub fn seen_as(self, trained_on: &Provenance, joins: &[String]) -> Result<Self> {
        let is_own = trained_on.split_of(&self.dataset_id()).is_some();
        let before: &[JoinId] = if joins.is_empty() && is_own { &trained_on.joins } else { &[] };
        let names: Vec<String> =
            if joins.is_empty() { before.iter().map(|join| join.0.clone()).collect() } else { joins.to_vec() };
        if names.is_empty() {
            return Ok(self);
        }
        let dataset = Arc::new(self.dataset.joined(&names)?);
        let seen = Self { dataset, labels: OnceLock::new(), ..self };
        match seen.joins().into_iter().zip(before).find(|(now, before)| now != *before) {
            None => Ok(seen),
            Some((now, _)) => bail!(
                "join `{0}` was made anew since the run was trained: restore joins/{0}.parquet as it was, or give --join {0} to \
                 use it nevertheless",
                now.0
            ),
        }
    }

    /// The provenance of a run on this data from random initialization.
    pub fn provenance(&self) -> Provenance {
        let split = self.split.as_ref();
        let split_members = split.map_or_else(String::new, |split| {
            let subset = |member: &dataset::split::Member| member.subset.map_or("", Subset::name);
            let lines = split.members.iter().map(|member| format!("{} {}\n", member.record_id, subset(member)));
            format!("{:016x}", random::digest(&lines.collect::<String>()))
        });
        let other = |source: &Self| OtherDataset(source.dataset_id(), source.provenance().split_members);
        Provenance {
            dataset: Some(self.dataset_id()),
            split: split.map_or_else(String::new, |split| split.name.clone()),
            split_members,
            joins: self.joins(),
            others: self.others.iter().map(other).collect(),
            mixture: self.mixture.as_ref().map_or_else(String::new, |mixture| self.in_words(mixture)),
            init: RANDOM.to_owned(),
        }
    }

    /// Shares and length of an epoch in words, in which equal mixtures are equal.
    fn in_words(&self, (weights, length): &(Weights, EpochLength)) -> String {
        let shares = match weights {
            Weights::Temperature(temperature) => format!("by records, temperature {temperature}"),
            Weights::Shares(shares) => {
                format!("weights {}", shares.iter().map(f64::to_string).collect::<Vec<_>>().join(", "))
            }
        };
        let names = self.names();
        match length {
            EpochLength::Sum => shares,
            EpochLength::Once(part) => format!("{shares}; an epoch of {}", names.get(*part).map_or("", String::as_str)),
            EpochLength::Records(records) => format!("{shares}; an epoch of {records} records"),
        }
    }

    /// The dataset whose tokenizer makes the token ids; none where one is given, or no dataset has one.
    fn with_tokenizer(&self) -> Option<&Self> {
        self.all().find(|source| self.tokenizer.is_none() && source.dataset.has_tokenizer())
    }

    /// Digest of the tokenizer; empty without one.
    pub fn tokenizer(&self) -> String {
        let of_dataset = || Some(self.with_tokenizer()?.dataset.manifest().text.tokenizer_sha256.as_str());
        let sha256 = self.tokenizer.as_ref().map(|tokenizer| tokenizer.sha256()).or_else(of_dataset);
        sha256.unwrap_or_default().chars().take(16).collect()
    }

    /// Number of tokens in its vocabulary; 0 without one.
    pub fn vocabulary(&self) -> usize {
        let of_dataset = || self.with_tokenizer().map_or(0, |source| source.dataset.manifest().text.vocabulary);
        self.tokenizer.as_ref().map_or_else(of_dataset, |tokenizer| tokenizer.vocabulary())
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

    /// A builder of the loader that a run trains with, on rows of the only dataset; as [`Self::mixture_loader`].
    pub fn training_loader(&self, rows: &[u32], batch_size: usize, run: &RunConfig, device: Device) -> LoaderBuilder {
        self.mixture_loader(&[rows.to_vec()], batch_size, run, device)
    }

    /// A builder of the loader that a run trains with, on rows of each dataset: shuffled batches; an incomplete last batch is
    /// left out where there are complete ones.
    pub fn mixture_loader(
        &self,
        rows: &[Vec<u32>],
        batch_size: usize,
        run: &RunConfig,
        device: Device,
    ) -> LoaderBuilder {
        let threads = loader_threads(device, run);
        // On CUDA, each batch ahead takes pinned memory: only as many as keep every thread busy.
        let ahead = if device.is_cuda() { threads + 2 } else { 0 };
        let part = |(source, rows): (&Self, &Vec<u32>)| MixturePart::new(&source.dataset).rows(rows.clone());
        let parts = self.all().zip(rows).map(part);
        let builder = match &self.mixture {
            Some((weights, length)) => Loader::mixture(parts.collect(), weights.clone(), *length),
            None => Loader::builder(&self.dataset).rows(rows.concat()),
        };
        let builder = match &self.tokenizer {
            Some(tokenizer) => builder.tokenizer(tokenizer.clone()),
            None => builder,
        };
        loader_for(device, builder)
            .prefetch(ahead)
            .batch_size(batch_size)
            .seed(run.seed)
            .drop_last(self.epoch_records(&lengths(rows)).is_ok_and(|records| records >= batch_size))
            .threads(threads)
    }

    /// Records of an epoch on so many of each dataset.
    ///
    /// # Errors
    /// When the mixture is impossible: a dataset has no rows, or would get no record.
    pub fn epoch_records(&self, counts: &[usize]) -> Result<usize> {
        match &self.mixture {
            Some((weights, length)) => Ok(Mixture::new(counts, weights, *length, None)?.records() as usize),
            None => Ok(counts.iter().sum()),
        }
    }

    /// How much of an epoch comes from each dataset of a mixture, of so many records each, in words for the log.
    ///
    /// # Errors
    /// As [`Self::epoch_records`].
    pub fn mixture_notes(&self, counts: &[usize]) -> Result<Vec<String>> {
        let Some((weights, length)) = &self.mixture else { return Ok(Vec::new()) };
        let mixture = Mixture::new(counts, weights, *length, None)?;
        let note = |((name, count), quota): ((String, &usize), &u64)| {
            let share = *quota as f64 * 100.0 / mixture.records() as f64;
            format!("{name}: {quota} records an epoch ({share:.1}%), of {count}")
        };
        Ok(self.names().into_iter().zip(counts).zip(mixture.quotas()).map(note).collect())
    }

    /// Identifiers of records; row numbers where they cannot be read.
    pub fn record_ids(&self, records: &[LoadedRecord]) -> Vec<String> {
        let sources: Vec<&Self> = self.all().collect();
        let ids: Vec<_> = sources.iter().map(|source| source.dataset.texts("record_id").unwrap_or_default()).collect();
        let id = |&(source, row): &LoadedRecord| {
            let id = ids.get(usize::from(source)).and_then(|ids| ids.get(row as usize)?.clone());
            id.unwrap_or_else(|| format!("row {row}"))
        };
        records.iter().map(id).collect()
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

/// Numbers of the rows of each dataset.
pub fn lengths(rows: &[Vec<u32>]) -> Vec<usize> {
    rows.iter().map(Vec::len).collect()
}

/// Threads of a run's loader.
pub(super) fn loader_threads(device: Device, run: &RunConfig) -> usize {
    if run.loader_threads == 0 { threads::of_loader(device) } else { run.loader_threads }
}
