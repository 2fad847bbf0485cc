//! Losses by dataset, for the log of a run on a mixture: sums over records, which the log divides by their counts.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::task::objective::RecordLosses;

/// Sums of the losses of the records of each dataset, on the device.
#[derive(Debug, Default)]
pub(super) struct SourceSums {
    names: Vec<&'static str>,
    /// Losses, then counts, by name: `[2 · names]` tensors `[D]`.
    sums: Vec<Tensor>,
}

impl SourceSums {
    /// Adds a batch whose records come from these of `datasets` datasets.
    pub fn add(&mut self, losses: &[RecordLosses], sources: &[u16], datasets: usize, device: Device) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let sources: Vec<i64> = sources.iter().map(|&source| source.into()).collect();
        let sources = Tensor::from_slice(&sources).to_device(device); // [B]
        for RecordLosses { name, sums, counts } in losses {
            let at = self.names.iter().position(|known| known == name).unwrap_or_else(|| {
                self.names.push(name);
                let zeros = || Tensor::zeros([datasets as i64], (Kind::Float, device));
                self.sums.extend([zeros(), zeros()]);
                self.names.len() - 1
            });
            for (offset, values) in [sums, counts].into_iter().enumerate() {
                let total = &mut self.sums[2 * at + offset];
                *total = total.f_index_add(0, &sources, &values.to_kind(Kind::Float))?;
            }
        }
        Ok(())
    }

    /// The names, and all numbers as one tensor: losses, then counts, by name: `[names, 2, D]` flattened.
    pub fn finish(self) -> Result<(Vec<&'static str>, Option<Tensor>)> {
        let numbers = if self.sums.is_empty() { None } else { Some(Tensor::f_cat(&self.sums, 0)?) };
        Ok((self.names, numbers))
    }
}

/// Losses by dataset over the steps since the last line of the log. A checkpoint has them, so that a resumed run logs the same
/// numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceLosses(Vec<(String, Vec<Sum>)>);

/// Sum and count of one dataset, as the bits of floats, since a JSON number may be read one bit off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Sum([u64; 2]);

impl Sum {
    fn numbers(self) -> [f64; 2] {
        self.0.map(f64::from_bits)
    }

    fn add(&mut self, more: [f32; 2]) {
        let [sum, count] = self.numbers();
        self.0 = [sum + f64::from(more[0]), count + f64::from(more[1])].map(f64::to_bits);
    }
}

impl SourceLosses {
    /// Whether no step was added.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a step, with the numbers of [`SourceSums::finish`].
    pub(super) fn add(&mut self, names: &[&'static str], numbers: &[f32]) {
        let datasets = numbers.len() / (2 * names.len()).max(1);
        for (name, numbers) in names.iter().zip(numbers.chunks(2 * datasets.max(1))) {
            if !self.0.iter().any(|(known, _)| known == name) {
                self.0.push(((*name).to_owned(), vec![Sum::default(); datasets]));
            }
            let (losses, counts) = numbers.split_at(datasets);
            for (_, sums) in self.0.iter_mut().filter(|(known, _)| known == name) {
                sums.iter_mut()
                    .zip(losses.iter().zip(counts))
                    .for_each(|(sum, (loss, count))| sum.add([*loss, *count]));
            }
        }
    }

    /// The means with their keys, `loss/DATASET`, and none of those without a record; it begins anew.
    pub(super) fn take(&mut self, datasets: &[String]) -> Vec<(String, f64)> {
        let mut means = Vec::new();
        for (name, sums) in std::mem::take(&mut self.0) {
            for (dataset, sum) in datasets.iter().zip(sums) {
                let [sum, count] = sum.numbers();
                means.extend((count > 0.0).then(|| (format!("{name}/{dataset}"), sum / count)));
            }
        }
        means
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_a_dataset_is_over_its_records_of_all_steps() {
        let floats = |values: &[f32]| Tensor::from_slice(values);
        let mut log = SourceLosses::default();
        for (losses, sources) in [([1.0_f32, 2.0, 6.0], [0_u16, 1, 0]), ([5.0, 5.0, 10.0], [1, 1, 1])] {
            let mut sums = SourceSums::default();
            for half in [0..2, 2..3] {
                let losses = [
                    RecordLosses {
                        name: "loss_a",
                        sums: floats(&losses[half.clone()]),
                        counts: floats(&[1.0; 3][half.clone()]),
                    },
                    RecordLosses {
                        name: "loss_b",
                        sums: floats(&[0.0; 3][half.clone()]),
                        counts: floats(&[0.0; 3][half.clone()]),
                    },
                ];
                sums.add(&losses, &sources[half], 3, Device::Cpu).unwrap();
            }
            let (names, numbers) = sums.finish().unwrap();
            let numbers = Vec::<f32>::try_from(numbers.unwrap()).unwrap();
            log.add(&names, &numbers);
        }
        let datasets = ["x", "y", "z"].map(str::to_owned);
        let expected = [("loss_a/x".to_owned(), 3.5), ("loss_a/y".to_owned(), 5.5)];
        assert_eq!(log.take(&datasets), expected);
        assert_eq!(log.take(&datasets), []);
    }
}
