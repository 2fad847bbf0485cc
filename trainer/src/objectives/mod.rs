//! The objectives that come with the trainer.

mod classify;
mod pretrain;
mod segment;

pub use classify::{Classification, Labels, Missing, Uncertain, predict};
pub use pretrain::Pretraining;
pub use segment::{Found, MaskRule, Segmentation, segment};
