//! How much of each dataset an epoch of a mixture holds, and in which turn they come.

use crate::error::{Error, Result};
use crate::random::{self, Stream};

/// Largest number of datasets in a mixture.
pub const MAX_PARTS: usize = 256;

/// Largest number of records of a mixture's epoch.
pub const MAX_EPOCH_RECORDS: u64 = 1 << 31;

/// How the shares of the datasets of a mixture are given.
#[derive(Clone, Debug, PartialEq)]
pub enum Weights {
    /// By their records: the share of a dataset with `n` records is in proportion to `n^(1 / temperature)`. At a temperature
    /// of 1, the default, every record has the same weight; at higher ones, small datasets have larger shares.
    Temperature(f64),
    /// One number above 0 for each dataset, in proportion to its share.
    Shares(Vec<f64>),
}

impl Default for Weights {
    fn default() -> Self {
        Self::Temperature(1.0)
    }
}

/// How long an epoch of a mixture is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EpochLength {
    /// As many records as all datasets have together.
    #[default]
    Sum,
    /// Until each record of one dataset, given by its number, was seen once.
    Once(usize),
    /// So many records.
    Records(u64),
}

/// The records of an epoch of a mixture: how many come from each dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mixture {
    quotas: Vec<u64>,
}

impl Mixture {
    /// The mixture of datasets with so many records each. With `whole_batches`, an epoch is cut to whole batches of so many
    /// records, where it has one.
    ///
    /// Every dataset gets its share of an epoch to within one record; equal inputs give equal numbers.
    ///
    /// # Errors
    /// When there is no dataset, more than [`MAX_PARTS`], or one without records; when weights are not numbers above 0, one
    /// for each dataset; when the epoch has more than [`MAX_EPOCH_RECORDS`], or is so short that a dataset gets no record.
    pub fn new(
        records: &[usize],
        weights: &Weights,
        length: EpochLength,
        whole_batches: Option<usize>,
    ) -> Result<Self> {
        let invalid = |message: String| Err(Error::Invalid(format!("mixture: {message}")));
        if records.is_empty() || records.len() > MAX_PARTS {
            return invalid(format!("{} datasets; give 1 to {MAX_PARTS}", records.len()));
        }
        if let Some(empty) = records.iter().position(|&count| count == 0) {
            return invalid(format!("{} has no record to load: is this subset or ratio empty?", nth(empty)));
        }
        let shares = shares(records, weights)?;
        let (mut total, mut pinned) = match length {
            EpochLength::Sum => (records.iter().map(|&count| count as u64).sum(), None),
            EpochLength::Records(total) => (total, None),
            EpochLength::Once(part) => match (records.get(part), shares.get(part)) {
                (Some(&count), Some(share)) => ((count as f64 / share).round() as u64, Some((part, count as u64))),
                _ => return invalid(format!("there is no {}, which is to define the epoch", nth(part))),
            },
        };
        if let Some(batch) = whole_batches.map(|batch| batch.max(1) as u64)
            && total > batch
            && !total.is_multiple_of(batch)
        {
            (total, pinned) = (total - total % batch, None);
        }
        if total == 0 || total > MAX_EPOCH_RECORDS {
            return invalid(format!("an epoch of {total} records; give 1 to {MAX_EPOCH_RECORDS}"));
        }
        let quotas = quotas(&shares, total, pinned);
        match quotas.iter().position(|&quota| quota == 0) {
            Some(part) => invalid(format!(
                "{} would get no record of an epoch of {total}: give it a larger share, or make the epoch longer",
                nth(part)
            )),
            None => Ok(Self { quotas }),
        }
    }

    /// Records of each dataset in an epoch.
    pub fn quotas(&self) -> &[u64] {
        &self.quotas
    }

    /// Records of an epoch.
    pub fn records(&self) -> u64 {
        self.quotas.iter().sum()
    }

    /// Which dataset each record of an epoch comes from, in batches of so many records.
    ///
    /// The epoch is divided into as many equal spans as a dataset has records in it, and each record is at a random point of
    /// its span; without a seed, in the middle. So the shares hold in any part of an epoch, but for few records, and no
    /// process of several gets one dataset alone.
    pub(crate) fn interleave(&self, seed: Option<u64>, epoch: u64, batch_size: usize) -> Result<Interleave> {
        let parts = self.quotas.len();
        let total = self.records() as usize;
        let mut streams: Vec<Option<Stream>> = (0..parts as u64)
            .map(|part| seed.map(|seed| Stream::new(&[seed, random::digest("mixture"), epoch, part])))
            .collect();
        let mut taken = vec![0u32; parts];
        let mut point = |part: usize, taken: u32| {
            let within = streams[part].as_mut().map_or(0.5, Stream::uniform);
            if u64::from(taken) < self.quotas[part] {
                (f64::from(taken) + within) / self.quotas[part] as f64
            } else {
                f64::INFINITY
            }
        };
        let mut next: Vec<f64> = (0..parts).map(|part| point(part, 0)).collect();
        let mut sources = Vec::new();
        let mut starts = Vec::new();
        let no_memory = |_| Error::Invalid(format!("mixture: no memory for the order of {total} records"));
        sources.try_reserve_exact(total).map_err(no_memory)?;
        starts.try_reserve_exact(total.div_ceil(batch_size) * parts).map_err(no_memory)?;
        for position in 0..total {
            if position.is_multiple_of(batch_size) {
                starts.extend_from_slice(&taken);
            }
            let mut first = 0;
            for part in 1..parts {
                if next[part] < next[first] {
                    first = part;
                }
            }
            sources.push(first as u16);
            taken[first] += 1;
            next[first] = point(first, taken[first]);
        }
        Ok(Interleave { sources, starts, parts })
    }
}

/// Which dataset each record of an epoch comes from.
pub(crate) struct Interleave {
    sources: Vec<u16>,
    /// Records of each dataset before each batch, `[batches, parts]`.
    starts: Vec<u32>,
    parts: usize,
}

impl Interleave {
    /// The datasets of some positions of an epoch.
    pub fn sources(&self, positions: std::ops::Range<usize>) -> &[u16] {
        self.sources.get(positions).unwrap_or_default()
    }

    /// Records of each dataset before a batch.
    pub fn start(&self, batch: usize) -> &[u32] {
        self.starts.get(batch * self.parts..(batch + 1) * self.parts).unwrap_or_default()
    }
}

/// The share of each dataset, 0 to 1.
fn shares(records: &[usize], weights: &Weights) -> Result<Vec<f64>> {
    let invalid = |message: String| Err(Error::Invalid(format!("mixture: {message}")));
    let weights: Vec<f64> = match weights {
        Weights::Temperature(temperature) if *temperature > 0.0 && temperature.is_finite() => {
            let most = records.iter().copied().max().unwrap_or(1) as f64;
            records.iter().map(|&count| (count as f64 / most).powf(1.0 / temperature)).collect()
        }
        Weights::Temperature(temperature) => {
            return invalid(format!("a temperature of {temperature}; give a number above 0"));
        }
        Weights::Shares(shares) if shares.len() != records.len() => {
            return invalid(format!("{} weights for {} datasets", shares.len(), records.len()));
        }
        Weights::Shares(shares) => match shares.iter().find(|share| !(**share > 0.0 && share.is_finite())) {
            Some(wrong) => return invalid(format!("a weight of {wrong}; give numbers above 0")),
            None => shares.clone(),
        },
    };
    let sum: f64 = weights.iter().sum();
    if !sum.is_finite() {
        return invalid("the weights are too large".to_owned());
    }
    Ok(weights.into_iter().map(|weight| weight / sum).collect())
}

/// `total` records divided by shares, each rounded up or down; `pinned` gives the number of one dataset.
fn quotas(shares: &[f64], total: u64, pinned: Option<(usize, u64)>) -> Vec<u64> {
    let exact: Vec<f64> = shares.iter().map(|share| share * total as f64).collect();
    let mut quotas: Vec<u64> = exact.iter().map(|exact| exact.floor() as u64).collect();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    if let Some((part, count)) = pinned {
        quotas[part] = count;
        order.retain(|&other| other != part);
    }
    // The largest remainders are rounded up; the earlier dataset first where they are equal.
    order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()).then(a.cmp(&b)));
    let missing = total.saturating_sub(quotas.iter().sum()) as usize;
    order.iter().cycle().take(if order.is_empty() { 0 } else { missing }).for_each(|&part| quotas[part] += 1);
    quotas
}

/// A dataset by its number, in words.
fn nth(part: usize) -> String {
    format!("dataset {} of the mixture", part + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixture(records: &[usize], weights: &Weights, length: EpochLength) -> Vec<u64> {
        Mixture::new(records, weights, length, None).unwrap().quotas
    }

    #[test]
    fn quotas_follow_weights_records_and_the_length_of_the_epoch() {
        let seven_to_three = Weights::Shares(vec![7.0, 3.0]);
        assert_eq!(mixture(&[50, 11], &Weights::default(), EpochLength::Sum), [50, 11]);
        assert_eq!(mixture(&[50, 11], &seven_to_three, EpochLength::Sum), [43, 18]);
        assert_eq!(mixture(&[50, 11], &seven_to_three, EpochLength::Records(10)), [7, 3]);
        assert_eq!(mixture(&[50, 11], &seven_to_three, EpochLength::Once(0)), [50, 21]);
        assert_eq!(mixture(&[50, 11], &seven_to_three, EpochLength::Once(1)), [26, 11]);
        // Square roots of 100 and 900.
        assert_eq!(mixture(&[100, 900], &Weights::Temperature(2.0), EpochLength::Records(100)), [25, 75]);
        let whole = Mixture::new(&[50, 11], &seven_to_three, EpochLength::Sum, Some(8)).unwrap();
        assert_eq!((whole.records(), whole.quotas()), (56, &[39, 17][..]));
    }

    #[test]
    fn impossible_mixtures_are_refused() {
        let refused = |records: &[usize], weights: Weights, length: EpochLength| {
            Mixture::new(records, &weights, length, None).unwrap_err().to_string()
        };
        let shares = |shares: &[f64]| Weights::Shares(shares.to_vec());
        let sum = EpochLength::Sum;
        assert!(refused(&[], Weights::default(), sum).contains("0 datasets"));
        assert!(refused(&[3, 0], Weights::default(), sum).contains("dataset 2 of the mixture has no record"));
        assert!(refused(&[3, 4], shares(&[1.0]), sum).contains("1 weights for 2 datasets"));
        assert!(refused(&[3, 4], shares(&[1.0, 0.0]), sum).contains("a weight of 0"));
        assert!(refused(&[3, 4], shares(&[1.0, f64::NAN]), sum).contains("a weight of NaN"));
        assert!(refused(&[3, 4], shares(&[f64::MAX, f64::MAX]), sum).contains("too large"));
        assert!(refused(&[3, 4], Weights::Temperature(0.0), sum).contains("a temperature of 0"));
        assert!(refused(&[3, 4], shares(&[99.0, 1.0]), sum).contains("dataset 2 of the mixture would get no record"));
        assert!(refused(&[3, 4], Weights::default(), EpochLength::Once(2)).contains("there is no dataset 3"));
        assert!(refused(&[3, 4], Weights::default(), EpochLength::Records(u64::MAX)).contains("an epoch of"));
    }

    #[test]
    fn any_part_of_an_epoch_has_the_shares_but_for_few_records() {
        let mixture = Mixture { quotas: vec![500, 300, 7, 193] };
        let interleave = mixture.interleave(Some(5), 3, 16).unwrap();
        for (part, quota) in mixture.quotas.iter().enumerate() {
            let mut seen = 0.0;
            for (position, &source) in interleave.sources(0..1000).iter().enumerate() {
                seen += f64::from(u8::from(usize::from(source) == part));
                let expected = *quota as f64 * (position + 1) as f64 / 1000.0;
                assert!((seen - expected).abs() < 4.0, "{part}: {seen} of {expected}");
            }
            assert_eq!(seen, *quota as f64);
        }
        assert_eq!(interleave.start(0), [0; 4]);
        let before = |part: u16| interleave.sources(0..48).iter().filter(|&&source| source == part).count() as u32;
        assert_eq!(interleave.start(3), [before(0), before(1), before(2), before(3)]);
        let other = mixture.interleave(Some(5), 4, 16).unwrap();
        assert_ne!(other.sources(0..1000), interleave.sources(0..1000));
        let fixed = Mixture { quotas: vec![2, 1] }.interleave(None, 9, 2).unwrap();
        assert_eq!(fixed.sources(0..3), [0, 1, 0]);
    }
}
