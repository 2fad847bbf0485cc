//! Masked record modeling as an objective.

use anyhow::{Result, bail};
use dataset::Batch;
use tch::Tensor;
use tch::nn::VarStore;

use crate::model::mrm::{
    IGNORED_LABEL, Mrm, MrmConfig, MrmOutput, PaddedLabels, ReportBatch, ReportLoss, ReportLosses,
};
use crate::task::objective::{Evaluation, Loss, Objective, RecordLosses, Staged, images, send};
use crate::train::distributed::{Compute, ProcessGroup};

/// A model that reconstructs masked patches and tokens.
pub struct Pretraining {
    store: VarStore,
    model: Mrm,
    group: ProcessGroup,
}

impl Pretraining {
    /// A randomly initialized model.
    ///
    /// # Errors
    /// When no model has this configuration.
    pub fn new(config: &MrmConfig, compute: &Compute) -> Result<Self> {
        let store = VarStore::new(compute.device);
        let model = Mrm::new(&store.root(), config)?;
        Ok(Self { store, model, group: compute.group.clone() })
    }

    /// Computes the losses in place; see [`Mrm::set_in_place_loss`].
    #[must_use]
    pub fn in_place_loss(mut self, in_place: bool) -> Self {
        self.model.set_in_place_loss(in_place);
        self
    }

    /// Computes the losses of single records, too; see [`Mrm::set_record_losses`].
    #[must_use]
    pub fn record_losses(mut self, record_losses: bool) -> Self {
        self.model.set_record_losses(record_losses);
        self
    }

    /// The model.
    pub fn model(&self) -> &Mrm {
        &self.model
    }
}

/// Lengths that masked positions are padded to, at most so many: each is a shape for itself.
const PADDED_LENGTHS: usize = 32;

/// A batch on the device.
struct Inputs {
    image: Tensor, // [B, 1, S, S]
    /// None if the model reconstructs the image only.
    report: Option<ReportInputs>,
    /// Positions in reports that the loss is computed of.
    positions_of_loss: usize,
}

/// The tensors of a [`ReportBatch`].
struct ReportInputs {
    ids: Tensor,            // [R, S]
    labels: Tensor,         // [R, S]
    attention_mask: Tensor, // [R, S]
    /// The image of each report, `[R]`; none where every image has a report.
    rows: Option<Tensor>,
    /// Masked positions `[M]`; none where the loss is that of all positions.
    masked: Option<Tensor>,
    /// Labels `[M]` and number of the masked positions, where they are padded.
    padded: Option<(Tensor, Tensor)>,
}

impl Inputs {
    /// The tensors in a fixed order. [`Self::of`] reverses it.
    fn into_tensors(self) -> Vec<Tensor> {
        let mut tensors = vec![self.image];
        if let Some(ReportInputs { ids, labels, attention_mask, masked, padded, .. }) = self.report {
            tensors.extend([ids, labels, attention_mask]);
            tensors.extend(masked);
            tensors.extend(padded.into_iter().flat_map(|(labels, count)| [labels, count]));
        }
        tensors
    }

    /// A batch of which every image has a report, or no report is used.
    fn of(tensors: &[Tensor]) -> Result<Self> {
        let clone = Tensor::shallow_clone;
        let (image, report) = match tensors {
            [image] => (image, None),
            [image, ids, labels, attention_mask, masked @ ..] => {
                let (masked, padded) = match masked {
                    [] => (None, None),
                    [masked, labels, count] => (Some(clone(masked)), Some((clone(labels), clone(count)))),
                    _ => bail!("{} tensors are not those of a batch", tensors.len()),
                };
                let [ids, labels, attention_mask] = [ids, labels, attention_mask].map(clone);
                (image, Some(ReportInputs { ids, labels, attention_mask, rows: None, masked, padded }))
            }
            _ => bail!("{} tensors are not those of a batch", tensors.len()),
        };
        Ok(Self { image: clone(image), report, positions_of_loss: 0 })
    }
}

impl Pretraining {
    /// Sends a batch to the device; with `pads`, masked positions have one of few lengths.
    fn inputs(&self, batch: &Batch, pads: bool) -> Inputs {
        let device = self.store.device();
        let image = images(batch, device);
        if !self.model.config().reconstructs_report() {
            return Inputs { image, report: None, positions_of_loss: 0 };
        }
        // Records without a report take part in the image loss alone.
        let with_report = batch.with_report();
        let all = with_report.len() == batch.len();
        let of_reports = |table: &[i64]| -> Vec<i64> {
            let rows = with_report.iter().flat_map(|row| &table[row * batch.tokens()..(row + 1) * batch.tokens()]);
            rows.copied().collect()
        };
        let [seen, target, attention_mask] =
            [batch.token_ids(), batch.target_ids(), batch.attention_mask()].map(of_reports);
        let list = |values: &[i64]| send(&Tensor::from_slice(values), device);
        let shape = [with_report.len() as i64, batch.tokens() as i64];
        let table = |ids: &[i64]| send(&Tensor::from_slice(ids).view(shape), device);
        let (mut masked, mut padded, mut positions_of_loss) = (None, None, seen.len());
        if self.model.config().report_loss == ReportLoss::Masked {
            let mut positions: Vec<i64> = (0_i64..)
                .zip(seen.iter().zip(&target))
                .filter_map(|(position, (seen, target))| (seen != target).then_some(position))
                .collect();
            positions_of_loss = positions.len();
            if pads {
                let mut labels: Vec<i64> = positions.iter().map(|&position| target[position as usize]).collect();
                let length = padded_length(positions.len(), seen.len());
                positions.resize(length, 0);
                labels.resize(length, IGNORED_LABEL);
                let count = Tensor::from(positions_of_loss.max(1) as f32);
                padded = Some((list(&labels), send(&count, device)));
            }
            masked = Some(list(&positions));
        }
        let rows: Vec<i64> = with_report.iter().map(|&row| row as i64).collect();
        let report = ReportInputs {
            ids: table(&seen),
            labels: table(&target),
            attention_mask: table(&attention_mask),
            rows: (!all).then(|| list(&rows)),
            masked,
            padded,
        };
        Inputs { image, report: Some(report), positions_of_loss }
    }

    fn loss_of_inputs(&self, inputs: &Inputs) -> Result<Loss> {
        let report = inputs.report.as_ref().map(|report| ReportBatch {
            ids: &report.ids,
            labels: &report.labels,
            attention_mask: &report.attention_mask,
            type_ids: None,
            rows: report.rows.as_ref(),
            masked: report.masked.as_ref(),
            padded: report.padded.as_ref().map(|(labels, count)| PaddedLabels { labels, count }),
        });
        let output = self.model.forward(&inputs.image, report, None, true)?;
        let by_record = by_record(&output, inputs)?;
        let parts = [("loss_image", output.loss_image), ("loss_report", output.loss_report)];
        if self.group.world_size() > 1 {
            let counts = [inputs.image.size()[0] as usize, inputs.positions_of_loss];
            return Ok(Loss { by_record, ..self.loss_of_all(parts, counts)? });
        }
        Ok(Loss {
            total: output.total,
            parts: parts.into_iter().filter_map(|(name, loss)| Some((name, loss?.detach()))).collect(),
            by_record,
        })
    }

    /// The loss whose mean over the processes is that of the whole batch: each process has computed the mean over its own
    /// `counts` of images and of positions in reports.
    fn loss_of_all(&self, losses: [(&'static str, Option<Tensor>); 2], counts: [usize; 2]) -> Result<Loss> {
        let (device, config) = (self.store.device(), self.model.config());
        let mut total = Tensor::from(0.0_f32).to_device(device);
        let mut parts = Vec::new();
        for (((name, loss), count), weight) in
            losses.into_iter().zip(counts).zip([config.image_weight, config.report_weight])
        {
            let Some(loss) = loss else { continue };
            let count = Tensor::from(count as f32).to_device(device);
            let loss = self.group.mean(&(loss * &count), &count)?;
            total += &loss * weight;
            parts.push((name, loss.detach()));
        }
        Ok(Loss { total, parts, by_record: Vec::new() })
    }
}

impl Objective for Pretraining {
    fn store(&self) -> &VarStore {
        &self.store
    }

    fn loss(&self, batch: &Batch) -> Result<Loss> {
        self.loss_of_inputs(&self.inputs(batch, false))
    }

    fn staged(&self) -> Option<&dyn Staged> {
        // Of several processes, each waits for the others within the loss.
        (self.group.world_size() == 1).then_some(self)
    }

    fn evaluate(&self) -> Result<Option<Evaluation>> {
        Ok(None)
    }
}

impl Staged for Pretraining {
    /// None where an image has no report: the number of reports would be one more shape.
    fn stage(&self, batch: &Batch) -> Result<Option<Vec<Tensor>>> {
        let is_plain = !self.model.config().reconstructs_report() || batch.with_report().len() == batch.len();
        Ok(is_plain.then(|| self.inputs(batch, true).into_tensors()))
    }

    fn loss_of(&self, inputs: &[Tensor]) -> Result<Loss> {
        self.loss_of_inputs(&Inputs::of(inputs)?)
    }
}

/// The losses of single records, where the model computes them: none of reports for images without one.
fn by_record(output: &MrmOutput, inputs: &Inputs) -> Result<Vec<RecordLosses>> {
    let mut losses = Vec::new();
    if let Some(images) = &output.image_losses {
        losses.push(RecordLosses { name: "loss_image", sums: images.shallow_clone(), counts: images.ones_like() });
    }
    if let Some(ReportLosses { sums, counts }) = &output.report_losses {
        // From the reports [R] to the images [B].
        let of_images = |values: &Tensor| -> Result<Tensor> {
            let rows = inputs.report.as_ref().and_then(|report| report.rows.as_ref());
            let Some(rows) = rows else { return Ok(values.shallow_clone()) };
            let zeros = Tensor::f_zeros([inputs.image.size()[0]], (values.kind(), values.device()))?;
            Ok(zeros.f_index_add(0, rows, values)?)
        };
        losses.push(RecordLosses { name: "loss_report", sums: of_images(sums)?, counts: of_images(counts)? });
    }
    Ok(losses)
}

/// The length that `masked` of `all` positions are padded to: the next multiple of a 32nd of all.
fn padded_length(masked: usize, all: usize) -> usize {
    let unit = all.div_ceil(PADDED_LENGTHS).max(1);
    masked.max(1).next_multiple_of(unit)
}
