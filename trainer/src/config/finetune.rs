//! What the configurations of all kinds of fine-tuning have in common.

use anyhow::{Result, bail};
use dataset::transform::{ASPECT, Augmentation, Crop, Transform, Window, WindowJitter};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{
    Encoder, Epoch, MAX_BATCH, PATIENCE, Provenance, Recipe, RecipeLength, check_data, check_most, check_rates,
    check_windows,
};

/// `init_name` of random initialization.
pub const RANDOM_NAME: &str = "random initialization";

/// Keys above the sections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FinetuneKeys {
    /// Name of the preset.
    pub preset: String,
    /// The way of fine-tuning that the settings began with.
    #[serde(default)]
    pub recipe: Recipe,
    /// The task as `--task` names it.
    pub task: String,
    /// The dataset, the split, and the initialization.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// Percentage of the training labels.
    pub ratio: f64,
    /// What tables and charts call this initialization; runs of one name are averaged.
    #[serde(default)]
    pub init_name: String,
}

impl FinetuneKeys {
    /// Those of a preset and a task before a dataset is known: the default recipe, random initialization.
    pub fn new(preset: &str, task: &str, ratio: f64) -> Self {
        Self {
            preset: preset.to_owned(),
            recipe: Recipe::default(),
            task: task.to_owned(),
            provenance: Provenance::default(),
            ratio,
            init_name: RANDOM_NAME.to_owned(),
        }
    }
}

/// Which part of an image a training step shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrainingCrop {
    /// torchvision's RandomResizedCrop, by `data.crop_scale`.
    #[default]
    RandomResized,
    /// The shorter side is resized to 8/7 of the encoder's size (256 for 224), and a square of the encoder's size is cut from any
    /// place. Evaluations that cut out the center cut it from the image of that size.
    Random,
    /// The part that an evaluation shows.
    Whole,
}

/// A side that leaves a margin around a crop of `size` pixels: 256 for 224.
fn with_margin(size: u32) -> u32 {
    (f64::from(size) * 8.0 / 7.0).round() as u32
}

/// Where the learning rate of a run came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LrSource {
    /// The recipe, a file, `--set` or an option.
    #[default]
    #[serde(rename = "settings")]
    Settings,
    /// A range test on the training records, `--lr auto`.
    #[serde(rename = "range test")]
    RangeTest,
}

/// Keys of `[data]` that all kinds have: how an image is cropped, flipped and normalized.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageData {
    /// Which part of an image a training step shows.
    #[serde(default)]
    pub crop: TrainingCrop,
    /// Smallest share of the area that RandomResizedCrop takes.
    pub crop_scale: f64,
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Mean of the pixels, 0 to 1.
    pub mean: f64,
    /// Standard deviation of the pixels, 0 to 1.
    pub std: f64,
    /// Augmentations of the cropped image, in their order.
    #[serde(default)]
    pub augment: Vec<Augmentation>,
    /// The window of images of 16 bits: `stored`, `full`, or `CENTER,WIDTH`.
    #[serde(default)]
    pub window: Window,
    /// Random change of the window in training: of the center in widths, of the width as a share of it.
    #[serde(default)]
    pub window_jitter: WindowJitter,
}

/// Keys of `[optimizer]` that all kinds have: learning rate, length, batches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The highest learning rate.
    pub lr: f64,
    /// Where it came from.
    #[serde(default)]
    pub lr_from: LrSource,
    /// Weight decay; biases and norms have none.
    pub weight_decay: f64,
    /// Factor on the learning rate from one layer to the one before it (BEiT), above 0 to 1; 1: the same for all layers.
    pub layer_decay: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// All steps, warm-up included.
    pub steps: u64,
    /// Steps, warm-up included, after which the half cosine reaches 0; a longer run goes up and down again, as a cosine does. 0:
    /// the cosine ends with the run.
    #[serde(default)]
    pub cosine_steps: u64,
    /// Records of a micro-batch.
    pub batch_size: usize,
    /// Micro-batches of a step.
    pub accumulation: usize,
    /// Largest gradient norm; 0: no clipping.
    pub clip: f64,
    /// Steps between two evaluations on the validation subset.
    pub evaluate_every: u64,
    /// Evaluations without a better score after which the run ends; 0: it makes all its steps.
    #[serde(default)]
    pub patience: u64,
}

impl ImageData {
    /// The transform of evaluation with these statistics, from that for a size ([`Transform::evaluate`]).
    pub fn normalized(&self, transform: Transform) -> Transform {
        let crop = match (self.crop, transform.crop) {
            (TrainingCrop::Random, Crop::Center { shorter }) => Crop::Center { shorter: with_margin(shorter) },
            (_, crop) => crop,
        };
        Transform { crop, mean: self.mean as f32, std: self.std as f32, window: self.window, ..transform }
    }

    /// The transform of training: its crops, flips and augmentations in place of the crop of an evaluation.
    pub fn augmented(&self, evaluation: Transform) -> Transform {
        let crop = match self.crop {
            TrainingCrop::RandomResized => Crop::RandomResized { scale: (self.crop_scale, 1.0), aspect: ASPECT },
            TrainingCrop::Random => Crop::Random { shorter: with_margin(evaluation.size) },
            TrainingCrop::Whole => evaluation.crop,
        };
        let (augment, window_jitter) = (self.augment.clone(), self.window_jitter);
        Transform { crop, flip: self.flip, augment, window_jitter, ..evaluation }
    }

    /// An error unless images can be prepared so.
    pub fn validate(&self) -> Result<()> {
        check_windows(self.window, self.window_jitter)?;
        check_data(self.crop_scale, self.flip, self.mean, self.std, &self.augment)
    }
}

impl Schedule {
    /// An error if no run has this schedule.
    pub fn validate(&self) -> Result<()> {
        if self.accumulation == 0 || self.batch_size == 0 || self.steps == 0 {
            bail!("optimizer.accumulation, optimizer.batch_size and optimizer.steps: must be at least 1");
        }
        check_most("optimizer.batch_size", self.batch_size, MAX_BATCH)?;
        check_most("optimizer.accumulation", self.accumulation, MAX_BATCH)?;
        check_rates(&[self.lr, self.weight_decay, self.clip])?;
        if !(self.layer_decay > 0.0 && self.layer_decay <= 1.0) {
            bail!("optimizer.layer_decay: must be above 0 and at most 1, is {}", self.layer_decay);
        }
        if self.cosine_steps > 0 && self.warmup >= self.cosine_steps {
            bail!(
                "optimizer.warmup is {} of {} steps of the cosine (optimizer.cosine_steps)",
                self.warmup,
                self.cosine_steps
            );
        }
        if self.warmup >= self.steps {
            bail!(
                "optimizer.warmup is {} of {} steps: take --steps, which scales both, or lower it",
                self.warmup,
                self.steps
            );
        }
        Ok(())
    }

    /// An epoch of so many training records.
    pub fn epoch(&self, records: usize) -> Epoch {
        Epoch::new(records, self.batch_size, self.accumulation)
    }

    /// Sets the number of epochs, with early stopping; the warm-up keeps its share.
    pub fn take_epochs(&mut self, epochs: f64, epoch: Epoch) {
        self.take_steps(epoch.steps_of(epochs));
        self.evaluate_every = epoch.evaluate_every(self.steps);
        if self.patience == 0 {
            self.patience = PATIENCE;
        }
    }

    /// Sets the number of steps: warm-up, cosine and evaluations keep their shares.
    pub fn take_steps(&mut self, steps: u64) {
        self.warmup = share(self.warmup, steps, self.steps);
        if self.cosine_steps > 0 {
            self.cosine_steps = share(self.cosine_steps, steps, self.steps).max(self.warmup + 1);
        }
        self.evaluate_every = share(self.evaluate_every, steps, self.steps).max(1);
        self.steps = steps;
    }

    /// Sets the length of a task without a published recipe, 50 epochs within bounds, with early stopping.
    pub fn take_default_length(&mut self, epoch: Epoch) {
        (self.steps, self.warmup) = epoch.default_steps();
        self.evaluate_every = epoch.evaluate_every(self.steps);
        self.patience = PATIENCE;
    }

    /// Sets the length that a recipe states in epochs.
    pub(super) fn take_recipe_length(&mut self, length: &RecipeLength, epoch: Epoch) {
        self.steps = epoch.steps_of(length.epochs);
        self.warmup = length.warmup_of(self.steps);
        self.cosine_steps = length.cosine_steps;
        self.evaluate_every = epoch.steps_of(length.evaluate_epochs).min(self.steps);
        self.patience = length.patience;
    }
}

/// A share of some steps, kept for another number of steps.
fn share(part: u64, steps: u64, of: u64) -> u64 {
    let part = u128::from(part) * u128::from(steps) / u128::from(of.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// A configuration of a kind of fine-tuning, typed: what resolving and training need of it.
pub trait FinetuneConfig: Serialize + DeserializeOwned {
    /// The keys above the sections, and the common keys of `[optimizer]`.
    fn parts(&mut self) -> (&mut FinetuneKeys, &mut Schedule);

    /// Takes sizes and pixel statistics of a pretrained run's encoder.
    fn take_encoder(&mut self, encoder: Encoder);

    /// Sets defaults that depend on the number of training records, before the length follows from them.
    fn take_records(&mut self, _records: usize) {}

    /// Sets defaults that depend on other settings; `asked` has all that the user gave.
    ///
    /// # Errors
    /// When the recipes that are compiled in cannot be read.
    fn follow(&mut self, _asked: &Self) -> Result<()> {
        Ok(())
    }

    /// Writes out what follows from other settings, so that the stored configuration has it.
    fn complete(&mut self) {}

    /// An error if no run has these settings.
    fn validate(&self) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_length_keeps_the_shares_of_warmup_and_evaluations() {
        let mut schedule = Schedule {
            lr: 1e-3,
            lr_from: LrSource::default(),
            weight_decay: 0.0,
            layer_decay: 1.0,
            warmup: 50,
            steps: 1_000,
            cosine_steps: 1_200,
            batch_size: 10,
            accumulation: 1,
            clip: 0.0,
            evaluate_every: 100,
            patience: 0,
        };
        schedule.take_steps(200);
        assert_eq!((schedule.warmup, schedule.evaluate_every, schedule.steps, schedule.patience), (10, 20, 200, 0));
        assert_eq!(schedule.cosine_steps, 240);
        schedule.take_epochs(4.0, schedule.epoch(1_000));
        assert_eq!((schedule.warmup, schedule.evaluate_every, schedule.steps), (20, 20, 400));
        assert_eq!(schedule.patience, PATIENCE);
        schedule.validate().unwrap();
        schedule.take_steps(1);
        assert_eq!((schedule.warmup, schedule.evaluate_every, schedule.cosine_steps), (0, 1, 1));
    }

    #[test]
    fn crops_of_training_follow_the_key() {
        let data = |crop| ImageData {
            crop,
            crop_scale: 0.08,
            flip: 0.5,
            mean: 0.5,
            std: 0.25,
            augment: Vec::new(),
            window: Window::default(),
            window_jitter: (0.0, 0.0),
        };
        let crops = |crop| {
            let evaluation = data(crop).normalized(Transform::evaluate(224));
            (data(crop).augmented(evaluation.clone()).crop, evaluation.crop)
        };
        let resized = Crop::RandomResized { scale: (0.08, 1.0), aspect: ASPECT };
        assert_eq!(crops(TrainingCrop::RandomResized), (resized, Crop::Center { shorter: 224 }));
        assert_eq!(crops(TrainingCrop::Random), (Crop::Random { shorter: 256 }, Crop::Center { shorter: 256 }));
        assert_eq!(crops(TrainingCrop::Whole), (Crop::Center { shorter: 224 }, Crop::Center { shorter: 224 }));
        // Segmentation stretches the whole image in evaluations, whatever the crop of training.
        let stretched = Transform { crop: Crop::Stretch, ..Transform::evaluate(512) };
        let evaluation = data(TrainingCrop::Random).normalized(stretched);
        assert_eq!(evaluation.crop, Crop::Stretch);
        assert_eq!(data(TrainingCrop::Random).augmented(evaluation).crop, Crop::Random { shorter: 585 });
    }
}
