//! From a raw directory of radiographs and reports to a dataset of shards.
//!
//! A [`Source`](plan::Source) lists what there is (the [`Plan`](plan::Plan)); [`run()`] decodes, tones, fits, tokenises
//! and writes it.
//!
//! | file | read | not read |
//! | --- | --- | --- |
//! | DICOM | implicit, explicit, big endian, deflated; native, RLE, JPEG baseline/extended/lossless, JPEG-LS, JPEG 2000, HTJ2K; grey, RGB, palette; first frame | JPEG XL, video, colour JPEG-LS |
//! | raster | PNG, JPEG; 8 or 16 bit (grey of 16 bits is toned); grey, colour, alpha (ignored) | everything else |
//! | report | UTF-8 and UTF-16 (by BOM), Windows-1252 with Latin-1 | |

pub mod bounds;
mod changed_options;
mod changed_plan;
pub mod check;
mod codec;
pub mod dicom;
pub mod error;
mod file_system;
mod frame;
mod header;
mod inputs;
pub mod mask;
mod output;
pub mod path_hash;
pub mod picture;
pub mod plan;
pub mod preview;
mod refused;
pub mod report;
pub mod run;
mod saved_plan;
pub mod sources;
pub mod table;
mod text;
pub mod tokenizer;
pub mod tone;
mod walk;

pub use error::{Error, Reject, Result, Stage};
pub use run::run;
