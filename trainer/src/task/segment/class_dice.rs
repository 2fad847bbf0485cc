//! The mean Dice over classes, background included, of all pixels of a set together: mmsegmentation's `mDice`, which BenchX
//! reports. Unlike a mean over images it counts large masks more, and images without foreground add to the background alone.

use crate::eval::bootstrap::{Bootstrap, Interval};
use crate::eval::overlap::Overlap;
use crate::model::segmenter::CLASSES;

/// Pixels of an image, or of several: background, foreground.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct ClassPixels {
    /// In prediction and ground truth.
    both: [u64; CLASSES as usize],
    /// In the prediction, and in the ground truth, added up.
    either: [u64; CLASSES as usize],
}

impl ClassPixels {
    /// Those of an image with `pixels` pixels that have ground truth.
    pub fn of(overlap: Overlap, pixels: u64) -> Self {
        let Overlap { both, predicted, target } = overlap;
        let background = pixels - (predicted + target - both);
        Self { both: [background, both], either: [2 * pixels - predicted - target, predicted + target] }
    }

    /// Mean over the classes that occur of `2 |p ∧ t| / (|p| + |t|)`, over all images together, each counted `weights` times.
    fn dice<'a>(images: impl Iterator<Item = (&'a Self, u64)>) -> Option<f64> {
        let mut sum = Self::default();
        for (image, weight) in images {
            for class in 0..CLASSES as usize {
                sum.both[class] += image.both[class] * weight;
                sum.either[class] += image.either[class] * weight;
            }
        }
        let classes = sum.both.iter().zip(sum.either).filter(|(_, either)| *either > 0);
        let dice: Vec<f64> = classes.map(|(&both, either)| 2.0 * both as f64 / either as f64).collect();
        (!dice.is_empty()).then(|| dice.iter().sum::<f64>() / dice.len() as f64)
    }
}

/// The mean Dice over classes of some images; none without any.
pub(super) fn mean_class_dice(images: &[ClassPixels]) -> Option<f64> {
    ClassPixels::dice(images.iter().map(|image| (image, 1)))
}

/// The same with a percentile interval over patients, one number an image.
pub(super) fn class_dice_interval(images: &[ClassPixels], patients: &[u32], bootstrap: Bootstrap) -> Option<Interval> {
    let value = mean_class_dice(images)?;
    let statistic = |weights: &[u32]| ClassPixels::dice(images.iter().zip(weights.iter().map(|&weight| weight.into())));
    let mut draws: Vec<f64> = bootstrap.resample(patients, statistic).into_iter().flatten().collect();
    draws.sort_unstable_by(f64::total_cmp);
    let end = |share: f64| match draws.len() {
        0 => value,
        count => {
            let position = share * (count - 1) as f64;
            let (below, above) = (draws[position.floor() as usize], draws[position.ceil() as usize]);
            below + (above - below) * position.fract()
        }
    };
    let tail = (1.0 - bootstrap.level) / 2.0;
    Some(Interval { value, low: end(tail), high: end(1.0 - tail), draws: draws.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_of_all_images_count_together() {
        // Pixel by pixel: two images of 4 and 6 pixels, as mmsegmentation's IoUMetric counts them.
        let images: [(&[u8], &[u8]); 2] = [(&[1, 1, 0, 0], &[1, 0, 0, 0]), (&[0, 1, 0, 0, 0, 0], &[1, 1, 1, 0, 0, 0])];
        let mut expected = 0.0;
        for class in 0..2_u8 {
            let pixels = || images.iter().flat_map(|(prediction, target)| prediction.iter().zip(*target));
            let both = pixels().filter(|&(p, t)| *p == class && *t == class).count();
            let either: usize = pixels().map(|(p, t)| usize::from(*p == class) + usize::from(*t == class)).sum();
            expected += 2.0 * both as f64 / either as f64 / 2.0;
        }
        let of = |(p, t): &(&[u8], &[u8])| ClassPixels::of(Overlap::of(p, t), p.len() as u64);
        let counted: Vec<ClassPixels> = images.iter().map(of).collect();
        assert!((mean_class_dice(&counted).unwrap() - expected).abs() < 1e-12);
        // Both images of one patient: each draw is the whole.
        let one = class_dice_interval(&counted, &[7, 7], Bootstrap { draws: 20, ..Bootstrap::default() }).unwrap();
        assert_eq!((one.low, one.high, one.draws), (one.value, one.value, 20));
        let two = class_dice_interval(&counted, &[7, 8], Bootstrap { draws: 200, ..Bootstrap::default() }).unwrap();
        let alone = [mean_class_dice(&counted[..1]).unwrap(), mean_class_dice(&counted[1..]).unwrap()];
        assert!((two.low - alone[0].min(alone[1])).abs() < 1e-12 && (two.high - alone[0].max(alone[1])).abs() < 1e-12);
    }

    #[test]
    fn a_class_that_does_not_occur_is_left_out() {
        let empty = ClassPixels::of(Overlap::of(&[0; 9], &[0; 9]), 9);
        assert_eq!(mean_class_dice(&[empty]), Some(1.0));
        assert_eq!(mean_class_dice(&[]), None);
    }
}
