//! Image transforms of the loader: crop geometry, resampling, normalization.

pub mod geometry;
pub(crate) mod normalize;
pub mod pipeline;
pub mod resample;

pub use pipeline::{ASPECT, Crop, Transform, random_resized_crop};
