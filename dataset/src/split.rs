//! Who trains, who validates, who tests, and whose labels a 1% run may see: made once, stored beside the shards.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Float64Array, StringArray};
use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::random::{self, Stream};
use crate::storage::Storage;
use crate::stratify::{self, Group};
use crate::table::{from_parquet, to_parquet};

/// Part of a dataset that a record belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subset {
    Train,
    Validate,
    Test,
}

impl Subset {
    /// All subsets, in the order in which they are told.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validate, Self::Test];

    /// Name as it stands in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validate => "validate",
            Self::Test => "test",
        }
    }

    /// The subset of this name, as sources write it.
    pub fn parse(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Self::Train),
            "validate" | "valid" | "val" | "validation" => Some(Self::Validate),
            "test" => Some(Self::Test),
            _ => None,
        }
    }
}

/// What must stay together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    Patient,
    Study,
    Image,
}

/// How a split is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitOptions {
    /// Percentages of the training subset whose labels may be seen; they nest.
    pub ratios: Vec<f64>,
    pub unit: Unit,
    /// Shares of the records; ignored with `official`.
    pub validation: f64,
    pub test: f64,
    /// Take the source's own subsets.
    pub official: bool,
    /// Findings to balance; empty: all of them.
    pub stratify: Vec<String>,
    pub seed: u64,
}

impl Default for SplitOptions {
    fn default() -> Self {
        Self {
            ratios: vec![1.0, 10.0, 100.0],
            unit: Unit::Patient,
            validation: 0.1,
            test: 0.2,
            official: false,
            stratify: Vec::new(),
            seed: 0,
        }
    }
}

/// Membership of one record.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub record_id: String,
    /// `None`: the record belongs to no subset (the source's subsets leave it out).
    pub subset: Option<Subset>,
    /// The smallest ratio (percent) whose labelled set holds the record; `None` outside train.
    pub ratio: Option<f64>,
}

/// A split, in the order of the dataset's rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    pub name: String,
    pub members: Vec<Member>,
}

/// What a split promises, measured on the split itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    pub options: SplitOptions,
    /// One entry a subset, then one a ratio.
    pub parts: Vec<Part>,
    /// Patients that stand in more than one subset.
    pub shared_patients: u64,
    /// Largest absolute difference of a finding's prevalence between a subset and the whole.
    pub subset_deviation: f64,
    /// Largest absolute difference of a finding's prevalence between a ratio's set and the training subset.
    pub ratio_deviation: f64,
}

/// Counts of one subset or ratio.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub name: String,
    pub records: u64,
    pub studies: u64,
    pub patients: u64,
    /// Share of records with a finding positive, by finding.
    pub prevalence: BTreeMap<String, f64>,
}

struct Rows {
    record: Vec<String>,
    patient: Vec<String>,
    study: Vec<String>,
    subset: Vec<Option<String>>,
    labels: Vec<Vec<Option<i8>>>,
}

impl Rows {
    fn load(dataset: &Dataset) -> Result<Self> {
        let column = |name: &str| -> Result<Vec<String>> {
            Ok(dataset.texts(name)?.into_iter().map(Option::unwrap_or_default).collect())
        };
        Ok(Self {
            record: column("record_id")?,
            patient: column("patient_id")?,
            study: column("study_id")?,
            subset: dataset.texts("subset")?,
            labels: dataset.labels()?,
        })
    }
}

/// Where split `name` lies in its dataset.
pub fn split_path(name: &str) -> String {
    format!("splits/{name}.parquet")
}

/// Where the certificate of split `name` lies in its dataset.
pub fn certificate_path(name: &str) -> String {
    format!("splits/{name}.json")
}

/// Makes a split of a dataset, and measures it.
pub fn make(dataset: &Dataset, name: &str, options: &SplitOptions) -> Result<(Split, Certificate)> {
    let invalid = |message: String| Error::Split { name: name.to_owned(), message };
    if name.is_empty() || name.contains(['/', '\\', '.']) {
        return Err(invalid("a name without `/`, `\\` and `.` is needed".to_owned()));
    }
    let shares = [1.0 - options.validation - options.test, options.validation, options.test];
    if shares.iter().any(|share| !(0.0..=1.0).contains(share)) || shares[0] == 0.0 {
        return Err(invalid(format!("shares {shares:?} of train, validate, test must lie in 0..1, train above 0")));
    }
    let mut ratios = options.ratios.clone();
    ratios.sort_by(|a, b| b.total_cmp(a));
    ratios.dedup();
    if ratios.iter().any(|ratio| !(*ratio > 0.0 && *ratio <= 100.0)) {
        return Err(invalid(format!("ratios {:?} must lie in (0, 100]", options.ratios)));
    }
    let stratified = findings_to_balance(dataset, options).map_err(invalid)?;
    let rows = Rows::load(dataset)?;
    // In the order of identifiers, so that the order of shards does not matter.
    let mut order: Vec<usize> = (0..rows.record.len()).collect();
    order.sort_unstable_by(|&a, &b| rows.record[a].cmp(&rows.record[b]));
    let key = |row: usize| match options.unit {
        Unit::Patient => rows.patient[row].as_str(),
        Unit::Study => rows.study[row].as_str(),
        Unit::Image => rows.record[row].as_str(),
    };

    let mut subset: Vec<Option<Subset>> = vec![None; order.len()];
    if options.official {
        for &row in &order {
            subset[row] = match &rows.subset[row] {
                None => None,
                Some(text) => Some(Subset::parse(text).ok_or_else(|| invalid(format!("unknown subset `{text}`")))?),
            };
        }
        if subset.iter().all(Option::is_none) {
            return Err(invalid("this source has no official subsets: leave --official out".to_owned()));
        }
    } else {
        let (groups, members) = groups_of(&order, &key, &rows.labels, &stratified);
        let mut random = Stream::new(&[options.seed, random::digest("subsets")]);
        let parts = stratify::partition(&groups, stratified.len(), &shares, &mut random);
        for (members, part) in members.iter().zip(parts) {
            members.iter().for_each(|&row| subset[row] = Some(Subset::ALL[part]));
        }
    }

    let mut ratio: Vec<Option<f64>> = vec![None; order.len()];
    let mut pool: Vec<usize> = order.iter().copied().filter(|&row| subset[row] == Some(Subset::Train)).collect();
    let (train, mut wanted) = (pool.len() as f64, 100.0);
    for &next in &ratios {
        if next < wanted {
            let (groups, members) = groups_of(&pool, &key, &rows.labels, &stratified);
            // The share of what is left, not of what was wanted before: whole groups never fit exactly.
            let share = (train * next / 100.0 / pool.len() as f64).min(1.0);
            let mut random = Stream::new(&[options.seed, random::digest("ratio"), next.to_bits()]);
            let parts = stratify::partition(&groups, stratified.len(), &[share, 1.0 - share], &mut random);
            pool = members.iter().zip(parts).filter(|(_, part)| *part == 0).flat_map(|(m, _)| m.clone()).collect();
            pool.sort_unstable_by(|&a, &b| rows.record[a].cmp(&rows.record[b]));
            wanted = next;
        }
        pool.iter().for_each(|&row| ratio[row] = Some(next));
    }

    let members = rows
        .record
        .iter()
        .zip(&subset)
        .zip(&ratio)
        .map(|((record_id, subset), ratio)| Member { record_id: record_id.clone(), subset: *subset, ratio: *ratio })
        .collect();
    let split = Split { name: name.to_owned(), members };
    let certificate = certify(&split, &rows, dataset.findings(), options);
    if options.unit == Unit::Patient && !options.official && certificate.shared_patients > 0 {
        return Err(invalid(format!("{} patients in two subsets: this is a defect", certificate.shared_patients)));
    }
    Ok((split, certificate))
}

fn findings_to_balance(dataset: &Dataset, options: &SplitOptions) -> Result<Vec<usize>, String> {
    let findings = dataset.findings();
    if options.stratify.is_empty() {
        return Ok((0..findings.len()).collect());
    }
    options
        .stratify
        .iter()
        .map(|wanted| {
            findings
                .iter()
                .position(|finding| finding == wanted)
                .ok_or_else(|| format!("no finding `{wanted}`; there are: {}", findings.join(", ")))
        })
        .collect()
}

/// Groups of rows with the same key, in the order of their first row, with the rows of each.
fn groups_of<'a>(
    order: &[usize],
    key: &dyn Fn(usize) -> &'a str,
    labels: &[Vec<Option<i8>>],
    stratified: &[usize],
) -> (Vec<Group>, Vec<Vec<usize>>) {
    let mut index_of: HashMap<&str, usize> = HashMap::new();
    let mut members: Vec<Vec<usize>> = Vec::new();
    for &row in order {
        let index = *index_of.entry(key(row)).or_insert_with(|| {
            members.push(Vec::new());
            members.len() - 1
        });
        members[index].push(row);
    }
    let groups = members
        .iter()
        .map(|rows| Group {
            records: rows.len() as f64,
            positives: stratified
                .iter()
                .enumerate()
                .filter_map(|(position, &finding)| {
                    let count = rows.iter().filter(|&&row| labels[row].get(finding) == Some(&Some(1))).count();
                    (count > 0).then_some((position, count as f64))
                })
                .collect(),
        })
        .collect();
    (groups, members)
}

fn certify(split: &Split, rows: &Rows, findings: &[String], options: &SplitOptions) -> Certificate {
    let part = |name: String, inside: &dyn Fn(&Member) -> bool| -> Part {
        let chosen: Vec<usize> = (0..split.members.len()).filter(|&row| inside(&split.members[row])).collect();
        let distinct = |of: &[String]| chosen.iter().map(|&row| &of[row]).collect::<HashSet<_>>().len() as u64;
        let prevalence = findings
            .iter()
            .enumerate()
            .map(|(index, finding)| {
                let positive = chosen.iter().filter(|&&row| rows.labels[row].get(index) == Some(&Some(1))).count();
                (finding.clone(), positive as f64 / chosen.len().max(1) as f64)
            })
            .collect();
        let studies = chosen.iter().map(|&row| (&rows.patient[row], &rows.study[row])).collect::<HashSet<_>>().len();
        Part {
            name,
            records: chosen.len() as u64,
            studies: studies as u64,
            patients: distinct(&rows.patient),
            prevalence,
        }
    };
    let whole = part("all".to_owned(), &|member| member.subset.is_some());
    let subsets: Vec<Part> =
        Subset::ALL.iter().map(|&s| part(s.name().to_owned(), &|member| member.subset == Some(s))).collect();
    let mut ratios = options.ratios.clone();
    ratios.sort_by(f64::total_cmp);
    let ratios: Vec<Part> = ratios
        .iter()
        .map(|&percent| part(format!("{percent}%"), &|member| member.ratio.is_some_and(|r| r <= percent)))
        .collect();
    let deviation = |parts: &[Part], from: &Part| {
        parts
            .iter()
            .filter(|part| part.records > 0)
            .flat_map(|part| part.prevalence.iter().map(|(finding, share)| (share - from.prevalence[finding]).abs()))
            .fold(0.0, f64::max)
    };
    let mut subset_of: HashMap<&str, HashSet<Subset>> = HashMap::new();
    for (row, member) in split.members.iter().enumerate() {
        if let Some(subset) = member.subset {
            subset_of.entry(&rows.patient[row]).or_default().insert(subset);
        }
    }
    Certificate {
        options: options.clone(),
        shared_patients: subset_of.values().filter(|subsets| subsets.len() > 1).count() as u64,
        subset_deviation: deviation(&subsets, &whole),
        ratio_deviation: deviation(&ratios, &subsets[0]),
        parts: [subsets, ratios].concat(),
    }
}

impl Split {
    /// Writes the split and its certificate beside the shards.
    pub fn save(&self, storage: &Storage, certificate: &Certificate) -> Result<()> {
        let path = split_path(&self.name);
        let columns: Vec<(&str, ArrayRef, bool)> = vec![
            (
                "record_id",
                Arc::new(self.members.iter().map(|m| Some(m.record_id.as_str())).collect::<StringArray>()),
                false,
            ),
            (
                "subset",
                Arc::new(self.members.iter().map(|m| m.subset.map(Subset::name)).collect::<StringArray>()),
                true,
            ),
            ("ratio", Arc::new(self.members.iter().map(|m| m.ratio).collect::<Float64Array>()), true),
        ];
        storage.write_json(&certificate_path(&self.name), certificate)?;
        storage.write(&path, to_parquet(&storage.path(&path), columns)?)
    }

    /// Reads split `name` of a dataset and brings it into the order of the dataset's rows.
    ///
    /// # Errors
    /// When it is missing, names other records than the dataset's, or leaks a patient (see [`Split::check`]).
    pub fn load(dataset: &Dataset, name: &str) -> Result<Self> {
        let split = Self::read(dataset.storage(), name)?;
        let ids = dataset.texts("record_id")?;
        let mut by_id: HashMap<String, Member> =
            split.members.into_iter().map(|member| (member.record_id.clone(), member)).collect();
        let invalid = |message: String| Error::Split { name: name.to_owned(), message };
        if by_id.len() != ids.len() {
            let message = format!("{} records, the dataset has {}: make the split anew", by_id.len(), ids.len());
            return Err(invalid(message));
        }
        let members = ids
            .into_iter()
            .flatten()
            .map(|id| by_id.remove(&id).ok_or_else(|| invalid(format!("lacks record `{id}`: make the split anew"))))
            .collect::<Result<_>>()?;
        let split = Self { name: name.to_owned(), members };
        split.check(dataset)?;
        Ok(split)
    }

    fn read(storage: &Storage, name: &str) -> Result<Self> {
        let path = split_path(name);
        let Some(bytes) = storage.read_if_there(&path)? else {
            let known = known_splits(storage)?.join(", ");
            let message = format!("there is none of this name (there are: {known}); `dataset split` makes one");
            return Err(Error::Split { name: name.to_owned(), message });
        };
        let broken = |message: String| Error::Split { name: name.to_owned(), message };
        let mut members = Vec::new();
        for batch in from_parquet(&storage.path(&path), bytes)? {
            let ids = crate::shard::column::<StringArray>(&batch, "record_id");
            let subsets = crate::shard::column::<StringArray>(&batch, "subset");
            let ratios = crate::shard::column::<Float64Array>(&batch, "ratio");
            let (Some(ids), Some(subsets), Some(ratios)) = (ids, subsets, ratios) else {
                return Err(broken("columns record_id, subset (text) and ratio (float64) are needed".to_owned()));
            };
            for row in 0..batch.num_rows() {
                let subset = match subsets.is_valid(row).then(|| subsets.value(row)) {
                    None => None,
                    Some(text) => Some(Subset::parse(text).ok_or_else(|| broken(format!("unknown subset `{text}`")))?),
                };
                let ratio = ratios.is_valid(row).then(|| ratios.value(row));
                members.push(Member { record_id: ids.value(row).to_owned(), subset, ratio });
            }
        }
        Ok(Self { name: name.to_owned(), members })
    }

    /// Refuses a split that has a patient in two subsets where its certificate promises that none is.
    pub fn check(&self, dataset: &Dataset) -> Result<Certificate> {
        let certificate: Certificate = dataset.storage().read_json(&certificate_path(&self.name))?;
        let measured = certify(self, &Rows::load(dataset)?, dataset.findings(), &certificate.options);
        if measured.shared_patients > certificate.shared_patients {
            let message = format!(
                "{} patients stand in more than one subset, its certificate says {}: it was changed after it was made",
                measured.shared_patients, certificate.shared_patients
            );
            return Err(Error::Split { name: self.name.clone(), message });
        }
        Ok(measured)
    }

    /// The label ratios of the split in percent, ascending.
    pub fn ratios(&self) -> Vec<f64> {
        let mut ratios: Vec<f64> = self.members.iter().filter_map(|member| member.ratio).collect();
        ratios.sort_by(f64::total_cmp);
        ratios.dedup();
        ratios
    }

    /// Rows of a subset; in train only those whose labels may be seen at `ratio` percent.
    pub fn rows(&self, subset: Subset, ratio: Option<f64>) -> Vec<u32> {
        let inside = |member: &Member| {
            member.subset == Some(subset)
                && (subset != Subset::Train
                    || ratio.is_none_or(|ratio| member.ratio.is_some_and(|of_record| of_record <= ratio)))
        };
        (0..self.members.len() as u32).filter(|&row| inside(&self.members[row as usize])).collect()
    }
}

/// Names of the splits stored in a dataset.
pub fn known_splits(storage: &Storage) -> Result<Vec<String>> {
    let of = |name: &str| Some(name.strip_prefix("splits/")?.strip_suffix(".parquet")?.to_owned());
    Ok(storage.list("splits")?.iter().filter_map(|listed| of(&listed.name)).collect())
}

impl std::fmt::Display for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:<12}{:>9}{:>9}{:>10}  prevalence in %", "", "records", "studies", "patients")?;
        for part in &self.parts {
            write!(f, "{:<12}{:>9}{:>9}{:>10} ", part.name, part.records, part.studies, part.patients)?;
            for share in part.prevalence.values() {
                write!(f, " {:>5.1}", share * 100.0)?;
            }
            writeln!(f)?;
        }
        if let Some(part) = self.parts.first() {
            writeln!(f, "findings: {}", part.prevalence.keys().cloned().collect::<Vec<_>>().join(", "))?;
        }
        writeln!(
            f,
            "largest deviation of a prevalence: subsets {:.4}, ratios {:.4}",
            self.subset_deviation, self.ratio_deviation
        )?;
        write!(f, "patients in more than one subset: {}", self.shared_patients)
    }
}
