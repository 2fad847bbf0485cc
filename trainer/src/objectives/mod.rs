//! The objectives that come with the trainer.

mod classify;
mod pretrain;

pub use classify::{Classification, Labels, Missing, Uncertain, predict};
pub use pretrain::Pretraining;
