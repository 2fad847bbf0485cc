//! Augmentations of the cropped image: an affine map, brightness, contrast, gamma, CLAHE, noise, blur, erasing.
//!
//! A [`Transform`](crate::transform::Transform) has a list of them, which act after crop, resizing and flip, in the order of
//! the list, on gray levels of 32-bit floats from 0 to 255 that no step rounds (CLAHE rounds its input). Each step clamps
//! its result to that range. Normalization comes last. What is beside an image smaller than the output is black to them.
//!
//! | [`Augmentation`] | the same as | masks and boxes |
//! | --- | --- | --- |
//! | `Affine` | torchvision's `RandomAffine`, bilinear | moved with the image |
//! | `Brightness`, `Contrast`, `Gamma` | torchvision's `adjust_brightness`, `adjust_contrast`, `adjust_gamma` | unchanged |
//! | `Clahe` | OpenCV's `createCLAHE`, before it rounds | unchanged |
//! | `GaussianNoise`, `GaussianBlur` | torchvision's of these names | unchanged |
//! | `Erase` | torchvision's `RandomErasing`, before normalization | unchanged |
//!
//! The random numbers of each come from a stream of its own, named by its kind and by how many of this kind are before it in
//! the list. Adding, removing or moving others changes none of its choices.

mod affine;
mod blur;
mod choices;
mod clahe;
mod elementary;
mod levels;
mod noise;
mod settings;
mod tone;

pub use affine::{AffineMap, MIN_BOX_SHARE};
pub use choices::{Step, draw};
pub use levels::{Levels, rectangle};
pub use settings::{Augmentation, MAX_SIZE};
