//! The learning rate range test (Smith 2017, "Cyclical learning rates for training neural networks", arXiv 1506.01186): a short
//! training with a growing learning rate shows from where on the loss falls, and where it diverges.
//!
//! Rule: the learning rate grows by the same factor in each step, from 1e-6 to 10 in 141 steps, and the test ends where the
//! smoothed loss exceeds four times what it was after the first decade, in which nothing is learned yet. Among the half decades before that minimum, the one over which the smoothed loss
//! falls most is sought; the learning rate in its middle, to two digits, is taken as the highest one of the run. (The steepest
//! point is what fast.ai's `lr_find` suggests. A share of the learning rate of the lowest loss is no good rule here: the loss of
//! rare findings is flat over two decades, once the outputs have their prevalences.)

use std::path::Path;
use std::rc::Rc;

use anyhow::{Result, anyhow, bail};
use dataset::store::files;
use dataset::{Loader, LoaderState};
use serde::Serialize;

use crate::config::LrSource;
use crate::task::objective::Objective;
use crate::train::checkpoint::State;
use crate::train::distributed::{Activity, ProcessGroup, SyncKind, share};
use crate::train::optimizer::Optimizer;
use crate::train::run_dir::{self, RANGE_TEST};
use crate::train::step::Stepper;
use crate::train::stop::stop_requested;
use crate::train::train_loop::Settings;

/// The first learning rate, and the last one.
const LRS: (f64, f64) = (1e-6, 10.0);

/// Steps from the first to the last: 20 a decade.
const STEPS: u64 = 140;

/// Decay of the moving average of the loss.
const SMOOTHING: f64 = 0.9;

/// The test ends where the smoothed loss is so many times that of the first decade. (Its minimum is no reference: with small
/// batches and weighted labels, that of single batches differs by more.)
const DIVERGED: f64 = 4.0;

/// Steps of the first decade.
const DECADE: usize = 20;

/// Steps of the half decade over which the fall of the loss is measured.
const WINDOW: usize = 10;

/// A step of the test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Its learning rate.
    pub lr: f64,
    /// The loss of its batch, before the step.
    pub loss: f64,
    /// The moving average of the losses so far, without bias to its start.
    pub smoothed: f64,
}

/// A range test.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RangeTest {
    /// The chosen learning rate.
    pub lr: f64,
    /// How it was chosen, in words.
    pub rule: String,
    /// The curve.
    pub points: Vec<Point>,
}

impl RangeTest {
    /// Writes the curve into a run, as JSON and CSV.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, run: &Path) -> Result<()> {
        let [json, csv] = RANGE_TEST.map(|name| run.join(name));
        files::write_json(&json, self)?;
        let line = |point: &Point| format!("{},{},{}\n", point.lr, point.loss, point.smoothed);
        let lines: String = self.points.iter().map(line).collect();
        Ok(files::write_atomic(&csv, format!("lr,loss,smoothed\n{lines}").as_bytes())?)
    }

    /// The learning rate of a curve.
    fn of(points: Vec<Point>) -> Result<Self> {
        let lowest = points.iter().enumerate().min_by(|a, b| a.1.smoothed.total_cmp(&b.1.smoothed));
        let ends = WINDOW..lowest.map_or(0, |(at, _)| at + 1);
        let fall = |end: usize| points[end - WINDOW].smoothed - points[end].smoothed;
        // Of equal ones the first.
        let steepest = ends.reduce(|best, end| if fall(end) > fall(best) { end } else { best });
        let Some(end) = steepest.filter(|end| fall(*end) > 0.0) else {
            bail!(
                "the range test found no learning rate from {:e} to {:e} that lowers the loss: give one (--lr 1e-3), or look at \
                 the labels",
                LRS.0,
                LRS.1
            );
        };
        let (first, last) = (points[end - WINDOW], points[end]);
        let lr: f64 = format!("{:.1e}", points[end - WINDOW / 2].lr).parse()?;
        let rule = format!(
            "the smoothed loss falls fastest from {:.1e} ({:.4}) to {:.1e} ({:.4})",
            first.lr, first.smoothed, last.lr, last.smoothed
        );
        Ok(Self { lr, rule, points })
    }
}

/// The learning rate of a run, and the test that it is from; no test where the run exists already.
pub struct Tested {
    /// The learning rate.
    pub lr: f64,
    /// The test that was made now.
    pub test: Option<RangeTest>,
}

/// The learning rate of a run: that of the run itself, if it exists, else by a test. All processes of a group call it; the main
/// one looks for the run. None where a process was asked to stop.
///
/// # Errors
/// When the run exists with a learning rate that is from no test, or the test fails.
pub fn lr_for(
    run: &Path,
    group: &ProcessGroup,
    test: impl FnOnce() -> Result<Option<RangeTest>>,
) -> Result<Option<Tested>> {
    let stored = if group.is_main() { stored_lr(run)? } else { None };
    let message = group.broadcast_bytes(&stored.unwrap_or(f64::NAN).to_le_bytes())?;
    let lr = f64::from_le_bytes(message.try_into().map_err(|_| anyhow!("a learning rate of 8 bytes was expected"))?);
    if !lr.is_nan() {
        return Ok(Some(Tested { lr, test: None }));
    }
    Ok(test()?.map(|test| Tested { lr: test.lr, test: Some(test) }))
}

/// The learning rate that a test has chosen for a run that has begun; none where there is no such run.
fn stored_lr(run: &Path) -> Result<Option<f64>> {
    if !run_dir::config_path(run).exists() || !run_dir::has_begun(run) {
        return Ok(None);
    }
    let config = run_dir::load_config(run)?;
    let tested = toml::Value::try_from(LrSource::RangeTest)?;
    let lr = config.get("optimizer.lr").and_then(toml::Value::as_float);
    match lr.filter(|_| config.get("optimizer.lr_from") == Some(&tested)) {
        Some(lr) => Ok(Some(lr)),
        None => bail!(
            "{} holds a run whose learning rate is from no range test: leave --lr auto out, or take another directory",
            run.display()
        ),
    }
}

/// The settings of a run with a learning rate from a test.
pub fn settings_of(lr: f64) -> Result<[String; 2]> {
    let source = toml::Value::try_from(LrSource::RangeTest)?;
    Ok([format!("optimizer.lr={lr:?}"), format!("optimizer.lr_from={source}")])
}

/// The learning rate of step `n`, from 0.
fn lr_of(step: u64) -> f64 {
    LRS.0 * (LRS.1 / LRS.0).powf(step as f64 / STEPS as f64)
}

/// A moving average.
#[derive(Default)]
struct Average {
    sum: f64,
    /// Sum of the weights of the values so far.
    weight: f64,
}

impl Average {
    fn add(&mut self, value: f64) -> f64 {
        self.sum = SMOOTHING * self.sum + (1.0 - SMOOTHING) * value;
        self.weight = SMOOTHING * self.weight + (1.0 - SMOOTHING);
        self.sum / self.weight
    }
}

/// Runs the test on an objective, which is trained. All processes of a group call it, and get the same result; none where one
/// was asked to stop.
///
/// # Errors
/// When a record cannot be read, a process is lost, torch fails, or no learning rate lowers the loss.
pub fn run(
    objective: &dyn Objective,
    loader: &dyn Fn(LoaderState) -> Result<Loader>,
    settings: &Settings,
    group: &ProcessGroup,
) -> Result<Option<RangeTest>> {
    let config = settings.run;
    let mut optimizer = Optimizer::new(settings.optimizer, settings.weight_decay, objective.parameters());
    share::state(group, objective.store(), &mut optimizer, &mut State::default())?;
    let mut stepper =
        Stepper::new(objective, optimizer, config.precision, config.seed).in_group(group, SyncKind::Coalesced)?;
    (stepper.accumulation, stepper.clip) = (settings.accumulation, settings.clip);
    let mut loader = loader(LoaderState::default())?;
    let _training = group.during(Activity::Training);
    let (mut points, mut average) = (Vec::<Point>::new(), Average::default());
    for step in 0..=STEPS {
        let lr = lr_of(step);
        let loss = stepper.step(step, lr, &mut || Ok(Rc::new(loader.next_batch()?)))?.metrics()?.loss;
        if group.any(stop_requested()?)? {
            return Ok(None);
        }
        let smoothed = average.add(loss);
        let before = points.get(DECADE).map_or(f64::INFINITY, |point| point.smoothed);
        if !loss.is_finite() || smoothed > DIVERGED * before {
            break;
        }
        points.push(Point { lr, loss, smoothed });
    }
    RangeTest::of(points).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A curve by a function of the learning rate.
    fn curve(loss: impl Fn(f64) -> f64) -> Vec<Point> {
        let mut average = Average::default();
        let point = |step| {
            let (lr, loss) = (lr_of(step), loss(lr_of(step)));
            Point { lr, loss, smoothed: average.add(loss) }
        };
        (0..=STEPS).map(point).collect()
    }

    #[test]
    fn the_learning_rate_is_where_the_smoothed_loss_falls_fastest() {
        assert!((lr_of(0) - 1e-6).abs() < 1e-18 && (lr_of(20) / 1e-5 - 1.0).abs() < 1e-9);
        assert!((lr_of(STEPS) / 10.0 - 1.0).abs() < 1e-9);
        // Falls fastest at 1e-3, is flat, and rises from 0.1 on; the average lags by some steps.
        let points = curve(|lr| 1.0 / (1.0 + (lr / 1e-3).powi(2)) + (lr / 0.3).powi(2));
        let test = RangeTest::of(points.clone()).unwrap();
        assert!((1e-3..3e-3).contains(&test.lr), "{}", test.lr);
        // By plain loops over the curve.
        let mut best = (0.0, 0.0);
        for start in 0..points.len() - 10 {
            let fall = points[start].smoothed - points[start + 10].smoothed;
            if fall > best.0 {
                best = (fall, points[start + 5].lr);
            }
        }
        assert!((test.lr / best.1 - 1.0).abs() < 0.05, "{} for {best:?}", test.lr);
        assert!(format!("{:e}", test.lr).split_once('e').unwrap().0.len() <= 3, "two digits: {}", test.lr);
        assert!(test.rule.starts_with("the smoothed loss falls fastest from "), "{}", test.rule);
        // A fall after the minimum, from a loss that had risen, does not count.
        let spike = curve(|lr| if (0.1..0.3).contains(&lr) { 9.0 } else { 1.0 - (lr * 1e3).min(0.5) });
        assert!(RangeTest::of(spike).unwrap().lr < 2e-3);
        let rising = RangeTest::of(curve(|lr| 1.0 + lr)).unwrap_err().to_string();
        assert!(rising.contains("from 1e-6 to 1e1") && rising.contains("--lr 1e-3"), "{rising}");
        assert!(RangeTest::of(Vec::new()).is_err());
    }

    #[test]
    fn the_average_has_no_bias_to_its_start() {
        let mut average = Average::default();
        assert!((average.add(2.0) - 2.0).abs() < 1e-12);
        // (0.1 · 5 + 0.9 · 0.1 · 2) / (0.1 + 0.9 · 0.1)
        assert!((average.add(5.0) - 0.68 / 0.19).abs() < 1e-12);
    }
}
