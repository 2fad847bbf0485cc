//! Which source pixels an output pixel covers along one axis, and with what weights.

use super::Filter;

/// Bits of a weight: 1.0 is `1 << WEIGHT_BITS`.
pub const WEIGHT_BITS: u32 = 14;
/// Weights of one output pixel are padded with zeros to a multiple of this: the values of half an AVX2 register.
pub const LANES: usize = 8;
/// Outputs that are computed together where their source pixels lie near each other.
pub const GROUP: usize = 8;
/// Source pixels that half a group may span: what 128 bits hold of 16-bit values.
const SPAN: usize = 8;

/// The source pixels that each output pixel covers along one axis, and their weights.
#[derive(Default)]
pub struct Taps {
    /// First source pixel of each output pixel.
    pub starts: Vec<usize>,
    /// Number of source pixels of each output pixel.
    pub counts: Vec<usize>,
    /// `stride` weights an output pixel, zeros behind the last.
    weights: Vec<i16>,
    pub stride: usize,
    /// The same for [`GROUP`] outputs at a time; without groups where the outputs lie too far apart.
    pub near: Near,
    /// Weights of one output before they are rounded.
    exact: Vec<f64>,
}

/// Taps of outputs side by side. Each half of a group (four outputs) takes its source pixels from one load of [`SPAN`]
/// values, which a shuffle deals out: two values, one pair of taps, to each output.
#[derive(Default)]
pub struct Near {
    pub groups: Vec<Group>,
    /// Pairs of taps of an output, the same for all.
    pub pairs: usize,
    /// `pairs` entries a group: the two weights of each output.
    pub weights: Vec<[i16; 2 * GROUP]>,
    /// Values that the row between the passes must have.
    pub reach: usize,
}

/// Where the source pixels of eight outputs lie.
pub struct Group {
    /// First source pixel of each half.
    pub bases: [usize; 2],
    /// Bytes of a half's load that make up the first pair of taps of each of its outputs.
    pub order: [u8; 4 * GROUP],
}

impl Taps {
    /// Taps from `from` pixels to `to` pixels, as Pillow places them.
    pub fn compute(&mut self, from: usize, to: usize, filter: Filter) {
        // One copy of the loop a filter, each with its formula inlined.
        match filter {
            Filter::Bilinear => self.compute_with(from, to, filter.support(), |x| Filter::Bilinear.weight(x)),
            Filter::Bicubic => self.compute_with(from, to, filter.support(), |x| Filter::Bicubic.weight(x)),
            Filter::Lanczos => self.compute_with(from, to, filter.support(), |x| Filter::Lanczos.weight(x)),
        }
        self.group();
    }

    #[inline(always)]
    fn compute_with(&mut self, from: usize, to: usize, support: f64, weight: impl Fn(f64) -> f64) {
        let scale = from as f64 / to as f64;
        let spread = scale.max(1.0);
        let (support, narrow) = (support * spread, 1.0 / spread);
        self.stride = ((support.ceil() as usize * 2 + 1).min(from)).next_multiple_of(LANES);
        self.starts.clear();
        self.counts.clear();
        self.weights.clear();
        self.weights.resize(to * self.stride, 0);
        for (index, weights) in self.weights.chunks_exact_mut(self.stride).enumerate() {
            let centre = (index as f64 + 0.5) * scale;
            let start = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            self.exact.clear();
            self.exact.extend((start..end).map(|x| weight((x as f64 - centre + 0.5) * narrow)));
            let unit = f64::from(1u32 << WEIGHT_BITS) / self.exact.iter().sum::<f64>();
            // The running sum is rounded, not each weight: together they are one exactly.
            let (mut sum, mut before) = (0.0, 0);
            for (weight, exact) in weights.iter_mut().zip(&self.exact) {
                sum += exact * unit;
                let now = nearest(sum);
                *weight = (now - before) as i16;
                before = now;
            }
            self.starts.push(start);
            self.counts.push(end - start);
        }
    }

    fn group(&mut self) {
        let near = &mut self.near;
        near.groups.clear();
        near.weights.clear();
        near.pairs = self.counts.iter().max().map_or(0, |count| count.div_ceil(2));
        near.reach = 0;
        let halves = || self.starts.chunks(GROUP / 2);
        if halves().any(|half| half[half.len() - 1] - half[0] > SPAN - 2) {
            return;
        }
        for (index, starts) in self.starts.chunks(GROUP).enumerate() {
            let mut group = Group { bases: [0; 2], order: [0; 4 * GROUP] };
            for (half, starts) in starts.chunks(GROUP / 2).enumerate() {
                group.bases[half] = starts[0];
                near.reach = near.reach.max(starts[0] + 2 * near.pairs.saturating_sub(1) + SPAN);
                for (k, start) in starts.iter().enumerate() {
                    let first = 2 * (start - starts[0]) as u8;
                    let at = 4 * (half * GROUP / 2 + k);
                    group.order[at..at + 4].copy_from_slice(&[first, first + 1, first + 2, first + 3]);
                }
            }
            near.groups.push(group);
            for pair in 0..near.pairs {
                let mut both = [0; 2 * GROUP];
                for (k, both) in both.chunks_exact_mut(2).enumerate().take(starts.len()) {
                    let at = (index * GROUP + k) * self.stride + 2 * pair;
                    both.copy_from_slice(&self.weights[at..at + 2]);
                }
                near.weights.push(both);
            }
        }
    }

    /// First source pixel of an output pixel, and its weights with zeros behind them.
    pub fn of(&self, index: usize) -> (usize, &[i16]) {
        (self.starts[index], &self.weights[index * self.stride..(index + 1) * self.stride])
    }
}

/// The nearest whole number of a value far from the limits of `i32`; `f64::round` is a function call on old processors.
fn nearest(value: f64) -> i32 {
    const ABOVE: i32 = 1 << 20;
    (value + f64::from(ABOVE) + 0.5) as i32 - ABOVE
}

/// Taps of the last few scales: the radiographs of a set have few sizes.
#[derive(Default)]
pub struct Scales {
    known: Vec<((usize, usize, Filter), Taps)>,
    /// Which of them was asked for last, and which is to be forgotten next.
    current: usize,
    oldest: usize,
}

impl Scales {
    const KEPT: usize = 8;

    /// Makes the taps of a scale the current ones.
    pub fn set(&mut self, from: usize, to: usize, filter: Filter) {
        let key = (from, to, filter);
        if let Some(found) = self.known.iter().position(|(known, _)| *known == key) {
            self.current = found;
            return;
        }
        if self.known.len() < Self::KEPT {
            self.known.push((key, Taps::default()));
            self.current = self.known.len() - 1;
        } else {
            self.current = self.oldest;
            self.oldest = (self.oldest + 1) % Self::KEPT;
            self.known[self.current].0 = key;
        }
        self.known[self.current].1.compute(from, to, filter);
    }

    /// The taps that were set last.
    pub fn taps(&self) -> &Taps {
        &self.known[self.current].1
    }
}
