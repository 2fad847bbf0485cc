//! Multi-label classification as an objective.

use std::sync::Arc;

use anyhow::{Result, bail};
use dataset::name_suggestion::did_you_mean;
use dataset::transform::Transform;
use dataset::{Batch, Dataset, Loader};
use serde::{Deserialize, Serialize};
use tch::nn::VarStore;
use tch::{Device, Kind, Reduction, Tensor};

use super::LabelCounts;
use crate::eval::metrics::{auroc, mean_defined};
use crate::model::classifier::{ClassifierConfig, VitClassifier};
use crate::task::objective::{Evaluation, Loss, Objective, images, loader_for, send};
use crate::train::optimizer::{Parameter, decayed_parameters};

/// What an uncertain label counts as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Uncertain {
    #[default]
    Zeros,
    Ones,
    Ignore,
}

/// What a blank label (a finding that the source does not mention) counts as, in a record that has some label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// Not mentioned means not there: CheXpert's and MIMIC-CXR's convention.
    Zeros,
    /// Nobody looked: it is neither trained on nor evaluated.
    Ignore,
}

/// Which labels of a dataset are the targets, and how their codes are read.
#[derive(Debug, Clone)]
pub struct Labels {
    pub findings: Vec<String>,
    /// Position of each finding in the dataset's vocabulary.
    columns: Vec<usize>,
    width: usize,
    /// One a finding.
    uncertain: Vec<Uncertain>,
    missing: Missing,
}

impl Labels {
    /// `exceptions` are findings with a policy of their own: `Edema=ones`.
    ///
    /// # Errors
    /// When the dataset lacks a finding, or an exception is none.
    pub fn new(
        dataset: &Dataset,
        findings: &[String],
        uncertain: Uncertain,
        exceptions: &[String],
        missing: Missing,
    ) -> Result<Self> {
        let known = dataset.findings();
        let mut columns = Vec::new();
        for finding in findings {
            match known.iter().position(|name| name == finding) {
                Some(column) => columns.push(column),
                None => bail!(
                    "this dataset has no label `{finding}`; it has: {}{}",
                    known.join(", "),
                    did_you_mean(finding, known.iter().map(String::as_str))
                ),
            }
        }
        let mut policies = vec![uncertain; findings.len()];
        for exception in exceptions {
            let (finding, policy) = exception.split_once('=').unwrap_or((exception, ""));
            let place = findings.iter().position(|name| name == finding.trim());
            let policy = match policy.trim() {
                "zeros" => Some(Uncertain::Zeros),
                "ones" => Some(Uncertain::Ones),
                "ignore" => Some(Uncertain::Ignore),
                _ => None,
            };
            match (place, policy) {
                (Some(place), Some(policy)) => policies[place] = policy,
                (None, _) => bail!("data.uncertain_by_finding: the task has no finding `{}`", finding.trim()),
                (_, None) => bail!("data.uncertain_by_finding: `{exception}` is not FINDING=zeros|ones|ignore"),
            }
        }
        Ok(Self { findings: findings.to_vec(), columns, width: known.len(), uncertain: policies, missing })
    }

    /// The target of one code: 1, 0, or none where it does not count.
    fn target(&self, code: Option<i8>, uncertain: Uncertain) -> Option<bool> {
        match (code, uncertain, self.missing) {
            (Some(1), _, _) | (Some(-1), Uncertain::Ones, _) => Some(true),
            (Some(0), _, _) | (Some(-1), Uncertain::Zeros, _) | (None, _, Missing::Zeros) => Some(false),
            _ => None,
        }
    }

    /// Targets of one record, from all its codes. A record without any label at all is unlabeled: nothing counts.
    pub fn targets(&self, codes: &[Option<i8>]) -> Vec<Option<bool>> {
        let labeled = codes.iter().any(Option::is_some);
        let target = |(&column, &uncertain)| if labeled { self.target(codes[column], uncertain) } else { None };
        self.columns.iter().zip(&self.uncertain).map(target).collect()
    }

    /// What the codes of each finding are, and how they are counted, over records given by all their codes. Records without
    /// any label have no blank ones.
    pub fn counts<'a>(&self, records: impl Iterator<Item = &'a [Option<i8>]>) -> Vec<LabelCounts> {
        let mut counts: Vec<LabelCounts> = (self.findings.iter().zip(&self.uncertain))
            .map(|(finding, &uncertain_as)| LabelCounts::new(finding, uncertain_as, self.missing))
            .collect();
        for codes in records.filter(|codes| codes.iter().any(Option::is_some)) {
            for (count, &column) in counts.iter_mut().zip(&self.columns) {
                count.add(codes[column]);
            }
        }
        counts
    }

    /// Targets of a batch `[B, C]`, and which of them count, as numbers.
    fn tensors(&self, batch: &Batch, device: Device) -> (Tensor, Tensor) {
        let (mut targets, mut counts) = (Vec::new(), Vec::new());
        for row in batch.labels().chunks_exact(self.width) {
            let codes: Vec<Option<i8>> = row.iter().map(|code| (!code.is_nan()).then_some(*code as i8)).collect();
            for target in self.targets(&codes) {
                targets.push(f32::from(u8::from(target == Some(true))));
                counts.push(f32::from(u8::from(target.is_some())));
            }
        }
        let shape = [batch.len() as i64, self.columns.len() as i64];
        let tensor = |values: &[f32]| send(&Tensor::from_slice(values).view(shape), device);
        (tensor(&targets), tensor(&counts))
    }
}

/// A classifier that learns findings.
pub struct Classification {
    store: VarStore,
    model: VitClassifier,
    labels: Labels,
    dataset: Arc<Dataset>,
    validate: Vec<u32>,
    /// One list a row of `validate`.
    validate_targets: Vec<Vec<Option<bool>>>,
    transform: Transform,
    layer_decay: f64,
    linear_probe: bool,
}

impl Classification {
    /// A classifier with start values.
    pub fn new(
        config: &ClassifierConfig,
        labels: Labels,
        dataset: &Arc<Dataset>,
        transform: Transform,
        device: Device,
    ) -> Result<Self> {
        let store = VarStore::new(device);
        let model = VitClassifier::new(&store.root(), config)?;
        Ok(Self {
            store,
            model,
            labels,
            dataset: dataset.clone(),
            validate: Vec::new(),
            validate_targets: Vec::new(),
            transform,
            layer_decay: 1.0,
            linear_probe: false,
        })
    }

    /// Rows for [`Objective::evaluate`] and their targets; without them there is no evaluation.
    #[must_use]
    pub fn validate(mut self, rows: Vec<u32>, targets: Vec<Vec<Option<bool>>>) -> Self {
        (self.validate, self.validate_targets) = (rows, targets);
        self
    }

    /// Lets earlier layers learn at lower rates: each at `decay` times the rate of the one after it.
    #[must_use]
    pub fn layer_decay(mut self, decay: f64) -> Self {
        self.layer_decay = decay;
        self
    }

    /// Trains the head alone, on features of the frozen encoder.
    #[must_use]
    pub fn linear_probe(mut self, probe: bool) -> Self {
        self.linear_probe = probe;
        self
    }

    /// The model.
    pub fn model(&self) -> &VitClassifier {
        &self.model
    }
}

impl Objective for Classification {
    fn store(&self) -> &VarStore {
        &self.store
    }

    fn parameters(&self) -> Vec<Parameter> {
        let mut all = decayed_parameters(&self.store, self.model.config().vit.num_layers, self.layer_decay);
        if self.linear_probe {
            all.retain(|parameter| parameter.name.starts_with("head."));
        }
        all
    }

    fn loss(&self, batch: &Batch) -> Result<Loss> {
        let device = self.store.device();
        let image = images(batch, device);
        let logits = if self.linear_probe {
            self.model.classify(&tch::no_grad(|| self.model.features(&image, false))?)
        } else {
            self.model.logits(&image, true)?
        };
        let (targets, counts) = self.labels.tensors(batch, device);
        let each = logits.f_binary_cross_entropy_with_logits::<Tensor>(&targets, None, None, Reduction::None)?;
        let total = (each * &counts).sum(Kind::Float) / counts.sum(Kind::Float).clamp_min(1.0);
        Ok(Loss { total, parts: Vec::new() })
    }

    fn evaluate(&self) -> Result<Option<Evaluation>> {
        if self.validate.is_empty() {
            return Ok(None);
        }
        let scores = predict(&self.model, &self.dataset, &self.validate, self.transform, self.store.device())?;
        let classes = self.labels.findings.len();
        let by_class: Vec<Option<f64>> = (0..classes)
            .map(|class| {
                let scores: Vec<f32> = scores.iter().skip(class).step_by(classes).copied().collect();
                let targets: Vec<Option<bool>> = self.validate_targets.iter().map(|row| row[class]).collect();
                auroc(&scores, &targets)
            })
            .collect();
        let Some(mean) = mean_defined(by_class) else { return Ok(None) };
        Ok(Some(Evaluation { score: mean, values: vec![("auroc".to_owned(), mean)] }))
    }
}

/// Records of a batch without gradients.
const EVALUATION_BATCH: usize = 128;

/// Probabilities `[rows, classes]` of some rows, row-major, in their order.
pub fn predict(
    model: &VitClassifier,
    dataset: &Arc<Dataset>,
    rows: &[u32],
    transform: Transform,
    device: Device,
) -> Result<Vec<f32>> {
    let loader = loader_for(device, Loader::builder(dataset))
        .rows(rows.to_vec())
        .batch_size(EVALUATION_BATCH)
        .shuffle(false)
        .transform(transform)
        .build()?;
    let mut scores = Vec::new();
    for batch in loader {
        let batch = batch?; // kept until its scores are here: a CUDA device reads its memory meanwhile
        let images = images(&batch, device);
        let probabilities = tch::no_grad(|| model.logits(&images, false))?.sigmoid();
        let flat = probabilities.to_kind(Kind::Float).to_device(Device::Cpu).flatten(0, -1);
        scores.extend(Vec::<f32>::try_from(&flat)?);
    }
    Ok(scores)
}
