//! Turns a raw directory of radiographs and reports into a dataset of shards.
//!
//! A [`Source`](run::plan::Source) lists the radiographs in a [`Plan`](run::plan::Plan); [`run()`] decodes, windows and resizes
//! the images, tokenizes the reports and writes the dataset.
//!
//! | module | content |
//! | --- | --- |
//! | [`sources`] | one file for each public layout, and what they share: tables, directory walks |
//! | [`dicom`] | limits that are checked first, parsing, headers, pixel data |
//! | [`image`] | from stored values to the image of a record: intensity transform, resizing, masks |
//! | [`report`] | reports: reading, sections, tokenizer |
//! | [`join`] | labels, boxes, masks, texts and subsets of tables about a dataset that exists |
//! | [`mod@run`] | one run: plan, shards, manifest; it can be killed at any time and started again |
//! | [`cli`] | the command line of the program `ingest` |
//!
//! | file | read | not read |
//! | --- | --- | --- |
//! | DICOM | implicit, explicit, big endian, deflated; native, RLE, JPEG baseline/extended/lossless, JPEG-LS, JPEG 2000, HTJ2K; gray, RGB, palette; first frame | JPEG XL, video, color JPEG-LS |
//! | raster | PNG, JPEG; 8 or 16 bits (gray of 16 bits is windowed); gray, color, alpha (ignored) | everything else |
//! | report | UTF-8 and UTF-16 (by BOM), Windows-1252 with Latin-1 | |

#![warn(missing_docs, clippy::undocumented_unsafe_blocks)]

pub mod cli;
mod codec;
pub mod dicom;
pub mod error;
mod file_system;
pub mod image;
pub mod join;
pub mod reject;
pub mod report;
pub mod run;
pub mod sources;

pub use error::{Error, Result};
pub use reject::{Reject, Stage};
pub use run::run;
