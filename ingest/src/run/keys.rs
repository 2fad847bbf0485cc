//! Names of the notes of an unfinished run, and keys of the arguments in the manifest.

/// Folder of notes that serve resuming; it is gone when the dataset is whole, unless inputs could not be read.
pub const NOTES: &str = ".ingest";

/// This tool and its version, as the manifest and the notes keep it.
pub const TOOL: &str = concat!("mrm ingest ", env!("CARGO_PKG_VERSION"));

/// Name of the note, beside the arguments, that says which version began the dataset.
pub const TOOL_NOTE: &str = "tool";

/// Name of the argument that stands for the input.
pub const INPUT: &str = "input_sha256";

/// Name of the argument that holds the source's options whose effect is in [`INPUT`]: it decides nothing, and says which
/// option changed.
pub const NOTED: &str = "source_options";

/// Extension of the notes that say what the inputs of a shard, or of the tokenizer, looked like.
pub const STAMPS: &str = "inputs";
