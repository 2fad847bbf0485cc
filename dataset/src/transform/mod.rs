//! Image transforms of the loader: crop geometry, resampling, windows, augmentation, normalization.

pub mod augment;
pub mod choices;
pub mod float_resample;
pub mod geometry;
pub(crate) mod normalize;
pub mod pipeline;
pub mod resample;
pub(crate) mod vectorized;
pub mod window;
pub mod windowed;

pub use augment::Augmentation;
pub use choices::{Choices, Workspace};
pub use pipeline::{ASPECT, Crop, Transform, random_resized_crop};
pub use window::{Window, WindowJitter};
pub use windowed::StoredImage;
