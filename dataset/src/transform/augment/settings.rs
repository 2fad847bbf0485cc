//! Settings of augmentations, and their checks.

use serde::{Deserialize, Serialize};

/// Smallest and largest value of a range.
type Range = (f64, f64);

/// Largest side of an augmented image in pixels.
pub const MAX_SIZE: u32 = 16_384;
/// Largest number of tiles of a CLAHE along an axis.
const MAX_TILES: u32 = 64;
/// Largest standard deviation of a blur in pixels.
const MAX_BLUR: f64 = 100.0;

/// One augmentation. `probability` is that with which it acts on an image (default 1); ranges are `(low, high)`, of which a
/// value is drawn uniformly.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Augmentation {
    /// Rotation, translation, scaling and shearing about the center of the image, as torchvision's `RandomAffine` with
    /// bilinear interpolation.
    Affine {
        /// Probability.
        #[serde(default = "one")]
        probability: f64,
        /// Clockwise rotation in degrees.
        #[serde(default = "zero")]
        degrees: Range,
        /// Largest translation (x, y), as shares of the side of the image, 0 to 1. Translations are whole pixels.
        #[serde(default = "zero")]
        translate: Range,
        /// Factor of the scale.
        #[serde(default = "unscaled")]
        scale: Range,
        /// Shear along x in degrees.
        #[serde(default = "zero")]
        shear_x: Range,
        /// Shear along y in degrees.
        #[serde(default = "zero")]
        shear_y: Range,
        /// Gray level beside the image, 0 to 1.
        #[serde(default)]
        fill: f64,
    },
    /// Multiplies gray levels by a factor.
    Brightness {
        /// Probability.
        #[serde(default = "one")]
        probability: f64,
        /// The factor; 1 changes nothing.
        factor: Range,
    },
    /// Multiplies the differences to the mean gray level of the image by a factor.
    Contrast {
        /// Probability.
        #[serde(default = "one")]
        probability: f64,
        /// The factor; 1 changes nothing.
        factor: Range,
    },
    /// Raises gray levels, as numbers from 0 to 1, to a power.
    Gamma {
        /// Probability.
        #[serde(default = "one")]
        probability: f64,
        /// The exponent; 1 changes nothing, more darkens.
        gamma: Range,
    },
    /// Contrast-limited adaptive histogram equalization (Zuiderveld 1994), as OpenCV's `createCLAHE`.
    Clahe {
        /// Probability.
        #[serde(default = "one")]
        probability: f64,
        /// Limit of a bin, in multiples of the mean count of a bin.
        clip: Range,
        /// Tiles along each axis; default 8.
        #[serde(default = "tiles")]
        tiles: u32,
    },
    /// Adds normally distributed noise, of its own for each pixel.
    GaussianNoise {
        /// Probability.
        #[serde(default = "one")]
        probability: f64,
        /// Standard deviation; the range of gray levels is 1.
        sigma: Range,
    },
    /// Blurs with a Gaussian that is cut off at four standard deviations; the image is reflected at its edges.
    GaussianBlur {
        /// Probability.
        #[serde(default = "one")]
        probability: f64,
        /// Standard deviation in pixels of the output.
        sigma: Range,
    },
    /// Fills a rectangle, as torchvision's `RandomErasing`.
    Erase {
        /// Probability.
        #[serde(default = "one")]
        probability: f64,
        /// Share of the area that is erased; default (0.02, 0.33).
        #[serde(default = "erased_share")]
        scale: Range,
        /// Aspect ratio, height over width, drawn uniformly in its logarithm; default (0.3, 3.3).
        #[serde(default = "erased_aspect")]
        aspect: Range,
        /// Gray level of the rectangle, 0 to 1.
        #[serde(default)]
        fill: f64,
    },
}

fn one() -> f64 {
    1.0
}

fn zero() -> Range {
    (0.0, 0.0)
}

fn unscaled() -> Range {
    (1.0, 1.0)
}

fn tiles() -> u32 {
    8
}

fn erased_share() -> Range {
    (0.02, 0.33)
}

fn erased_aspect() -> Range {
    (0.3, 3.3)
}

impl Augmentation {
    /// The name in settings, such as `gaussian_blur`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Affine { .. } => "affine",
            Self::Brightness { .. } => "brightness",
            Self::Contrast { .. } => "contrast",
            Self::Gamma { .. } => "gamma",
            Self::Clahe { .. } => "clahe",
            Self::GaussianNoise { .. } => "gaussian_noise",
            Self::GaussianBlur { .. } => "gaussian_blur",
            Self::Erase { .. } => "erase",
        }
    }

    /// The probability with which it acts on an image.
    pub fn probability(&self) -> f64 {
        match *self {
            Self::Affine { probability, .. }
            | Self::Brightness { probability, .. }
            | Self::Contrast { probability, .. }
            | Self::Gamma { probability, .. }
            | Self::Clahe { probability, .. }
            | Self::GaussianNoise { probability, .. }
            | Self::GaussianBlur { probability, .. }
            | Self::Erase { probability, .. } => probability,
        }
    }

    /// What it does at the lower and at the upper end of its ranges, with probability 1. The direction of a translation stays
    /// random.
    pub fn extremes(self) -> [Self; 2] {
        [|(low, _): Range| (low, low), |(_, high): Range| (high, high)].map(|end: fn(Range) -> Range| {
            let probability = 1.0;
            match self {
                Self::Affine { degrees, translate, scale, shear_x, shear_y, fill, .. } => Self::Affine {
                    probability,
                    degrees: end(degrees),
                    translate,
                    scale: end(scale),
                    shear_x: end(shear_x),
                    shear_y: end(shear_y),
                    fill,
                },
                Self::Brightness { factor, .. } => Self::Brightness { probability, factor: end(factor) },
                Self::Contrast { factor, .. } => Self::Contrast { probability, factor: end(factor) },
                Self::Gamma { gamma, .. } => Self::Gamma { probability, gamma: end(gamma) },
                Self::Clahe { clip, tiles, .. } => Self::Clahe { probability, clip: end(clip), tiles },
                Self::GaussianNoise { sigma, .. } => Self::GaussianNoise { probability, sigma: end(sigma) },
                Self::GaussianBlur { sigma, .. } => Self::GaussianBlur { probability, sigma: end(sigma) },
                Self::Erase { scale, aspect, fill, .. } => {
                    Self::Erase { probability, scale: end(scale), aspect: end(aspect), fill }
                }
            }
        })
    }

    /// An error that says what is impossible, such as `affine: scale [0, 2]: …`.
    ///
    /// # Errors
    /// When a range is reversed, or a value is outside of what the augmentation can do.
    pub fn check(&self) -> Result<(), String> {
        let within = |name: &str, (low, high): Range, (least, most): Range| {
            if least <= low && low <= high && high <= most {
                return Ok(());
            }
            let kind = self.kind();
            Err(format!(
                "{kind}: {name} [{low}, {high}]: give the lower bound, then the upper one, from {least} to {most}"
            ))
        };
        let positive = (f64::MIN_POSITIVE, f64::MAX);
        let single = |name: &str, value: f64| {
            if (0.0..=1.0).contains(&value) {
                return Ok(());
            }
            Err(format!("{}: {name} {value}: give a number from 0 to 1", self.kind()))
        };
        single("probability", self.probability())?;
        match *self {
            Self::Affine { degrees, translate, scale, shear_x, shear_y, fill, .. } => {
                within("degrees", degrees, (-360.0, 360.0))?;
                single("translate x", translate.0)?;
                single("translate y", translate.1)?;
                within("scale", scale, (0.01, 100.0))?;
                within("shear_x", shear_x, (-80.0, 80.0))?;
                within("shear_y", shear_y, (-80.0, 80.0))?;
                single("fill", fill)
            }
            Self::Brightness { factor, .. } | Self::Contrast { factor, .. } => within("factor", factor, (0.0, 1000.0)),
            Self::Gamma { gamma, .. } => within("gamma", gamma, (0.01, 100.0)),
            Self::Clahe { clip, tiles, .. } => {
                within("clip", clip, positive)?;
                if (1..=MAX_TILES).contains(&tiles) {
                    return Ok(());
                }
                Err(format!("clahe: tiles {tiles}: give a number from 1 to {MAX_TILES}"))
            }
            Self::GaussianNoise { sigma, .. } => within("sigma", sigma, (0.0, 10.0)),
            Self::GaussianBlur { sigma, .. } => within("sigma", sigma, (0.01, MAX_BLUR)),
            Self::Erase { scale, aspect, fill, .. } => {
                within("scale", scale, (f64::MIN_POSITIVE, 1.0))?;
                within("aspect", aspect, positive)?;
                single("fill", fill)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_with_defaults_and_mistakes_are_named() {
        let read = |text: &str| serde_json::from_str::<Augmentation>(text);
        let affine = read(r#"{"kind": "affine", "degrees": [-10, 10], "fill": 1}"#).unwrap();
        assert_eq!(affine.probability(), 1.0);
        let again = serde_json::to_string(&affine).unwrap();
        assert_eq!(read(&again).unwrap(), affine);
        assert!(read(r#"{"kind": "affine", "rotation": [-10, 10]}"#).unwrap_err().to_string().contains("rotation"));
        assert!(read(r#"{"kind": "solarize"}"#).unwrap_err().to_string().contains("gaussian_blur"));
        assert!(read(r#"{"kind": "gamma"}"#).unwrap_err().to_string().contains("gamma"));
        for (text, mistake) in [
            (r#"{"kind": "affine", "scale": [0, 2]}"#, "affine: scale [0, 2]"),
            (r#"{"kind": "affine", "shear_x": [0, 90]}"#, "shear_x"),
            (r#"{"kind": "brightness", "factor": [2, 1]}"#, "brightness: factor [2, 1]"),
            (r#"{"kind": "gamma", "gamma": [1, 2], "probability": 1.5}"#, "gamma: probability 1.5"),
            (r#"{"kind": "clahe", "clip": [1, 2], "tiles": 0}"#, "clahe: tiles 0"),
            (r#"{"kind": "erase", "scale": [0.5, 1.5]}"#, "erase: scale"),
            (r#"{"kind": "gaussian_blur", "sigma": [0, 1]}"#, "gaussian_blur: sigma"),
        ] {
            let error = read(text).unwrap().check().unwrap_err();
            assert!(error.starts_with(mistake) || error.contains(mistake), "{error}");
        }
        let not_a_number = Augmentation::Gamma { probability: 1.0, gamma: (f64::NAN, 1.0) };
        assert!(not_a_number.check().is_err());
    }
}
