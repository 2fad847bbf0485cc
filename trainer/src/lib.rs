//! Masked record modeling on tch: the models, what trains them and what measures them.
//!
//! | module | purpose |
//! | --- | --- |
//! | [`mrm`] | the pre-training model: masked encoder, both decoders, losses, ablations |
//! | [`image_decoder`], [`bert`] | its two decoders: of the image, of the report |
//! | [`classifier`] | the encoder with a linear head, for fine-tuning and features |
//! | [`segmenter`] | the encoder with UPerNet or a light SETR head, for masks |
//! | [`encoder`] | the encoder that both of these stand on |
//! | [`vit`], [`layers`], [`convolutions`] | the vision transformer's blocks; small layers and their start values |
//! | [`patches`], [`positions`] | images as sequences; position tables and their resize |
//! | [`weights`] | weights into a model, and the report of what fitted |
//! | [`pth`], [`naming`] | PyTorch checkpoints read without Python; Hugging Face's names |
//! | [`optimiser`], [`schedule`] | AdamW and SGD with a state that can be saved; learning rates |
//! | [`metrics`], [`bootstrap`] | AUROC, average precision, Dice; intervals over patients |
//! | [`overlap`], [`segmentation_loss`] | Dice and IoU of masks; focal and Dice loss |
//! | [`objective`], [`objectives`] | the plug, and what is plugged in: pre-training, classification, segmentation |
//! | [`engine`], [`step`], [`rundir`], [`config`] | the training loop, one update, a run's directory, its configuration |
//! | [`precision`], [`ema`], [`libtorch`] | mixed precision, averaged weights, what tch does not bind |
//! | [`tensorboard`] | a run's metrics as TensorBoard reads them |
//! | [`threads`] | how many threads compute |
//! | [`commands`] | what the subcommands do |
//! | [`error`], [`failure`] | what can go wrong in all of these; failures in one line |
//!
//! Variable names are timm's and the MRM release's, so weights move in and out without a map. The numbers are tested
//! against the release in `tests/tests/golden_trainer.rs`.
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
