//! Multi-label classification as an objective.

use std::sync::Arc;

use anyhow::Result;
use dataset::transform::Transform;
use dataset::{Batch, Dataset, Loader};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use super::Labels;
use super::label_loss::LabelLoss;
use super::mixup::Records;
use crate::config::EncoderTraining;
use crate::eval::metrics::{auroc, mean_defined};
use crate::model::classifier::{ClassifierConfig, VitClassifier};
use crate::task::objective::{Evaluation, Loss, Objective, RecordLosses, images, loader_for};
use crate::train::distributed::ProcessGroup;
use crate::train::optimizer::{Parameter, encoder_and_head};

/// A classifier that learns findings.
pub struct Classification {
    store: VarStore,
    model: VitClassifier,
    labels: Labels,
    /// Datasets, and rows of each.
    validate: Vec<(Arc<Dataset>, Vec<u32>)>,
    /// One list a record of `validate`.
    validate_targets: Vec<Vec<Option<bool>>>,
    transform: Transform,
    layer_decay: f64,
    encoder: EncoderTraining,
    label_loss: LabelLoss,
    mixup: f64,
    group: ProcessGroup,
}

impl Classification {
    /// A randomly initialized classifier.
    ///
    /// # Errors
    /// When no model has this configuration.
    pub fn new(config: &ClassifierConfig, labels: Labels, transform: Transform, device: Device) -> Result<Self> {
        let store = VarStore::new(device);
        let model = VitClassifier::new(&store.root(), config)?;
        Ok(Self {
            store,
            model,
            labels,
            validate: Vec::new(),
            validate_targets: Vec::new(),
            transform,
            layer_decay: 1.0,
            encoder: EncoderTraining::default(),
            label_loss: LabelLoss::default(),
            mixup: 0.0,
            group: ProcessGroup::single(),
        })
    }

    /// Trains together with the other processes of a group: the loss is the mean over the labels of all.
    #[must_use]
    pub fn in_group(mut self, group: &ProcessGroup) -> Self {
        self.group = group.clone();
        self
    }

    /// Records for [`Objective::evaluate`], by their rows in datasets, and their targets; without them there is no evaluation.
    #[must_use]
    pub fn validate(mut self, records: Vec<(Arc<Dataset>, Vec<u32>)>, targets: Vec<Vec<Option<bool>>>) -> Self {
        (self.validate, self.validate_targets) = (records, targets);
        self
    }

    /// Sets the layer decay: each layer has `decay` times the learning rate of the layer after it.
    #[must_use]
    pub fn layer_decay(mut self, decay: f64) -> Self {
        self.layer_decay = decay;
        self
    }

    /// Freezes the encoder, with the linear layer trained alone, or sets the factor on its learning rate.
    #[must_use]
    pub fn encoder(mut self, encoder: EncoderTraining) -> Self {
        self.encoder = encoder;
        self
    }

    /// Sets how labels become a loss.
    #[must_use]
    pub fn label_loss(mut self, label_loss: LabelLoss) -> Self {
        self.label_loss = label_loss;
        self
    }

    /// Mixes each record with another one of its batch, by shares from Beta(`alpha`, `alpha`); 0: not. In a group, partners are
    /// records of the same process.
    #[must_use]
    pub fn mixup(mut self, alpha: f64) -> Self {
        self.mixup = alpha;
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
        let layers = self.model.config().vit.num_layers;
        let mut all = encoder_and_head(&self.store, layers, self.layer_decay, self.encoder.encoder_lr_scale);
        if self.encoder.freeze_encoder {
            all.retain(|parameter| parameter.name.starts_with("head."));
        }
        all
    }

    fn loss(&self, batch: &Batch) -> Result<Loss> {
        let device = self.store.device();
        let (targets, counts) = self.labels.tensors(batch, device);
        let mut records = Records { images: images(batch, device), targets, counts };
        if self.mixup > 0.0 {
            records = records.mixed(self.mixup)?;
        }
        let Records { images, targets, counts } = &records;
        let logits = if self.encoder.freeze_encoder {
            self.model.classify(&tch::no_grad(|| self.model.features(images, false))?)
        } else {
            self.model.logits(images, true)?
        };
        let each = self.label_loss.each(&logits, targets)? * counts; // [B, C]
        let total = self.group.mean(&each.sum(Kind::Float), &counts.sum(Kind::Float))?;
        let of_records = |values: &Tensor| values.detach().sum_dim_intlist([1_i64].as_slice(), false, Kind::Float);
        let by_record = vec![RecordLosses { name: "loss", sums: of_records(&each), counts: of_records(counts) }];
        Ok(Loss { total, parts: Vec::new(), by_record })
    }

    fn evaluate(&self) -> Result<Option<Evaluation>> {
        if self.validate_targets.is_empty() {
            return Ok(None);
        }
        let mut scores = Vec::new();
        for (dataset, rows) in self.validate.iter().filter(|(_, rows)| !rows.is_empty()) {
            scores.extend(predict(&self.model, dataset, rows, self.transform.clone(), self.store.device())?);
        }
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
///
/// # Errors
/// When a record cannot be read or torch fails.
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
        let batch = batch?; // must exist until its scores are copied: a CUDA device reads its memory meanwhile
        let images = images(&batch, device);
        let probabilities = tch::no_grad(|| model.logits(&images, false))?.sigmoid();
        let flat = probabilities.to_kind(Kind::Float).to_device(Device::Cpu).flatten(0, -1);
        scores.extend(Vec::<f32>::try_from(&flat)?);
    }
    Ok(scores)
}
