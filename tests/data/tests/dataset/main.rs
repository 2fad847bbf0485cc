//! The library `dataset` and its commands: splits, loader, exports, checks, and other readers of the same files.

mod canceled;
mod columns;
mod differential;
mod doctor;
mod duplicates;
mod export;
mod features;
mod hostile;
mod inspect;
mod interop;
mod loader;
mod mixture;
mod old_formats;
mod silence;
mod splits;
mod studies;
mod texts;
mod transforms;
mod verify;
mod windows;
