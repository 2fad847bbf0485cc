//! Damaged and hostile input: mutated real files. No input may cause a panic, end the process, hang, or take more memory than
//! the limits of `ingest::dicom::limits` allow.
//!
//! Each target tries three hundred cases, or as many as `MRM_FUZZ_SECONDS` leaves time for; a failure prints the number of its
//! case, which `MRM_FUZZ_CASE` runs alone. Inputs that failed before are in `tests/corpus/TARGET/NAME[.N]` (NAME is the
//! seed that they came from) and are tried first.

mod cases;
mod files;
mod sizes;
mod stored;
mod tables;
