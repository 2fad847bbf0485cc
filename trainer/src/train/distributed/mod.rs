//! Data-parallel training: several processes, one a device, each with its share of every batch. PyTorch's c10d connects them;
//! `torchrun`, `srun` or Kubernetes starts them.
//!
//! | file | purpose |
//! | --- | --- |
//! | `launcher` | which process this one is |
//! | `join` | how the processes find each other, and what they must agree on |
//! | `group` | collectives, which do nothing in a run of one process |
//! | `gradients` | how gradients are averaged |
//! | `rows` | rows of all ranks, for losses that compare all records of a batch |
//! | `share` | what the main process sends to the others |
//! | `watchdog`, `failure`, `error_file` | who is to blame when a job ends |

mod error_file;
mod failure;
mod gradients;
mod group;
mod join;
mod launcher;
mod rows;
pub(in crate::train) mod share;
#[cfg(test)]
pub(crate) mod tests;
mod watchdog;

pub use failure::{report, was_lost};
pub use gradients::{GradientSync, SyncKind};
pub use group::{Compute, ProcessGroup};
pub use join::{Agreement, Timeouts};
pub use launcher::Launch;
pub use rows::Rows;
pub use watchdog::Activity;
