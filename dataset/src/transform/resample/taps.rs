//! The source pixels that an output pixel covers along one axis, and their weights.

use super::Filter;

/// Bits of a weight: 1.0 is `1 << WEIGHT_BITS`, as in Pillow.
pub const WEIGHT_BITS: u32 = 22;
/// Bits of the fine part of a weight, so that both parts fit into 16 bits.
pub const FINE_BITS: u32 = 8;
/// The weights of one output pixel are padded with zeros to a multiple of this, the values of half an AVX2 register.
pub const LANES: usize = 8;
/// Outputs that are computed together where their source pixels are near each other.
pub const GROUP: usize = 8;
/// Source pixels that half a group may span: the 16-bit values in 128 bits.
const SPAN: usize = 8;

/// The source pixels that each output pixel covers along one axis, and their weights.
#[derive(Default)]
pub struct Taps {
    /// First source pixel of each output pixel.
    pub starts: Vec<usize>,
    /// Number of source pixels of each output pixel.
    pub counts: Vec<usize>,
    /// Coarse parts of the weights, in units of `1 << FINE_BITS`: `stride` for each output pixel, with zeros after the last.
    coarse: Vec<i16>,
    /// Their fine parts; empty where there are none.
    fine: Vec<i16>,
    /// Number of weights of an output pixel, with the padding.
    pub stride: usize,
    /// The largest of the starts.
    pub last_start: usize,
    /// The same for [`GROUP`] outputs at a time; empty where the outputs are too far apart, or have no fine parts.
    pub near: Near,
    /// Weights of one output before they are rounded.
    exact: Vec<f64>,
}

/// Taps of outputs that are near each other. Each half of a group (four outputs) loads [`SPAN`] source pixels at once; a
/// shuffle gives each output two of them, one pair of taps.
#[derive(Default)]
pub struct Near {
    pub groups: Vec<Group>,
    /// Pairs of taps of an output, the same for all.
    pub pairs: usize,
    /// `pairs` entries for each group: the two weights of each output, coarse and fine (empty where there are none).
    pub coarse: Vec<[i16; 2 * GROUP]>,
    pub fine: Vec<[i16; 2 * GROUP]>,
    /// Number of values that the row must have.
    pub reach: usize,
}

/// The source pixels of eight outputs.
pub struct Group {
    /// First source pixel of each half.
    pub bases: [usize; 2],
    /// The bytes of a half's load that are the first pair of taps of each of its outputs.
    pub order: [u8; 4 * GROUP],
}

/// The weights of one output, with zeros after them.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    pub coarse: &'a [i16],
    /// As many as the coarse ones, or none.
    pub fine: &'a [i16],
}

impl Weights<'_> {
    /// Weight `k`, with all its bits.
    pub fn of(&self, k: usize) -> i32 {
        (i32::from(self.coarse[k]) << FINE_BITS) + self.fine.get(k).map_or(0, |&fine| fine.into())
    }
}

impl Taps {
    /// Computes the taps from `from` pixels to `to` pixels, as in Pillow.
    ///
    /// Those of [`Filter::Lanczos`], which reduces whole radiographs to the stored size, have no fine parts: their sums differ
    /// by a hundredth of a gray level and take half the time.
    pub fn compute(&mut self, from: usize, to: usize, filter: Filter) {
        // One copy of the loop for each filter, with its formula inlined.
        match filter {
            Filter::Bilinear => self.compute_with(from, to, filter.support(), true, |x| Filter::Bilinear.weight(x)),
            Filter::Bicubic => self.compute_with(from, to, filter.support(), true, |x| Filter::Bicubic.weight(x)),
            Filter::Lanczos => self.compute_with(from, to, filter.support(), false, |x| Filter::Lanczos.weight(x)),
        }
        self.group();
    }

    #[inline]
    fn compute_with(&mut self, from: usize, to: usize, support: f64, fine: bool, weight: impl Fn(f64) -> f64) {
        let scale = from as f64 / to as f64;
        let spread = scale.max(1.0);
        let (support, narrow) = (support * spread, 1.0 / spread);
        // Weights without fine parts fill whole registers.
        let padding = if fine { LANES } else { 2 * LANES };
        self.stride = ((support.ceil() as usize * 2 + 1).min(from)).next_multiple_of(padding);
        self.last_start = 0;
        self.starts.clear();
        self.counts.clear();
        self.coarse.clear();
        self.coarse.resize(to * self.stride, 0);
        self.fine.clear();
        self.fine.resize(if fine { to * self.stride } else { 0 }, 0);
        for index in 0..to {
            let center = (index as f64 + 0.5) * scale;
            let start = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            self.exact.clear();
            self.exact.extend((start..end).map(|x| weight((x as f64 - center + 0.5) * narrow)));
            let unit = f64::from(1u32 << WEIGHT_BITS) / self.exact.iter().sum::<f64>();
            let at = index * self.stride;
            if fine {
                let parts = self.coarse[at..].iter_mut().zip(&mut self.fine[at..]);
                for (exact, (coarse, fine)) in self.exact.iter().zip(parts) {
                    let weight = nearest(exact * unit);
                    *coarse = (weight >> FINE_BITS) as i16;
                    *fine = (weight & ((1 << FINE_BITS) - 1)) as i16;
                }
            } else {
                // The running sum is rounded, not each weight, so that the sum of all weights is exactly one.
                let unit = unit / f64::from(1u32 << FINE_BITS);
                let (mut sum, mut before) = (0.0, 0);
                for (exact, coarse) in self.exact.iter().zip(&mut self.coarse[at..]) {
                    sum += exact * unit;
                    let now = nearest(sum);
                    *coarse = (now - before) as i16;
                    before = now;
                }
            }
            self.last_start = self.last_start.max(start);
            self.starts.push(start);
            self.counts.push(end - start);
        }
    }

    fn group(&mut self) {
        let near = &mut self.near;
        near.groups.clear();
        near.coarse.clear();
        near.fine.clear();
        near.pairs = self.counts.iter().max().map_or(0, |count| count.div_ceil(2));
        near.reach = 0;
        if self.fine.is_empty() {
            return;
        }
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
            for (parts, near_parts) in [(&self.coarse, &mut near.coarse), (&self.fine, &mut near.fine)] {
                for pair in 0..if parts.is_empty() { 0 } else { near.pairs } {
                    let mut both = [0; 2 * GROUP];
                    for (k, both) in both.chunks_exact_mut(2).enumerate().take(starts.len()) {
                        let at = (index * GROUP + k) * self.stride + 2 * pair;
                        both.copy_from_slice(&parts[at..at + 2]);
                    }
                    near_parts.push(both);
                }
            }
        }
    }

    /// The weights of all outputs, `stride` for each, where they have no fine parts.
    pub fn coarse_alone(&self) -> Option<&[i16]> {
        self.fine.is_empty().then_some(&self.coarse)
    }

    /// First source pixel of an output pixel, and its weights.
    pub fn of(&self, index: usize) -> (usize, Weights<'_>) {
        let of_output =
            |parts: &'_ Vec<i16>| if parts.is_empty() { 0..0 } else { index * self.stride..(index + 1) * self.stride };
        let (coarse, fine) = (of_output(&self.coarse), of_output(&self.fine));
        (self.starts[index], Weights { coarse: &self.coarse[coarse], fine: &self.fine[fine] })
    }

    /// The weights of an output pixel without the zeros after them.
    pub fn weights(&self, index: usize) -> Weights<'_> {
        let (weights, count) = (self.of(index).1, self.counts[index]);
        Weights { coarse: &weights.coarse[..count], fine: weights.fine.get(..count).unwrap_or_default() }
    }
}

/// The nearest whole number of a value far from the limits of `i32`; `f64::round` is a function call on old processors.
fn nearest(value: f64) -> i32 {
    const ABOVE: i32 = 1 << 24;
    (value + f64::from(ABOVE) + 0.5) as i32 - ABOVE
}

/// The taps of the last few scales, since the radiographs of a dataset have few sizes.
#[derive(Default)]
pub struct Scales {
    known: Vec<((usize, usize, Filter), Taps)>,
    /// The one that was set last, and the one that is replaced next.
    current: usize,
    oldest: usize,
}

impl Scales {
    const KEPT: usize = 8;

    /// Makes the taps of a scale the current ones.
    pub fn set(&mut self, from: usize, to: usize, filter: Filter) {
        let key = (from, to, filter);
        if let Some(index) = self.known.iter().position(|(known, _)| *known == key) {
            self.current = index;
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
