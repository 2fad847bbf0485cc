//! What is trained: the plug between the training loop and a task, and the tasks that come with the trainer.

pub(crate) mod classify;
pub(crate) mod label_counts;
pub mod objective;
pub(crate) mod pretrain;
pub(crate) mod segment;

pub use classify::{Classification, Labels, Missing, Uncertain, predict};
pub use label_counts::{LabelCounts, OpenLabels, remedy as blank_remedy};
pub use pretrain::Pretraining;
pub use segment::{Found, MaskRule, Segmentation, segment};
