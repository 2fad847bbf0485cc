//! Mixtures on the command line: `DIR=0.7`, and the options that decide shares and the length of an epoch.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use clap::Args;

use crate::commands::cli::{self, UsageError};
use crate::loader::{EpochLength, MAX_EPOCH_RECORDS, Weights};
use crate::tokenizer::ReportTokenizer;

/// A dataset, with its weight in a mixture: `DIR` or `DIR=WEIGHT`.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedData {
    /// Folder or URL.
    pub location: PathBuf,
    /// Its weight, where one is given.
    pub weight: Option<f64>,
}

impl FromStr for WeightedData {
    type Err = String;

    /// What follows the last `=` is a weight where it is a number, unless there is a folder of the whole name.
    fn from_str(text: &str) -> Result<Self, String> {
        let whole = Self { location: text.into(), weight: None };
        let Some((location, weight)) = text.rsplit_once('=').filter(|_| !Path::new(text).exists()) else {
            return Ok(whole);
        };
        let Ok(weight) = weight.trim().parse::<f64>() else { return Ok(whole) };
        if weight > 0.0 && weight.is_finite() && !location.is_empty() {
            return Ok(Self { location: location.into(), weight: Some(weight) });
        }
        Err("give DIR, or DIR=WEIGHT with a weight above 0".to_owned())
    }
}

/// Options of a mixture of several datasets.
#[derive(Args, Clone, Debug, Default)]
pub struct MixtureArguments {
    /// Several datasets without weights: the share of one with n records is in proportion to n^(1/T). 1, the default, is by
    /// records; a larger T gives small datasets more.
    #[arg(long, value_name = "T", value_parser = cli::positive)]
    pub mixture_temperature: Option<f64>,
    /// An epoch ends after one pass over this dataset [default: an epoch has as many records as all datasets together].
    #[arg(long, value_name = "DIR", conflicts_with = "epoch_records")]
    pub epoch_of: Option<PathBuf>,
    /// Records of an epoch.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_EPOCH_RECORDS))]
    pub epoch_records: Option<u64>,
    /// Use this tokenizer.json. Reports that were tokenized with another one are tokenized again at loading [default: the
    /// tokenizer of the first dataset that has one].
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
}

impl MixtureArguments {
    /// Weights and length of an epoch; none for one dataset alone.
    ///
    /// # Errors
    /// When only some datasets have a weight, weights are given beside a temperature, or there is no dataset of `--epoch-of`.
    pub fn mixture(&self, data: &[WeightedData]) -> Result<Option<(Weights, EpochLength)>> {
        self.resolved(data).map_err(UsageError::of)
    }

    fn resolved(&self, data: &[WeightedData]) -> Result<Option<(Weights, EpochLength)>> {
        let weights: Vec<f64> = data.iter().filter_map(|data| data.weight).collect();
        if !weights.is_empty() && weights.len() < data.len() {
            bail!("give a weight for each dataset (DIR=WEIGHT), or for none");
        }
        if !weights.is_empty() && self.mixture_temperature.is_some() {
            bail!("--mixture-temperature: the datasets have weights");
        }
        let length = match (&self.epoch_of, self.epoch_records) {
            (Some(wanted), _) => {
                let place = data.iter().position(|data| same(&data.location, wanted));
                EpochLength::Once(
                    place.ok_or_else(|| anyhow!("--epoch-of {}: not one of the datasets", wanted.display()))?,
                )
            }
            (None, Some(records)) => EpochLength::Records(records),
            (None, None) => EpochLength::Sum,
        };
        if data.len() == 1 && length == EpochLength::Sum {
            return Ok(None);
        }
        let by_records = || Weights::Temperature(self.mixture_temperature.unwrap_or(1.0));
        Ok(Some((if weights.is_empty() { by_records() } else { Weights::Shares(weights) }, length)))
    }

    /// The tokenizer that was given.
    ///
    /// # Errors
    /// When it cannot be read or used.
    pub fn tokenizer(&self) -> Result<Option<Arc<ReportTokenizer>>> {
        Ok(self.tokenizer.as_deref().map(ReportTokenizer::load).transpose()?.map(Arc::new))
    }
}

/// Whether two paths are the same but for a slash at the end.
fn same(a: &Path, b: &Path) -> bool {
    a.components().eq(b.components())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_follows_the_last_equals_sign() {
        let parsed = |text: &str| text.parse::<WeightedData>().map(|data| (data.location, data.weight));
        let path = |text: &str| PathBuf::from(text);
        assert_eq!(parsed("data/a"), Ok((path("data/a"), None)));
        assert_eq!(parsed("data/a=0.7"), Ok((path("data/a"), Some(0.7))));
        assert_eq!(parsed("s3://b/x=y=2"), Ok((path("s3://b/x=y"), Some(2.0))));
        assert_eq!(parsed("s3://b/x=y"), Ok((path("s3://b/x=y"), None)));
        assert!(["a=0", "a=-1", "a=inf", "a=NaN", "=2"].iter().all(|text| parsed(text).is_err()));
        let folder = tempfile::tempdir().unwrap();
        let named = folder.path().join("year=2020");
        std::fs::create_dir(&named).unwrap();
        assert_eq!(parsed(&named.display().to_string()), Ok((named, None)));
    }

    #[test]
    fn shares_and_epochs_are_those_of_the_options() {
        let data = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<WeightedData>>();
        let options = MixtureArguments::default();
        assert_eq!(options.mixture(&data(&["a"])).unwrap(), None);
        let shares = Weights::Shares(vec![0.7, 0.3]);
        assert_eq!(options.mixture(&data(&["a=0.7", "b=0.3"])).unwrap(), Some((shares.clone(), EpochLength::Sum)));
        let of_b = MixtureArguments { epoch_of: Some("b/".into()), ..options.clone() };
        assert_eq!(of_b.mixture(&data(&["a=0.7", "b=0.3"])).unwrap(), Some((shares, EpochLength::Once(1))));
        let by_records = (Weights::Temperature(1.0), EpochLength::Records(9));
        let nine = MixtureArguments { epoch_records: Some(9), ..options.clone() };
        assert_eq!(nine.mixture(&data(&["a"])).unwrap(), Some(by_records));
        let refused = |options: &MixtureArguments, texts: &[&str]| {
            options.mixture(&data(texts)).unwrap_err().downcast::<UsageError>().unwrap().to_string()
        };
        assert!(refused(&options, &["a=1", "b"]).contains("a weight for each dataset"));
        let warm = MixtureArguments { mixture_temperature: Some(2.0), ..options };
        assert!(refused(&warm, &["a=1", "b=1"]).contains("the datasets have weights"));
        assert!(refused(&of_b, &["a", "c"]).contains("--epoch-of b/: not one of the datasets"));
    }
}
