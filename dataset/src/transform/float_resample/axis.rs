//! The pixels that an output pixel covers along one axis, and their weights in 32-bit floats.

use crate::transform::resample::Filter;

/// The weights of an output are padded with zeros to a multiple of this, the floats of an AVX2 register.
pub const LANES: usize = 8;

/// The pixels that each output covers along one axis, and their weights.
#[derive(Default)]
pub struct Axis {
    /// From, to, filter.
    scale: Option<(usize, usize, Filter)>,
    /// First pixel of each output.
    pub starts: Vec<usize>,
    /// Number of pixels of each output.
    counts: Vec<usize>,
    /// `stride` for each output, with zeros after the last.
    pub weights: Vec<f32>,
    /// Weights of an output, with the zeros.
    pub stride: usize,
    /// The largest of the starts, and of the numbers of pixels.
    pub last_start: usize,
    pub most: usize,
    /// Weights of one output before they are scaled to a sum of 1.
    exact: Vec<f64>,
}

impl Axis {
    /// Computes the weights from `from` pixels to `to` pixels, unless they are those already.
    pub fn set(&mut self, from: usize, to: usize, filter: Filter) {
        if self.scale == Some((from, to, filter)) {
            return;
        }
        self.scale = Some((from, to, filter));
        // One copy of the loop for each filter, with its formula inlined.
        match filter {
            Filter::Bilinear => self.set_with(from, to, filter.support(), |x| Filter::Bilinear.weight(x)),
            Filter::Bicubic => self.set_with(from, to, filter.support(), |x| Filter::Bicubic.weight(x)),
            Filter::Lanczos => self.set_with(from, to, filter.support(), |x| Filter::Lanczos.weight(x)),
        }
    }

    #[inline]
    fn set_with(&mut self, from: usize, to: usize, support: f64, weight: impl Fn(f64) -> f64) {
        let scale = from as f64 / to as f64;
        let spread = scale.max(1.0);
        let support = support * spread;
        self.stride = (support.ceil() as usize * 2 + 1).next_multiple_of(LANES);
        (self.last_start, self.most) = (0, 0);
        self.starts.clear();
        self.counts.clear();
        self.weights.clear();
        self.weights.resize(to * self.stride, 0.0);
        for (index, weights) in self.weights.chunks_exact_mut(self.stride).enumerate() {
            let center = (index as f64 + 0.5) * scale;
            let start = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            self.exact.clear();
            self.exact.extend((start..end).map(|x| weight((x as f64 - center + 0.5) / spread)));
            let sum: f64 = self.exact.iter().sum();
            weights.iter_mut().zip(&self.exact).for_each(|(weight, exact)| *weight = (exact / sum) as f32);
            self.last_start = self.last_start.max(start);
            self.most = self.most.max(end - start);
            self.starts.push(start);
            self.counts.push(end - start);
        }
    }

    /// The first pixel of an output, and its weights without the zeros after them.
    pub fn of(&self, index: usize) -> (usize, &[f32]) {
        (self.starts[index], &self.weights[index * self.stride..][..self.counts[index]])
    }

    /// Length of a row of this many pixels with the zeros after them that weights of 0 reach.
    pub fn row_length(&self, pixels: usize) -> usize {
        pixels + self.stride
    }
}
