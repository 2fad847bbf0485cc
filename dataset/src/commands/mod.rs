//! What the binary `dataset` shows, and the command-line helpers that all three binaries share.

#[cfg(feature = "cli")]
pub mod arguments;
pub mod bench;
#[cfg(feature = "cli")]
pub mod cli;
pub mod doctor;
pub mod duplicates;
#[cfg(all(feature = "cli", feature = "export"))]
pub mod export;
pub mod inspect;
#[cfg(feature = "cli")]
pub mod mixture;
pub mod montage;
#[cfg(feature = "cli")]
pub mod progress;
pub mod reject_reasons;
#[cfg(feature = "cli")]
pub mod split;
#[cfg(feature = "cli")]
pub(crate) mod study_arguments;
#[cfg(feature = "cli")]
pub(crate) mod transform_arguments;
pub mod verify;
pub(crate) mod wording;
