//! The random choices of augmentations for one image.

use super::affine::{AffineMap, Parameters};
use super::settings::Augmentation;
use super::tone::WHITE;
use crate::random::Stream;
use crate::transform::resample::Rectangle;

/// Attempts at a rectangle before nothing is erased, as in torchvision.
const ERASE_ATTEMPTS: usize = 10;

/// An augmentation with its random choices made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Moves the image, masks and boxes.
    Affine(AffineMap),
    /// Multiplies gray levels.
    Brightness {
        /// The factor.
        factor: f32,
    },
    /// Multiplies differences to the mean.
    Contrast {
        /// The factor.
        factor: f32,
    },
    /// Raises gray levels to a power.
    Gamma {
        /// The exponent.
        gamma: f32,
    },
    /// Equalizes tiles.
    Clahe {
        /// Limit of a bin, in multiples of the mean count of a bin.
        clip: f64,
        /// Tiles along each axis.
        tiles: usize,
    },
    /// Adds noise.
    GaussianNoise {
        /// Standard deviation, 0 to 1.
        sigma: f32,
        /// Names the stream of the noise.
        seed: u64,
    },
    /// Blurs.
    GaussianBlur {
        /// Standard deviation in pixels.
        sigma: f64,
    },
    /// Fills a rectangle.
    Erase {
        /// The rectangle, in pixels of the output.
        part: Rectangle,
        /// Its gray level, 0 to 1.
        fill: f32,
    },
}

/// Draws which augmentations act on an image of `size` × `size` pixels, and how. `stream` gives the stream of a name, which
/// is `KIND` for the first augmentation of a kind, `KIND 1` for the second.
pub fn draw(list: &[Augmentation], size: usize, stream: impl Fn(&str) -> Stream) -> Vec<Step> {
    let mut steps = Vec::new();
    for (position, augmentation) in list.iter().enumerate() {
        let kind = augmentation.kind();
        let mut random = match list[..position].iter().filter(|before| before.kind() == kind).count() {
            0 => stream(kind),
            before => stream(&format!("{kind} {before}")),
        };
        if random.uniform() < augmentation.probability() {
            steps.extend(step(augmentation, size, &mut random));
        }
    }
    steps
}

fn step(augmentation: &Augmentation, size: usize, random: &mut Stream) -> Option<Step> {
    let mut within = |(low, high): (f64, f64)| random.range(low, high);
    Some(match *augmentation {
        Augmentation::Affine { degrees, translate, scale, shear_x, shear_y, fill, .. } => {
            let degrees = within(degrees);
            let mut whole = |share: f64| {
                let most = share * size as f64;
                within((-most, most)).round_ties_even()
            };
            let translation = [whole(translate.0), whole(translate.1)];
            let parameters =
                Parameters { degrees, translation, scale: within(scale), shear: [within(shear_x), within(shear_y)] };
            Step::Affine(AffineMap::new(&parameters, fill as f32 * WHITE, size))
        }
        Augmentation::Brightness { factor, .. } => Step::Brightness { factor: within(factor) as f32 },
        Augmentation::Contrast { factor, .. } => Step::Contrast { factor: within(factor) as f32 },
        Augmentation::Gamma { gamma, .. } => Step::Gamma { gamma: within(gamma) as f32 },
        Augmentation::Clahe { clip, tiles, .. } => Step::Clahe { clip: within(clip), tiles: tiles as usize },
        Augmentation::GaussianNoise { sigma, .. } => {
            Step::GaussianNoise { sigma: within(sigma) as f32, seed: random.below(u64::MAX) }
        }
        Augmentation::GaussianBlur { sigma, .. } => Step::GaussianBlur { sigma: within(sigma) },
        Augmentation::Erase { scale, aspect, fill, .. } => {
            Step::Erase { part: erased(size as u32, scale, aspect, random)?, fill: fill as f32 }
        }
    })
}

/// A random rectangle by torchvision's `RandomErasing.get_params`; none where no attempt fits into the image.
fn erased(size: u32, scale: (f64, f64), (low, high): (f64, f64), random: &mut Stream) -> Option<Rectangle> {
    let area = f64::from(size).powi(2);
    for _ in 0..ERASE_ATTEMPTS {
        let target = area * random.range(scale.0, scale.1);
        let aspect = random.range(low.ln(), high.ln()).exp();
        let height = (target * aspect).sqrt().round_ties_even() as u32;
        let width = (target / aspect).sqrt().round_ties_even() as u32;
        if height < size && width < size {
            let top = random.below(u64::from(size - height) + 1) as u32;
            let left = random.below(u64::from(size - width) + 1) as u32;
            return Some(Rectangle { left, top, width, height });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::digest;

    fn drawn(list: &[Augmentation], record: u64) -> Vec<Step> {
        draw(list, 64, |name| Stream::new(&[digest(name), record]))
    }

    #[test]
    fn other_augmentations_change_no_choice_of_one() {
        let noise = Augmentation::GaussianNoise { probability: 0.5, sigma: (0.0, 0.1) };
        let gamma = Augmentation::Gamma { probability: 0.5, gamma: (0.5, 2.0) };
        let of_noise = |steps: Vec<Step>| -> Vec<Step> {
            steps.into_iter().filter(|step| matches!(step, Step::GaussianNoise { .. })).collect()
        };
        let mut acted = 0;
        for record in 0..200 {
            let alone = drawn(&[noise], record);
            acted += alone.len();
            assert_eq!(of_noise(drawn(&[gamma, noise, gamma], record)), alone);
            let twice = of_noise(drawn(&[noise, noise], record));
            assert!(twice.len() < 2 || twice[0] != twice[1], "the second has a stream of its own");
        }
        assert!((70..130).contains(&acted), "{acted} of 200");
    }

    #[test]
    fn erased_rectangles_have_torchvisions_distribution() {
        let mut random = Stream::new(&[5]);
        let mut areas = 0.0;
        for _ in 0..20_000 {
            let part = erased(224, (0.02, 0.33), (0.3, 3.3), &mut random).unwrap();
            assert!(part.left + part.width <= 224 && part.top + part.height <= 224);
            let aspect = f64::from(part.height) / f64::from(part.width);
            assert!((0.28..3.6).contains(&aspect), "{aspect}");
            areas += f64::from(part.width * part.height) / (224.0 * 224.0);
        }
        // The mean of torch.ops and of this rule over 200,000 draws is that of U(0.02, 0.33): nearly all draws fit.
        assert!((areas / 20_000.0 - 0.175).abs() < 0.003, "{}", areas / 20_000.0);
        assert_eq!(erased(1, (1.0, 1.0), (1.0, 1.0), &mut random), None);
    }
}
