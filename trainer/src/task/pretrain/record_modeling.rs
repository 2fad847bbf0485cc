//! Masked record modeling of batches: from a loader's batch to the losses of a model, of one process or of several.

use anyhow::{Result, bail};
use dataset::Batch;
use tch::{Device, Tensor};

use crate::model::mrm::{IGNORED_LABEL, Mrm, MrmOutput, PaddedLabels, ReportBatch, ReportLoss, ReportLosses};
use crate::task::objective::{Loss, RecordLosses, images, send};
use crate::train::distributed::ProcessGroup;

/// A model that reconstructs masked patches and tokens, and where it computes.
pub(in crate::task) struct RecordModeling<'a> {
    /// The model.
    pub model: &'a Mrm,
    /// The processes whose batches are parts of one.
    pub group: &'a ProcessGroup,
    /// The model's device.
    pub device: Device,
}

/// Lengths that masked positions are padded to, at most so many: each is a shape for itself.
const PADDED_LENGTHS: usize = 32;

/// A batch on the device.
pub(in crate::task) struct Inputs {
    /// Those of the records that have one, of studies those of all views: `[I, 1, S, S]`.
    image: Tensor,
    /// The record or study of each image, `[I]`; none where every record has one.
    pub image_records: Option<Tensor>,
    /// Codes of the images' views, `[I]`; none unless samples are studies.
    views: Option<Tensor>,
    /// Number of records, B.
    pub records: i64,
    /// None if the model reconstructs the image only.
    report: Option<ReportInputs>,
    /// Positions in reports that the loss is computed of, or the sum of their weights.
    positions_of_loss: f64,
}

/// The tensors of a [`ReportBatch`].
struct ReportInputs {
    ids: Tensor,            // [R, S]
    labels: Tensor,         // [R, S]
    attention_mask: Tensor, // [R, S]
    /// The image of each report, `[R]`, of studies its images, `[R, V]`, I for none; none where every record has an image and a
    /// report.
    rows: Option<Tensor>,
    /// The record of each report, `[R]`; none where every record has one.
    records: Option<Tensor>,
    /// Weights of the tokens, `[R, S]`; none where they are not weighted.
    weights: Option<Tensor>,
    /// Masked positions `[M]`; none where the loss is that of all positions.
    masked: Option<Tensor>,
    /// Labels `[M]` and number of the masked positions, where they are padded.
    padded: Option<(Tensor, Tensor)>,
}

impl Inputs {
    /// The tensors in a fixed order. [`Self::of`] reverses it.
    pub fn into_tensors(self) -> Vec<Tensor> {
        let mut tensors = vec![self.image];
        if let Some(ReportInputs { ids, labels, attention_mask, masked, padded, .. }) = self.report {
            tensors.extend([ids, labels, attention_mask]);
            tensors.extend(masked);
            tensors.extend(padded.into_iter().flat_map(|(labels, count)| [labels, count]));
        }
        tensors
    }

    /// A batch of which every record has an image and a report, or an image where no report is used; tokens without weights.
    pub fn of(tensors: &[Tensor]) -> Result<Self> {
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
                let (rows, records, weights) = (None, None, None);
                (image, Some(ReportInputs { ids, labels, attention_mask, rows, records, weights, masked, padded }))
            }
            _ => bail!("{} tensors are not those of a batch", tensors.len()),
        };
        let (image, records) = (clone(image), image.size()[0]);
        Ok(Self { image, image_records: None, views: None, records, report, positions_of_loss: 0.0 })
    }
}

impl RecordModeling<'_> {
    /// Sends a batch to the device; with `pads`, masked positions have one of few lengths.
    pub fn inputs(&self, batch: &Batch, pads: bool) -> Inputs {
        let device = self.device;
        let list = |values: &[i64]| send(&Tensor::from_slice(values), device);
        let (mut image, mut image_records) = (images(batch, device), None);
        let (records, slots) = (batch.len() as i64, batch.slots());
        let with_image = image_slots(batch);
        let is_plain = slots == 1 && with_image.len() == batch.len();
        if !is_plain {
            // Records without an image take part in the report loss alone.
            image = image.index_select(0, &list(&with_image));
            image_records = Some(list(&with_image.iter().map(|slot| slot / slots as i64).collect::<Vec<i64>>()));
        }
        let codes = batch.view_codes();
        let of_images = || with_image.iter().map(|&slot| codes[slot as usize]).collect::<Vec<i64>>();
        let views = (!codes.is_empty()).then(|| list(&of_images()));
        if !self.model.config().reconstructs_report() {
            return Inputs { image, image_records, views, records, report: None, positions_of_loss: 0.0 };
        }
        // Records without a report take part in the image loss alone.
        let with_report = batch.with_report();
        let all = with_report.len() == batch.len();
        let [seen, target, attention_mask] = [batch.token_ids(), batch.target_ids(), batch.attention_mask()]
            .map(|table| of_records(table, &with_report, batch.tokens()));
        let weights = match batch.token_weights() {
            [] => None,
            table => Some(of_records(table, &with_report, batch.tokens())),
        };
        let shape = [with_report.len() as i64, batch.tokens() as i64];
        let table = |ids: &[i64]| send(&Tensor::from_slice(ids).view(shape), device);
        let weight_of = |position: i64| weights.as_ref().map_or(1.0, |weights| f64::from(weights[position as usize]));
        let (mut masked, mut padded) = (None, None);
        let mut positions_of_loss: f64 = (0..seen.len() as i64).map(weight_of).sum();
        if self.model.config().report_loss == ReportLoss::Masked {
            let mut positions: Vec<i64> = (0_i64..)
                .zip(seen.iter().zip(&target))
                .filter_map(|(position, (seen, target))| (seen != target).then_some(position))
                .collect();
            positions_of_loss = positions.iter().copied().map(weight_of).sum();
            if pads {
                let mut labels: Vec<i64> = positions.iter().map(|&position| target[position as usize]).collect();
                let length = padded_length(positions.len(), seen.len());
                positions.resize(length, 0);
                labels.resize(length, IGNORED_LABEL);
                let count = Tensor::from(positions_of_loss.max(1.0) as f32);
                padded = Some((list(&labels), send(&count, device)));
            }
            masked = Some(list(&positions));
        }
        let of_report: Vec<i64> = with_report.iter().map(|&record| record as i64).collect();
        let image_of = |slot: i64| with_image.binary_search(&slot).unwrap_or(with_image.len()) as i64;
        let slots_of = |record: &i64| (record * slots as i64..(record + 1) * slots as i64).map(image_of);
        let rows = || {
            let rows = list(&of_report.iter().flat_map(slots_of).collect::<Vec<i64>>());
            if slots == 1 { rows } else { rows.view([of_report.len() as i64, slots as i64]) }
        };
        let report = ReportInputs {
            ids: table(&seen),
            labels: table(&target),
            attention_mask: table(&attention_mask),
            rows: (!(all && is_plain)).then(rows),
            records: (!all).then(|| list(&of_report)),
            weights: weights.map(|weights| send(&Tensor::from_slice(&weights).view(shape), device)),
            masked,
            padded,
        };
        Inputs { image, image_records, views, records, report: Some(report), positions_of_loss }
    }

    /// The forward pass of training.
    ///
    /// # Errors
    /// When the tensors do not fit the model.
    pub fn forward(&self, inputs: &Inputs) -> Result<MrmOutput> {
        let report = inputs.report.as_ref().map(|report| ReportBatch {
            ids: &report.ids,
            labels: &report.labels,
            attention_mask: &report.attention_mask,
            type_ids: None,
            rows: report.rows.as_ref(),
            weights: report.weights.as_ref(),
            masked: report.masked.as_ref(),
            padded: report.padded.as_ref().map(|(labels, count)| PaddedLabels { labels, count }),
        });
        Ok(self.model.forward_views(&inputs.image, inputs.views.as_ref(), report, None, true)?)
    }

    /// The loss of a forward pass.
    ///
    /// # Errors
    /// When another process cannot be reached.
    pub fn loss(&self, inputs: &Inputs, output: MrmOutput) -> Result<Loss> {
        let by_record = by_record(&output, inputs)?;
        let parts = [("loss_image", output.loss_image), ("loss_report", output.loss_report)];
        if self.group.world_size() > 1 {
            let counts = [inputs.image.size()[0] as f64, inputs.positions_of_loss];
            return Ok(Loss { by_record, ..self.loss_of_all(parts, counts)? });
        }
        Ok(Loss {
            total: output.total,
            parts: parts.into_iter().filter_map(|(name, loss)| Some((name, loss?.detach()))).collect(),
            by_record,
        })
    }

    /// The loss whose mean over the processes is that of the whole batch: each process has computed the mean over its own
    /// `counts` of images and of positions in reports, or by weights of so much.
    fn loss_of_all(&self, losses: [(&'static str, Option<Tensor>); 2], counts: [f64; 2]) -> Result<Loss> {
        let (device, config) = (self.device, self.model.config());
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

/// The slots of a batch that have an image, in their order; of single records, slots are records.
pub(in crate::task) fn image_slots(batch: &Batch) -> Vec<i64> {
    let has_image = if batch.view_mask().is_empty() { batch.has_image() } else { batch.view_mask() };
    (0..).zip(has_image).filter(|(_, has)| **has > 0).map(|(slot, _)| slot).collect()
}

/// The rows of some records of a table with so many values each.
fn of_records<T: Copy>(table: &[T], records: &[usize], values: usize) -> Vec<T> {
    records.iter().flat_map(|record| &table[record * values..(record + 1) * values]).copied().collect()
}

/// The losses of single records, where the model computes them: none of reports for records without one, none of images for
/// those without one.
fn by_record(output: &MrmOutput, inputs: &Inputs) -> Result<Vec<RecordLosses>> {
    // From some records to all of the batch, [B].
    let of_batch = |values: &Tensor, records: Option<&Tensor>| -> Result<Tensor> {
        let Some(records) = records else { return Ok(values.shallow_clone()) };
        let zeros = Tensor::f_zeros([inputs.records], (values.kind(), values.device()))?;
        Ok(zeros.f_index_add(0, records, values)?)
    };
    let mut losses = Vec::new();
    if let Some(images) = &output.image_losses {
        let records = inputs.image_records.as_ref();
        let (sums, counts) = (of_batch(images, records)?, of_batch(&images.ones_like(), records)?);
        losses.push(RecordLosses { name: "loss_image", sums, counts });
    }
    if let Some(ReportLosses { sums, counts }) = &output.report_losses {
        let records = inputs.report.as_ref().and_then(|report| report.records.as_ref());
        let (sums, counts) = (of_batch(sums, records)?, of_batch(counts, records)?);
        losses.push(RecordLosses { name: "loss_report", sums, counts });
    }
    Ok(losses)
}

/// The length that `masked` of `all` positions are padded to: the next multiple of a 32nd of all.
fn padded_length(masked: usize, all: usize) -> usize {
    let unit = all.div_ceil(PADDED_LENGTHS).max(1);
    masked.max(1).next_multiple_of(unit)
}
