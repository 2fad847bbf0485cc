//! What is learned from the features of a frozen encoder: logistic regression (a linear probe) and k nearest neighbors.
//!
//! | file | purpose |
//! | --- | --- |
//! | `features` | feature vectors, their standardization and normalization |
//! | `logistic`, `lbfgs`, `gram` | logistic regression with an L2 penalty; its optimizer, and what makes that fast |
//! | `neighbors` | weighted votes of the nearest training records |
//! | `facts` | what an evaluation says about a probe |

pub mod facts;
pub mod features;
pub mod gram;
pub mod lbfgs;
pub mod logistic;
pub mod neighbors;

pub use facts::{FitFacts, GridPoint, Method, ProbeFacts};
pub use features::Features;
