//! The training loop. It knows steps, learning rates, gradients, checkpoints and the log; an [`Objective`] knows what is
//! trained.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, bail};
use dataset::{Loader, LoaderState};
use serde_json::json;
use tch::nn::VarStore;

use crate::config::RunConfig;
use crate::task::objective::{Evaluation, Objective};
use crate::train::amp::LossScale;
use crate::train::checkpoint::{Checkpoints, Retention, State};
use crate::train::ema::Ema;
use crate::train::logger::{MetricsLog, damaged_lines};
use crate::train::optimizer::{Optimizer, OptimizerConfig};
use crate::train::progress::Progress;
use crate::train::run_dir::RunDir;
use crate::train::step::{PendingStep, StepMetrics, Stepper};
use crate::weights::{Tensors, load_tensors};

/// What the loop needs to know for any task.
pub struct Settings<'a> {
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// Its weight decay.
    pub weight_decay: f64,
    /// Learning rate of step `n`, from 0.
    pub lr: &'a dyn Fn(u64) -> f64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Micro-batches of a step.
    pub accumulation: usize,
    /// Largest gradient norm; 0: no clipping.
    pub clip: f64,
    /// Steps between two evaluations; 0: none.
    pub evaluate_every: u64,
    /// Evaluations without a better score after which the run ends; 0: it makes all its steps.
    pub patience: u64,
    /// What all kinds of runs share: seed, precision, logging, checkpoints.
    pub run: &'a RunConfig,
    /// Identifiers of rows, for messages.
    pub record_ids: &'a dyn Fn(&[u32]) -> Vec<String>,
    /// Gets the messages of the run, each of one line: resuming, skipped steps, an early end, progress without a terminal.
    pub notify: &'a dyn Fn(&str),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// All steps are made, or the score no longer rose.
    Done {
        /// The best evaluation, if there was one.
        best: Option<f64>,
    },
    /// The process was asked to stop; the run has a checkpoint.
    Stopped {
        /// Steps made.
        step: u64,
    },
}

/// Trains an objective, continuing from the run's newest checkpoint. `loader` makes a loader at a position.
///
/// # Errors
/// When the checkpoint is damaged or of another model, a record cannot be read (the steps so far are then saved), all steps
/// are skipped, or torch or the file system fails.
pub fn train(
    objective: &dyn Objective,
    loader: &dyn Fn(LoaderState) -> Result<Loader>,
    settings: &Settings,
    run: &RunDir,
) -> Result<Outcome> {
    let (store, config, notify) = (objective.store(), settings.run, settings.notify);
    let (checkpoints, retention) = (Checkpoints::of(run.path()), Retention { keep_last: config.keep_last });
    run.notice().iter().for_each(|notice| notify(notice));
    let mut optimizer = Optimizer::new(settings.optimizer, settings.weight_decay, objective.parameters());
    let mut state = State::default();
    let mut ema = (config.ema > 0.0).then(|| Ema::new(store, config.ema));
    if let Some(checkpoint) = checkpoints.load_latest()? {
        let report = load_tensors(store, &checkpoint.model)?;
        if !report.is_complete() {
            bail!("the checkpoint does not fit the model: {report}");
        }
        optimizer.load_state(checkpoint.optimizer)?;
        if let (Some(ema), Some(saved)) = (&mut ema, checkpoint.ema) {
            ema.load(store, saved)?;
        }
        state = checkpoint.state;
        notify(&format!("resuming after {} of {} steps", state.step, settings.steps));
    }
    // A kill may have come between a checkpoint and the removal of an older one.
    checkpoints.prune(retention)?;
    let mut stepper = Stepper::new(objective, optimizer, config.precision, config.seed);
    (stepper.accumulation, stepper.clip) = (settings.accumulation, settings.clip);
    if let (Some(scale), Some(saved)) = (&mut stepper.scale, state.loss_scale) {
        *scale = LossScale::new(saved, store.device());
    }
    stop_requested()?;
    let ends_early = |state: &State| state.step < settings.steps && state.is_out_of_patience(settings.patience);
    let mut log = MetricsLog::open(run.path(), state.step)?;
    damaged_lines(run.path(), log.damaged()).iter().for_each(|warning| notify(warning));
    let mut loader = loader(state.loader)?;
    let mut progress = Progress::new(settings.steps, state.step);
    let mut pending: Vec<PendingStep> = Vec::new();
    let mut saved = state.step;
    // Writes a checkpoint of the steps so far, after the lines of the log up to it are durable.
    let save = |state: &mut State, stepper: &Stepper, ema: Option<&Ema>, log: &MetricsLog| -> Result<()> {
        state.total = settings.steps;
        state.loss_scale = stepper.scale.as_ref().map(LossScale::state);
        let averaged = ema.map(|ema| ema.tensors(store));
        log.sync()?;
        checkpoints.save(state, &tensors(store), &stepper.optimizer.save_state(), averaged.as_ref())?;
        checkpoints.prune(retention)
    };
    // If records cannot be read, the steps since the last checkpoint are saved before the run ends with that error.
    let keep = |error: anyhow::Error,
                saved: u64,
                state: &mut State,
                stepper: &Stepper,
                ema: Option<&Ema>,
                log: &MetricsLog|
     -> Result<anyhow::Error> {
        if state.step == saved || !error.is::<dataset::Error>() {
            return Ok(error);
        }
        match save(state, stepper, ema, log) {
            Ok(()) => {
                notify(&format!("saved a checkpoint after step {}: the same command continues from there", state.step));
                Ok(error)
            }
            Err(unsaved) => Err(error.context(format!("{unsaved:#}"))),
        }
    };
    if state.evaluation_due {
        evaluate_and_log(objective, &mut state, &checkpoints, ema.as_mut(), &mut log, &ends_early)?;
        state.evaluation_due = false;
        save(&mut state, &stepper, ema.as_ref(), &log)?;
    }
    while state.step < settings.steps && !ends_early(&state) {
        let lr = (settings.lr)(state.step);
        let step = match stepper.step(state.step, lr, &mut || Ok(Rc::new(loader.next_batch()?))) {
            Ok(step) => step,
            Err(error) => {
                read_metrics(&mut pending, &mut state, settings, stepper.scale.as_ref())?;
                let error = keep(error, saved, &mut state, &stepper, ema.as_ref(), &log)?;
                // The process was asked to stop while the store of the records could not be reached: nothing was lost.
                if state.step > 0 && stop_requested()? && error.is::<dataset::Error>() {
                    notify(&format!("{error:#}"));
                    progress.finish();
                    return Ok(Outcome::Stopped { step: state.step });
                }
                return Err(error);
            }
        };
        if let Some(ema) = &mut ema {
            ema.update(state.step)?;
        }
        progress.advance(step.rows.len());
        pending.push(step);
        state.step += 1;
        state.loader = loader.state();

        let due = |every: u64| every > 0 && state.step.is_multiple_of(every);
        let (ends, stopped) = (state.step == settings.steps, stop_requested()?);
        let logs = ends || due(config.log_every);
        let evaluates = settings.evaluate_every > 0 && (ends || due(settings.evaluate_every));
        let saves = ends || stopped || due(config.checkpoint_every);
        // Reading metrics waits for the device, which costs nothing on a CPU.
        if (logs || evaluates || saves || !store.device().is_cuda())
            && let Some(last) = read_metrics(&mut pending, &mut state, settings, stepper.scale.as_ref())?
        {
            progress.show(&last).iter().for_each(|line| notify(line));
            if logs {
                let epoch = state.loader.epoch as f64 + state.loader.batch as f64 / loader.batches() as f64;
                let mut line = json!({
                    "step": state.step, "epoch": epoch, "lr": lr, "loss": last.loss, "grad_norm": last.grad_norm,
                    "skipped": state.skipped, "images_per_second": progress.images_per_second(),
                });
                last.parts.iter().for_each(|(name, value)| line[*name] = (*value).into());
                if let Some(scale) = &stepper.scale {
                    line["loss_scale"] = scale.state().scale.into();
                }
                log.write(line)?;
            }
        }
        if evaluates
            && let Err(error) =
                evaluate_and_log(objective, &mut state, &checkpoints, ema.as_mut(), &mut log, &ends_early)
        {
            state.evaluation_due = true;
            return Err(keep(error, saved, &mut state, &stepper, ema.as_ref(), &log)?);
        }
        if saves || ends_early(&state) {
            save(&mut state, &stepper, ema.as_ref(), &log)?;
            saved = state.step;
        }
        if stopped && !ends && !ends_early(&state) {
            progress.finish();
            return Ok(Outcome::Stopped { step: state.step });
        }
    }
    progress.finish();
    if ends_early(&state) {
        early_end(&state, settings).iter().for_each(|message| notify(message));
    }
    if state.skipped == state.step && state.step > 0 {
        bail!("all {} steps were skipped: no loss or gradient was finite", state.step);
    }
    Ok(Outcome::Done { best: state.best.map(|(score, _)| score) })
}

/// Reads the metrics of the pending steps, counts the skipped ones, and returns the metrics of the last one.
fn read_metrics(
    pending: &mut Vec<PendingStep>,
    state: &mut State,
    settings: &Settings,
    scale: Option<&LossScale>,
) -> Result<Option<StepMetrics>> {
    let mut last = None;
    for step in pending.drain(..) {
        let metrics = step.metrics()?;
        let number = step.number + 1;
        if !metrics.skipped {
            state.skipped_in_a_row = 0;
        } else if metrics.loss.is_finite() && scale.is_some_and(|scale| scale.state().scale >= 1.0) {
            state.skipped += 1;
            let message = format!("step {number}: gradients overflow float16: skipped, and the loss scale halved");
            (settings.notify)(&message);
        } else {
            state.skipped += 1;
            state.skipped_in_a_row += 1;
            let StepMetrics { loss, grad_norm, .. } = metrics;
            let records = (settings.record_ids)(&step.rows).join(", ");
            (settings.notify)(&format!(
                "step {number}: loss {loss}, gradient norm {grad_norm}: skipped; records {records}"
            ));
            let limit = settings.run.skip_limit;
            if limit > 0 && state.skipped_in_a_row >= limit {
                bail!(
                    "{limit} steps in a row without a finite loss (run.skip_limit): lower the learning rate, or inspect \
                     those records"
                );
            }
        }
        last = Some(metrics);
    }
    Ok(last)
}

/// Evaluates the weights, or their moving average if the run keeps one, and logs the result.
fn evaluate_and_log(
    objective: &dyn Objective,
    state: &mut State,
    checkpoints: &Checkpoints,
    ema: Option<&mut Ema>,
    log: &mut MetricsLog,
    ends_early: &dyn Fn(&State) -> bool,
) -> Result<()> {
    let evaluation = match ema {
        Some(ema) => ema.in_place(|| evaluate(objective, state, checkpoints)),
        None => evaluate(objective, state, checkpoints),
    };
    if let Some(evaluation) = evaluation? {
        let mut line = json!({ "step": state.step });
        evaluation.values.iter().for_each(|(name, value)| line[format!("validate_{name}")] = (*value).into());
        if ends_early(state) {
            line["ended_early"] = true.into();
        }
        log.write(line)?;
    }
    Ok(())
}

/// Evaluates the present weights, and saves them if they are the best so far.
fn evaluate(objective: &dyn Objective, state: &mut State, checkpoints: &Checkpoints) -> Result<Option<Evaluation>> {
    let Some(evaluation) = objective.evaluate()? else { return Ok(None) };
    if state.best.is_none_or(|(best, _)| evaluation.score > best) {
        checkpoints.save_best(&tensors(objective.store()))?;
        state.best = Some((evaluation.score, state.step));
        state.since_best = 0;
    } else {
        state.since_best += 1;
    }
    Ok(Some(evaluation))
}

/// The message of a run that ends by its patience.
fn early_end(state: &State, settings: &Settings) -> Option<String> {
    let (score, best_step) = state.best?;
    Some(format!(
        "ended after {} of {} steps: no better validation score in {} evaluations (optimizer.patience = {}; the best is \
         {score:.4}, after step {best_step}). To continue, give a larger --patience, or 0 for none",
        state.step, settings.steps, state.since_best, settings.patience
    ))
}

/// All variables by name, sorted.
fn tensors(store: &VarStore) -> Tensors {
    let mut variables: Tensors = store.variables().into_iter().collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    variables
}

/// Set when the process is asked to stop; one for the whole process.
static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Whether the process was asked to stop. From the first call on, SIGTERM and SIGINT ask for it, and a second signal ends
/// the process at once.
///
/// # Errors
/// When the signal handlers cannot be installed.
pub fn stop_requested() -> Result<bool> {
    if let Some(flag) = STOP.get() {
        return Ok(flag.load(Ordering::Relaxed));
    }
    // The loader's requests to an object store check the same flag, so an unreachable store does not delay the stop.
    let flag = dataset::store::storage::ending();
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, flag.clone()).context("no signal handler")?;
        signal_hook::flag::register(signal, flag.clone()).context("no signal handler")?;
    }
    Ok(STOP.get_or_init(|| flag).load(Ordering::Relaxed))
}
