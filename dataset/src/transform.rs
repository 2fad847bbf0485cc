//! Augmentation with torchvision's parameters and Pillow's filters, from stored grey bytes to normalised floats.

use std::num::NonZero;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::random::Stream;
use crate::resample::{Filter, Rectangle, Resample};

/// Mean and standard deviation of the recipe, for pixels in 0..1.
pub const RECIPE_MEAN: f32 = 0.4978;
pub const RECIPE_STD: f32 = 0.2449;

/// Draws of a crop before RandomResizedCrop falls back to the centre, as torchvision does.
const CROP_ATTEMPTS: usize = 10;

/// Which part of the image is taken.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crop {
    /// torchvision's RandomResizedCrop: area share, aspect ratio 3/4..4/3.
    RandomResized { scale: (f64, f64) },
    /// Shorter side to the size, then the centre.
    Center,
}

/// From a stored image to a model's input of `size` × `size`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transform {
    pub crop: Crop,
    pub size: u32,
    pub filter: Filter,
    /// Probability of a horizontal flip.
    pub flip: f64,
    pub mean: f32,
    pub std: f32,
}

impl Transform {
    /// Pre-training augmentation of the recipe: scale (0.2, 1), bicubic, flip.
    pub fn pretrain(size: u32) -> Self {
        Self {
            crop: Crop::RandomResized { scale: (0.2, 1.0) },
            size,
            filter: Filter::Bicubic,
            flip: 0.5,
            mean: RECIPE_MEAN,
            std: RECIPE_STD,
        }
    }

    /// Fine-tuning augmentation of the recipe: scale (0.08, 1), bilinear, flip.
    pub fn finetune(size: u32) -> Self {
        Self { crop: Crop::RandomResized { scale: (0.08, 1.0) }, filter: Filter::Bilinear, ..Self::pretrain(size) }
    }

    /// Evaluation: shorter side to `size`, centre crop, no flip.
    pub fn evaluate(size: u32) -> Self {
        Self { crop: Crop::Center, filter: Filter::Bilinear, flip: 0.0, ..Self::pretrain(size) }
    }
}

/// torchvision's `RandomResizedCrop.get_params`.
pub fn random_resized_crop(width: u32, height: u32, scale: (f64, f64), random: &mut Stream) -> Rectangle {
    let area = f64::from(width) * f64::from(height);
    let (low, high) = (3.0f64 / 4.0, 4.0f64 / 3.0);
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
    /// Transforms one grey image (pixels, width, height) into `out`, shape `[size, size]`.
    pub fn apply(
        &self,
        source: (&[u8], u32, u32),
        random: &mut Stream,
        scratch: &mut Resample,
        out: &mut [f32],
    ) -> Result<()> {
        let (_, width, height) = source;
        let (Some(_), Some(_)) = (NonZero::new(width), NonZero::new(height)) else {
            return Err(Error::Invalid("an image without pixels".to_owned()));
        };
        let (size, filter) = (self.size, self.filter);
        let whole = Rectangle { left: 0, top: 0, width, height };
        // Where the wanted square starts in the resized picture, and that picture's width.
        let (resized, stride, left, top) = match self.crop {
            Crop::RandomResized { scale } => {
                let part = random_resized_crop(width, height, scale, random);
                (scratch.resize(source, part, size, size, filter)?, size, 0, 0)
            }
            Crop::Center => {
                let long = |long: u32, short: u32| (u64::from(size) * u64::from(long) / u64::from(short)) as u32;
                let (w, h) = if width <= height { (size, long(height, width)) } else { (long(width, height), size) };
                let middle = |side: u32| (f64::from(side - size) / 2.0).round_ties_even() as u32;
                (scratch.resize(source, whole, w, h, filter)?, w, middle(w), middle(h))
            }
        };
        let flip = random.uniform() < self.flip;
        let (gain, offset) = (1.0 / (255.0 * self.std), -self.mean / self.std);
        for (y, row) in out.chunks_exact_mut(size as usize).enumerate() {
            let start = (top as usize + y) * stride as usize + left as usize;
            let from = &resized[start..start + size as usize];
            if flip {
                row.iter_mut().zip(from.iter().rev()).for_each(|(to, from)| *to = f32::from(*from) * gain + offset);
            } else {
                row.iter_mut().zip(from).for_each(|(to, from)| *to = f32::from(*from) * gain + offset);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_centre_of_an_unscaled_image_is_its_pixels() {
        let pixels: Vec<u8> = (0..24).collect(); // 6 × 4
        let transform = Transform { mean: 0.0, std: 1.0 / 255.0, ..Transform::evaluate(4) };
        let mut out = [0.0; 16];
        transform.apply((&pixels, 6, 4), &mut Stream::new(&[1]), &mut Resample::default(), &mut out).unwrap();
        let expected: Vec<f32> = (0..4).flat_map(|y| (1..5).map(move |x| (y * 6 + x) as f32)).collect();
        assert!(out.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4), "{out:?}");
    }

    #[test]
    fn crops_keep_torchvisions_rule() {
        let mut random = Stream::new(&[3]);
        let (mut areas, n) = (0.0, 20_000);
        for _ in 0..n {
            let part = random_resized_crop(512, 640, (0.2, 1.0), &mut random);
            let aspect = f64::from(part.width) / f64::from(part.height);
            assert!(part.left + part.width <= 512 && part.top + part.height <= 640);
            assert!((0.74..1.35).contains(&aspect), "{aspect}");
            areas += f64::from(part.width) * f64::from(part.height) / (512.0 * 640.0);
        }
        // Accepted draws of U(0.2, 1): large areas with an unfitting aspect are drawn again, which lowers the mean.
        let mean = areas / f64::from(n);
        assert!((0.5..0.6).contains(&mean), "{mean}");
        // No draw fits a strip: the centre at the nearest allowed aspect.
        let strip = random_resized_crop(1000, 10, (0.9, 1.0), &mut random);
        assert_eq!(strip, Rectangle { left: 493, top: 0, width: 13, height: 10 });
    }
}
