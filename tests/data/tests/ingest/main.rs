//! A run of `ingest`: what it writes, survives and refuses; pixels, reports and privacy.

mod canceled;
mod changed_input;
mod check_sums;
mod decoders;
mod dicom;
mod guards;
mod pixel_bits;
mod privacy;
mod reports;
mod run;
mod unreadable_input;
