//! What the main process of a run writes: checkpoints, the log, the best weights; and the moving average of the weights, which
//! only checkpoints and evaluations need.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tch::nn::VarStore;

use crate::config::RunConfig;
use crate::task::objective::{Evaluation, Objective};
use crate::train::checkpoint::{Checkpoints, EMA, MODEL, REMEDY, Retention, State};
use crate::train::ema::Ema;
use crate::train::logger::{self, MetricsLog, damaged_lines};
use crate::train::optimizer::Optimizer;
use crate::train::run_dir::RunDir;
use crate::weights::{Tensors, load_tensors};

/// The files of a run that is being trained.
pub(super) struct Recorder<'a> {
    run: PathBuf,
    store: &'a VarStore,
    checkpoints: Checkpoints,
    retention: Retention,
    ema: Option<Ema>,
    log: MetricsLog,
}

impl<'a> Recorder<'a> {
    /// Opens the files of a run of `steps` steps. Loads the newest checkpoint into model and optimizer; returns its state, or
    /// that of a new run.
    pub fn open(
        run: &RunDir,
        store: &'a VarStore,
        optimizer: &mut Optimizer,
        steps: u64,
        config: &RunConfig,
        notify: &dyn Fn(&str),
    ) -> Result<(Option<Self>, State)> {
        let (checkpoints, retention) = (Checkpoints::of(run.path()), Retention { keep_last: config.keep_last });
        run.notice().iter().for_each(|notice| notify(notice));
        let mut state = State::default();
        let mut ema = (config.ema > 0.0).then(|| Ema::new(store, config.ema));
        if let Some(checkpoint) = checkpoints.load_latest()? {
            let folder = &checkpoint.folder;
            let unfit = |file: &str| format!("{} does not fit this run; {REMEDY}", folder.join(file).display());
            let report = load_tensors(store, &checkpoint.model).with_context(|| unfit(MODEL))?;
            if !report.is_complete() {
                bail!("{}: {report}", unfit(MODEL));
            }
            optimizer.load_state(checkpoint.optimizer).with_context(|| unfit(checkpoint.optimizer_file))?;
            if let Some(ema) = &mut ema {
                let saved = checkpoint.ema.with_context(|| format!("{} has no {EMA}; {REMEDY}", folder.display()))?;
                ema.load(store, saved).with_context(|| unfit(EMA))?;
            }
            state = checkpoint.state;
            notify(&format!("resuming after {} of {steps} steps", state.step));
        }
        // A kill may have come between a checkpoint and the removal of an older one.
        checkpoints.prune(retention)?;
        let log = MetricsLog::open(run.path(), state.step).with_context(|| not_logged(run.path()))?;
        damaged_lines(run.path(), log.damaged()).iter().for_each(|warning| notify(warning));
        Ok((Some(Self { run: run.path().to_path_buf(), store, checkpoints, retention, ema, log }), state))
    }

    /// Moves the average of the weights after step `step`, from 0.
    pub fn average(&mut self, step: u64) -> Result<()> {
        Ok(self.ema.as_mut().map_or(Ok(()), |ema| ema.update(step))?)
    }

    /// Adds a line to the log.
    pub fn log(&mut self, line: serde_json::Value) -> Result<()> {
        self.log.write(line).with_context(|| not_logged(&self.run))
    }

    /// Writes a checkpoint, after the lines of the log up to it are durable.
    pub fn save(&mut self, state: &State, optimizer: &Optimizer) -> Result<()> {
        let averaged = self.ema.as_ref().map(|ema| ema.tensors(self.store));
        self.log.sync().with_context(|| not_logged(&self.run))?;
        self.checkpoints.save(state, &tensors(self.store), &optimizer.save_state(), averaged.as_ref())?;
        self.checkpoints.prune(self.retention)
    }

    /// Evaluates the weights, or their moving average if the run keeps one, and logs the result.
    pub fn evaluate(
        &mut self,
        objective: &dyn Objective,
        state: &mut State,
        ends_early: &dyn Fn(&State) -> bool,
    ) -> Result<()> {
        let checkpoints = &self.checkpoints;
        let evaluation = match &mut self.ema {
            Some(ema) => ema.in_place(|| evaluate(objective, state, checkpoints)),
            None => evaluate(objective, state, checkpoints),
        };
        if let Some(evaluation) = evaluation? {
            let mut line = json!({ "step": state.step });
            evaluation.values.iter().for_each(|(name, value)| line[format!("validate_{name}")] = (*value).into());
            if ends_early(state) {
                line["ended_early"] = true.into();
            }
            self.log(line)?;
        }
        Ok(())
    }
}

/// The message about a log that cannot be written.
fn not_logged(run: &Path) -> String {
    let [metrics, events] = logger::files(run).map(|path| path.display().to_string());
    format!("cannot write the log ({metrics}, {events})")
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

/// All variables by name, sorted.
fn tensors(store: &VarStore) -> Tensors {
    let mut variables: Tensors = store.variables().into_iter().collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    variables
}
