//! The arguments of `dataset split`, and the work that they ask for. Python takes the same arguments. The comment of the
//! struct is the text of `--help`.

use std::path::PathBuf;

use clap::Args;

use crate::commands::cli;
use crate::dataset::Dataset;
use crate::error::Result;
use crate::progress::OnProgress;
use crate::split::certificate::Certificate;
use crate::split::{Ratio, Split, SplitOptions, Unit, draw};

/// Make train, validate and test subsets and nested label ratios; no patient in two of them.
#[derive(Args)]
pub struct SplitArguments {
    /// Folder or URL of the dataset.
    pub dir: PathBuf,
    /// Name of the split.
    #[arg(long, value_parser = split_name)]
    name: String,
    /// Percentages of the training subset whose labels may be seen, nested [default: 1,10,100, or those of the lists].
    #[arg(long, value_delimiter = ',', value_parser = cli::ratio)]
    ratios: Vec<Ratio>,
    /// Which records stay together in one subset.
    #[arg(long, value_enum, default_value = "patient")]
    unit: Unit,
    /// Balance the labels of this join in place of the dataset's own.
    #[arg(long, value_name = "JOIN")]
    labels: Option<String>,
    /// Findings to balance: `labels` for all, or names separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "labels")]
    stratify: Vec<String>,
    /// Share of the records for validation [default: 0.1; none with --official and --lists].
    ///
    /// With --official or --lists, whole units are drawn from train where there is no validation subset.
    #[arg(long, value_parser = cli::part)]
    validation: Option<f64>,
    /// Share of the records for the test [default: 0.2; none with --official and --lists].
    ///
    /// With --official or --lists, whole units are drawn from train where there is no test subset.
    #[arg(long, value_parser = cli::part)]
    test: Option<f64>,
    /// Use the source's own subsets.
    #[arg(long, conflicts_with = "lists")]
    official: bool,
    /// Use the subsets of this join.
    #[arg(long, value_name = "JOIN", conflicts_with_all = ["official", "lists"])]
    subset_from: Option<String>,
    /// Use published lists of image names: files named train_list, train_10, train_1, val_list, test_list in this
    /// folder, with or without .txt and .gz.
    ///
    /// Without a train_list, train is every record that no list of another subset names. An image in lists of several
    /// subsets belongs to test before validate before train. Labels in the lists are ignored.
    #[arg(long, value_name = "DIR")]
    lists: Option<PathBuf>,
    /// Keep records with equal stored pixels in one subset, with all records of their patients (or studies, see --unit).
    ///
    /// Every image is read. Subsets of the source and of lists stay as they are; what is drawn from train keeps together.
    #[arg(long)]
    keep_duplicates_together: bool,
    /// Seed that decides among equally good choices; the same seed gives the same split.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Replace the split of this name.
    #[arg(long)]
    overwrite: bool,
}

impl SplitArguments {
    /// Makes the split and stores it in the dataset.
    ///
    /// # Errors
    /// As [`draw::make`]; also where there is another split of this name and it may not be replaced.
    pub fn run(self, dataset: &Dataset, progress: &OnProgress) -> Result<(Split, Certificate)> {
        let Self { name, ratios, unit, stratify, validation, test, official, lists, seed, overwrite, .. } = self;
        let (keep_duplicates_together, labels, subset_from) =
            (self.keep_duplicates_together, self.labels, self.subset_from);
        let stratify = if stratify == ["labels"] { Vec::new() } else { stratify };
        let options = SplitOptions {
            ratios,
            unit,
            validation,
            test,
            official,
            lists,
            keep_duplicates_together,
            labels,
            subset_from,
            stratify,
            seed,
        };
        let (split, certificate) = draw::make(dataset, &name, &options, progress)?;
        if overwrite {
            split.save(dataset.storage(), &certificate)?;
        } else {
            split.save_new(dataset.storage(), &certificate)?;
        }
        Ok((split, certificate))
    }
}

/// Parses the name of a split, which is a part of file names.
fn split_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(['/', '\\', '.']) {
        return Err("give a name without `/`, `\\` and `.`".to_owned());
    }
    Ok(text.to_owned())
}
