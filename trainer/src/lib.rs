//! Masked record modeling on tch: the models, what trains them and what measures them.
//!
//! | room | what is in it |
//! | --- | --- |
//! | [`model`] | the models: masked encoder, image and report decoder, classifier, segmenter |
//! | [`train`] | the training loop, one optimizer step, optimizers and schedules, the run directory |
//! | [`task`] | the plug between loop and task; pre-training, classification, segmentation |
//! | [`eval`] | AUROC, average precision, Dice; intervals over patients |
//! | [`weights`] | weights in and out: loading, PyTorch checkpoints read without Python, key names of Hugging Face |
//! | [`torch`] | what tch does not bind; torch errors as one line |
//! | [`config`] | the keys of a run's configuration and the presets |
//! | [`commands`], [`cli`] | what the subcommands do; their arguments |
//! | [`error`] | what can go wrong in all of these |
//!
//! Variable names are timm's and the MRM release's, so weights move in and out without a map. The numbers are tested
//! against the release in `tests/training/tests/golden`.
//!
//! Everything random (start values, masks, dropout, drop path) comes from torch's default generator of the device: a
//! `tch::manual_seed` before a step makes the step reproducible. Models check shapes where tensors come in; past that,
//! torch's operations are called in their panicking form, since a failure there is a bug or a device out of memory.
//!
//! Not supported: rectangular images, tied word embeddings, more than one device or process a run.

#![cfg_attr(test, allow(clippy::float_cmp))] // tests compare what must be equal to the bit

pub mod cli;
pub mod commands;
pub mod config;
pub mod error;
pub mod eval;
pub mod model;
pub mod task;
pub mod torch;
pub mod train;
pub mod weights;
