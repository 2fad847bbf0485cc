//! The training loop. It knows steps, rates, gradients, checkpoints and the log; what is trained is an [`Objective`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use dataset::random;
use dataset::{Loader, LoaderState};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tch::nn::VarStore;

use crate::objective::Objective;
use crate::optimiser::{Algorithm, Optimiser};
use crate::rundir::{self, MetricsLog, RunDir, State, Tensors};

/// Updates in a row without a finite loss after which a run ends.
const MOST_SKIPPED: u64 = 10;

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
    pub seed: u64,
    pub log_every: u64,
    pub checkpoint_every: u64,
    /// Updates between two evaluations; 0: none.
    pub evaluate_every: u64,
    pub keep_last: usize,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// All updates are made; the best evaluation, if there was one.
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
    let mut optimiser = Optimiser::new(settings.algorithm, settings.weight_decay, objective.parameters());
    let mut state = State::default();
    if let Some((found, model, moments)) = run.load_latest()? {
        let report = rundir::load(objective.store(), &model)?;
        if !report.is_complete() {
            bail!("the checkpoint does not fit the model: {report}");
        }
        optimiser.load_state(moments)?;
        state = found;
        eprintln!("resuming after {} of {} updates", state.step, settings.steps);
    }
    let stop = stop_flag()?;
    let mut log = run.metrics(state.step)?;
    let mut loader = loader(state.loader)?;
    let mut progress = Progress::new(settings.steps, state.step);
    let mut in_a_row = 0;
    while state.step < settings.steps {
        let seed = random::mix(&[settings.seed, random::digest("step"), state.step]);
        // Every random number of an update comes from its number: a resumed run needs no generator's state.
        tch::manual_seed(seed as i64);
        optimiser.zero_grad();
        let (mut total, mut parts, mut records) = (0.0, Vec::<(&'static str, f64)>::new(), Vec::new());
        for _ in 0..settings.accumulation {
            let batch = loader.next_batch()?;
            let loss = objective.loss(&batch)?;
            (&loss.total / settings.accumulation as f64).backward();
            let share = 1.0 / settings.accumulation as f64;
            total += loss.total.double_value(&[]) * share;
            for (name, part) in loss.parts {
                let value = part.double_value(&[]) * share;
                match parts.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, sum)) => *sum += value,
                    None => parts.push((name, value)),
                }
            }
            records.extend_from_slice(batch.rows());
        }
        let rate = (settings.rate)(state.step);
        let norm =
            if settings.clip > 0.0 { optimiser.clip_grad_norm(settings.clip)? } else { optimiser.grad_norm()? };
        let norm = norm.double_value(&[]);
        if total.is_finite() && norm.is_finite() {
            optimiser.step(rate)?;
            in_a_row = 0;
        } else {
            state.skipped += 1;
            in_a_row += 1;
            eprintln!("update {}: loss {total}, gradient norm {norm}: skipped; rows {records:?}", state.step + 1);
            if in_a_row == MOST_SKIPPED {
                bail!("{MOST_SKIPPED} updates in a row without a finite loss: lower the rate, or look at those rows");
            }
        }
        state.step += 1;
        state.loader = loader.state();
        progress.advance(records.len(), total, &parts);

        let ends = state.step == settings.steps;
        if ends || state.step.is_multiple_of(settings.log_every) {
            let mut line = json!({
                "step": state.step, "epoch": state.loader.epoch as f64 + state.loader.batch as f64 / loader.batches() as f64,
                "rate": rate, "loss": total, "grad_norm": norm, "images_per_second": progress.rate(),
            });
            parts.iter().for_each(|(name, value)| line[*name] = (*value).into());
            log.write(&line)?;
        }
        if settings.evaluate_every > 0 && (ends || state.step.is_multiple_of(settings.evaluate_every)) {
            evaluate(objective, &mut state, &mut log, run)?;
        }
        let stopped = stop.load(Ordering::Relaxed);
        if ends || stopped || state.step.is_multiple_of(settings.checkpoint_every) {
            run.save(&state, &tensors(objective.store()), &optimiser.save_state())?;
            run.prune(settings.keep_last)?;
        }
        if stopped && !ends {
            progress.finish();
            return Ok(Outcome::Stopped { step: state.step });
        }
    }
    progress.finish();
    Ok(Outcome::Done { best: state.best.map(|(score, _)| score) })
}

fn evaluate(objective: &dyn Objective, state: &mut State, log: &mut MetricsLog, run: &RunDir) -> Result<()> {
    let Some(evaluation) = objective.evaluate()? else { return Ok(()) };
    let mut line = json!({ "step": state.step });
    for (name, value) in &evaluation.values {
        line[format!("validate_{name}")] = (*value).into();
    }
    log.write(&line)?;
    if state.best.is_none_or(|(best, _)| evaluation.score > best) {
        state.best = Some((evaluation.score, state.step));
        run.save_best(&tensors(objective.store()))?;
    }
    Ok(())
}

/// All variables by name, sorted.
fn tensors(store: &VarStore) -> Tensors {
    let mut variables: Tensors = store.variables().into_iter().collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    variables
}

/// Set when the process is asked to end.
fn stop_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        // A second signal ends the process at once.
        signal_hook::flag::register_conditional_shutdown(signal, 1, flag.clone()).context("signals")?;
        signal_hook::flag::register(signal, flag.clone()).context("signals")?;
    }
    Ok(flag)
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

    fn advance(&mut self, images: usize, total: f64, parts: &[(&'static str, f64)]) {
        self.images += images;
        let mut message = format!("loss {total:.4}");
        for (name, value) in parts {
            message += &format!(" {} {value:.4}", name.trim_start_matches("loss_"));
        }
        message += &format!(", {:.0} images/s", self.rate());
        self.bar.set_message(message.clone());
        self.bar.inc(1);
        if self.plain && self.told.elapsed().as_secs_f64() >= PLAIN_PAUSE {
            self.told = Instant::now();
            eprintln!("{}/{} {message}, {} s left", self.bar.position(), self.steps, self.bar.eta().as_secs());
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
