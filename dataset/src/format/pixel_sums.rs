//! Mean and standard deviation of the pixels of many images.

use serde::{Deserialize, Serialize};

/// Count, sum and sum of squares of pixels. The sums are whole numbers, so their order does not matter.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub struct PixelSums {
    count: u64,
    sum: u64,
    squares: u64,
}

impl PixelSums {
    /// Adds the sums of other pixels.
    pub fn add(&mut self, other: Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    /// The sums of these pixels.
    pub fn of(pixels: &[u8]) -> Self {
        let mut sums = Self { count: pixels.len() as u64, sum: 0, squares: 0 };
        // The squares of 2¹⁵ pixels sum up to less than 2³², and 32-bit sums are vectorized better.
        for chunk in pixels.chunks(1 << 15) {
            sums.sum += u64::from(chunk.iter().map(|&pixel| u32::from(pixel)).sum::<u32>());
            sums.squares += u64::from(chunk.iter().map(|&pixel| u32::from(pixel) * u32::from(pixel)).sum::<u32>());
        }
        sums
    }

    /// Mean and standard deviation, 0 to 1; zeros where there is no pixel.
    pub fn moments(self) -> (f64, f64) {
        if self.count == 0 {
            return (0.0, 0.0);
        }
        let mean = self.sum as f64 / self.count as f64;
        let variance = (self.squares as f64 / self.count as f64 - mean * mean).max(0.0);
        (mean / 255.0, variance.sqrt() / 255.0)
    }
}
