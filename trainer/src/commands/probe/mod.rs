//! `trainer probe`: what a linear model and the nearest neighbors find in the features of a frozen encoder.
//!
//! | file | purpose |
//! | --- | --- |
//! | `cache` | features of records, computed once |
//! | `methods` | scores of a method, its setting chosen on the validation subset |
//! | `table` | the table of all results |

mod cache;
mod methods;
mod table;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dataset::store::files;
use dataset::{Subset, random};
use serde::Deserialize;
use tch::Device;

use self::cache::FeatureTable;
use self::methods::{Inputs, Outcome};
use super::embedder::{Embedder, EncoderChoice};
use crate::config::{FindingTask, RANDOM, RANDOM_NAME, Recipe};
use crate::eval::bootstrap::{Bootstrap, Interval};
use crate::eval::metrics::SPECIFICITY;
use crate::model::vit::Pooling;
use crate::probe::{Features, Method, ProbeFacts};
use crate::task::classify::{
    ClassificationReport, LabelPolicy, Measures, Scored, TaskLabels, labeled_rows, write_tables,
};
use crate::task::{DataSource, EvaluationFiles, EvaluationHeader, Registry, SubgroupColumn, unfinished_init};
use crate::train::run_dir;
use crate::weights::source::weights_file;

pub use table::table as probe_table;

/// What is probed, and what varies.
#[derive(Debug, Clone)]
pub struct Probe<'a> {
    /// The dataset.
    pub data: &'a Path,
    /// The folder of features and results.
    pub out: &'a Path,
    /// The encoder's weights, a run or a file; none: random weights.
    pub weights: Option<&'a Path>,
    /// Sizes of weights that are in no run.
    pub preset: Option<&'a str>,
    /// What stands for an image; none: as the encoder is configured.
    pub pooling: Option<Pooling>,
    /// What tables call the encoder; none: a name that follows from the weights.
    pub name: Option<&'a str>,
    /// The findings.
    pub task: FindingTask,
    /// How labels are read.
    pub policy: LabelPolicy,
    /// The joins that the dataset is seen with.
    pub joins: Vec<String>,
    /// Names of splits.
    pub splits: Vec<String>,
    /// Percentages of the training labels.
    pub ratios: Vec<f64>,
    /// Seeds of random weights.
    pub seeds: Vec<u64>,
    /// What is learned from the features.
    pub methods: Vec<Method>,
    /// Bootstrap draws.
    pub draws: usize,
    /// Specificity at which sensitivity is reported.
    pub specificity: Option<f64>,
    /// Columns whose groups are compared.
    pub subgroups: Vec<SubgroupColumn>,
}

/// One result of a probe.
#[derive(Debug, Clone)]
pub struct ProbeResult {
    /// The method.
    pub method: Method,
    /// Name of the split.
    pub split: String,
    /// Percentage of the training labels.
    pub ratio: f64,
    /// Seed of random weights.
    pub seed: u64,
    /// Mean AUROC on the test subset.
    pub auroc: Option<Interval>,
    /// Mean average precision on the test subset.
    pub average_precision: Option<Interval>,
    /// The setting that was chosen.
    pub chosen: f64,
    /// The folder of its evaluation.
    pub folder: PathBuf,
}

/// What a probe gave.
#[derive(Debug, Clone)]
pub struct Probed {
    /// One result a method, split, ratio and seed.
    pub results: Vec<ProbeResult>,
    /// What may be wrong with them.
    pub warnings: Vec<String>,
}

/// A split with the rows that count for the task.
struct Part {
    source: DataSource,
    labels: TaskLabels,
    validate: Vec<u32>,
    test: Vec<u32>,
}

impl Probe<'_> {
    /// Embeds the records once, then learns from their features and evaluates on the test subset, for each seed, split, ratio
    /// and method. Features and results that are in the folder are kept. `progress` gets lines about the work.
    ///
    /// # Errors
    /// When the dataset lacks a split, a ratio or a finding, no record is labeled, or the weights cannot be loaded.
    pub fn run(&self, registry: &Registry, device: Device, progress: &dyn Fn(&str)) -> Result<Probed> {
        if self.weights.is_some() && self.seeds != [0] {
            bail!("--seeds are those of {RANDOM} weights: leave them out with --weights {}", self.weights().display());
        }
        if self.out.join("config.toml").exists() {
            bail!("{} is a run: give a folder for the probe's results to --out", self.out.display());
        }
        let parts: Vec<Part> = self.splits.iter().map(|split| self.part(split)).collect::<Result<_>>()?;
        let mut rows = BTreeSet::new();
        for part in &parts {
            for &ratio in &self.ratios {
                rows.extend(part.labels.rows(&part.source, Subset::Train, Some(ratio))?);
            }
            rows.extend(part.validate.iter().chain(&part.test));
        }
        let rows: Vec<u32> = rows.into_iter().collect();
        let mut probed = Probed { results: Vec::new(), warnings: self.warnings(&parts)? };
        let Some(first) = parts.first() else { bail!("no split") };
        for &seed in &self.seeds {
            let choice = EncoderChoice { weights: self.weights, preset: self.preset, pooling: self.pooling };
            let embedder = Embedder::new(registry, &choice, seed, device)?;
            let digest = self.digest(seed)?;
            std::fs::create_dir_all(self.out).with_context(|| format!("cannot create {}", self.out.display()))?;
            progress(&embedder.loaded);
            let features = FeatureTable::of(self.out, &embedder, &digest, &first.source, &rows, progress)?;
            for (part, split) in parts.iter().zip(&self.splits) {
                for &ratio in &self.ratios {
                    for &method in &self.methods {
                        let case = Case { method, split, ratio, seed, digest: &digest, encoder: &embedder.name };
                        probed.results.push(self.result(&case, part, &features, progress)?);
                    }
                }
            }
        }
        files::write_json(&self.out.join("probe.json"), &table::rows(&probed.results))?;
        files::write_atomic(&self.out.join("probe.md"), (probe_table(&probed.results) + "\n").as_bytes())?;
        Ok(probed)
    }

    fn weights(&self) -> &Path {
        self.weights.unwrap_or(Path::new(RANDOM))
    }

    fn part(&self, split: &str) -> Result<Part> {
        let source = DataSource::open_joined(self.data, Some(split), &self.joins)?;
        let labels = TaskLabels::of(&self.task, &self.policy, &source)?;
        for &ratio in &self.ratios {
            source.check_ratio(ratio)?;
            if labels.rows(&source, Subset::Train, Some(ratio))?.is_empty() {
                bail!("no labeled training record in split `{split}` at {ratio}%: there is nothing to learn");
            }
        }
        let validate = labels.rows(&source, Subset::Validate, None)?;
        let test = labeled_rows(&labels, &source, Subset::Test)?;
        Ok(Part { source, labels, validate, test })
    }

    fn warnings(&self, parts: &[Part]) -> Result<Vec<String>> {
        let mut warnings: Vec<String> = Vec::new();
        if let Some(weights) = self.weights {
            warnings.extend(unfinished_init(&weights.to_string_lossy()));
            let before = run_dir::run_of(weights).and_then(|run| run_dir::load_config(&run)?.common()).ok();
            for part in parts {
                // The encoder may have seen the test patients of another split.
                let now = part.source.provenance();
                let other = before.as_ref().and_then(|keys| keys.provenance.split_of(&part.source.dataset_id()));
                if other.is_some_and(|members| members != now.split_members) {
                    warnings.push(format!(
                        "{} was trained on this dataset with another split than `{}`: it may have seen test patients",
                        weights.display(),
                        now.split
                    ));
                }
            }
        }
        for part in parts {
            for &ratio in &self.ratios {
                let warning = part.source.ratio_warning(ratio, &self.task.findings)?;
                warnings.extend(warning.filter(|warning| !warnings.contains(warning)));
            }
            if part.validate.is_empty() {
                warnings.push(
                    "the validation subset has no labeled record: the settings are the defaults, and there are no thresholds"
                        .to_owned(),
                );
            }
        }
        Ok(warnings)
    }

    /// Digest of the weights' file; for random weights their seed.
    fn digest(&self, seed: u64) -> Result<String> {
        match self.weights {
            Some(weights) => Ok(files::sha256(&weights_file(weights)?)?),
            None => Ok(format!("{RANDOM} {seed}")),
        }
    }

    /// What tables call the encoder.
    fn init_name(&self) -> String {
        let of_weights = |weights: &Path| {
            let named = run_dir::run_of(weights).unwrap_or_else(|_| weights.to_path_buf());
            format!("pretrained ({})", named.file_name().unwrap_or(named.as_os_str()).to_string_lossy())
        };
        let default = || self.weights.map_or_else(|| RANDOM_NAME.to_owned(), of_weights);
        self.name.map_or_else(default, str::to_owned)
    }

    /// The result of a case: the one in the folder if it depends on the same, else computed.
    fn result(
        &self,
        case: &Case,
        part: &Part,
        features: &FeatureTable,
        progress: &dyn Fn(&str),
    ) -> Result<ProbeResult> {
        let Case { method, split, ratio, seed, .. } = *case;
        let folder = self.out.join(format!("{}-{split}-{ratio}-seed{seed}", method.name()));
        let files = EvaluationFiles::new(&folder, Subset::Test.name());
        let specificity = self.specificity.unwrap_or(SPECIFICITY);
        let depends_on = format!(
            "{}\n{method:?} {ratio} {seed} {} {specificity} {:?}\n{:?} {:?}\n{}\n{:?}",
            features.key,
            self.draws,
            self.subgroups,
            self.task,
            self.policy,
            part.source.provenance().split_members,
            self.init_name()
        );
        let key = format!("{:016x}", random::digest(&depends_on));
        let stored = files::read_json::<serde_json::Value>(&files.evaluation()).ok();
        let stored = stored.and_then(|json| ClassificationReport::deserialize(json).ok());
        let stored = stored.filter(|report| report.probe.as_ref().is_some_and(|probe| probe.key == key));
        let report = if let Some(report) = stored {
            report
        } else {
            let measures = Measures {
                bootstrap: Bootstrap { draws: self.draws, ..Bootstrap::default() },
                specificity,
                subgroups: &self.subgroups,
            };
            std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
            let report = self.evaluate(case, part, features, key, &measures, &files)?;
            let shown = report.mean.auroc.map_or("undefined".to_owned(), |i| format!("{:.3}", i.value));
            progress(&format!("{}: test AUROC {shown}", folder.display()));
            report
        };
        let chosen = report.probe.as_ref().map_or(f64::NAN, |probe| probe.chosen);
        let (auroc, average_precision) = (report.mean.auroc, report.mean.average_precision);
        Ok(ProbeResult { method, split: split.to_owned(), ratio, seed, auroc, average_precision, chosen, folder })
    }

    /// Learns, evaluates on the test subset, and writes the files of the evaluation, `evaluation-test.json` last.
    fn evaluate(
        &self,
        case: &Case,
        part: &Part,
        features: &FeatureTable,
        key: String,
        measures: &Measures,
        files: &EvaluationFiles,
    ) -> Result<ClassificationReport> {
        let Part { source, labels, validate, test } = part;
        let train = labels.rows(source, Subset::Train, Some(case.ratio))?;
        let of = |rows: &[u32]| features.of_rows(rows);
        let (of_train, of_validate, of_test) = (of(&train)?, of(validate)?, of(test)?);
        let targets = labels.targets(&train).concat();
        let inputs = Inputs {
            train: Features::new(&of_train, features.width()),
            labels: &targets,
            findings: self.task.findings.len(),
            validate: Features::new(&of_validate, features.width()),
            test: Features::new(&of_test, features.width()),
        };
        let empty = Scored::new(source, labels, validate.clone(), Vec::new())?;
        let aurocs = |scores: &[f32]| empty.with_scores(scores.to_vec()).aurocs();
        let Outcome { grid, chosen, fit, validate, test: scores } = methods::run(case.method, &inputs, &aurocs)?;
        let thresholds = empty.with_scores(validate).thresholds(&self.task.findings, Subset::Validate);
        let thresholds = if thresholds.values().iter().any(Option::is_some) {
            Ok(thresholds)
        } else {
            Err("no metrics at a threshold: the validation subset, which chooses thresholds, has no positive record"
                .to_owned())
        };
        let scored = Scored::new(source, labels, test.clone(), scores)?;
        let header = EvaluationHeader {
            kind: "classify".to_owned(),
            task: self.task.name.clone(),
            split: case.split.to_owned(),
            subset: Subset::Test.name().to_owned(),
            ratio: case.ratio,
            seed: case.seed,
            init: self.weights().display().to_string(),
            init_name: format!("{}: {}", case.method.title(), self.init_name()),
            recipe: Recipe::default(),
            records: scored.patients.len(),
            patients: scored.patients.iter().max().map_or(0, |last| *last as usize + 1),
            draws: self.draws,
            weights: self.weights().display().to_string(),
            steps: 0,
        };
        let mut report = scored.report(source, labels, Subset::Test, header.clone(), &thresholds, measures)?;
        report.probe = Some(ProbeFacts {
            method: case.method,
            encoder: case.encoder.to_owned(),
            weights_digest: case.digest.to_owned(),
            features: features.width(),
            training_records: train.len(),
            grid,
            chosen,
            fit,
            key,
        });
        write_tables(files, source, &scored, &report)?;
        files.finish(&report, &header, Vec::new())?;
        Ok(report)
    }
}

/// What one result is of.
struct Case<'a> {
    method: Method,
    split: &'a str,
    ratio: f64,
    seed: u64,
    digest: &'a str,
    encoder: &'a str,
}
