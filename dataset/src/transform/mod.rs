//! Image transforms of the loader: crop geometry, resampling, augmentation, normalization.

pub mod augment;
pub mod choices;
pub mod geometry;
pub(crate) mod normalize;
pub mod pipeline;
pub mod resample;
pub(crate) mod vectorized;

pub use augment::Augmentation;
pub use choices::{Choices, Workspace};
pub use pipeline::{ASPECT, Crop, Transform, random_resized_crop};
