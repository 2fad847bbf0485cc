//! What the binary `dataset` shows, and the command-line helpers that all three binaries share.

pub mod arguments;
pub mod bench;
pub mod cli;
pub mod inspect;
pub mod montage;
pub mod progress;
pub mod reject_reasons;
pub mod verify;
