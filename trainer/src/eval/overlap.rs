//! Overlap of a predicted mask and the ground truth: Dice and intersection over union (IoU).

use dataset::transform::geometry::IGNORED;

/// Pixel counts of one image, without the pixels that have no ground truth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overlap {
    /// Pixels in both masks.
    pub both: u64,
    /// Pixels in the predicted mask.
    pub predicted: u64,
    /// Pixels in the ground truth.
    pub target: u64,
}

impl Overlap {
    /// Counts two masks of the same length, with values 1 and 0; the target may also have [`IGNORED`] pixels.
    pub fn of(prediction: &[u8], target: &[u8]) -> Self {
        let mut counts = Self::default();
        for (&p, &t) in prediction.iter().zip(target) {
            let valid = u64::from(t != IGNORED);
            let (p, t) = (u64::from(p) * valid, u64::from(t) * valid);
            counts.both += p * t;
            counts.predicted += p;
            counts.target += t;
        }
        counts
    }

    /// Whether the ground truth has foreground.
    pub fn is_positive(self) -> bool {
        self.target > 0
    }

    /// `2·|p∧t| / (|p| + |t|)`; without foreground in the ground truth 1 if nothing is predicted, else 0.
    pub fn dice(self) -> f64 {
        self.ratio(2 * self.both, self.predicted + self.target)
    }

    /// `|p∧t| / |p∨t|`; without foreground in the ground truth 1 if nothing is predicted, else 0.
    pub fn iou(self) -> f64 {
        self.ratio(self.both, self.predicted + self.target - self.both)
    }

    fn ratio(self, part: u64, whole: u64) -> f64 {
        if self.is_positive() { part as f64 / whole as f64 } else { f64::from(u8::from(self.predicted == 0)) }
    }
}

/// Mean Dice and IoU of several images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanOverlap {
    /// Mean Dice over all images.
    pub dice: f64,
    /// Mean IoU over all images.
    pub iou: f64,
    /// Mean Dice and IoU over the images with foreground in the ground truth; none if there is no such image.
    pub positive: Option<(f64, f64)>,
}

impl MeanOverlap {
    /// The means; none without images.
    pub fn of(images: &[Overlap]) -> Option<Self> {
        let mean = |images: &mut dyn Iterator<Item = &Overlap>| {
            let (mut dice, mut iou, mut count) = (0.0, 0.0, 0_u32);
            for image in images {
                (dice, iou, count) = (dice + image.dice(), iou + image.iou(), count + 1);
            }
            (count > 0).then(|| (dice / f64::from(count), iou / f64::from(count)))
        };
        let (dice, iou) = mean(&mut images.iter())?;
        Some(Self { dice, iou, positive: mean(&mut images.iter().filter(|image| image.is_positive())) })
    }
}

/// A mask (row-major, 1 for foreground) in the run-length format of the SIIM-ACR challenge: `offset length …`, column by
/// column, where each offset counts from the end of the previous run; `-1` for an empty mask.
pub fn run_lengths(mask: &[u8], width: usize) -> String {
    let height = mask.len() / width.max(1);
    let (mut text, mut gap, mut length) = (String::new(), 0_u32, 0_u32);
    let mut close = |gap: &mut u32, length: &mut u32| {
        let space = if text.is_empty() { "" } else { " " };
        text += &format!("{space}{gap} {length}");
        (*gap, *length) = (0, 0);
    };
    for at in 0..mask.len() {
        if mask[at % height * width + at / height] == 1 {
            length += 1;
        } else {
            if length > 0 {
                close(&mut gap, &mut length);
            }
            gap += 1;
        }
    }
    if length > 0 {
        close(&mut gap, &mut length);
    }
    if text.is_empty() { "-1".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_targets_need_empty_predictions() {
        let (none, some) = ([0, 0, 0], [0, 1, 0]);
        assert_eq!((Overlap::of(&none, &none).dice(), Overlap::of(&none, &none).iou()), (1.0, 1.0));
        assert_eq!((Overlap::of(&some, &none).dice(), Overlap::of(&some, &none).iou()), (0.0, 0.0));
        assert_eq!((Overlap::of(&none, &some).dice(), Overlap::of(&none, &some).iou()), (0.0, 0.0));
    }

    #[test]
    fn pixels_without_ground_truth_do_not_count() {
        let overlap = Overlap::of(&[1, 1, 1, 0], &[1, 0, 255, 1]);
        assert_eq!(overlap, Overlap { both: 1, predicted: 2, target: 2 });
        assert_eq!((overlap.dice(), overlap.iou()), (0.5, 1.0 / 3.0));
        assert_eq!(overlap.dice(), 0.5);
    }

    #[test]
    fn means_separate_positives() {
        let images = [Overlap::default(), Overlap { both: 1, predicted: 2, target: 2 }];
        let mean = MeanOverlap::of(&images).unwrap();
        assert_eq!((mean.dice, mean.iou), (0.75, f64::midpoint(1.0, 1.0 / 3.0)));
        assert_eq!(mean.positive, Some((0.5, 1.0 / 3.0)));
        assert_eq!(MeanOverlap::of(&images[..1]).unwrap().positive, None);
        assert_eq!(MeanOverlap::of(&[]), None);
    }

    #[test]
    fn run_lengths_go_down_the_columns() {
        assert_eq!(run_lengths(&[0; 6], 3), "-1");
        // Columns of a 2 × 3 mask: 0 1 | 1 0 | 0 1.
        assert_eq!(run_lengths(&[0, 1, 0, 1, 0, 1], 3), "1 2 2 1");
        assert_eq!(run_lengths(&[1; 4], 2), "0 4");
    }
}
