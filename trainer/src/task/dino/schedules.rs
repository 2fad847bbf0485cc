//! What changes from step to step: momentum and temperature of the teacher, learning rate, weight decay.

use std::f64::consts::PI;

use crate::config::DinoConfig;
use crate::train::lr_schedule::{WarmupCosine, scaled_lr};

/// The schedules of a run. They count in epochs of its configuration; a run of a given number of steps passes all of them in
/// these steps.
#[derive(Debug, Clone)]
pub struct Schedules {
    steps: u64,
    epochs: f64,
    momentum: (f64, f64),
    weight_decay: (f64, f64),
    temperature: (f64, f64),
    temperature_warmup: f64,
    freeze: f64,
    lr: WarmupCosine,
}

impl Schedules {
    /// Those of a run of so many steps.
    pub fn new(config: &DinoConfig, steps: u64) -> Self {
        let (teacher, optimizer) = (&config.teacher, &config.optimizer);
        Self {
            steps: steps.max(1),
            epochs: optimizer.epochs,
            momentum: (teacher.momentum, teacher.momentum_end),
            weight_decay: (optimizer.weight_decay, optimizer.weight_decay_end),
            temperature: (teacher.warmup_temperature, teacher.temperature),
            temperature_warmup: teacher.warmup_epochs,
            freeze: optimizer.freeze_epochs,
            lr: WarmupCosine {
                peak: scaled_lr(optimizer.base_lr, optimizer.batch_size * optimizer.accumulation),
                floor: optimizer.min_lr,
                warmup: optimizer.warmup_epochs,
                total: optimizer.epochs,
            },
        }
    }

    /// The share of the run before step `step`, from 0.
    fn share(&self, step: u64) -> f64 {
        (step as f64 / self.steps as f64).min(1.0)
    }

    /// The epoch before step `step`, with its fraction.
    fn epoch(&self, step: u64) -> f64 {
        self.share(step) * self.epochs
    }

    /// Learning rate of step `step`, from 0.
    pub fn lr(&self, step: u64) -> f64 {
        self.lr.at(self.epoch(step))
    }

    /// Share of the teacher that stays at step `step`.
    pub fn momentum(&self, step: u64) -> f64 {
        half_cosine(self.momentum, self.share(step))
    }

    /// Weight decay of step `step`.
    pub fn weight_decay(&self, step: u64) -> f64 {
        half_cosine(self.weight_decay, self.share(step))
    }

    /// The teacher's temperature at step `step`.
    pub fn temperature(&self, step: u64) -> f64 {
        let (from, to) = self.temperature;
        let epoch = self.epoch(step);
        if epoch < self.temperature_warmup { from + (to - from) * epoch / self.temperature_warmup } else { to }
    }

    /// Whether the prototypes are not trained at step `step`.
    pub fn is_frozen(&self, step: u64) -> bool {
        self.epoch(step) < self.freeze
    }
}

/// Half a cosine from the first value to the second at a share of the way.
fn half_cosine((from, to): (f64, f64), share: f64) -> f64 {
    to + (from - to) * 0.5 * (1.0 + (PI * share).cos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::dino_preset;

    #[test]
    fn each_schedule_has_its_first_and_last_value() {
        let mut config = dino_preset("mrm-vit-b16").unwrap();
        (config.optimizer.batch_size, config.optimizer.epochs, config.optimizer.warmup_epochs) = (256, 100.0, 10.0);
        let schedules = Schedules::new(&config, 1_000);
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        close(schedules.momentum(0), 0.996);
        close(schedules.momentum(500), 0.998);
        close(schedules.momentum(1_000), 1.0);
        close(schedules.weight_decay(0), 0.04);
        close(schedules.weight_decay(1_000), 0.4);
        close(schedules.temperature(0), 0.04);
        close(schedules.temperature(150), 0.055);
        close(schedules.temperature(300), 0.07);
        close(schedules.temperature(999), 0.07);
        close(schedules.lr(0), 0.0);
        close(schedules.lr(50), 2.5e-4);
        close(schedules.lr(100), 5e-4);
        close(schedules.lr(1_000), 1e-6);
        assert!(schedules.is_frozen(9) && !schedules.is_frozen(10));
    }
}
