//! How far a predicted mask and a drawn one agree: Dice and intersection over union of one image.

use dataset::transform::geometry::IGNORED;

/// Pixels of one image, those without ground truth left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overlap {
    /// In both masks.
    pub both: u64,
    /// In the predicted one.
    pub predicted: u64,
    /// In the drawn one.
    pub target: u64,
}

impl Overlap {
    /// Counts two masks of the same length, 1 marked, 0 not; the target may have pixels to [`IGNORED`].
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

    /// Whether something is drawn.
    pub fn is_positive(self) -> bool {
        self.target > 0
    }

    /// `2·|p∧t| / (|p| + |t|)`; where nothing is drawn 1 if nothing is predicted, else 0.
    pub fn dice(self) -> f64 {
        self.ratio(2 * self.both, self.predicted + self.target)
    }

    /// `|p∧t| / |p∨t|`; where nothing is drawn 1 if nothing is predicted, else 0.
    pub fn iou(self) -> f64 {
        self.ratio(self.both, self.predicted + self.target - self.both)
    }

    fn ratio(self, part: u64, whole: u64) -> f64 {
        if self.is_positive() { part as f64 / whole as f64 } else { f64::from(u8::from(self.predicted == 0)) }
    }
}

/// Dice and intersection over union of many images, on average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanOverlap {
    /// Over all images.
    pub dice: f64,
    pub iou: f64,
    /// Over the images with a drawn mask; none where there is none.
    pub positive: Option<(f64, f64)>,
}

impl MeanOverlap {
    /// None without images.
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

/// A mask (row-major, 1 marked) as the SIIM-ACR challenge writes it: `offset length …`, column by column, each offset
/// counted from the end of the run before it; `-1` for nothing.
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
    fn empty_targets_want_empty_predictions() {
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
    fn means_tell_positives_apart() {
        let images = [Overlap::default(), Overlap { both: 1, predicted: 2, target: 2 }];
        let mean = MeanOverlap::of(&images).unwrap();
        assert_eq!((mean.dice, mean.positive), (0.75, Some((0.5, 1.0 / 3.0))));
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
