//! The length of a run: epochs in steps, and the defaults of tasks without a published recipe.

use serde::Deserialize;

/// Epochs of a task without a published recipe, and the smallest and largest number of steps for them.
const EPOCHS: f64 = 50.0;
const STEPS: (u64, u64) = (500, 50_000);

/// One step in so many belongs to the warm-up of such a task.
const WARMUP: u64 = 20;

/// Smallest and largest number of evaluations of a run; within these bounds it evaluates once an epoch.
const EVALUATIONS: (u64, u64) = (20, 50);

/// Fewest batches of an epoch, and the smallest batch that they may lead to.
const BATCHES: usize = 8;
const SMALLEST_BATCH: usize = 16;

/// The batch size for a set without a published recipe: `most`, but no more than an eighth of the records, down to 16, in
/// multiples of 8. A set that fits into one batch would be trained on by whole-set gradients, at the cost of many small steps.
pub(super) fn fitting_batch(records: usize, most: usize) -> usize {
    let fitting = (records / BATCHES).max(SMALLEST_BATCH) / 8 * 8;
    fitting.min(most)
}

/// Evaluations without a better score after which a run ends, where early stopping is the default.
pub const PATIENCE: u64 = 10;

/// A run of more epochs gets a warning.
const MANY_EPOCHS: f64 = 300.0;

/// The length of runs that a recipe states in epochs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecipeLength {
    /// Epochs of a run that does not end early.
    pub epochs: f64,
    /// Epochs between two evaluations.
    pub evaluate_epochs: f64,
    /// Evaluations without a better score after which a run ends.
    pub patience: u64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps of the half cosine; 0: all.
    pub cosine_steps: u64,
}

impl RecipeLength {
    /// The warm-up of a run of so many steps: no more than a twentieth of them.
    pub fn warmup_of(&self, steps: u64) -> u64 {
        self.warmup.min(steps / WARMUP)
    }
}

/// An epoch of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epoch {
    /// Records, with repetitions.
    pub records: usize,
    /// Steps; below 1 where one step takes several epochs.
    pub steps: f64,
}

impl Epoch {
    /// An epoch of so many records. An incomplete last batch is left out where there are complete ones.
    pub fn new(records: usize, batch_size: usize, accumulation: usize) -> Self {
        let batches = (records / batch_size.max(1)).max(1);
        Self { records, steps: batches as f64 / accumulation.max(1) as f64 }
    }

    /// Steps of some epochs, at least 1.
    pub fn steps_of(self, epochs: f64) -> u64 {
        ((epochs * self.steps).round() as u64).max(1)
    }

    /// Steps and warm-up of a task without a published recipe.
    pub(super) fn default_steps(self) -> (u64, u64) {
        let steps = self.steps_of(EPOCHS).clamp(STEPS.0, STEPS.1);
        (steps, steps / WARMUP)
    }

    /// Steps between two evaluations of a run: an epoch, within the bounds on the number of evaluations.
    pub(super) fn evaluate_every(self, steps: u64) -> u64 {
        (self.steps.round() as u64).clamp(steps / EVALUATIONS.1, steps / EVALUATIONS.0).max(1)
    }

    /// A warning for a run without early stopping that sees its records more than 300 times.
    pub fn warning(self, steps: u64, patience: u64) -> Option<String> {
        let epochs = steps as f64 / self.steps;
        (patience == 0 && epochs > MANY_EPOCHS).then(|| {
            format!(
                "{steps} steps are {epochs:.0} epochs of the {} training records; --epochs E makes the run shorter, \
                 --patience N ends it after N evaluations without a better validation score",
                self.records
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_as_many_steps_as_the_loader_gives_batches() {
        assert_eq!(Epoch::new(4077, 96, 1).steps, 42.0);
        assert_eq!(Epoch::new(41, 96, 1).steps, 1.0);
        assert_eq!(Epoch::new(41, 96, 4).steps_of(2.0), 1, "half a step");
        assert_eq!(Epoch::new(100, 10, 4).steps_of(2.0), 5);
        assert_eq!(Epoch::new(10, 10, 4).steps_of(1e-9), 1);
    }

    #[test]
    fn default_lengths_follow_the_records_within_bounds() {
        let lengths = [41, 4_077, 1_000_000].map(|records| {
            let epoch = Epoch::new(records, 96, 1);
            let (steps, warmup) = epoch.default_steps();
            (steps, warmup, epoch.evaluate_every(steps))
        });
        assert_eq!(lengths, [(500, 25, 10), (2_100, 105, 42), (50_000, 2_500, 2_500)]);
        assert_eq!(Epoch::new(41, 96, 1).evaluate_every(1), 1);
    }

    #[test]
    fn small_sets_have_small_batches() {
        let batches = [0, 41, 228, 500, 767, 768, 100_000].map(|records| fitting_batch(records, 96));
        assert_eq!(batches, [16, 16, 24, 56, 88, 96, 96]);
        assert_eq!(fitting_batch(50, 8), 8, "never more than the preset's");
    }

    #[test]
    fn only_long_runs_without_early_stopping_get_a_warning() {
        let epoch = Epoch::new(4_077, 96, 1);
        let warning = epoch.warning(200_000, 0).unwrap_or_default();
        assert!(
            warning.starts_with("200000 steps are 4762 epochs of the 4077 training records; --epochs"),
            "{warning}"
        );
        assert_eq!((epoch.warning(200_000, 5), epoch.warning(42 * 300, 0)), (None, None));
    }
}
