//! Metrics, and confidence intervals over patients.

pub mod bootstrap;
pub mod metrics;
pub mod overlap;
