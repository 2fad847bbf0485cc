//! One optimizer step: batches, losses, gradients, the optimizer. It reads no number back, so the host waits for the device
//! only where a batch's memory must be free before the loader writes to it again.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use dataset::{Batch, random};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::task::objective::{Loss, Objective};
use crate::torch::shim::Event;
use crate::train::amp::{LossScale, Precision};
use crate::train::cuda_graph::{self, GraphedPasses};
use crate::train::distributed::{GradientSync, ProcessGroup, SyncKind};
use crate::train::master_weights::{LoweredWeights, MasterWeights};
use crate::train::optimizer::Optimizer;
use crate::train::source_losses::SourceSums;

/// Batches that the device may still read while the next one is prepared.
const IN_FLIGHT: usize = 2;

/// Time spent in the phases of the steps. To measure it, the host waits for the device between phases.
#[derive(Debug, Clone, Copy, Default)]
pub struct Phases {
    /// Waiting for batches.
    pub loader: Duration,
    /// Transfer to the device, and the model up to the loss.
    pub forward: Duration,
    /// Gradients.
    pub backward: Duration,
    /// Gradient clipping and the optimizer.
    pub optimizer: Duration,
}

/// Makes the steps of a run.
pub struct Stepper<'a> {
    /// The model and its loss.
    pub objective: &'a dyn Objective,
    /// The optimizer of its parameters.
    pub optimizer: Optimizer,
    /// Type of matrix products.
    pub precision: Precision,
    /// The loss scale of float16.
    pub scale: Option<LossScale>,
    /// 16-bit copies of the weights for the passes of a step; none: autocast casts the weights in each pass.
    pub master_weights: Option<MasterWeights>,
    /// Micro-batches of a step.
    pub accumulation: usize,
    /// Largest gradient norm; 0: no limit.
    pub clip: f64,
    /// Seed of the run.
    pub seed: u64,
    /// Datasets that the records come from; with several, losses are summed by dataset.
    pub datasets: usize,
    /// Where to add the time of the phases; none: they are not measured.
    pub phases: Option<Phases>,
    /// The recorded passes; none: every pass is launched anew.
    graphs: Option<GraphedPasses>,
    group: ProcessGroup,
    gradients: GradientSync,
    in_flight: VecDeque<(Rc<Batch>, Event)>,
    /// Variables that a forward pass changes: the running statistics of batch norms.
    statistics: Vec<Tensor>,
}

/// A step that was given to the device, which may still be computing it.
pub struct PendingStep {
    /// Its number, from 0.
    pub number: u64,
    /// Records of its batches.
    pub records: Vec<LoadedRecord>,
    names: Vec<&'static str>,
    by_source: Vec<&'static str>,
    /// Loss, gradient norm, 1 where the step was skipped, loss of this process alone, then the parts of the loss, then the sums
    /// by dataset: `[4 + parts + sums]`.
    values: Tensor,
}

/// A record that was loaded: the number of its dataset, and its row in it.
pub type LoadedRecord = (u16, u32);

/// The metrics of a step, over all processes.
#[derive(Debug, Clone, PartialEq)]
pub struct StepMetrics {
    /// Mean loss of its micro-batches.
    pub loss: f64,
    /// L2 norm of all gradients together, before clipping.
    pub grad_norm: f64,
    /// Whether the step was skipped, because the loss or a gradient is not finite.
    pub skipped: bool,
    /// Mean loss of this process's share of the batches.
    pub own_loss: f64,
    /// Parts of the loss by name.
    pub parts: Vec<(&'static str, f64)>,
    /// Names of the losses by dataset, and their sums ([`SourceSums::finish`]).
    pub(super) by_source: (Vec<&'static str>, Vec<f32>),
}

/// The micro-batches of a step together.
struct Sums {
    names: Vec<&'static str>,
    by_source: Vec<&'static str>,
    records: Vec<LoadedRecord>,
    /// Mean loss, then its parts by name, then the sums by dataset: `[1 + parts + sums]`, on the device.
    values: Tensor,
    /// Mean loss of this process alone, a scalar.
    own: Tensor,
}

impl PendingStep {
    /// Waits for the device and reads the metrics.
    ///
    /// # Errors
    /// When torch fails.
    pub fn metrics(&self) -> Result<StepMetrics> {
        let values = Vec::<f32>::try_from(self.values.to_device(Device::Cpu))?;
        let (parts, sums) = values[4..].split_at(self.names.len());
        let parts = self.names.iter().zip(parts).map(|(name, value)| (*name, f64::from(*value))).collect();
        let [loss, grad_norm, own_loss] = [values[0], values[1], values[3]].map(f64::from);
        let by_source = (self.by_source.clone(), sums.to_vec());
        Ok(StepMetrics { loss, grad_norm, skipped: values[2] > 0.5, own_loss, parts, by_source })
    }
}

impl<'a> Stepper<'a> {
    /// A stepper of one process, without accumulation, clipping or measuring; set the fields for those.
    pub fn new(objective: &'a dyn Objective, optimizer: Optimizer, precision: Precision, seed: u64) -> Self {
        Self {
            objective,
            precision,
            scale: precision.loss_scale(objective.store().device()),
            master_weights: None,
            accumulation: 1,
            clip: 0.0,
            seed,
            datasets: 1,
            phases: None,
            graphs: None,
            group: ProcessGroup::single(),
            gradients: GradientSync::single(),
            in_flight: VecDeque::new(),
            statistics: running_statistics(objective.store()),
            optimizer,
        }
    }

    /// Makes each step together with the other processes of a group, of the shares that their batches are of global ones.
    ///
    /// # Errors
    /// When the processes have other parameters, or one cannot be reached.
    pub fn in_group(mut self, group: &ProcessGroup, sync: SyncKind) -> Result<Self> {
        self.gradients = GradientSync::new(sync, group, self.optimizer.parameters())?;
        self.group = group.clone();
        Ok(self)
    }

    /// Keeps 16-bit copies of the weights, with the present ones as masters; see [`MasterWeights`]. In a group, gradients must
    /// be exchanged as [`SyncKind::Coalesced`], since the backward pass gives those of the copies.
    ///
    /// # Errors
    /// When torch fails, such as without memory.
    pub fn keep_master_weights(&mut self) -> Result<()> {
        let store = self.objective.store();
        self.master_weights = self.precision.reduced().map(|kind| MasterWeights::new(store, kind)).transpose()?;
        Ok(())
    }

    /// Computes forward and backward passes by CUDA graphs, see [`cuda_graph`]. [`Phases`] then count both as backward passes.
    ///
    /// # Errors
    /// When the device, the program, the group or the objective has no such passes.
    pub fn use_cuda_graph(&mut self) -> Result<()> {
        cuda_graph::check(self.objective, &self.group)?;
        self.graph_passes();
        Ok(())
    }

    pub(super) fn graph_passes(&mut self) {
        let parameters = self.optimizer.parameters().iter().map(|parameter| parameter.tensor.shallow_clone()).collect();
        self.graphs = Some(GraphedPasses::new(self.objective, parameters));
    }

    /// What CUDA graphs have computed so far; none without them.
    pub fn graph_counts(&self) -> Option<cuda_graph::Counts> {
        self.graphs.as_ref().map(GraphedPasses::counts)
    }

    /// Makes step `number`, from 0, with learning rate `lr`; takes [`accumulation`](Self::accumulation) batches.
    ///
    /// # Errors
    /// When a batch cannot be read or another process is lost (the model is then as before the step), or torch fails.
    pub fn step(
        &mut self,
        number: u64,
        lr: f64,
        next_batch: &mut dyn FnMut() -> Result<Rc<Batch>>,
    ) -> Result<PendingStep> {
        // Every random number of a step depends on its number: a resumed run needs no generator's state.
        let mut seed = vec![self.seed, random::digest("step"), number];
        if self.group.world_size() > 1 {
            seed.push(self.group.rank() as u64); // else all ranks would draw the same masks
        }
        tch::manual_seed(random::mix(&seed) as i64);
        self.objective.before_step(number)?;
        if let Some(decay) = self.objective.weight_decay(number) {
            self.optimizer.set_weight_decay(decay);
        }
        self.optimizer.drop_gradients()?;
        let before: Vec<Tensor> = self.statistics.iter().map(Tensor::copy).collect();
        let computed = self.gradients_of_batches(next_batch).and_then(|sums| {
            self.gradients.finish(&sums.values)?;
            Ok(sums)
        });
        let sums = match computed {
            Ok(sums) => sums,
            Err(error) => {
                // The step is not made, so what the forward passes of its earlier batches changed is undone.
                self.statistics.iter_mut().zip(&before).for_each(|(statistic, before)| statistic.copy_(before));
                return Err(error);
            }
        };
        let mut clock = self.clock();
        let device = self.objective.store().device();
        let unscale = self.scale.as_ref().map(LossScale::inverse);
        let norm = self.optimizer.clip_grad_norm(self.clip, unscale.as_ref())?.to_device(device);
        let total = sums.values.get(0);
        let skip: Tensor = 1.0 - (&total + &norm).isfinite().to_kind(Kind::Float);
        self.optimizer.step(lr, Some(&skip))?;
        self.objective.after_step(number, &skip)?;
        let skipped = skip.gt(0.5);
        for (statistic, before) in self.statistics.iter_mut().zip(&before) {
            let kept = before.where_self(&skipped, statistic);
            statistic.copy_(&kept);
        }
        if let Some(scale) = &mut self.scale {
            scale.adapt(&skip);
        }
        self.lap(&mut clock, |phases| &mut phases.optimizer);
        let head = Tensor::f_stack(&[total, norm, skip, sums.own], 0)?;
        let parts = sums.values.narrow(0, 1, sums.values.size()[0] - 1);
        let Sums { names, by_source, records, .. } = sums;
        Ok(PendingStep { number, records, names, by_source, values: Tensor::f_cat(&[head, parts], 0)? })
    }

    /// Forward and backward passes of the micro-batches of a step.
    fn gradients_of_batches(&mut self, next_batch: &mut dyn FnMut() -> Result<Rc<Batch>>) -> Result<Sums> {
        let device = self.objective.store().device();
        let share = 1.0 / self.accumulation as f64;
        let (mut names, mut records) = (Vec::new(), Vec::new());
        let mut sources = SourceSums::default();
        let mut values = vec![Tensor::f_zeros([], (Kind::Float, device))?]; // the loss, then its parts
        let mut lowered = self.master_weights.as_ref().map(MasterWeights::lower).transpose()?;
        for micro in 0..self.accumulation {
            let is_last = micro + 1 == self.accumulation;
            let mut clock = self.clock();
            let batch = next_batch()?;
            self.lap(&mut clock, |phases| &mut phases.loader);
            if is_last {
                self.gradients.before_forward()?;
            }
            let loss = if let Some(loss) = self.graphed(&batch, share)? {
                loss
            } else {
                let loss = self.precision.run(device, || self.objective.loss(&batch))??;
                self.lap(&mut clock, |phases| &mut phases.forward);
                let mut scaled = &loss.total * (share * self.gradients.loss_factor());
                if let Some(scale) = &self.scale {
                    scaled *= scale.factor();
                }
                self.gradients.backward(&scaled, is_last)?;
                loss
            };
            if let Some(lowered) = &mut lowered {
                lowered.collect_gradients()?;
            }
            self.lap(&mut clock, |phases| &mut phases.backward);
            let value = |tensor: &Tensor| tensor.detach().to_kind(Kind::Float).to_device(device) * share;
            values[0] = &values[0] + value(&loss.total);
            for (name, part) in &loss.parts {
                if let Some(at) = names.iter().position(|known| known == name) {
                    values[1 + at] = &values[1 + at] + value(part);
                } else {
                    names.push(*name);
                    values.push(value(part));
                }
            }
            if self.datasets > 1 {
                sources.add(&loss.by_record, batch.sources(), self.datasets, device)?;
            }
            records.extend(batch.sources().iter().copied().zip(batch.rows().iter().copied()));
            self.keep(batch, device)?;
        }
        lowered.map_or(Ok(()), LoweredWeights::finish)?;
        let own = values[0].copy();
        let (by_source, numbers) = sources.finish()?;
        let values: Vec<Tensor> = [Tensor::f_stack(&values, 0)?].into_iter().chain(numbers).collect();
        Ok(Sums { names, by_source, records, values: Tensor::f_cat(&values, 0)?, own })
    }

    /// Both passes of a micro-batch with this share in the step, where they are recorded.
    fn graphed(&mut self, batch: &Batch, share: f64) -> Result<Option<Loss>> {
        let Some(graphs) = &mut self.graphs else { return Ok(None) };
        let mut factor = Tensor::f_full([], share, (Kind::Float, self.objective.store().device()))?;
        if let Some(scale) = &self.scale {
            factor *= scale.factor();
        }
        graphs.compute(self.objective, self.precision, batch, &factor, self.accumulation == 1)
    }

    /// Keeps a batch whose memory a CUDA device may still read, and drops those that it has read.
    fn keep(&mut self, batch: Rc<Batch>, device: Device) -> Result<()> {
        if let Device::Cuda(index) = device {
            self.in_flight.push_back((batch, Event::record(index)?));
            while self.in_flight.len() > IN_FLIGHT {
                if let Some((_, event)) = self.in_flight.pop_front() {
                    event.wait()?;
                }
            }
        }
        Ok(())
    }

    fn clock(&self) -> Option<Instant> {
        self.phases.map(|_| Instant::now())
    }

    /// Adds the time since the last lap to a phase.
    fn lap(&mut self, clock: &mut Option<Instant>, phase: impl Fn(&mut Phases) -> &mut Duration) {
        let (Some(phases), Some(since)) = (&mut self.phases, clock) else { return };
        synchronize(self.objective.store().device());
        *phase(phases) += since.elapsed();
        *since = Instant::now();
    }
}

/// The variables that batch norms keep beside their parameters.
fn running_statistics(store: &VarStore) -> Vec<Tensor> {
    let running = |name: &str| name.ends_with(".running_mean") || name.ends_with(".running_var");
    let mut found: Vec<(String, Tensor)> = store.variables().into_iter().filter(|(name, _)| running(name)).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found.into_iter().map(|(_, tensor)| tensor).collect()
}

impl Drop for Stepper<'_> {
    /// Waits until the device has read all batches, since the loader writes to their memory again.
    fn drop(&mut self) {
        for (_, event) in self.in_flight.drain(..) {
            let _ = event.wait();
        }
    }
}

/// Waits until a device has done all its work.
pub fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}
