//! Logistic regression on standardized features: a linear probe.
//!
//! Minimizes `mean(log loss) + l2 / 2 · |w|²` over weights and bias, which has no penalty. scikit-learn's `C` is
//! `1 / (rows · l2)`.

use rayon::prelude::*;

use super::features::Features;
use super::gram::Gram;
use super::lbfgs::minimize;

/// The strengths of the penalty that are tried, strongest first. Of two that do equally well the stronger one is taken.
pub const GRID: [f64; 9] = [10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.001, 0.0001];

/// The strength where no validation record chooses one.
pub const DEFAULT_L2: f64 = 0.01;

/// Largest absolute entry of the gradient at the end.
pub const TOLERANCE: f64 = 1e-7;

/// Most iterations.
const ITERATIONS: usize = 1000;

/// Rows whose sums are computed together: sums are in this order for any number of threads.
const CHUNK: usize = 1024;

/// Numbers that are summed side by side, so that the compiler uses vector instructions.
const LANES: usize = 8;

/// A fitted model.
#[derive(Debug, Clone, PartialEq)]
pub struct Logistic {
    /// One weight a feature, then the bias.
    pub parameters: Vec<f64>,
    /// Largest absolute entry of the gradient at these parameters.
    pub largest_gradient: f64,
    /// Iterations of the optimizer.
    pub iterations: usize,
}

impl Logistic {
    /// Fits the rows that have a label; none unless both classes occur. `gram` are the moments of all rows, `start` parameters to
    /// begin with; neither changes the optimum.
    ///
    /// # Panics
    /// When there is not one label a row.
    pub fn fit(
        features: Features,
        gram: &Gram,
        labels: &[Option<bool>],
        l2: f64,
        start: Option<&Self>,
    ) -> Option<Self> {
        assert_eq!(features.len(), labels.len(), "one label a row");
        let rows: Vec<(usize, bool)> =
            labels.iter().enumerate().filter_map(|(row, label)| Some((row, (*label)?))).collect();
        let has = |wanted: bool| rows.iter().any(|(_, label)| *label == wanted);
        if !has(true) || !has(false) {
            return None;
        }
        let start = start.map_or_else(|| vec![0.0; features.width() + 1], |start| start.parameters.clone());
        let objective = |parameters: &[f64], gradient: &mut [f64]| objective(features, &rows, l2, parameters, gradient);
        let share = rows.iter().filter(|(_, label)| *label).count() as f64 / rows.len() as f64;
        let factor = gram.factor(share * (1.0 - share), l2);
        let precondition = |vector: &mut [f64]| factor.iter().for_each(|factor| factor.solve(vector));
        let minimum = minimize(objective, precondition, start, TOLERANCE, ITERATIONS);
        Some(Self {
            parameters: minimum.point,
            largest_gradient: minimum.largest_gradient,
            iterations: minimum.iterations,
        })
    }

    /// Probability of each row.
    pub fn probabilities(&self, features: Features) -> Vec<f32> {
        features.rows().map(|row| sigmoid(logit(&self.parameters, row)) as f32).collect()
    }
}

/// The value and the gradient of the mean loss with its penalty.
fn objective(features: Features, rows: &[(usize, bool)], l2: f64, parameters: &[f64], gradient: &mut [f64]) -> f64 {
    let width = features.width();
    let of_chunk = |chunk: &[(usize, bool)]| {
        let mut sums = vec![0.0; width + 1];
        let mut loss = 0.0;
        for &(row, label) in chunk {
            let row = features.row(row);
            let logit = logit(parameters, row);
            loss += softplus(if label { -logit } else { logit });
            let residual = sigmoid(logit) - f64::from(u8::from(label));
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += residual * f64::from(*value));
            sums[width] += residual;
        }
        (loss, sums)
    };
    let chunks: Vec<(f64, Vec<f64>)> = rows.par_chunks(CHUNK).map(of_chunk).collect();
    gradient.fill(0.0);
    let mut loss = 0.0;
    for (of_chunk, sums) in chunks {
        loss += of_chunk;
        gradient.iter_mut().zip(sums).for_each(|(entry, sum)| *entry += sum);
    }
    let count = rows.len() as f64;
    let weights = &parameters[..width];
    let penalty = l2 / 2.0 * weights.iter().map(|weight| weight * weight).sum::<f64>();
    gradient.iter_mut().for_each(|entry| *entry /= count);
    gradient.iter_mut().zip(weights).for_each(|(entry, weight)| *entry += l2 * weight);
    loss / count + penalty
}

/// Product of weights and features, plus the bias.
fn logit(parameters: &[f64], row: &[f32]) -> f64 {
    let (weights, bias) = (&parameters[..row.len()], parameters[row.len()]);
    let mut sums = [0.0; LANES];
    let (rows, weights) = (row.chunks_exact(LANES), weights.chunks_exact(LANES));
    let rest: f64 = rows.remainder().iter().zip(weights.remainder()).map(|(x, w)| f64::from(*x) * w).sum();
    for (row, weights) in rows.zip(weights) {
        sums.iter_mut()
            .zip(row.iter().zip(weights))
            .for_each(|(sum, (row, weights))| *sum += f64::from(*row) * weights);
    }
    sums.iter().sum::<f64>() + rest + bias
}

/// `ln(1 + exp(x))`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn sigmoid(x: f64) -> f64 {
    let small = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + small) } else { small / (1.0 + small) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataset::random::Stream;

    const WIDTH: usize = 11;

    fn rows(count: usize) -> (Vec<f32>, Vec<Option<bool>>) {
        let mut random = Stream::new(&[5]);
        let (mut values, mut labels) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let row: Vec<f32> = (0..WIDTH).map(|_| (random.uniform() * 3.0 - 1.5) as f32).collect();
            let signal = f64::from(row[0]) - 0.5 * f64::from(row[3]) - 0.7;
            labels.push((random.uniform() < 0.9).then_some(random.uniform() < 1.0 / (1.0 + (-2.0 * signal).exp())));
            values.extend(row);
        }
        (values, labels)
    }

    /// The optimum by Newton's method with dense linear algebra, which shares no code with the fit.
    #[allow(clippy::needless_range_loop, reason = "indices of a matrix")]
    fn newton(values: &[f32], labels: &[Option<bool>], l2: f64) -> Vec<f64> {
        let size = WIDTH + 1;
        let labeled: Vec<(Vec<f64>, f64)> = labels
            .iter()
            .enumerate()
            .filter_map(|(row, label)| {
                let mut x: Vec<f64> = values[row * WIDTH..(row + 1) * WIDTH].iter().map(|v| f64::from(*v)).collect();
                x.push(1.0);
                Some((x, f64::from(u8::from((*label)?))))
            })
            .collect();
        let count = labeled.len() as f64;
        let mut w = vec![0.0; size];
        for _ in 0..50 {
            // The system [hessian | gradient].
            let mut system = vec![vec![0.0; size + 1]; size];
            for (x, y) in &labeled {
                let p = 1.0 / (1.0 + (-x.iter().zip(&w).map(|(x, w)| x * w).sum::<f64>()).exp());
                for i in 0..size {
                    for j in 0..size {
                        system[i][j] += p * (1.0 - p) * x[i] * x[j] / count;
                    }
                    system[i][size] += (p - y) * x[i] / count;
                }
            }
            for i in 0..WIDTH {
                system[i][i] += l2;
                system[i][size] += l2 * w[i];
            }
            for pivot in 0..size {
                let best =
                    (pivot..size).max_by(|a, b| system[*a][pivot].abs().total_cmp(&system[*b][pivot].abs())).unwrap();
                system.swap(pivot, best);
                for row in 0..size {
                    if row != pivot {
                        let factor = system[row][pivot] / system[pivot][pivot];
                        for column in pivot..=size {
                            system[row][column] -= factor * system[pivot][column];
                        }
                    }
                }
            }
            for i in 0..size {
                w[i] -= system[i][size] / system[i][i];
            }
        }
        w
    }

    #[test]
    fn the_fit_equals_newtons_method() {
        let (values, labels) = rows(400);
        let features = Features::new(&values, WIDTH);
        let gram = Gram::of(features);
        let mut warm: Option<Logistic> = None;
        for l2 in GRID {
            let fit = Logistic::fit(features, &gram, &labels, l2, warm.as_ref()).unwrap();
            let expected = newton(&values, &labels, l2);
            assert!(fit.largest_gradient <= TOLERANCE && fit.iterations < 30, "{l2}: {fit:?}");
            for (ours, theirs) in fit.parameters.iter().zip(&expected) {
                assert!((ours - theirs).abs() < 2e-5, "l2 {l2}: {ours} and {theirs}");
            }
            let cold = Logistic::fit(features, &gram, &labels, l2, None).unwrap();
            assert!(cold.parameters.iter().zip(&expected).all(|(ours, theirs)| (ours - theirs).abs() < 2e-5));
            let probability = fit.probabilities(features)[7];
            let logit: f64 =
                (0..WIDTH).map(|at| f64::from(values[7 * WIDTH + at]) * expected[at]).sum::<f64>() + expected[WIDTH];
            assert!((f64::from(probability) - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-5);
            warm = Some(fit);
        }
    }

    #[test]
    fn the_fit_does_not_depend_on_threads() {
        let (values, labels) = rows(3000);
        let fit = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let features = Features::new(&values, WIDTH);
            pool.install(|| Logistic::fit(features, &Gram::of(features), &labels, 0.01, None))
        };
        assert_eq!(fit(1), fit(3));
    }

    #[test]
    fn separable_rows_have_a_finite_fit_and_one_class_has_none() {
        let values: Vec<f32> = (0..20).map(|at| at as f32 / 10.0 - 1.0).collect();
        let labels: Vec<Option<bool>> = (0..20).map(|at| Some(at >= 10)).collect();
        let (features, gram) = (Features::new(&values, 1), Gram::of(Features::new(&values, 1)));
        let fit = Logistic::fit(features, &gram, &labels, 1e-4, None).unwrap();
        assert!(
            fit.largest_gradient <= TOLERANCE && fit.parameters[0].is_finite() && fit.parameters[0] > 10.0,
            "{fit:?}"
        );
        assert!(Logistic::fit(features, &gram, &[Some(true); 20], 0.1, None).is_none());
        assert!(Logistic::fit(features, &gram, &[None; 20], 0.1, None).is_none());
    }
}
