//! Random numbers from ChaCha streams, each named by its purpose, so that no number depends on threads.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A 64-bit mix of several numbers (SplitMix64 over each in turn).
pub fn mix(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9E37_79B9_7F4A_7C15, |state: u64, &part| {
        let mut z = state ^ part.wrapping_mul(0xD6E8_FEB8_6659_FD93);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

/// A 64-bit digest of a text (FNV-1a), to name a record's stream.
pub fn digest(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

/// A stream of uniform random numbers. They are mapped to floats and ranges here, so that they do not change with versions
/// of the crate `rand`.
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream named by these numbers.
    pub fn new(parts: &[u64]) -> Self {
        Self(ChaCha8Rng::seed_from_u64(mix(parts)))
    }

    /// Uniform in [0, 1), with 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in [low, high).
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in 0..n (Lemire's multiply-and-reject: no bias). `n` must not be 0.
    pub fn below(&mut self, n: u64) -> u64 {
        loop {
            let product = u128::from(self.0.next_u64()) * u128::from(n);
            if product as u64 >= n.wrapping_neg() % n {
                return (product >> 64) as u64;
            }
        }
    }

    /// So many different numbers below `count`, ascending; each set is as likely (Floyd's algorithm). All of them where `wanted`
    /// is not smaller.
    pub fn subset(&mut self, count: usize, wanted: usize) -> Vec<usize> {
        let wanted = wanted.min(count);
        let mut chosen = Vec::with_capacity(wanted);
        for last in count - wanted..count {
            let drawn = self.below(last as u64 + 1) as usize;
            chosen.push(if chosen.contains(&drawn) { last } else { drawn });
        }
        chosen.sort_unstable();
        chosen
    }

    /// Fills numbers with random bits: four of each 64 bits of the stream, the lowest ones first.
    pub fn fill(&mut self, numbers: &mut [u16]) {
        for four in numbers.chunks_mut(4) {
            let bits = self.0.next_u64();
            four.iter_mut().enumerate().for_each(|(at, number)| *number = (bits >> (16 * at)) as u16);
        }
    }

    /// Shuffles items (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_is_a_permutation_and_repeats() {
        let shuffled = |seed| {
            let mut items: Vec<u32> = (0..1000).collect();
            Stream::new(&[seed]).shuffle(&mut items);
            items
        };
        let mut sorted = shuffled(1);
        assert_eq!(sorted, shuffled(1));
        assert_ne!(sorted, shuffled(2));
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn below_is_uniform() {
        let mut stream = Stream::new(&[7]);
        let mut counts = [0; 6];
        (0..60_000).for_each(|_| counts[stream.below(6) as usize] += 1);
        assert!(counts.iter().all(|&c| (9_500..10_500).contains(&c)), "{counts:?}");
    }

    #[test]
    fn every_subset_is_drawn_as_often() {
        let mut stream = Stream::new(&[3]);
        let mut counts = std::collections::HashMap::new();
        for _ in 0..10_000 {
            *counts.entry(stream.subset(5, 2)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 10);
        assert!(counts.values().all(|count| (850..1150).contains(count)), "{counts:?}");
        assert!(counts.keys().all(|subset| subset.is_sorted_by(|a, b| a < b)));
        assert_eq!((stream.subset(2, 3), stream.subset(0, 3)), (vec![0, 1], vec![]));
    }
}
