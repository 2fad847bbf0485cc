//! The forward and backward passes of a micro-batch as a CUDA graph (`run.cuda_graph`).
//!
//! A pass launches thousands of kernels. For a small model or batch the host needs longer to launch them than the device to
//! compute them. Here the passes are recorded once for each shape of a batch, and then repeated with one call. The optimizer,
//! clipping, the loss scale and everything else of a step are launched as usual.
//!
//! A graph reads its inputs from fixed memory, and writes gradients and losses to fixed memory. Recording and the passes that
//! prepare it leave weights, gradients and random numbers as they were, so a step that records gives what others give.

use std::ffi::c_void;

use anyhow::{Result, bail};
use dataset::Batch;
use tch::{Device, Tensor};

use crate::task::objective::{Loss, Objective, Staged};
use crate::torch::shim::{self, cuda_graph};
use crate::train::amp::Precision;
use crate::train::distributed::ProcessGroup;

/// Shapes of batches that get a graph. Each graph has gradients of its own; batches of further shapes are computed as usual.
const MOST_GRAPHS: usize = 8;

/// Passes that are computed before one is recorded, as `torch.cuda.graphs` advises: libraries choose and load their kernels.
const WARM_UPS: usize = 3;

/// An error unless the passes of an objective can be recorded.
///
/// # Errors
/// On a CPU, in a program without CUDA graphs, in several processes, and for objectives other than pre-training.
pub fn check(objective: &dyn Objective, group: &ProcessGroup) -> Result<()> {
    if !objective.store().device().is_cuda() {
        bail!("run.cuda_graph: needs a CUDA device");
    }
    if !cuda_graph::HAS_CUDA_GRAPHS {
        bail!("run.cuda_graph: this trainer was built without CUDA graphs; `make cuda-check` builds one with them");
    }
    if group.world_size() > 1 {
        bail!("run.cuda_graph: needs a run of one process, this one has {}", group.world_size());
    }
    if objective.staged().is_none() {
        bail!("run.cuda_graph: is for masked record modeling");
    }
    Ok(())
}

/// Computes the passes of micro-batches, those of known shapes by graphs.
#[derive(Debug)]
pub(super) struct GraphedPasses {
    /// The trained parameters.
    parameters: Vec<Tensor>,
    /// All variables of the model, and where they were when the graphs were recorded.
    variables: Vec<Tensor>,
    addresses: Vec<*mut c_void>,
    recorded: Vec<Recorded>,
    counts: Counts,
}

/// What graphs have computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All micro-batches.
    pub batches: u64,
    /// Those that a graph computed.
    pub by_graphs: u64,
    /// Graphs that were recorded.
    pub graphs: u64,
}

/// The passes of one shape.
#[derive(Debug)]
struct Recorded {
    shapes: Vec<Vec<i64>>,
    /// The fixed memory of the inputs, and of the factor on the loss.
    inputs: Vec<Tensor>,
    factor: Tensor,
    outputs: Outputs,
    recording: Recording,
}

/// The fixed memory that the passes write to, which further passes write to, too.
#[derive(Debug)]
struct Outputs {
    /// Gradients, and the positions of their parameters.
    gradients: Vec<(usize, Tensor)>,
    total: Tensor,
    parts: Vec<(&'static str, Tensor)>,
}

/// How recorded passes are repeated.
#[derive(Debug)]
enum Recording {
    Graph(cuda_graph::CudaGraph),
    /// Computed again, and copied to the outputs: what a graph does, for tests on a CPU.
    #[cfg(test)]
    Again,
}

impl GraphedPasses {
    /// Nothing is recorded yet. `parameters` are trained, and all others of the objective have no gradient.
    pub(super) fn new(objective: &dyn Objective, parameters: Vec<Tensor>) -> Self {
        let variables = objective.store().variables().into_values().collect();
        Self { parameters, variables, addresses: Vec::new(), recorded: Vec::new(), counts: Counts::default() }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Computes the loss of a batch, and adds the gradients of `factor` (a float scalar on the device) times the loss to those
    /// of the parameters. With `is_only`, the parameters have no gradients yet and get no others before the optimizer's step.
    /// The losses are valid until the next call. None: the batch has to be computed as usual, and nothing was changed.
    ///
    /// # Errors
    /// When the batch does not fit the model, or torch fails, such as without memory.
    pub(super) fn compute(
        &mut self,
        objective: &dyn Objective,
        precision: Precision,
        batch: &Batch,
        factor: &Tensor,
        is_only: bool,
    ) -> Result<Option<Loss>> {
        self.counts.batches += 1;
        let Some(staged) = objective.staged() else { return Ok(None) };
        let Some(inputs) = staged.stage(batch)? else { return Ok(None) };
        self.forget_if_moved();
        let shapes: Vec<Vec<i64>> = inputs.iter().map(Tensor::size).collect();
        let known = self.recorded.iter().position(|recorded| recorded.shapes == shapes);
        let at = match known {
            Some(at) => {
                let recorded = &self.recorded[at];
                shim::copy(&recorded.inputs, &inputs)?;
                shim::copy(std::slice::from_ref(&recorded.factor), std::slice::from_ref(factor))?;
                at
            }
            None if self.recorded.len() == MOST_GRAPHS => return Ok(None),
            None => {
                let recorded = self.record(staged, precision, shapes, inputs, factor)?;
                self.recorded.push(recorded);
                self.counts.graphs += 1;
                self.recorded.len() - 1
            }
        };
        let recorded = &self.recorded[at];
        match &recorded.recording {
            Recording::Graph(graph) => graph.replay()?,
            #[cfg(test)]
            Recording::Again => self.compute_again(staged, precision, recorded)?,
        }
        self.add_gradients(&recorded.outputs.gradients, is_only)?;
        self.counts.by_graphs += 1;
        let parts = recorded.outputs.parts.iter().map(|(name, part)| (*name, part.shallow_clone())).collect();
        Ok(Some(Loss { total: recorded.outputs.total.shallow_clone(), parts, by_record: Vec::new() }))
    }

    /// Drops all graphs if a variable has other memory than they know, such as after a change of the master weights.
    fn forget_if_moved(&mut self) {
        let addresses: Vec<*mut c_void> = self.variables.iter().map(Tensor::data_ptr).collect();
        if self.addresses != addresses {
            self.recorded.clear();
            self.addresses = addresses;
        }
    }

    /// Records the passes of a shape, for which it computes some.
    fn record(
        &self,
        staged: &dyn Staged,
        precision: Precision,
        shapes: Vec<Vec<i64>>,
        inputs: Vec<Tensor>,
        factor: &Tensor,
    ) -> Result<Recorded> {
        let (device, factor) = (factor.device(), factor.copy());
        let before: Vec<Tensor> = self.parameters.iter().map(Tensor::f_grad).collect::<Result<_, _>>()?;
        shim::drop_gradients(&self.parameters)?;
        let random = shim::random_state(device)?;
        let passes = || self.passes(staged, precision, &inputs, &factor);
        let warm_up = |count: usize| {
            for _ in 0..count {
                drop(passes()?);
                shim::drop_gradients(&self.parameters)?;
            }
            Ok::<_, anyhow::Error>(shim::set_random_state(device, &random)?)
        };
        let (recording, outputs) = match device {
            Device::Cuda(index) => {
                let graph = cuda_graph::CudaGraph::new(index)?;
                let other = self.recorded.iter().find_map(|recorded| recorded.recording.graph());
                let outputs = graph.beside(|| {
                    warm_up(WARM_UPS)?;
                    graph.record(other, passes)
                })?;
                (Recording::Graph(graph), outputs)
            }
            #[cfg(test)]
            _ => {
                warm_up(1)?;
                let outputs = passes()?;
                shim::set_random_state(device, &random)?;
                (Recording::Again, outputs)
            }
            #[cfg(not(test))]
            _ => bail!("run.cuda_graph: needs a CUDA device"),
        };
        shim::drop_gradients(&self.parameters)?;
        for (parameter, gradient) in self.parameters.iter().zip(&before).filter(|(_, gradient)| gradient.defined()) {
            shim::set_gradient(parameter, gradient)?;
        }
        Ok(Recorded { shapes, inputs, factor, outputs, recording })
    }

    /// The forward and the backward pass, for parameters without gradients.
    fn passes(&self, staged: &dyn Staged, precision: Precision, inputs: &[Tensor], factor: &Tensor) -> Result<Outputs> {
        let Loss { total, parts, .. } = precision.run(factor.device(), || staged.loss_of(inputs))??;
        (&total * factor).f_backward()?;
        let mut gradients = Vec::new();
        for (at, parameter) in self.parameters.iter().enumerate() {
            let gradient = parameter.f_grad()?;
            if gradient.defined() {
                gradients.push((at, gradient));
            }
        }
        Ok(Outputs { gradients, total: total.f_detach()?, parts })
    }

    /// Adds the gradients of a pass to those that the parameters have.
    fn add_gradients(&self, gradients: &[(usize, Tensor)], is_only: bool) -> Result<()> {
        let (mut sums, mut addends) = (Vec::new(), Vec::new());
        let (mut copies, mut sources) = (Vec::new(), Vec::new());
        for (at, gradient) in gradients {
            let parameter = &self.parameters[*at];
            let sum = parameter.f_grad()?;
            if sum.defined() {
                sums.push(sum);
                addends.push(gradient.shallow_clone());
            } else if is_only {
                shim::set_gradient(parameter, gradient)?;
            } else {
                // The next micro-batch writes to the memory of `gradient`.
                let copy = gradient.f_empty_like()?;
                shim::set_gradient(parameter, &copy)?;
                copies.push(copy);
                sources.push(gradient.shallow_clone());
            }
        }
        shim::copy(&copies, &sources)?;
        Ok(shim::add(&sums, &addends)?)
    }

    #[cfg(test)]
    fn compute_again(&self, staged: &dyn Staged, precision: Precision, recorded: &Recorded) -> Result<()> {
        let before: Vec<Tensor> = self.parameters.iter().map(Tensor::grad).collect();
        shim::drop_gradients(&self.parameters)?;
        let outputs = self.passes(staged, precision, &recorded.inputs, &recorded.factor)?;
        shim::drop_gradients(&self.parameters)?;
        for (parameter, gradient) in self.parameters.iter().zip(&before).filter(|(_, gradient)| gradient.defined()) {
            shim::set_gradient(parameter, gradient)?;
        }
        let tensors = |outputs: &Outputs| -> Vec<Tensor> {
            let gradients = outputs.gradients.iter().map(|(_, gradient)| gradient);
            let parts = outputs.parts.iter().map(|(_, part)| part);
            gradients.chain(parts).chain([&outputs.total]).map(Tensor::shallow_clone).collect()
        };
        Ok(shim::copy(&tensors(&recorded.outputs), &tensors(&outputs))?)
    }
}

impl Recording {
    #[cfg_attr(not(test), expect(clippy::unnecessary_wraps, reason = "tests have another kind"))]
    fn graph(&self) -> Option<&cuda_graph::CudaGraph> {
        match self {
            Self::Graph(graph) => Some(graph),
            #[cfg(test)]
            Self::Again => None,
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { batches, by_graphs, graphs } = self;
        write!(f, "run.cuda_graph: {by_graphs} of {batches} micro-batches were computed by {graphs} graphs")
    }
}

#[cfg(test)]
mod tests;
