//! L-BFGS for smooth convex functions: the two-loop recursion with a backtracking line search (Nocedal and Wright 2006,
//! algorithms 7.4, 7.5 and 3.1). Nothing in it is random, and no sum depends on threads.

use std::collections::VecDeque;

/// Steps that the curvature is estimated from.
const HISTORY: usize = 10;

/// Share of the decrease along the gradient that a step must reach (Armijo's condition).
const DECREASE: f64 = 1e-4;

/// Halvings of a step before the search gives up: the function then no longer decreases in double precision.
const HALVINGS: usize = 40;

/// Where a minimization ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Minimum {
    /// The point.
    pub point: Vec<f64>,
    /// The value there.
    pub value: f64,
    /// Largest absolute entry of the gradient there.
    pub largest_gradient: f64,
    /// Iterations until then.
    pub iterations: usize,
}

/// A step, the change of the gradient along it, and 1 over their product.
struct Change {
    step: Vec<f64>,
    gradient: Vec<f64>,
    inverse: f64,
}

/// Minimizes a function from a point on, until no entry of the gradient is larger than `tolerance`, for at most `most`
/// iterations. `function` gives the value at a point, and writes the gradient. `precondition` multiplies a vector with an
/// estimate of the inverse of the Hessian, on which the estimate from the steps builds.
pub fn minimize(
    function: impl Fn(&[f64], &mut [f64]) -> f64,
    precondition: impl Fn(&mut [f64]),
    start: Vec<f64>,
    tolerance: f64,
    most: usize,
) -> Minimum {
    let mut point = start;
    let mut gradient = vec![0.0; point.len()];
    let mut value = function(&point, &mut gradient);
    let mut history: VecDeque<Change> = VecDeque::with_capacity(HISTORY);
    let mut iterations = 0;
    while largest(&gradient) > tolerance && iterations < most {
        let mut direction = descent(&gradient, &history, &precondition);
        let mut slope = dot(&gradient, &direction);
        if slope >= 0.0 {
            // Only rounding leads here: begin again along the gradient.
            history.clear();
            direction = gradient.iter().map(|entry| -entry).collect();
            slope = -dot(&gradient, &gradient);
        }
        let mut length = 1.0;
        let mut next_gradient = vec![0.0; point.len()];
        let mut found = None;
        for _ in 0..HALVINGS {
            let next: Vec<f64> = point.iter().zip(&direction).map(|(at, along)| at + length * along).collect();
            let next_value = function(&next, &mut next_gradient);
            // At the optimum differences of values are below their rounding.
            if next_value <= value + DECREASE * length * slope + f64::EPSILON * value.abs() {
                found = Some((next, next_value));
                break;
            }
            length /= 2.0;
        }
        let Some((next, next_value)) = found else { break };
        let step: Vec<f64> = next.iter().zip(&point).map(|(next, at)| next - at).collect();
        let change: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(next, at)| next - at).collect();
        let curvature = dot(&step, &change);
        if curvature > f64::EPSILON * dot(&change, &change) {
            if history.len() == HISTORY {
                history.pop_front();
            }
            history.push_back(Change { step, gradient: change, inverse: 1.0 / curvature });
        }
        (point, value, gradient) = (next, next_value, next_gradient);
        iterations += 1;
    }
    Minimum { largest_gradient: largest(&gradient), point, value, iterations }
}

/// The direction in which the estimated curvature expects the minimum.
fn descent(gradient: &[f64], history: &VecDeque<Change>, precondition: &impl Fn(&mut [f64])) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|entry| -entry).collect();
    let mut factors = Vec::with_capacity(history.len());
    for change in history.iter().rev() {
        let factor = change.inverse * dot(&change.step, &direction);
        add(&mut direction, -factor, &change.gradient);
        factors.push(factor);
    }
    precondition(&mut direction);
    if let Some(last) = history.back() {
        let mut change = last.gradient.clone();
        precondition(&mut change);
        let scale = 1.0 / (last.inverse * dot(&last.gradient, &change));
        direction.iter_mut().for_each(|entry| *entry *= scale);
    }
    for (change, factor) in history.iter().zip(factors.into_iter().rev()) {
        let back = change.inverse * dot(&change.gradient, &direction);
        add(&mut direction, factor - back, &change.step);
    }
    direction
}

fn add(to: &mut [f64], factor: f64, other: &[f64]) {
    to.iter_mut().zip(other).for_each(|(entry, other)| *entry += factor * other);
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn largest(gradient: &[f64]) -> f64 {
    // NaN counts as large, so that it is never within a tolerance.
    gradient.iter().fold(0.0, |most: f64, entry| if entry.is_nan() { f64::INFINITY } else { most.max(entry.abs()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ill_conditioned_quadratic_function_is_solved() {
        // Sum of scale · (x - place)², scales from 1 to 100, and then to 10^10.
        let exponent = std::cell::Cell::new(0.1);
        let scale = |at: usize| 10_f64.powf(at as f64 * exponent.get());
        let place = |at: usize| (at as f64).sin() * 3.0;
        let function = |point: &[f64], gradient: &mut [f64]| {
            let mut value = 0.0;
            for (at, (x, slope)) in point.iter().zip(gradient).enumerate() {
                let distance = x - place(at);
                value += scale(at) * distance * distance;
                *slope = 2.0 * scale(at) * distance;
            }
            value
        };
        let minimum = minimize(function, |_| {}, vec![0.0; 21], 1e-8, 500);
        assert!(minimum.largest_gradient <= 1e-8 && minimum.iterations < 200, "{minimum:?}");
        for (at, x) in minimum.point.iter().enumerate() {
            assert!((x - place(at)).abs() < 1e-7, "{at}: {x}");
        }
        let again = minimize(function, |_| {}, minimum.point.clone(), 1e-8, 500);
        assert_eq!((again.iterations, again.point), (0, minimum.point));
        // With a rough inverse of the Hessian the condition does not matter.
        exponent.set(0.5);
        let rough = |vector: &mut [f64]| {
            vector.iter_mut().enumerate().for_each(|(at, entry)| *entry /= scale(at) * (2.0 + (at as f64).cos()));
        };
        let minimum = minimize(function, rough, vec![0.0; 21], 1e-3, 500);
        assert!(minimum.largest_gradient <= 1e-3 && minimum.iterations < 40, "{minimum:?}");
        assert!(minimum.point.iter().enumerate().all(|(at, x)| (x - place(at)).abs() < 1e-3));
    }

    #[test]
    fn a_function_that_is_not_a_number_ends_the_search() {
        let minimum = minimize(
            |_, gradient| {
                gradient.fill(f64::NAN);
                f64::NAN
            },
            |_| {},
            vec![1.0],
            1e-8,
            10,
        );
        assert!(minimum.largest_gradient.is_infinite() && minimum.point == [1.0]);
    }
}
