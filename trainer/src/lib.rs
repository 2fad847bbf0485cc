//! Masked record modeling on tch: models, training and evaluation.
//!
//! | module | contents |
//! | --- | --- |
//! | [`model`] | the models: masked encoder, image and report decoder, classifier, segmenter |
//! | [`train`] | the training loop, one step, optimizers and schedules, checkpoints, logs, the run directory |
//! | [`task`] | the trait of a task, and a registry of tasks; pre-training, classification, segmentation |
//! | [`eval`] | AUROC, average precision, F1, Dice; curves, subgroups; confidence intervals over patients |
//! | [`probe`] | logistic regression and nearest neighbors on features of a frozen encoder |
//! | [`weights`] | weights in and out: loading, PyTorch checkpoints read without Python, key names of Hugging Face |
//! | [`torch`] | functions of libtorch that tch does not bind; torch errors as one line |
//! | [`config`] | the keys of a run's configuration and the presets |
//! | [`commands`], [`cli`] | what the subcommands do; their arguments |
//! | [`report`] | the HTML page over some runs |
//! | [`error`] | the error type of models |
//!
//! Variable names are timm's and the MRM release's, so weights are loaded and exported without a table of names. The tests
//! compare the numbers with those of the release.
//!
//! All random numbers (initialization, masks, dropout, drop path) are drawn from torch's default generator of the device: a
//! `tch::manual_seed` before a step makes the step reproducible. Models check the shapes of their inputs. After that, they
//! call torch's operations in the panicking form, since a failure is then a bug or a device out of memory.
//!
//! Several processes train together through [`train::distributed`]: one process a device, each with its share of every batch.
//!
//! Not supported: rectangular images, tied word embeddings, a model that is divided among devices.

#![warn(missing_docs)]
#![warn(clippy::undocumented_unsafe_blocks)]
#![cfg_attr(test, allow(clippy::float_cmp))] // tests compare values that must be bit-identical

pub mod cli;
pub mod commands;
pub mod config;
pub mod error;
pub mod eval;
pub mod model;
pub mod probe;
pub mod report;
pub mod task;
pub mod torch;
pub mod train;
pub mod weights;
