//! Several views of a study as an objective: reconstructions of each view and of the study's report, and the alignment of views.

use std::cell::Cell;

use anyhow::Result;
use dataset::Batch;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

use crate::model::mrm::{Mrm, MrmConfig, ViewsConfig};
use crate::model::view_alignment::{ViewAlignment, align_views};
use crate::task::objective::{Evaluation, Loss, Objective, RecordLosses, send};
use crate::task::pretrain::{RecordModeling, image_slots};
use crate::train::distributed::{Compute, ProcessGroup};

/// A model that reconstructs the views of a study and its report, and aligns the views.
pub struct ViewModeling {
    store: VarStore,
    model: Mrm,
    views: ViewsConfig,
    steps: u64,
    /// The weight of the alignment at the present step.
    weight: Cell<f64>,
    group: ProcessGroup,
    record_losses: bool,
}

/// Two views of a study each.
struct ViewPairs {
    /// Positions among the images of the batch, `[N, 2]`.
    images: Tensor,
    /// The studies, `[N]`.
    studies: Tensor,
}

impl ViewModeling {
    /// A randomly initialized model, for a run of `steps` steps.
    ///
    /// # Errors
    /// When no model has this configuration.
    pub fn new(config: &MrmConfig, steps: u64, compute: &Compute) -> Result<Self> {
        let store = VarStore::new(compute.device);
        let model = Mrm::new(&store.root(), config)?;
        let views = config.views.clone().unwrap_or_default();
        let weight = Cell::new(views.align_weight_at(0, steps));
        Ok(Self { store, model, views, steps, weight, group: compute.group.clone(), record_losses: false })
    }

    /// Computes the losses of reconstructions in place; see [`Mrm::set_in_place_loss`].
    #[must_use]
    pub fn in_place_loss(mut self, in_place: bool) -> Self {
        self.model.set_in_place_loss(in_place);
        self
    }

    /// Computes the losses of single studies, too.
    #[must_use]
    pub fn record_losses(mut self, record_losses: bool) -> Self {
        self.model.set_record_losses(record_losses);
        self.record_losses = record_losses;
        self
    }

    /// The model.
    pub fn model(&self) -> &Mrm {
        &self.model
    }

    /// All pairs of views of the same study.
    fn pairs(&self, batch: &Batch) -> ViewPairs {
        let study_of = |slot: &i64| slot / batch.slots() as i64;
        let studies: Vec<i64> = image_slots(batch).iter().map(study_of).collect();
        let (mut pairs, mut of_pairs) = (Vec::new(), Vec::new());
        for (first, study) in (0_i64..).zip(&studies) {
            let later = (first + 1..).zip(&studies[first as usize + 1..]).take_while(|(_, other)| *other == study);
            for (second, _) in later {
                pairs.extend([first, second]);
                of_pairs.push(*study);
            }
        }
        let device = self.store.device();
        ViewPairs {
            images: send(&Tensor::from_slice(&pairs).view([-1, 2]), device),
            studies: send(&Tensor::from_slice(&of_pairs), device),
        }
    }

    /// The mean over the pairs of all processes.
    fn of_all(&self, loss: &ViewAlignment) -> Result<Tensor> {
        if self.group.world_size() == 1 {
            return Ok(loss.total.shallow_clone());
        }
        let count = Tensor::from(loss.each.size()[0] as f32).to_device(self.store.device());
        Ok(self.group.mean(&(&loss.total * &count), &count)?)
    }

    /// The losses of pairs as those of their studies.
    fn by_study(&self, loss: &ViewAlignment, pairs: &ViewPairs, studies: usize) -> Result<RecordLosses> {
        let of_batch = |values: &Tensor| -> Result<Tensor> {
            let zeros = Tensor::f_zeros([studies as i64], (Kind::Float, self.store.device()))?;
            Ok(zeros.f_index_add(0, &pairs.studies, values)?)
        };
        let each = loss.each.detach();
        Ok(RecordLosses { name: "loss_alignment", sums: of_batch(&each)?, counts: of_batch(&each.ones_like())? })
    }
}

impl Objective for ViewModeling {
    fn store(&self) -> &VarStore {
        &self.store
    }

    fn before_step(&self, step: u64) -> Result<()> {
        self.weight.set(self.views.align_weight_at(step, self.steps));
        Ok(())
    }

    fn loss(&self, batch: &Batch) -> Result<Loss> {
        let modeling = RecordModeling { model: &self.model, group: &self.group, device: self.store.device() };
        let inputs = modeling.inputs(batch, false);
        let output = modeling.forward(&inputs)?;
        let pairs = self.pairs(batch);
        let alignment = align_views(&output.latent, &pairs.images)?;
        let total = self.of_all(&alignment)?;
        let mut loss = modeling.loss(&inputs, output)?;
        loss.total = &loss.total + &total * self.weight.get();
        loss.parts.push(("loss_alignment", total.detach()));
        if self.record_losses {
            loss.by_record.push(self.by_study(&alignment, &pairs, batch.len())?);
        }
        Ok(loss)
    }

    fn evaluate(&self) -> Result<Option<Evaluation>> {
        Ok(None)
    }
}
