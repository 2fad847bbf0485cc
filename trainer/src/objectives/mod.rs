//! The objectives that come with the trainer.

mod classify;
mod label_counts;
mod pretrain;
mod segment;

pub use classify::{Classification, Labels, Missing, Uncertain, predict};
pub use label_counts::{LabelCounts, OpenLabels, remedy as blank_remedy};
pub use pretrain::Pretraining;
pub use segment::{Found, MaskRule, Segmentation, segment};
