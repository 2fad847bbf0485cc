//! Feature vectors of some records, and their standardization and normalization.

/// Feature vectors `[rows, width]`, row-major.
#[derive(Debug, Clone, Copy)]
pub struct Features<'a> {
    values: &'a [f32],
    width: usize,
}

impl<'a> Features<'a> {
    /// Vectors of a length.
    ///
    /// # Panics
    /// When the number of values is no multiple of the length, or the length is 0.
    pub fn new(values: &'a [f32], width: usize) -> Self {
        assert!(width > 0 && values.len().is_multiple_of(width), "rows of {width} values each");
        Self { values, width }
    }

    /// Length of a vector.
    pub fn width(self) -> usize {
        self.width
    }

    /// Number of vectors.
    pub fn len(self) -> usize {
        self.values.len() / self.width
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.values.is_empty()
    }

    /// The vector of a row.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(self, row: usize) -> &'a [f32] {
        &self.values[row * self.width..(row + 1) * self.width]
    }

    /// All rows.
    pub fn rows(self) -> std::slice::ChunksExact<'a, f32> {
        self.values.chunks_exact(self.width)
    }

    /// Each vector divided by its length, so that the product of two is the cosine of their angle; a vector of zeros stays.
    pub fn normalized(self) -> Vec<f32> {
        let mut all = Vec::with_capacity(self.values.len());
        for row in self.rows() {
            let norm = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            let factor = if norm > 0.0 { 1.0 / norm } else { 0.0 };
            all.extend(row.iter().map(|value| (f64::from(*value) * factor) as f32));
        }
        all
    }
}

/// Mean and standard deviation of each feature over the training records.
#[derive(Debug, Clone)]
pub struct Scaler {
    mean: Vec<f64>,
    /// 1 over the standard deviation; 0 for a feature without variance, which becomes 0 everywhere.
    factor: Vec<f64>,
}

impl Scaler {
    /// Of some training records.
    pub fn of(features: Features) -> Self {
        let (width, count) = (features.width(), features.len().max(1) as f64);
        let mut mean = vec![0.0; width];
        for row in features.rows() {
            mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        mean.iter_mut().for_each(|sum| *sum /= count);
        let mut factor = vec![0.0; width];
        for row in features.rows() {
            let squares = factor.iter_mut().zip(row.iter().zip(&mean));
            squares.for_each(|(sum, (value, mean))| *sum += (f64::from(*value) - mean).powi(2));
        }
        let of = |variance: f64| if variance > 0.0 { 1.0 / variance.sqrt() } else { 0.0 };
        factor.iter_mut().for_each(|sum| *sum = of(*sum / count));
        Self { mean, factor }
    }

    /// Features with mean 0 and standard deviation 1 over the training records.
    pub fn apply(&self, features: Features) -> Vec<f32> {
        let mut all = Vec::with_capacity(features.len() * features.width());
        for row in features.rows() {
            let scales = self.mean.iter().zip(&self.factor);
            all.extend(
                row.iter().zip(scales).map(|(value, (mean, factor))| ((f64::from(*value) - mean) * factor) as f32),
            );
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standardized_features_have_mean_zero_and_variance_one() {
        let values: Vec<f32> = (0..30).map(|at| if at % 3 == 2 { 4.0 } else { (at * at % 17) as f32 }).collect();
        let scaled = Scaler::of(Features::new(&values, 3)).apply(Features::new(&values, 3));
        for feature in 0..3 {
            let column: Vec<f64> = scaled.iter().skip(feature).step_by(3).map(|value| f64::from(*value)).collect();
            let mean = column.iter().sum::<f64>() / 10.0;
            let variance = column.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 10.0;
            let expected = if feature == 2 { 0.0 } else { 1.0 };
            assert!(mean.abs() < 1e-6 && (variance - expected).abs() < 1e-6, "{feature}: {mean}, {variance}");
        }
    }

    #[test]
    fn normalized_vectors_have_length_one() {
        let normalized = Features::new(&[3.0, 4.0, 0.0, 0.0], 2).normalized();
        assert_eq!(normalized, [0.6, 0.8, 0.0, 0.0]);
    }
}
