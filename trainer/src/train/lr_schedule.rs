//! Learning-rate schedules: linear warm-up, then half a cosine or, for segmentation, a polynomial.
//!
//! Pre-training and fine-tuning use the same curve at different positions. Pre-training takes the position before a step
//! in fractional epochs (MAE, `util/lr_sched.py`), so its first step has lr 0. Fine-tuning steps its scheduler before the
//! optimizer, so step k, from 1, takes position k: lr 0 at position 0 is never used, and the last step has lr 0.

use std::f64::consts::PI;

/// The batch size that base learning rates are stated for (MAE: lr = base_lr · batch / 256).
const BASE_BATCH: f64 = 256.0;

/// The learning rate of an effective batch: `base_lr · batch / 256`. The effective batch counts all devices and
/// accumulated micro-batches.
pub fn scaled_lr(base_lr: f64, effective_batch: usize) -> f64 {
    base_lr * effective_batch as f64 / BASE_BATCH
}

/// Linear warm-up from 0 to `peak`, then half a cosine down to `floor`. `warmup` and `total` have one unit, epochs or
/// steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WarmupCosine {
    /// The highest lr.
    pub peak: f64,
    /// The lr at the end.
    pub floor: f64,
    /// Length of the warm-up.
    pub warmup: f64,
    /// Length of the whole schedule, warm-up included.
    pub total: f64,
}

impl WarmupCosine {
    /// The lr at a position in the schedule's unit; past the end, `floor`.
    pub fn at(&self, position: f64) -> f64 {
        if position < self.warmup {
            return self.peak * position / self.warmup;
        }
        if position >= self.total {
            return self.floor;
        }
        let progress = (position - self.warmup) / (self.total - self.warmup);
        self.floor + (self.peak - self.floor) * 0.5 * (1.0 + (PI * progress).cos())
    }

    /// Pre-training: the lr of step number `step`, from 0, where an epoch has `per_epoch` steps. The schedule's unit is
    /// the epoch.
    pub fn in_epochs(&self, step: u64, per_epoch: f64) -> f64 {
        self.at(step as f64 / per_epoch)
    }

    /// Fine-tuning: the lr of step number `step`, from 0. The schedule's unit is the step.
    pub fn in_steps(&self, step: u64) -> f64 {
        self.at((step + 1) as f64)
    }
}

/// Linear warm-up from 0 to `peak`, then a cosine wave between `peak` and 0: the schedule of BenchX, whose cosine goes on after
/// its half period. Positions are counted in steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WarmupWave {
    /// The highest lr.
    pub peak: f64,
    /// Length of the warm-up.
    pub warmup: f64,
    /// Position at which the lr reaches 0 for the first time.
    pub half: f64,
}

impl WarmupWave {
    /// The lr of step number `step`, from 0, at the position of [`WarmupCosine::in_steps`].
    pub fn in_steps(&self, step: u64) -> f64 {
        let position = (step + 1) as f64;
        if position < self.warmup {
            return self.peak * position / self.warmup;
        }
        let progress = (position - self.warmup) / (self.half - self.warmup);
        self.peak * 0.5 * (1.0 + (PI * progress).cos())
    }
}

/// Share of the lr at which the polynomial's warm-up begins (mmsegmentation's `warmup_ratio`).
const POLY_WARMUP_RATIO: f64 = 1e-6;

/// A polynomial from `peak` down to `floor`, multiplied by a linear warm-up: mmcv's `poly` policy, counted in steps.
///
/// Unlike in [`WarmupCosine`], the decay begins with the first step, not after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WarmupPoly {
    /// The lr at which the polynomial begins.
    pub peak: f64,
    /// The lr at the end.
    pub floor: f64,
    /// Exponent; 1: a straight line.
    pub power: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// All steps, warm-up included.
    pub total: u64,
}

impl WarmupPoly {
    /// The lr of step number `step`, from 0; past the end, `floor`.
    pub fn at(&self, step: u64) -> f64 {
        let left = 1.0 - step.min(self.total) as f64 / self.total.max(1) as f64;
        let lr = self.floor + (self.peak - self.floor) * left.powf(self.power);
        if step >= self.warmup {
            return lr;
        }
        lr * (POLY_WARMUP_RATIO + (1.0 - POLY_WARMUP_RATIO) * step as f64 / self.warmup as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: WarmupCosine = WarmupCosine { peak: 1.0, floor: 0.0, warmup: 2.0, total: 5.0 };

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} and {b}");
    }

    #[test]
    fn pretraining_starts_at_zero_and_changes_the_lr_within_an_epoch() {
        close(SCHEDULE.in_epochs(0, 4.0), 0.0);
        close(SCHEDULE.in_epochs(1, 4.0), 0.125);
        close(SCHEDULE.in_epochs(8, 4.0), 1.0);
        close(SCHEDULE.in_epochs(14, 4.0), 0.5);
    }

    #[test]
    fn fine_tuning_never_uses_lr_zero_first_and_ends_at_the_floor() {
        let lrs: Vec<f64> = (0..6).map(|step| SCHEDULE.in_steps(step)).collect();
        for (lr, expected) in lrs.into_iter().zip([0.5, 1.0, 0.75, 0.25, 0.0, 0.0]) {
            close(lr, expected);
        }
    }

    #[test]
    fn the_floor_and_an_absent_warm_up_are_kept() {
        let schedule = WarmupCosine { peak: 1.0, floor: 0.2, warmup: 0.0, total: 10.0 };
        close(schedule.at(0.0), 1.0);
        close(schedule.at(5.0), 0.6);
        close(schedule.at(10.0), 0.2);
        close(schedule.at(99.0), 0.2);
        let only_warmup = WarmupCosine { warmup: 4.0, total: 4.0, ..SCHEDULE };
        close(only_warmup.at(2.0), 0.5);
        close(only_warmup.at(4.0), 0.0);
    }

    #[test]
    fn a_wave_is_the_half_cosine_and_then_its_mirror_image() {
        let wave = WarmupWave { peak: 2.0, warmup: 4.0, half: 24.0 };
        let cosine = WarmupCosine { peak: 2.0, floor: 0.0, warmup: 4.0, total: 24.0 };
        for step in 0..24 {
            close(wave.in_steps(step), cosine.in_steps(step));
        }
        for after in 0..20 {
            close(wave.in_steps(23 + after), wave.in_steps(23 - after));
        }
        close(wave.in_steps(43), 2.0);
    }

    #[test]
    fn the_lr_scales_with_the_batch() {
        close(scaled_lr(1.5e-4, 512), 3e-4);
    }

    #[test]
    fn the_polynomial_decays_from_the_first_step_on() {
        let schedule = WarmupPoly { peak: 2.0, floor: 0.0, power: 1.0, warmup: 4, total: 10 };
        close(schedule.at(0), 2e-6);
        close(schedule.at(2), 2.0 * 0.8 * (0.5 + 0.5e-6));
        close(schedule.at(4), 1.2);
        close(schedule.at(9), 0.2);
        close(schedule.at(10), 0.0);
        close(schedule.at(99), 0.0);
        let curved = WarmupPoly { power: 2.0, floor: 1.0, warmup: 0, ..schedule };
        close(curved.at(0), 2.0);
        close(curved.at(5), 1.25);
    }
}
