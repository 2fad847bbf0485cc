//! The training loop. It knows steps, learning rates, gradients, checkpoints and the log; an [`Objective`] knows what is
//! trained.

use std::rc::Rc;

use anyhow::{Result, bail};
use dataset::{Loader, LoaderState};
use serde_json::json;

use crate::config::RunConfig;
use crate::task::objective::Objective;
use crate::train::amp::LossScale;
use crate::train::checkpoint::State;
use crate::train::distributed::{Activity, ProcessGroup, SyncKind, share, was_lost};
use crate::train::optimizer::{Optimizer, OptimizerConfig};
use crate::train::progress::Progress;
use crate::train::recorder::Recorder;
use crate::train::run_dir::RunDir;
use crate::train::step::{LoadedRecord, PendingStep, StepMetrics, Stepper};
use crate::train::stop::stop_requested;
use crate::train::timing::Timing;

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
    /// Names of the datasets that the records come from, for the log.
    pub datasets: &'a [String],
    /// Identifiers of records, for messages.
    pub record_ids: &'a dyn Fn(&[LoadedRecord]) -> Vec<String>,
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

/// Trains an objective, continuing from the run's newest checkpoint. `loader` makes a loader at a position. In a group of
/// several processes, all call this; only the main one has the run's directory.
///
/// # Errors
/// When the checkpoint is damaged or of another model, a record cannot be read or a process is lost (the steps so far are then
/// saved), all steps are skipped, or torch or the file system fails.
pub fn train(
    objective: &dyn Objective,
    loader: &dyn Fn(LoaderState) -> Result<Loader>,
    settings: &Settings,
    run: Option<&RunDir>,
    group: &ProcessGroup,
) -> Result<Outcome> {
    let (store, config, notify) = (objective.store(), settings.run, settings.notify);
    let mut optimizer = Optimizer::new(settings.optimizer, settings.weight_decay, objective.parameters());
    let (mut recorder, mut state) = match run {
        Some(run) => Recorder::open(run, store, &mut optimizer, settings.steps, config, notify)?,
        None => Default::default(),
    };
    share::state(group, store, &mut optimizer, &mut state)?;
    // The reducer of the buckets knows the float32 weights only.
    let sync = if config.master_weights { SyncKind::Coalesced } else { config.gradient_sync };
    let mut stepper = Stepper::new(objective, optimizer, config.precision, config.seed).in_group(group, sync)?;
    (stepper.accumulation, stepper.clip) = (settings.accumulation, settings.clip);
    stepper.datasets = settings.datasets.len();
    if config.master_weights {
        stepper.keep_master_weights()?;
    }
    if config.cuda_graph {
        stepper.use_cuda_graph()?;
    }
    if let (Some(scale), Some(saved)) = (&mut stepper.scale, state.loss_scale) {
        *scale = LossScale::new(saved, store.device());
    }
    stop_requested()?;
    let ends_early = |state: &State| state.step < settings.steps && state.is_out_of_patience(settings.patience);
    let mut loader = loader(state.loader.clone())?;
    let mut progress = Progress::new(settings.steps, state.step, group.is_main());
    let mut pending: Vec<PendingStep> = Vec::new();
    let mut saved = state.step;
    let save = |recorder: &mut Option<Recorder>, state: &mut State, stepper: &Stepper| -> Result<()> {
        let _busy = group.during(Activity::Evaluating);
        state.total = settings.steps;
        state.loss_scale = stepper.scale.as_ref().map(LossScale::state);
        recorder.as_mut().map_or(Ok(()), |recorder| recorder.save(state, &stepper.optimizer))
    };
    // If records cannot be read or a process is lost, the steps since the last checkpoint are saved before the run ends.
    let keep = |error: anyhow::Error,
                saved: u64,
                recorder: &mut Option<Recorder>,
                state: &mut State,
                stepper: &Stepper| {
        if state.step == saved || recorder.is_none() || !(error.is::<dataset::Error>() || was_lost(&error)) {
            return error;
        }
        match save(recorder, state, stepper) {
            Ok(()) => {
                notify(&format!("saved a checkpoint after step {}: the same command continues from there", state.step));
                error
            }
            Err(unsaved) => error.context(format!("{unsaved:#}")),
        }
    };
    // The main process evaluates; the others wait for the score, which decides whether all end early.
    let evaluate = |recorder: &mut Option<Recorder>, state: &mut State| -> Result<()> {
        if let Some(recorder) = recorder {
            let _busy = group.during(Activity::Evaluating);
            recorder.evaluate(objective, state, &ends_early)?;
        }
        share::evaluated(group, state)
    };
    let _training = group.during(Activity::Training);
    if state.evaluation_due {
        evaluate(&mut recorder, &mut state)?;
        state.evaluation_due = false;
        save(&mut recorder, &mut state, &stepper)?;
    }
    let mut timing = Timing::new(&loader);
    while state.step < settings.steps && !ends_early(&state) {
        let lr = (settings.lr)(state.step);
        let step = match stepper.step(state.step, lr, &mut || Ok(Rc::new(loader.next_batch()?))) {
            Ok(step) => step,
            Err(error) => {
                read_metrics(&mut pending, &mut state, settings, stepper.scale.as_ref())?;
                let error = keep(error, saved, &mut recorder, &mut state, &stepper);
                // The process was asked to stop while the store of the records could not be reached: nothing was lost.
                let alone = group.world_size() == 1;
                if alone && state.step > 0 && stop_requested()? && error.is::<dataset::Error>() {
                    notify(&format!("{error:#}"));
                    progress.finish();
                    return Ok(Outcome::Stopped { step: state.step });
                }
                return Err(error);
            }
        };
        if let Some(recorder) = &mut recorder {
            recorder.average(state.step)?;
        }
        progress.advance(step.records.len() * group.world_size());
        timing.step(step.records.len() * group.world_size());
        pending.push(step);
        state.step += 1;
        state.loader = loader.state();

        let due = |every: u64| every > 0 && state.step.is_multiple_of(every);
        // All processes leave after the same step, whichever of them was asked to stop.
        let stopped = match group.any(stop_requested()?) {
            Ok(stopped) => stopped,
            Err(error) => return Err(keep(error.into(), saved, &mut recorder, &mut state, &stepper)),
        };
        let ends = state.step == settings.steps;
        let logs = ends || due(config.log_every);
        let evaluates = settings.evaluate_every > 0 && (ends || due(settings.evaluate_every));
        let saves = ends || stopped || due(config.checkpoint_every);
        // Reading metrics waits for the device, which costs nothing on a CPU.
        if (logs || evaluates || saves || !store.device().is_cuda())
            && let Some(last) = read_metrics(&mut pending, &mut state, settings, stepper.scale.as_ref())?
        {
            progress.show(&last).iter().for_each(|line| notify(line));
            if let Some(recorder) = recorder.as_mut().filter(|_| logs) {
                let epoch = state.loader.epoch as f64 + state.loader.batch as f64 / loader.batches() as f64;
                let mut line = json!({
                    "step": state.step, "epoch": epoch, "lr": lr, "loss": last.loss, "grad_norm": last.grad_norm,
                    "skipped": state.skipped, "images_per_second": progress.images_per_second(),
                });
                last.parts.iter().for_each(|(name, value)| line[*name] = (*value).into());
                for (dataset, drawn) in settings.datasets.iter().zip(&state.loader.drawn) {
                    line[format!("records/{dataset}")] = (*drawn).into();
                }
                state
                    .source_losses
                    .take(settings.datasets)
                    .into_iter()
                    .for_each(|(name, value)| line[name] = value.into());
                timing.line(&loader).iter().for_each(|(name, value)| line[*name] = (*value).into());
                if let Some(scale) = &stepper.scale {
                    line["loss_scale"] = scale.state().scale.into();
                }
                recorder.log(line)?;
            }
        }
        if evaluates && let Err(error) = timing.without(|| evaluate(&mut recorder, &mut state)) {
            state.evaluation_due = true;
            return Err(keep(error, saved, &mut recorder, &mut state, &stepper));
        }
        if saves || ends_early(&state) {
            timing.without(|| save(&mut recorder, &mut state, &stepper))?;
            saved = state.step;
        }
        if stopped && !ends && !ends_early(&state) {
            progress.finish();
            return Ok(Outcome::Stopped { step: state.step });
        }
    }
    progress.finish();
    if let Some(counts) = stepper.graph_counts() {
        notify(&counts.to_string());
    }
    if ends_early(&state) {
        early_end(&state, settings).iter().filter(|_| group.is_main()).for_each(|message| notify(message));
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
            state.source_losses.add(&metrics.by_source.0, &metrics.by_source.1);
        } else if metrics.loss.is_finite() && scale.is_some_and(|scale| scale.state().scale >= 1.0) {
            state.skipped += 1;
            let message = format!("step {number}: gradients overflow float16: skipped, and the loss scale halved");
            (settings.notify)(&message);
        } else {
            state.skipped += 1;
            state.skipped_in_a_row += 1;
            let StepMetrics { loss, grad_norm, own_loss, .. } = metrics;
            // With a loss that is not finite, only the process that computed it names its records.
            if loss.is_finite() || !own_loss.is_finite() {
                let records = (settings.record_ids)(&step.records).join(", ");
                (settings.notify)(&format!(
                    "step {number}: loss {own_loss}, gradient norm {grad_norm}: skipped; records {records}"
                ));
            }
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

/// The message of a run that ends by its patience.
fn early_end(state: &State, settings: &Settings) -> Option<String> {
    let (score, best_step) = state.best?;
    Some(format!(
        "ended after {} of {} steps: no better validation score in {} evaluations (optimizer.patience = {}; the best is \
         {score:.4}, after step {best_step}). To continue, give a larger --patience, or 0 for none",
        state.step, settings.steps, state.since_best, settings.patience
    ))
}
