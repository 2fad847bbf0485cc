//! Scores of a method on the features of a split's subsets, its setting chosen on the validation subset.

use anyhow::Result;
use rayon::prelude::*;

use crate::eval::metrics::mean_defined;
use crate::probe::features::Scaler;
use crate::probe::gram::Gram;
use crate::probe::logistic::{self, Logistic, TOLERANCE};
use crate::probe::neighbors::{self, Neighbors};
use crate::probe::{Features, FitFacts, GridPoint, Method};

/// The features and labels that a probe learns from, and the features that it is applied to.
pub(super) struct Inputs<'a> {
    pub train: Features<'a>,
    /// `[rows, findings]`.
    pub labels: &'a [Option<bool>],
    pub findings: usize,
    pub validate: Features<'a>,
    pub test: Features<'a>,
}

/// What a method found.
pub(super) struct Outcome {
    pub grid: Vec<GridPoint>,
    pub chosen: f64,
    pub fit: Option<FitFacts>,
    /// `[rows, findings]`.
    pub validate: Vec<f32>,
    /// `[rows, findings]`.
    pub test: Vec<f32>,
}

/// Runs a method. `aurocs` gives the AUROC of each finding for scores of the validation records.
pub(super) fn run(method: Method, inputs: &Inputs, aurocs: &dyn Fn(&[f32]) -> Vec<Option<f64>>) -> Result<Outcome> {
    match method {
        Method::Linear => Ok(linear(inputs, aurocs)),
        Method::Knn => knn(inputs, aurocs),
    }
}

/// Position of the highest value of a grid, of several the first; that of the default where none is defined.
fn best(grid: &[GridPoint], default: f64) -> usize {
    let mut best: Option<(usize, f64)> = None;
    for (at, point) in grid.iter().enumerate() {
        if let Some(auroc) = point.validation_auroc
            && best.is_none_or(|(_, highest)| auroc > highest)
        {
            best = Some((at, auroc));
        }
    }
    let default = || grid.iter().position(|point| point.value == default).unwrap_or(0);
    best.map_or_else(default, |(at, _)| at)
}

/// Logistic regression, one a finding; all findings share the strength of the penalty.
fn linear(inputs: &Inputs, aurocs: &dyn Fn(&[f32]) -> Vec<Option<f64>>) -> Outcome {
    let scaler = Scaler::of(inputs.train);
    let width = inputs.train.width();
    let scaled = [inputs.train, inputs.validate, inputs.test].map(|features| scaler.apply(features));
    let [train, validate, test] = scaled.each_ref().map(|values| Features::new(values, width));
    let labels: Vec<Vec<Option<bool>>> = (0..inputs.findings)
        .map(|finding| inputs.labels.iter().skip(finding).step_by(inputs.findings).copied().collect())
        .collect();
    // A finding with one class in the training records has this share of positives as its score.
    let constant: Vec<f32> = labels
        .iter()
        .map(|labels| {
            let count = |wanted: bool| labels.iter().filter(|label| **label == Some(wanted)).count();
            f32::from(u8::from(count(true) > 0 && count(false) == 0))
        })
        .collect();
    let scores = |fits: &[Option<Logistic>], features: Features| -> Vec<f32> {
        let of_finding = |(fit, constant): (&Option<Logistic>, &f32)| match fit {
            Some(fit) => fit.probabilities(features),
            None => vec![*constant; features.len()],
        };
        let columns: Vec<Vec<f32>> = fits.par_iter().zip(&constant).map(of_finding).collect();
        (0..features.len()).flat_map(|row| columns.iter().map(move |column| column[row])).collect()
    };
    let gram = Gram::of(train);
    let mut fits: Vec<Vec<Option<Logistic>>> = Vec::new();
    let mut grid = Vec::new();
    for l2 in logistic::GRID {
        let before = fits.last();
        let fit = |finding: usize| {
            let start = before.and_then(|fits| fits[finding].as_ref());
            Logistic::fit(train, &gram, &labels[finding], l2, start)
        };
        let of_value: Vec<Option<Logistic>> = (0..inputs.findings).into_par_iter().map(fit).collect();
        let validation_auroc = mean_defined(aurocs(&scores(&of_value, validate)));
        grid.push(GridPoint { value: l2, validation_auroc });
        fits.push(of_value);
    }
    let at = best(&grid, logistic::DEFAULT_L2);
    let fitted = || fits[at].iter().flatten();
    let largest_gradient = fitted().map(|fit| fit.largest_gradient).fold(0.0, f64::max);
    Outcome {
        chosen: grid[at].value,
        fit: Some(FitFacts {
            largest_gradient,
            iterations: fitted().map(|fit| fit.iterations).max().unwrap_or(0),
            converged: largest_gradient <= TOLERANCE,
            constant: fits[at].iter().filter(|fit| fit.is_none()).count(),
        }),
        validate: scores(&fits[at], validate),
        test: scores(&fits[at], test),
        grid,
    }
}

/// Votes of the nearest training records; all findings share the number of neighbors.
fn knn(inputs: &Inputs, aurocs: &dyn Fn(&[f32]) -> Vec<Option<f64>>) -> Result<Outcome> {
    let neighbors = Neighbors::new(inputs.train, inputs.labels, inputs.findings)?;
    let numbers = neighbors.grid();
    let mut of_validation = neighbors.scores(inputs.validate, &numbers)?;
    let point = |(&k, scores): (&usize, &Vec<f32>)| GridPoint {
        value: k as f64,
        validation_auroc: mean_defined(aurocs(scores)),
    };
    let grid: Vec<GridPoint> = numbers.iter().zip(&of_validation).map(point).collect();
    let at = best(&grid, neighbors::DEFAULT_K as f64);
    let mut test = neighbors.scores(inputs.test, &[numbers[at]])?;
    Ok(Outcome {
        chosen: grid[at].value,
        grid,
        fit: None,
        validate: of_validation.swap_remove(at),
        test: test.swap_remove(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equally_good_values_is_chosen() {
        let grid = |aurocs: [Option<f64>; 3]| -> Vec<GridPoint> {
            let values = [5.0, 10.0, 20.0];
            values
                .into_iter()
                .zip(aurocs)
                .map(|(value, validation_auroc)| GridPoint { value, validation_auroc })
                .collect()
        };
        assert_eq!(best(&grid([Some(0.6), Some(0.8), Some(0.8)]), 20.0), 1);
        assert_eq!(best(&grid([None, Some(0.4), None]), 20.0), 1);
        assert_eq!(best(&grid([None; 3]), 20.0), 2);
        assert_eq!(best(&grid([None; 3]), 7.0), 0);
    }
}
