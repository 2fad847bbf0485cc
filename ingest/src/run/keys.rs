//! Names of a run's notes, and keys of the arguments in the manifest.

/// Folder of the notes with which a run continues. It is removed when the dataset is complete, unless inputs could not be
/// read.
pub const NOTES: &str = ".ingest";

/// This tool and its version, as the manifest and the notes store it.
pub const TOOL: &str = concat!("mrm ingest ", env!("CARGO_PKG_VERSION"));

/// Key, beside the arguments of an unfinished run, of the version that began it.
pub const TOOL_NOTE: &str = "tool";

/// Key of the digest of the plan.
pub const INPUT: &str = "input_sha256";

/// Key of the source's options whose effect is part of [`INPUT`]: they are not compared, but named where they changed.
pub const NOTED: &str = "source_options";

/// Extension of the notes with the stamps of the inputs of a shard or of the tokenizer.
pub const STAMPS: &str = "inputs";
