//! Metrics, and confidence intervals over patients.
//!
//! | file | purpose |
//! | --- | --- |
//! | `metrics` | metrics of a ranking: AUROC, average precision, calibration |
//! | `decisions` | metrics at a threshold: F1, sensitivity, predictive values |
//! | `curves` | ROC, precision-recall and reliability curves |
//! | `subgroups` | the same metrics by group, and the gap between groups |
//! | `bootstrap`, `delong` | intervals over patients; DeLong's interval and test |
//! | `overlap` | Dice and IoU of masks |

pub mod bootstrap;
pub mod curves;
pub mod decisions;
pub mod delong;
pub mod metrics;
mod normal;
pub mod overlap;
pub mod subgroups;
