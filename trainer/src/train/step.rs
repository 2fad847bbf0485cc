//! One optimizer step: batches, losses, gradients, the optimizer. It reads no number back, so the host waits for the device
//! only where a batch's memory must be free before the loader writes to it again.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use dataset::{Batch, random};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::task::objective::Objective;
use crate::torch::shim::Event;
use crate::train::amp::{LossScale, Precision};
use crate::train::optimizer::Optimizer;

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
    /// Micro-batches of a step.
    pub accumulation: usize,
    /// Largest gradient norm; 0: no limit.
    pub clip: f64,
    /// Seed of the run.
    pub seed: u64,
    /// Where to add the time of the phases; none: they are not measured.
    pub phases: Option<Phases>,
    in_flight: VecDeque<(Rc<Batch>, Event)>,
    /// Variables that a forward pass changes: the running statistics of batch norms.
    statistics: Vec<Tensor>,
}

/// A step that was given to the device, which may still be computing it.
pub struct PendingStep {
    /// Its number, from 0.
    pub number: u64,
    /// Rows of its batches.
    pub rows: Vec<u32>,
    names: Vec<&'static str>,
    /// Loss, gradient norm, 1 where the step was skipped, then the parts of the loss: `[3 + parts]`.
    values: Tensor,
}

/// The metrics of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepMetrics {
    /// Mean loss of its micro-batches.
    pub loss: f64,
    /// L2 norm of all gradients together, before clipping.
    pub grad_norm: f64,
    /// Whether the step was skipped, because the loss or a gradient is not finite.
    pub skipped: bool,
    /// Parts of the loss by name.
    pub parts: Vec<(&'static str, f64)>,
}

impl PendingStep {
    /// Waits for the device and reads the metrics.
    ///
    /// # Errors
    /// When torch fails.
    pub fn metrics(&self) -> Result<StepMetrics> {
        let values = Vec::<f32>::try_from(self.values.to_device(Device::Cpu))?;
        let parts = self.names.iter().zip(&values[3..]).map(|(name, value)| (*name, f64::from(*value))).collect();
        Ok(StepMetrics { loss: f64::from(values[0]), grad_norm: f64::from(values[1]), skipped: values[2] > 0.5, parts })
    }
}

impl<'a> Stepper<'a> {
    /// A stepper without accumulation, clipping or measuring; set the fields for those.
    pub fn new(objective: &'a dyn Objective, optimizer: Optimizer, precision: Precision, seed: u64) -> Self {
        Self {
            objective,
            optimizer,
            precision,
            scale: precision.loss_scale(objective.store().device()),
            accumulation: 1,
            clip: 0.0,
            seed,
            phases: None,
            in_flight: VecDeque::new(),
            statistics: running_statistics(objective.store()),
        }
    }

    /// Makes step `number`, from 0, with learning rate `lr`; takes [`accumulation`](Self::accumulation) batches.
    ///
    /// # Errors
    /// When a batch cannot be read (the model is then as before the step), or torch fails.
    pub fn step(
        &mut self,
        number: u64,
        lr: f64,
        next_batch: &mut dyn FnMut() -> Result<Rc<Batch>>,
    ) -> Result<PendingStep> {
        let device = self.objective.store().device();
        // Every random number of a step depends on its number: a resumed run needs no generator's state.
        tch::manual_seed(random::mix(&[self.seed, random::digest("step"), number]) as i64);
        self.optimizer.drop_gradients()?;
        let before: Vec<Tensor> = self.statistics.iter().map(Tensor::copy).collect();
        let share = 1.0 / self.accumulation as f64;
        let (mut total, mut rows) = (None::<Tensor>, Vec::new());
        let (mut names, mut parts) = (Vec::new(), Vec::<Tensor>::new());
        for _ in 0..self.accumulation {
            let mut clock = self.clock();
            let batch = match next_batch() {
                Ok(batch) => batch,
                Err(error) => {
                    // The step is not made, so what the forward passes of its earlier batches changed is undone.
                    self.statistics.iter_mut().zip(&before).for_each(|(statistic, before)| statistic.copy_(before));
                    return Err(error);
                }
            };
            self.lap(&mut clock, |phases| &mut phases.loader);
            let loss = self.precision.run(device, || self.objective.loss(&batch))??;
            self.lap(&mut clock, |phases| &mut phases.forward);
            let mut scaled = &loss.total * share;
            if let Some(scale) = &self.scale {
                scaled *= scale.factor();
            }
            scaled.backward();
            self.lap(&mut clock, |phases| &mut phases.backward);
            let part = loss.total.detach() * share;
            total = Some(total.map_or_else(|| part.shallow_clone(), |sum| sum + &part));
            for (name, part) in loss.parts {
                let part = part.detach() * share;
                if let Some(at) = names.iter().position(|known| *known == name) {
                    parts[at] = &parts[at] + part;
                } else {
                    names.push(name);
                    parts.push(part);
                }
            }
            rows.extend_from_slice(batch.rows());
            self.keep(batch, device)?;
        }
        let mut clock = self.clock();
        let unscale = self.scale.as_ref().map(LossScale::inverse);
        let norm = self.optimizer.clip_grad_norm(self.clip, unscale.as_ref())?;
        let total = total.unwrap_or_else(|| Tensor::from(0.0_f32)).to_kind(Kind::Float);
        let skip: Tensor = 1.0 - (&total + norm.to_device(device)).isfinite().to_kind(Kind::Float);
        self.optimizer.step(lr, Some(&skip))?;
        let skipped = skip.gt(0.5);
        for (statistic, before) in self.statistics.iter_mut().zip(&before) {
            let kept = before.where_self(&skipped, statistic);
            statistic.copy_(&kept);
        }
        if let Some(scale) = &mut self.scale {
            scale.adapt(&skip);
        }
        self.lap(&mut clock, |phases| &mut phases.optimizer);
        let mut values = vec![total, norm.to_device(device), skip];
        values.extend(parts.into_iter().map(|part| part.to_kind(Kind::Float).to_device(device)));
        Ok(PendingStep { number, rows, names, values: Tensor::f_stack(&values, 0)? })
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
