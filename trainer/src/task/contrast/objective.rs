//! Image–text contrast as an objective, beside the losses of masked record modeling.

use anyhow::Result;
use dataset::{Batch, random};
use tch::nn::VarStore;
use tch::{Kind, Tensor};

use crate::model::contrast::{ContrastModel, PairLoss};
use crate::model::mrm::{MrmConfig, MrmOutput};
use crate::task::objective::{Evaluation, Loss, Objective, RecordLosses, send};
use crate::task::pretrain::RecordModeling;
use crate::train::distributed::{Compute, ProcessGroup};

/// A model that tells pairs of images and reports from other pairs, and may reconstruct both.
pub struct Contrasting {
    store: VarStore,
    model: ContrastModel,
    weight: f64,
    group: ProcessGroup,
    record_losses: bool,
}

/// The records of a batch that have an image and a report.
struct Pairs {
    /// Positions in the batch.
    records: Vec<i64>,
    /// Positions among the images of the batch, `[M]`.
    images: Tensor,
    /// Token ids and attention mask of the reports, `[M, S]`.
    ids: Tensor,
    attention_mask: Tensor,
    /// Equal for equal reports, `[M]`.
    keys: Tensor,
}

impl Contrasting {
    /// A randomly initialized model.
    ///
    /// # Errors
    /// When no model has this configuration, or it has no contrast.
    pub fn new(config: &MrmConfig, compute: &Compute) -> Result<Self> {
        let store = VarStore::new(compute.device);
        let model = ContrastModel::new(&store.root(), config)?;
        let weight = config.contrast.as_ref().map_or(0.0, |contrast| contrast.weight);
        Ok(Self { store, model, weight, group: compute.group.clone(), record_losses: false })
    }

    /// Computes the losses of reconstructions in place; see [`Mrm::set_in_place_loss`](crate::model::mrm::Mrm::set_in_place_loss).
    #[must_use]
    pub fn in_place_loss(mut self, in_place: bool) -> Self {
        self.model.mrm_mut().set_in_place_loss(in_place);
        self
    }

    /// Computes the losses of single records, too.
    #[must_use]
    pub fn record_losses(mut self, record_losses: bool) -> Self {
        self.model.mrm_mut().set_record_losses(record_losses);
        self.record_losses = record_losses;
        self
    }

    /// The model.
    pub fn model(&self) -> &ContrastModel {
        &self.model
    }

    /// The records that have an image and a report. The report is read as it is, without masks.
    fn pairs(&self, batch: &Batch) -> Pairs {
        let (device, tokens) = (self.store.device(), batch.tokens());
        let has_image = batch.has_image();
        let with_image: Vec<usize> = (0..batch.len()).filter(|&at| has_image[at] > 0).collect();
        let records: Vec<usize> = batch.with_report().into_iter().filter(|&at| has_image[at] > 0).collect();
        let of = |table: &[i64], record: usize| table[record * tokens..(record + 1) * tokens].to_vec();
        let table = |table: &[i64]| {
            let rows: Vec<i64> = records.iter().flat_map(|&record| of(table, record)).collect();
            send(&Tensor::from_slice(&rows).view([records.len() as i64, tokens as i64]), device)
        };
        let list = |values: Vec<i64>| send(&Tensor::from_slice(&values), device);
        let image_of = |record: &usize| with_image.binary_search(record).unwrap_or(with_image.len()) as i64;
        Pairs {
            images: list(records.iter().map(image_of).collect()),
            ids: table(batch.target_ids()),
            attention_mask: table(batch.attention_mask()),
            keys: list(records.iter().map(|&record| report_key(&of(batch.target_ids(), record))).collect()),
            records: records.iter().map(|&record| record as i64).collect(),
        }
    }

    /// The contrast of the pairs of all processes, the same number in each; and the position of this process's first pair
    /// among them.
    fn contrast(&self, output: &MrmOutput, pairs: &Pairs) -> Result<(PairLoss, i64)> {
        let images = self.model.image_vectors(&output.latent.index_select(0, &pairs.images))?; // [M, P]
        let texts = self.model.text_vectors(&pairs.ids, &pairs.attention_mask, true)?; // [M, P]
        let weights = self.model.correlation_weights(&output.mask.index_select(0, &pairs.images)); // [M]
        let length = images.size()[1];
        let mut columns = vec![images, texts];
        columns.extend(weights.as_ref().map(|weights| weights.unsqueeze(1)));
        let rows = self.group.rows(pairs.records.len() as i64)?;
        let all = rows.gather(&Tensor::f_cat(&columns, 1)?)?; // [ΣM, 2·P] or [ΣM, 2·P + 1]
        let keys = rows.gather(&pairs.keys)?;
        let weights = weights.map(|_| all.select(1, 2 * length));
        let loss =
            self.model.pair_loss(&all.narrow(1, 0, length), &all.narrow(1, length, length), weights.as_ref(), &keys)?;
        Ok((loss, rows.start()))
    }

    /// The losses of this process's pairs, as losses of the records of its batch.
    fn by_record(&self, loss: &PairLoss, start: i64, pairs: &Pairs, records: usize) -> Result<RecordLosses> {
        let device = self.store.device();
        let own = loss.each.detach().narrow(0, start, pairs.records.len() as i64);
        let at = send(&Tensor::from_slice(&pairs.records), device);
        let of_batch = |values: &Tensor| -> Result<Tensor> {
            let zeros = Tensor::f_zeros([records as i64], (Kind::Float, device))?;
            Ok(zeros.f_index_add(0, &at, &values.to_kind(Kind::Float))?)
        };
        Ok(RecordLosses { name: "loss_contrast", sums: of_batch(&own)?, counts: of_batch(&own.ones_like())? })
    }
}

/// A number that equal token ids share, and others do not.
pub(super) fn report_key(ids: &[i64]) -> i64 {
    let words: Vec<u64> = ids.iter().map(|&id| id as u64).collect();
    random::mix(&words) as i64
}

impl Objective for Contrasting {
    fn store(&self) -> &VarStore {
        &self.store
    }

    fn loss(&self, batch: &Batch) -> Result<Loss> {
        self.model.limit_scale()?;
        let modeling = RecordModeling { model: self.model.mrm(), group: &self.group, device: self.store.device() };
        let inputs = modeling.inputs(batch, false);
        let output = modeling.forward(&inputs)?;
        let pairs = self.pairs(batch);
        let (contrast, start) = self.contrast(&output, &pairs)?;
        let mut loss = modeling.loss(&inputs, output)?;
        loss.total = &loss.total + &contrast.total * self.weight;
        loss.parts.push(("loss_contrast", contrast.total.detach()));
        loss.parts.push(("temperature", self.model.temperature()));
        if self.record_losses {
            loss.by_record.push(self.by_record(&contrast, start, &pairs, batch.len())?);
        }
        Ok(loss)
    }

    fn evaluate(&self) -> Result<Option<Evaluation>> {
        Ok(None)
    }
}
