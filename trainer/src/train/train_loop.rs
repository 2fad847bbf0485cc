//! The training loop. It knows steps, rates, gradients, checkpoints and the log; what is trained is an [`Objective`].

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use dataset::{Loader, LoaderState};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tch::nn::VarStore;

use crate::config::RunConfig;
use crate::task::objective::{Evaluation, Objective};
use crate::train::amp::LossScale;
use crate::train::ema::Ema;
use crate::train::optimizer::{Algorithm, Optimizer};
use crate::train::run_dir::{self, MetricsLog, RunDir, State, Tensors};
use crate::train::step::{Settled, Stepper, Update};

/// What the engine needs to know, whatever the task.
pub struct Settings<'a> {
    pub algorithm: Algorithm,
    pub weight_decay: f64,
    /// Learning rate of update `n`, from 0.
    pub rate: &'a dyn Fn(u64) -> f64,
    pub steps: u64,
    /// Micro-batches of an update.
    pub accumulation: usize,
    /// Largest gradient norm; 0: no clipping.
    pub clip: f64,
    /// Updates between two evaluations; 0: none.
    pub evaluate_every: u64,
    /// Evaluations without a better score after which the run ends; 0: it makes all its updates.
    pub patience: u64,
    /// What all kinds of runs share: seed, precision, logging, checkpoints.
    pub run: &'a RunConfig,
    /// Identifiers of rows, for messages.
    pub record_ids: &'a dyn Fn(&[u32]) -> Vec<String>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// All updates are made, or the score no longer rose; the best evaluation, if there was one.
    Done { best: Option<f64> },
    /// Asked to stop after this many updates; a checkpoint stands.
    Stopped { step: u64 },
}

/// Trains an objective, going on from the run's newest checkpoint. `loader` makes a loader that stands at a state.
pub fn train(
    objective: &dyn Objective,
    loader: &dyn Fn(LoaderState) -> Result<Loader>,
    settings: &Settings,
    run: &RunDir,
) -> Result<Outcome> {
    let (store, config) = (objective.store(), settings.run);
    let mut optimizer = Optimizer::new(settings.algorithm, settings.weight_decay, objective.parameters());
    let mut state = State::default();
    let mut ema = (config.ema > 0.0).then(|| Ema::new(store, config.ema));
    if let Some(found) = run.load_latest()? {
        let report = run_dir::load(store, &found.model)?;
        if !report.is_complete() {
            bail!("the checkpoint does not fit the model: {report}");
        }
        optimizer.load_state(found.optimizer)?;
        if let (Some(ema), Some(saved)) = (&mut ema, found.ema) {
            ema.load(store, saved)?;
        }
        state = found.state;
        dataset::cli_eprintln!("resuming after {} of {} updates", state.step, settings.steps);
    }
    // A kill may have come between a checkpoint and the removal of an older one.
    run.prune(config.keep_last)?;
    let mut stepper = Stepper::new(objective, optimizer, config.precision, config.seed);
    (stepper.accumulation, stepper.clip) = (settings.accumulation, settings.clip);
    if let (Some(scale), Some(saved)) = (&mut stepper.scale, state.loss_scale) {
        *scale = LossScale::new(saved, store.device());
    }
    stop_requested()?;
    let ends_early = |state: &State| state.step < settings.steps && state.is_out_of_patience(settings.patience);
    let mut log = run.metrics(state.step)?;
    let mut loader = loader(state.loader)?;
    let mut progress = Progress::new(settings.steps, state.step);
    let mut pending: Vec<Update> = Vec::new();
    let mut saved = state.step;
    // Writes a checkpoint of the updates so far; the lines of the log up to it are durable before it is.
    let save = |state: &mut State, stepper: &Stepper, ema: Option<&Ema>, log: &MetricsLog| -> Result<()> {
        state.total = settings.steps;
        state.loss_scale = stepper.scale.as_ref().map(LossScale::state);
        let averaged = ema.map(|ema| ema.tensors(store));
        log.sync()?;
        run.save(state, &tensors(store), &stepper.optimizer.save_state(), averaged.as_ref())?;
        run.prune(config.keep_last)
    };
    // Where records cannot be read, the updates since the last checkpoint are saved before the run ends with that error.
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
                dataset::cli_eprintln!(
                    "saved a checkpoint after update {}: the same command goes on from there",
                    state.step
                );
                Ok(error)
            }
            Err(unsaved) => Err(error.context(format!("{unsaved:#}"))),
        }
    };
    if state.evaluation_due {
        evaluated(objective, &mut state, run, ema.as_mut(), &mut log, &ends_early)?;
        state.evaluation_due = false;
        save(&mut state, &stepper, ema.as_ref(), &log)?;
    }
    while state.step < settings.steps && !ends_early(&state) {
        let rate = (settings.rate)(state.step);
        let update = match stepper.update(state.step, rate, &mut || Ok(Rc::new(loader.next_batch()?))) {
            Ok(update) => update,
            Err(error) => {
                settle(&mut pending, &mut state, settings, stepper.scale.as_ref())?;
                let error = keep(error, saved, &mut state, &stepper, ema.as_ref(), &log)?;
                // Asked to end while the store of the records was away: nothing was lost.
                if state.step > 0 && stop_requested()? && error.is::<dataset::Error>() {
                    dataset::cli_eprintln!("{error:#}");
                    progress.finish();
                    return Ok(Outcome::Stopped { step: state.step });
                }
                return Err(error);
            }
        };
        if let Some(ema) = &mut ema {
            ema.follow(state.step)?;
        }
        progress.advance(update.rows.len());
        pending.push(update);
        state.step += 1;
        state.loader = loader.state();

        let due = |every: u64| every > 0 && state.step.is_multiple_of(every);
        let (ends, stopped) = (state.step == settings.steps, stop_requested()?);
        let logs = ends || due(config.log_every);
        let evaluates = settings.evaluate_every > 0 && (ends || due(settings.evaluate_every));
        let saves = ends || stopped || due(config.checkpoint_every);
        // Reading a result waits for the device, which on a CPU costs nothing.
        if (logs || evaluates || saves || !store.device().is_cuda())
            && let Some(last) = settle(&mut pending, &mut state, settings, stepper.scale.as_ref())?
        {
            progress.tell(&last);
            if logs {
                let epoch = state.loader.epoch as f64 + state.loader.batch as f64 / loader.batches() as f64;
                let mut line = json!({
                    "step": state.step, "epoch": epoch, "rate": rate, "loss": last.loss,
                    "grad_norm": last.grad_norm, "skipped": state.skipped, "images_per_second": progress.rate(),
                });
                last.parts.iter().for_each(|(name, value)| line[*name] = (*value).into());
                if let Some(scale) = &stepper.scale {
                    line["loss_scale"] = scale.state().scale.into();
                }
                log.write(line)?;
            }
        }
        if evaluates && let Err(error) = evaluated(objective, &mut state, run, ema.as_mut(), &mut log, &ends_early) {
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
        remark_early_end(&state, settings);
    }
    if state.skipped == state.step && state.step > 0 {
        bail!("all {} updates were skipped: no loss or gradient was a finite number", state.step);
    }
    Ok(Outcome::Done { best: state.best.map(|(score, _)| score) })
}

/// Reads what the updates came to since the last time, counts those that were skipped, and gives the last one.
fn settle(
    pending: &mut Vec<Update>,
    state: &mut State,
    settings: &Settings,
    scale: Option<&LossScale>,
) -> Result<Option<Settled>> {
    let mut last = None;
    for update in pending.drain(..) {
        let settled = update.settle()?;
        let number = update.number + 1;
        if !settled.skipped {
            state.skipped_in_a_row = 0;
        } else if settled.loss.is_finite() && scale.is_some_and(|scale| scale.state().scale >= 1.0) {
            state.skipped += 1;
            dataset::cli_eprintln!("update {number}: gradients overflow float16: skipped, and the loss scale halved");
        } else {
            state.skipped += 1;
            state.skipped_in_a_row += 1;
            dataset::cli_eprintln!(
                "update {number}: loss {}, gradient norm {}: skipped; records {}",
                settled.loss,
                settled.grad_norm,
                (settings.record_ids)(&update.rows).join(", ")
            );
            let limit = settings.run.skip_limit;
            if limit > 0 && state.skipped_in_a_row >= limit {
                bail!(
                    "{limit} updates in a row without a finite loss (run.skip_limit): lower the rate, or look at those \
                     records"
                );
            }
        }
        last = Some(settled);
    }
    Ok(last)
}

/// Evaluates the weights, or their moving average where there is one, and logs the result.
fn evaluated(
    objective: &dyn Objective,
    state: &mut State,
    run: &RunDir,
    ema: Option<&mut Ema>,
    log: &mut MetricsLog,
    ends_early: &dyn Fn(&State) -> bool,
) -> Result<()> {
    let found = match ema {
        Some(ema) => ema.in_place(|| evaluate(objective, state, run)),
        None => evaluate(objective, state, run),
    };
    if let Some(evaluation) = found? {
        let mut line = json!({ "step": state.step });
        evaluation.values.iter().for_each(|(name, value)| line[format!("validate_{name}")] = (*value).into());
        if ends_early(state) {
            line["ended_early"] = true.into();
        }
        log.write(line)?;
    }
    Ok(())
}

/// Evaluates the present weights, and keeps them if they are the best so far.
fn evaluate(objective: &dyn Objective, state: &mut State, run: &RunDir) -> Result<Option<Evaluation>> {
    let Some(evaluation) = objective.evaluate()? else { return Ok(None) };
    if state.best.is_none_or(|(best, _)| evaluation.score > best) {
        run.save_best(&tensors(objective.store()))?;
        state.best = Some((evaluation.score, state.step));
        state.since_best = 0;
    } else {
        state.since_best += 1;
    }
    Ok(Some(evaluation))
}

fn remark_early_end(state: &State, settings: &Settings) {
    let Some((score, best_step)) = state.best else { return };
    dataset::cli_eprintln!(
        "ended after {} of {} updates: no better validation score in {} evaluations (optimizer.patience = {}; the best is \
         {score:.4}, after update {best_step}). A larger --patience, or 0 for none, goes on from here",
        state.step,
        settings.steps,
        state.since_best,
        settings.patience
    );
}

/// All variables by name, sorted.
fn tensors(store: &VarStore) -> Tensors {
    let mut variables: Tensors = store.variables().into_iter().collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    variables
}

/// Set when the process is asked to end; one for the whole process.
static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Whether the process was asked to end. From the first call on, SIGTERM and SIGINT ask, and a second one ends at once.
///
/// # Errors
/// When the system refuses to tell of signals.
pub fn stop_requested() -> Result<bool> {
    if let Some(flag) = STOP.get() {
        return Ok(flag.load(Ordering::Relaxed));
    }
    // The loader's requests to an object store look at the same flag: a store that is away does not hold up the end.
    let flag = dataset::store::storage::ending();
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, flag.clone()).context("signals")?;
        signal_hook::flag::register(signal, flag.clone()).context("signals")?;
    }
    Ok(STOP.get_or_init(|| flag).load(Ordering::Relaxed))
}

/// Seconds between two plain progress lines.
const PLAIN_PAUSE: f64 = 10.0;

/// Progress with images/s, losses and time left; plain lines when the output is no terminal.
struct Progress {
    bar: ProgressBar,
    plain: bool,
    started: Instant,
    told: Instant,
    images: usize,
    steps: u64,
}

impl Progress {
    fn new(steps: u64, done: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} {msg}, {eta} left") {
            bar.set_style(style);
        }
        bar.set_position(done);
        bar.reset_eta();
        let plain = !std::io::IsTerminal::is_terminal(&std::io::stderr());
        Self { bar, plain, started: Instant::now(), told: Instant::now(), images: 0, steps }
    }

    fn rate(&self) -> f64 {
        self.images as f64 / self.started.elapsed().as_secs_f64()
    }

    /// Counts an update.
    fn advance(&mut self, images: usize) {
        self.images += images;
        self.bar.inc(1);
    }

    /// Shows what the newest update came to.
    fn tell(&mut self, settled: &Settled) {
        let mut message = format!("loss {:.4}", settled.loss);
        for (name, value) in &settled.parts {
            message += &format!(" {} {value:.4}", name.trim_start_matches("loss_"));
        }
        message += &format!(", {:.0} images/s", self.rate());
        if self.plain && self.told.elapsed().as_secs_f64() >= PLAIN_PAUSE {
            self.told = Instant::now();
            dataset::cli_eprintln!(
                "{}/{} {message}, {} s left",
                self.bar.position(),
                self.steps,
                self.bar.eta().as_secs()
            );
        }
        self.bar.set_message(message);
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
