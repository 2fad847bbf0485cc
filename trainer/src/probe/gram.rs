//! The second moments of features, and linear systems with them.
//!
//! The Hessian of a logistic regression is a weighted mean of `x·xᵀ` plus the penalty. With the unweighted mean in its place,
//! L-BFGS needs ten iterations where it needs a thousand without, since features of an encoder are strongly correlated.

use rayon::prelude::*;

use super::features::Features;

/// Rows of the matrix that are computed in one pass over the features.
const BLOCK: usize = 8;

/// The mean of `x·xᵀ` over some records, with a 1 appended to each vector `x`.
#[derive(Debug, Clone)]
pub struct Gram {
    /// `[width + 1, width + 1]`, row-major; above the diagonal 0.
    values: Vec<f64>,
    size: usize,
}

impl Gram {
    /// Of some records. Each entry is a sum in the order of the records, for any number of threads.
    pub fn of(features: Features) -> Self {
        let size = features.width() + 1;
        let count = features.len().max(1) as f64;
        let mut values = vec![0.0; size * size];
        values.par_chunks_mut(BLOCK * size).enumerate().for_each(|(block, entries)| {
            let mut extended = vec![1.0; size];
            for row in features.rows() {
                extended.iter_mut().zip(row).for_each(|(to, value)| *to = f64::from(*value));
                for (offset, entries) in entries.chunks_exact_mut(size).enumerate() {
                    let place = block * BLOCK + offset;
                    let factor = extended[place];
                    entries[..=place].iter_mut().zip(&extended).for_each(|(sum, value)| *sum += factor * value);
                }
            }
        });
        values.iter_mut().for_each(|sum| *sum /= count);
        Self { values, size }
    }

    /// The factor of `scale · self + l2 · identity`, where the appended 1 has no `l2`; none unless the matrix is positive definite.
    pub fn factor(&self, scale: f64, l2: f64) -> Option<Cholesky> {
        let mut matrix: Vec<f64> = self.values.iter().map(|value| scale * value).collect();
        (0..self.size - 1).for_each(|at| matrix[at * (self.size + 1)] += l2);
        Cholesky::of(matrix, self.size)
    }
}

/// A lower triangular matrix `L`, of which `L·Lᵀ` is a symmetric matrix.
#[derive(Debug, Clone)]
pub struct Cholesky {
    factor: Vec<f64>,
    size: usize,
}

impl Cholesky {
    /// Of the lower triangle of a matrix.
    fn of(mut matrix: Vec<f64>, size: usize) -> Option<Self> {
        for row in 0..size {
            let (above, rest) = matrix.split_at_mut(row * size);
            let own = &mut rest[..=row];
            for column in 0..row {
                let other = &above[column * size..=column * size + column];
                own[column] = (own[column] - dot(&own[..column], &other[..column])) / other[column];
            }
            let square = own[row] - dot(&own[..row], &own[..row]);
            if square.is_nan() || square <= 0.0 {
                return None;
            }
            own[row] = square.sqrt();
        }
        Some(Self { factor: matrix, size })
    }

    /// Solves `L·Lᵀ·x = vector`; the solution replaces the vector.
    ///
    /// # Panics
    /// When the vector has another length.
    pub fn solve(&self, vector: &mut [f64]) {
        assert_eq!(vector.len(), self.size, "a vector of the matrix's size");
        let row = |at: usize| &self.factor[at * self.size..=at * self.size + at];
        for at in 0..self.size {
            let of_row = row(at);
            vector[at] = (vector[at] - dot(&of_row[..at], &vector[..at])) / of_row[at];
        }
        for at in (0..self.size).rev() {
            let of_row = row(at);
            vector[at] /= of_row[at];
            let value = vector[at];
            vector[..at].iter_mut().zip(of_row).for_each(|(entry, factor)| *entry -= value * factor);
        }
    }
}

/// Numbers that are summed side by side, so that the compiler uses vector instructions.
const LANES: usize = 8;

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataset::random::Stream;

    #[test]
    fn a_solution_satisfies_its_system() {
        const WIDTH: usize = 21;
        let mut random = Stream::new(&[9]);
        let values: Vec<f32> = (0..60 * WIDTH).map(|_| (random.uniform() - 0.3) as f32).collect();
        let features = Features::new(&values, WIDTH);
        let gram = Gram::of(features);
        let wanted: Vec<f64> = (0..=WIDTH).map(|_| random.uniform()).collect();
        let mut solution = wanted.clone();
        gram.factor(0.2, 0.05).expect("positive definite").solve(&mut solution);
        // The product with the matrix, by its definition.
        for (row, wanted) in wanted.iter().enumerate() {
            let entry = |x: &[f32], at: usize| x.get(at).map_or(1.0, |value| f64::from(*value));
            let mean = |column: usize| {
                features.rows().map(|x| entry(x, row) * entry(x, column)).sum::<f64>() / features.len() as f64
            };
            let penalty = if row < WIDTH { 0.05 * solution[row] } else { 0.0 };
            let product: f64 = (0..=WIDTH).map(|column| 0.2 * mean(column) * solution[column]).sum::<f64>() + penalty;
            assert!((product - wanted).abs() < 1e-10, "{row}: {product} and {wanted}");
        }
        assert!(gram.factor(0.0, 0.0).is_none());
        assert!(Gram::of(Features::new(&[f32::NAN, 1.0], 1)).factor(1.0, 1.0).is_none());
    }
}
