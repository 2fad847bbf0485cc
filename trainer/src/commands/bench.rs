//! `trainer bench`: the time of a pre-training step on a device.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use dataset::commands::cli::UsageError;
use dataset::{Batch, Loader};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::config::PretrainConfig;
use crate::task::objective::Objective;
use crate::task::pretrain::{TrainingRows, training_loader};
use crate::task::{DataSource, Pretraining, device_name};
use crate::torch::shim;
use crate::train::amp::Precision;
use crate::train::distributed::Compute;
use crate::train::optimizer::{Optimizer, OptimizerConfig};
use crate::train::step::{Phases, Stepper, synchronize};
use crate::train::threads;

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// The device.
    pub device: String,
    /// Threads of torch on the CPU.
    pub threads: i64,
    /// Precision of matrix products.
    pub precision: Precision,
    /// Whether the passes used 16-bit copies of the weights (`run.master_weights`).
    pub master_weights: bool,
    /// Whether the losses wrote their gradients over the predictions (`run.in_place_loss`).
    pub in_place_loss: bool,
    /// Whether the passes were recorded once and repeated (`run.cuda_graph`).
    pub cuda_graph: bool,
    /// The preset.
    pub preset: String,
    /// Whether batches came from a dataset; else one batch of noise was used for all steps.
    pub loads: bool,
    /// Records of a step on average, all micro-batches included.
    pub batch: f64,
    /// Steps that were measured.
    pub steps: u64,
    /// Records a second.
    pub images_per_second: f64,
    /// Time of a step.
    pub milliseconds_per_step: f64,
    /// Floating-point operations of the model for one record, 10⁹.
    pub gigaflops_per_record: f64,
    /// Floating-point operations of the model, 10¹² a second.
    pub teraflops: f64,
    /// Those of one large matrix product on this device in this precision, 10¹² a second.
    pub product_teraflops: f64,
    /// Model FLOP utilization: `teraflops / product_teraflops`.
    pub utilization: f64,
    /// Loss of the last measured step. On noise it depends on the seed, the preset, the batch and the number of steps alone,
    /// up to rounding.
    pub loss: f64,
    /// Largest amount of memory in use; none where the system does not report it.
    pub peak_memory_gib: Option<f64>,
    /// Shares of the time, measured with a wait after each phase.
    pub shares: Shares,
}

/// Shares of a step's time.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Shares {
    /// Waiting for batches.
    pub loader: f64,
    /// From the batch to the loss.
    pub forward: f64,
    /// Gradients.
    pub backward: f64,
    /// Clipping and the optimizer step.
    pub optimizer: f64,
}

/// Measures `steps` steps after `warmup` steps, on a dataset or on noise.
///
/// # Errors
/// When `steps` is 0, or no model has this configuration.
pub fn bench(
    config: &PretrainConfig,
    source: Option<&DataSource>,
    device: Device,
    warmup: u64,
    steps: u64,
) -> Result<Measured> {
    if steps == 0 {
        bail!("--steps: must be at least 1");
    }
    threads::set(config.run.threads);
    tch::manual_seed(config.run.seed as i64);
    let objective = Pretraining::new(&config.model, &Compute::on(device))?.in_place_loss(config.run.in_place_loss);
    let optimizer = Optimizer::new(OptimizerConfig::PRETRAINING, config.optimizer.weight_decay, objective.parameters());
    let mut stepper = Stepper::new(&objective, optimizer, config.run.precision, config.run.seed);
    (stepper.accumulation, stepper.clip) = (config.optimizer.accumulation, config.optimizer.clip);
    if config.run.master_weights {
        stepper.keep_master_weights()?;
    }
    if config.run.cuda_graph {
        stepper.use_cuda_graph().map_err(UsageError::of)?;
    }
    let mut batches = batches(config, source, device)?;
    let (mut number, mut measured) = (0, RecordCounts::default());
    let mut run = |stepper: &mut Stepper, counts: &mut RecordCounts, count: u64| -> Result<f64> {
        let mut last = None;
        for _ in 0..count {
            let step = stepper.step(number, 1e-4, &mut || {
                let batch = batches()?;
                counts.add(&batch);
                Ok(batch)
            })?;
            number += 1;
            if !device.is_cuda() || number.is_multiple_of(config.run.log_every) {
                step.metrics()?;
            }
            last = Some(step);
        }
        synchronize(device);
        last.map_or(Ok(f64::NAN), |step| Ok(step.metrics()?.loss))
    };
    run(&mut stepper, &mut RecordCounts::default(), warmup)?;
    shim::peak_memory(device, true);
    let started = Instant::now();
    let loss = run(&mut stepper, &mut measured, steps)?;
    let seconds = started.elapsed().as_secs_f64();
    let peak = shim::peak_memory(device, false);

    stepper.phases = Some(Phases::default());
    run(&mut stepper, &mut RecordCounts::default(), steps.div_ceil(2))?;
    let phases = stepper.phases.unwrap_or_default();
    let whole = (phases.loader + phases.forward + phases.backward + phases.optimizer).as_secs_f64();
    let share = |phase: Duration| phase.as_secs_f64() / whole;

    let rate = measured.records as f64 / seconds;
    let flops = config.model.training_flops(config.data.tokens, measured.masked as f64 / measured.records as f64);
    let product = product_rate(device, config.run.precision)?;
    Ok(Measured {
        device: device_name(device),
        threads: i64::from(tch::get_num_threads()),
        precision: config.run.precision,
        master_weights: config.run.master_weights,
        in_place_loss: config.run.in_place_loss,
        cuda_graph: config.run.cuda_graph,
        preset: config.preset.clone(),
        loads: source.is_some(),
        batch: measured.records as f64 / steps as f64,
        steps,
        images_per_second: rate,
        milliseconds_per_step: seconds * 1e3 / steps as f64,
        gigaflops_per_record: flops / 1e9,
        teraflops: rate * flops / 1e12,
        product_teraflops: product / 1e12,
        utilization: rate * flops / product,
        loss,
        peak_memory_gib: peak.map(|bytes| bytes as f64 / f64::from(1 << 30)),
        shares: Shares {
            loader: share(phases.loader),
            forward: share(phases.forward),
            backward: share(phases.backward),
            optimizer: share(phases.optimizer),
        },
    })
}

/// What the measured steps consisted of.
#[derive(Default)]
struct RecordCounts {
    records: u64,
    /// Masked tokens.
    masked: u64,
}

impl RecordCounts {
    fn add(&mut self, batch: &Batch) {
        self.records += batch.len() as u64;
        let masked = batch.token_ids().iter().zip(batch.target_ids()).filter(|(seen, target)| seen != target);
        self.masked += masked.count() as u64;
    }
}

/// Batches of a dataset without end, or the same batch of noise every time.
fn batches(
    config: &PretrainConfig,
    source: Option<&DataSource>,
    device: Device,
) -> Result<Box<dyn FnMut() -> Result<Rc<Batch>>>> {
    if let Some(source) = source {
        let training = TrainingRows::of(config, source)?;
        let mut loader: Loader = training_loader(config, source, &training, device)?.build()?;
        return Ok(Box::new(move || Ok(Rc::new(loader.next_batch()?))));
    }
    let noise = Rc::new(Batch::noise(
        config.optimizer.batch_size,
        config.model.input_size() as usize,
        config.data.tokens as usize,
        config.model.bert.vocab_size,
        config.run.seed,
    ));
    Ok(Box::new(move || Ok(noise.clone())))
}

/// Floating-point operations a second of one large matrix product.
fn product_rate(device: Device, precision: Precision) -> Result<f64> {
    let side: i64 = if device.is_cuda() { 8192 } else { 2048 };
    let kind = match precision {
        Precision::Fp32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
        Precision::Fp16 => Kind::Half,
    };
    let x = Tensor::f_randn([side, side], (Kind::Float, device))?.to_kind(kind);
    let _ = x.f_matmul(&x)?;
    synchronize(device);
    let (mut count, started) = (0, Instant::now());
    while count < 3 || started.elapsed() < Duration::from_millis(500) {
        let _ = x.f_matmul(&x)?;
        count += 1;
        synchronize(device);
    }
    Ok(2.0 * (side as f64).powi(3) * f64::from(count) / started.elapsed().as_secs_f64())
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let batches = if self.loads { "loaded batches" } else { "one batch of noise" };
        writeln!(
            f,
            "{}, {}{}{}{}, {} ({} threads), {batches} of {}",
            self.preset,
            format!("{:?}", self.precision).to_lowercase(),
            if self.master_weights { ", master weights" } else { "" },
            if self.in_place_loss { ", losses in place" } else { "" },
            if self.cuda_graph { ", CUDA graph" } else { "" },
            self.device,
            self.threads,
            self.batch
        )?;
        writeln!(f, "{:>10.1} images/s, {:.1} ms a step", self.images_per_second, self.milliseconds_per_step)?;
        writeln!(
            f,
            "{:>9.1}% model FLOP utilization: {:.3} of the {:.3} TFLOP/s of one large matrix product ({:.1} GFLOP a record)",
            self.utilization * 100.0,
            self.teraflops,
            self.product_teraflops,
            self.gigaflops_per_record
        )?;
        if let Some(peak) = self.peak_memory_gib {
            writeln!(f, "{peak:>10.2} GiB of memory at most")?;
        }
        let Shares { loader, forward, backward, optimizer } = self.shares;
        write!(
            f,
            "     time: loader {:.1}%, forward {:.1}%, backward {:.1}%, optimizer {:.1}% (with a wait after each)",
            loader * 100.0,
            forward * 100.0,
            backward * 100.0,
            optimizer * 100.0
        )
    }
}
