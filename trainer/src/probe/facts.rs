//! What an evaluation of a probe says about how its scores came about.

use dataset::commands::cli::counted;
use serde::{Deserialize, Serialize};

/// How findings are predicted from features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Logistic regression.
    Linear,
    /// A weighted vote of the nearest training records.
    Knn,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Linear, Self::Knn];

    /// Its name on the command line and in names of folders.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Knn => "knn",
        }
    }

    /// Its name in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Linear => "linear probe",
            Self::Knn => "kNN",
        }
    }

    /// What its grid is of.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Linear => "l2",
            Self::Knn => "k",
        }
    }
}

/// A value of the grid, and how well it does on the validation subset.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GridPoint {
    /// The value.
    pub value: f64,
    /// Mean AUROC over the findings that define it on the validation subset.
    pub validation_auroc: Option<f64>,
}

/// How near a fit is to its optimum.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FitFacts {
    /// Largest absolute entry of the gradient, over all findings.
    pub largest_gradient: f64,
    /// Most iterations of a finding.
    pub iterations: usize,
    /// Whether the gradient of every finding is within the tolerance.
    pub converged: bool,
    /// Findings with one class in the training records, whose score is the same for all records.
    pub constant: usize,
}

/// How the scores of an evaluation come from the features of a frozen encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeFacts {
    /// The method.
    pub method: Method,
    /// The weights.
    pub encoder: String,
    /// Digest of the weights' file, or the seed of random weights.
    pub weights_digest: String,
    /// Length of a feature vector.
    pub features: usize,
    /// Labeled training records.
    pub training_records: usize,
    /// All values that were tried.
    pub grid: Vec<GridPoint>,
    /// The value with the highest AUROC on the validation subset; of several the first one.
    pub chosen: f64,
    /// Of logistic regression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<FitFacts>,
    /// Digest of all that the result depends on; a result of the same key is kept.
    pub key: String,
}

impl std::fmt::Display for ProbeFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let chosen = if self.grid.iter().any(|point| point.validation_auroc.is_some()) {
            format!("the best of {} values on the validation subset", self.grid.len())
        } else {
            "the default, since the validation subset defines no AUROC".to_owned()
        };
        write!(
            f,
            "{} on {} frozen features of {}; {}; {} = {}, {chosen}",
            self.method.title(),
            self.features,
            self.encoder,
            counted(self.training_records, "training record"),
            self.method.setting(),
            self.chosen
        )?;
        match self.fit.filter(|fit| !fit.converged) {
            Some(fit) => write!(f, "; not converged: largest gradient {:.1e}", fit.largest_gradient),
            None => Ok(()),
        }
    }
}
