//! What the binary `dataset` shows, and the command-line helpers that all three binaries share.

#[cfg(feature = "cli")]
pub mod arguments;
pub mod bench;
#[cfg(feature = "cli")]
pub mod cli;
pub mod inspect;
pub mod montage;
#[cfg(feature = "cli")]
pub mod progress;
pub mod reject_reasons;
pub mod verify;
pub(crate) mod wording;
