//! Augmentation with torchvision's parameters and Pillow's filters, from stored gray bytes to normalized floats.
//!
//! The random choices are made first ([`Transform::choose`]) and applied then ([`Transform::apply`]), so that they can be
//! applied to masks and boxes, too. The order is: crop, resizing, window of 16-bit pixels, flip, the augmentations in the
//! order of their list, normalization.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::random::Stream;
use crate::transform::augment::{Augmentation, Levels, MAX_SIZE, draw};
use crate::transform::choices::{Choices, Workspace};
use crate::transform::geometry::Geometry;
use crate::transform::normalize::Normalize;
use crate::transform::resample::{Filter, Rectangle, Source};
use crate::transform::window::{Window, WindowChange, WindowJitter, check_jitter};

/// Mean and standard deviation of the recipe, for pixels from 0 to 1.
pub(crate) const RECIPE_MEAN: f32 = 0.4978;
pub(crate) const RECIPE_STD: f32 = 0.2449;

/// Attempts at a random crop before the center is used, as in torchvision.
const CROP_ATTEMPTS: usize = 10;

/// Smallest and largest aspect ratio (width over height) of a random crop, torchvision's default.
pub const ASPECT: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);

/// Which part of an image is used, and how it is fitted into the output.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crop {
    /// torchvision's `RandomResizedCrop`.
    RandomResized {
        /// Smallest and largest share of the area.
        scale: (f64, f64),
        /// Smallest and largest aspect ratio, width over height; [`ASPECT`] by default.
        aspect: (f64, f64),
    },
    /// torchvision's `Resize`, then `CenterCrop`; black beside an image smaller than the output.
    Center {
        /// Length that the shorter side is resized to, in pixels.
        shorter: u32,
    },
    /// torchvision's `Resize`, then `RandomCrop`: the output is cut from any place of the resized image, each as likely. Along
    /// a side that is shorter than the output, the image is in the middle and black beside it.
    Random {
        /// Length that the shorter side is resized to, in pixels.
        shorter: u32,
    },
    /// Resizes the longer side to the output's, with the image in the middle and black beside it.
    Pad,
    /// Resizes both sides to the output's, whatever the aspect ratio.
    Stretch,
}

/// Name of the random stream of crop and flip, and of those of augmentations with their names after it.
const STREAM: &str = "augment";

/// Name of the random stream of the window, after [`STREAM`].
const WINDOW: &str = "window";

/// No change of windows.
const NO_JITTER: WindowJitter = (0.0, 0.0);

/// A transform from a stored image to a model's input of `size` × `size` pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transform {
    /// Which part of the image is used.
    pub crop: Crop,
    /// Side of the output in pixels.
    pub size: u32,
    /// Filter of the resampling.
    pub filter: Filter,
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Mean of the pixels, 0 to 1, which becomes 0.
    pub mean: f32,
    /// Standard deviation of the pixels, which becomes 1.
    pub std: f32,
    /// What is done to the cropped image, in this order; see [`augment`](crate::transform::augment).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub augment: Vec<Augmentation>,
    /// The window of images of 16 bits: which stored values become black and white.
    #[serde(default, skip_serializing_if = "Window::is_stored")]
    pub window: Window,
    /// Random change of the window: the largest shift of the center, in widths, and the largest relative change of the width.
    /// Both directions.
    #[serde(default, skip_serializing_if = "is_no_jitter")]
    pub window_jitter: WindowJitter,
}

fn is_no_jitter(jitter: &WindowJitter) -> bool {
    *jitter == NO_JITTER
}

impl Transform {
    /// Pre-training augmentation of the recipe: random crops of scale (0.2, 1), bicubic, flips.
    pub fn pretrain(size: u32) -> Self {
        Self {
            crop: Crop::RandomResized { scale: (0.2, 1.0), aspect: ASPECT },
            size,
            filter: Filter::Bicubic,
            flip: 0.5,
            mean: RECIPE_MEAN,
            std: RECIPE_STD,
            augment: Vec::new(),
            window: Window::default(),
            window_jitter: NO_JITTER,
        }
    }

    /// Fine-tuning augmentation of the recipe: random crops of scale (0.08, 1), bilinear, flips.
    pub fn finetune(size: u32) -> Self {
        let crop = Crop::RandomResized { scale: (0.08, 1.0), aspect: ASPECT };
        Self { crop, filter: Filter::Bilinear, ..Self::pretrain(size) }
    }

    /// Evaluation: the shorter side is resized to `size`, then the center is cropped; no flips.
    pub fn evaluate(size: u32) -> Self {
        Self { crop: Crop::Center { shorter: size }, filter: Filter::Bilinear, flip: 0.0, ..Self::pretrain(size) }
    }
}

/// A random crop of an image of this width and height, by torchvision's `RandomResizedCrop.get_params`. `scale` and the
/// aspect ratio are ranges, as in [`Crop::RandomResized`].
pub fn random_resized_crop(
    (width, height): (u32, u32),
    scale: (f64, f64),
    (low, high): (f64, f64),
    random: &mut Stream,
) -> Rectangle {
    let area = f64::from(width) * f64::from(height);
    for _ in 0..CROP_ATTEMPTS {
        let target = area * random.range(scale.0, scale.1);
        let aspect = random.range(low.ln(), high.ln()).exp();
        let w = (target * aspect).sqrt().round_ties_even() as u32;
        let h = (target / aspect).sqrt().round_ties_even() as u32;
        if 0 < w && w <= width && 0 < h && h <= height {
            let top = random.below(u64::from(height - h) + 1) as u32;
            let left = random.below(u64::from(width - w) + 1) as u32;
            return Rectangle { left, top, width: w, height: h };
        }
    }
    let aspect = f64::from(width) / f64::from(height);
    let (w, h) = if aspect < low {
        (width, (f64::from(width) / low).round_ties_even() as u32)
    } else if aspect > high {
        ((f64::from(height) * high).round_ties_even() as u32, height)
    } else {
        (width, height)
    };
    let (w, h) = (w.clamp(1, width), h.clamp(1, height));
    Rectangle { left: (width - w) / 2, top: (height - h) / 2, width: w, height: h }
}

impl Transform {
    /// Whether images are shown with the windows that are stored with them.
    pub(crate) fn keeps_windows(&self) -> bool {
        self.window == Window::Stored && self.window_jitter == NO_JITTER
    }

    /// An error where an augmentation or a window is impossible.
    ///
    /// # Errors
    /// When one has a reversed range, or a value outside of what it can do; or when augmented images are larger than
    /// [`MAX_SIZE`].
    pub fn check(&self) -> Result<()> {
        self.window.check().map_err(|message| Error::Invalid(format!("window {message}")))?;
        check_jitter(self.window_jitter).map_err(|message| Error::Invalid(format!("window_jitter {message}")))?;
        if !self.augment.is_empty() && self.size > MAX_SIZE {
            return Err(Error::Invalid(format!(
                "augmentation: {} pixels a side; at most {MAX_SIZE} are possible",
                self.size
            )));
        }
        let checked = self.augment.iter().try_for_each(Augmentation::check);
        checked.map_err(|message| Error::Invalid(format!("augmentation {message}")))
    }

    /// Makes the random choices for an image of this width and height, in pixels. `stream` gives the random numbers of a
    /// name: those of crop and flip are apart from those of each augmentation.
    ///
    /// # Errors
    /// When a side of the image or the output is zero.
    pub fn choose(&self, width: u32, height: u32, stream: impl Fn(&str) -> Stream) -> Result<Choices> {
        let geometry = self.geometry(width, height, &mut stream(STREAM))?;
        let steps = draw(&self.augment, self.size as usize, |name| stream(&format!("{STREAM} {name}")));
        let window = if self.window_jitter == NO_JITTER {
            WindowChange::NONE
        } else {
            WindowChange::draw(self.window_jitter, &mut stream(&format!("{STREAM} {WINDOW}")))
        };
        Ok(Choices { geometry, steps, window })
    }

    /// Makes the random choices of crop and flip for an image of this width and height, in pixels.
    ///
    /// # Errors
    /// When a side of the image or the output is zero.
    pub fn geometry(&self, width: u32, height: u32, random: &mut Stream) -> Result<Geometry> {
        let size = self.size;
        if width == 0 || height == 0 || size == 0 {
            return Err(Error::Invalid(format!("an image of {width}×{height} pixels to {size}×{size}")));
        }
        // The other side of an image whose side `by` is resized to `side`.
        let scaled = |side: u32, length: u32, by: u32| (u64::from(length) * u64::from(side) / u64::from(by)) as u32;
        // torchvision's CenterCrop: half of the missing pixels, rounded down, are padded before the image.
        let middle = |resized: u32| match resized.checked_sub(size) {
            Some(beyond) => (f64::from(beyond) / 2.0).round_ties_even() as i64,
            None => -i64::from((size - resized) / 2),
        };
        let whole = Rectangle { left: 0, top: 0, width, height };
        let (part, resized) = match self.crop {
            Crop::RandomResized { scale, aspect } => {
                (random_resized_crop((width, height), scale, aspect, random), (size, size))
            }
            Crop::Center { shorter } | Crop::Random { shorter } if width <= height => {
                (whole, (shorter, scaled(height, shorter, width)))
            }
            Crop::Center { shorter } | Crop::Random { shorter } => (whole, (scaled(width, shorter, height), shorter)),
            Crop::Pad if width >= height => (whole, (size, scaled(height, size, width).max(1))),
            Crop::Pad => (whole, (scaled(width, size, height).max(1), size)),
            Crop::Stretch => (whole, (size, size)),
        };
        let mut corner = |resized: u32| match (self.crop, resized.checked_sub(size)) {
            (Crop::Random { .. }, Some(beyond)) => random.below(u64::from(beyond) + 1) as i64,
            _ => middle(resized),
        };
        // torchvision draws the row before the column.
        let (top, left) = (corner(resized.1), corner(resized.0));
        let flip = random.uniform() < self.flip;
        Ok(Geometry { part, resized, corner: (left, top), flip, size })
    }

    /// Transforms an image of 8 bits by the choices that were made for it, without a window
    /// ([`apply_stored`](Self::apply_stored)). `out` has shape `[size, size]`.
    ///
    /// # Errors
    /// When the image has another size than the one of the choices.
    pub fn apply(&self, source: Source, choices: &Choices, workspace: &mut Workspace, out: &mut [f32]) -> Result<()> {
        let Workspace { resample, levels, .. } = workspace;
        let (part, resized) = (choices.geometry.part, choices.geometry.resized);
        let each_row = |rows, take: TakeRow<u8>| {
            resample.each_row(source, part, resized, self.filter, rows, |y, row| take(y, row))
        };
        self.finish(choices, levels, out, each_row, Normalize::row)
    }

    /// Makes the output `[size, size]` from the rows of the resized image, which have gray levels from 0 to 255: cuts, flips,
    /// augments and normalizes them. `each_row` calls for some of the rows, with their numbers.
    pub(super) fn finish<L: Copy + Into<f32>>(
        &self,
        Choices { geometry, steps, .. }: &Choices,
        levels: &mut Levels,
        out: &mut [f32],
        each_row: impl FnOnce(Range<u32>, TakeRow<L>) -> Result<()>,
        normalized: impl Fn(Normalize, &[L], &mut [f32]),
    ) -> Result<()> {
        let normalize = Normalize::new(self.mean, self.std);
        let (rows, columns, size) = (geometry.rows(), geometry.columns(), geometry.size as usize);
        let to = geometry.mirrored(columns.start, columns.length);
        // Calls for each row of the output that shows the image, with the gray levels from column `to` on.
        let each_shown = |take: &mut dyn FnMut(usize, &[L])| {
            each_row(rows.from as u32..(rows.from + rows.length) as u32, &mut |y, row| {
                let row = &mut row[columns.from..columns.from + columns.length];
                if geometry.flip {
                    row.reverse();
                }
                take(y - rows.from + rows.start, row);
            })
        };
        if steps.is_empty() {
            if rows.length.min(columns.length) < size {
                out.fill(normalize.level(0));
            }
            each_shown(&mut |y, row| normalized(normalize, row, &mut out[y * size + to..][..row.len()]))?;
        } else {
            levels.begin(size);
            each_shown(&mut |y, row| levels.set(y, to, row))?;
            levels.apply(steps);
            levels.rows().zip(out.chunks_exact_mut(size)).for_each(|(row, out)| normalize.floats(row, out));
        }
        Normalize::finish();
        Ok(())
    }
}

/// Takes rows of a resized image, with their numbers.
pub(super) type TakeRow<'a, L> = &'a mut dyn FnMut(usize, &mut [L]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_center_of_an_unscaled_image_is_its_pixels() {
        let pixels: Vec<u8> = (0..24).collect(); // 6 × 4
        let transform = Transform { mean: 0.0, std: 1.0 / 255.0, ..Transform::evaluate(4) };
        let mut out = [0.0; 16];
        let choices = transform.choose(6, 4, |_| Stream::new(&[1])).unwrap();
        transform.apply((&pixels, 6, 4), &choices, &mut Workspace::default(), &mut out).unwrap();
        let expected: Vec<f32> = (0..4).flat_map(|y| (1..5).map(move |x| (y * 6 + x) as f32)).collect();
        assert!(out.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4), "{out:?}");
    }

    #[test]
    fn a_random_crop_of_the_resized_image_begins_anywhere_within_it() {
        let transform = Transform { crop: Crop::Random { shorter: 8 }, ..Transform::evaluate(7) };
        let mut random = Stream::new(&[5]);
        let mut counts = [[0_u32; 2]; 10]; // rows × columns of the corner: 16 × 8 pixels hold 10 × 2 crops of 7
        for _ in 0..20_000 {
            let geometry = transform.geometry(100, 200, &mut random).unwrap();
            assert_eq!((geometry.resized, geometry.flip), ((8, 16), false));
            let (left, top) = geometry.corner;
            counts[top as usize][left as usize] += 1;
        }
        assert!(counts.as_flattened().iter().all(|&count| (880..1120).contains(&count)), "{counts:?}");
        // An image that is shorter than the output is in its middle, as in a center crop.
        let small = Transform { crop: Crop::Random { shorter: 4 }, ..Transform::evaluate(7) };
        let center = Transform { crop: Crop::Center { shorter: 4 }, ..Transform::evaluate(7) };
        let at = |transform: &Transform| transform.geometry(40, 40, &mut Stream::new(&[1])).unwrap().corner;
        assert_eq!(at(&small), at(&center));
    }

    #[test]
    fn random_crops_have_torchvisions_distribution() {
        let mut random = Stream::new(&[3]);
        let (mut areas, n) = (0.0, 20_000);
        for _ in 0..n {
            let part = random_resized_crop((512, 640), (0.2, 1.0), ASPECT, &mut random);
            let aspect = f64::from(part.width) / f64::from(part.height);
            assert!(part.left + part.width <= 512 && part.top + part.height <= 640);
            assert!((0.74..1.35).contains(&aspect), "{aspect}");
            areas += f64::from(part.width) * f64::from(part.height) / (512.0 * 640.0);
        }
        // Accepted draws of U(0.2, 1): large areas with an unfitting aspect are drawn again, which lowers the mean.
        let mean = areas / f64::from(n);
        assert!((0.5..0.6).contains(&mean), "{mean}");
        // No draw fits a strip: the center at the nearest allowed aspect.
        let strip = random_resized_crop((1000, 10), (0.9, 1.0), ASPECT, &mut random);
        assert_eq!(strip, Rectangle { left: 493, top: 0, width: 13, height: 10 });
    }
}
