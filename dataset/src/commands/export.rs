//! The arguments of `dataset export`. Python takes the same arguments. The comment of the struct is the text of `--help`.

use std::path::PathBuf;

use clap::Args;

use crate::commands::cli;
use crate::export::{Format, Options, SHARD_SIZE};
use crate::split::{Ratio, Subset};

/// Write the records in a format that other tools read.
///
/// A killed export continues when the same command is run again, and ends with the same bytes. Raw images become PNGs;
/// PNG and JPEG images keep their bytes.
#[derive(Args)]
pub struct ExportArguments {
    /// Folder or URL of the dataset.
    pub dir: PathBuf,
    /// Folder to write: new, empty, or left by the same command.
    pub out: PathBuf,
    /// The format.
    #[arg(long, value_enum, value_name = "FORMAT")]
    to: Format,
    /// Divide the records by this split; records in none of its subsets are left out [default: all records].
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Export this subset of the split only.
    #[arg(long, value_parser = ["train", "validate", "test"], requires = "split")]
    subset: Option<String>,
    /// Of the training subset, export the records whose labels may be seen at this ratio of the split.
    #[arg(long, value_name = "PERCENT", requires = "split", value_parser = cli::ratio)]
    ratio: Option<Ratio>,
    /// Number of records in a tar or Parquet file (webdataset, hf) [default: 2048].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    shard_size: Option<u32>,
    /// Write the table only (csv).
    #[arg(long)]
    no_images: bool,
    /// Replace the export in OUT.
    #[arg(long)]
    overwrite: bool,
    /// Number of threads [default: one for each core].
    #[arg(long, value_parser = cli::count::<1024>)]
    threads: Option<usize>,
}

impl ExportArguments {
    /// The options of the export.
    ///
    /// # Errors
    /// The message of a usage error, where arguments contradict each other.
    pub fn options(&self) -> Result<Options, &'static str> {
        if self.shard_size.is_some() && self.to == Format::Csv {
            return Err("--shard-size is for webdataset and hf: a CSV export is one table");
        }
        if self.no_images && self.to != Format::Csv {
            return Err("--no-images is for csv");
        }
        if self.ratio.is_some() && self.subset.as_deref().is_some_and(|subset| subset != "train") {
            return Err("--ratio applies to training records: use --subset train");
        }
        Ok(Options {
            format: self.to,
            split: self.split.clone(),
            subset: self.subset.as_deref().and_then(Subset::parse),
            ratio: self.ratio,
            shard_size: self.shard_size.map_or(SHARD_SIZE, |records| records as usize),
            no_images: self.no_images,
            overwrite: self.overwrite,
            threads: self.threads.unwrap_or(0),
        })
    }
}
