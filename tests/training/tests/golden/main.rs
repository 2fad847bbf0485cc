//! Models, losses, optimizers, schedules and metrics against numbers of the original code.
//!
//! `tests/golden/README.md` says how they were made, and states the tolerances used here. Every size is read from the
//! json beside the tensors, and the folder can be set with `MRM_GOLDEN_DIR`, so that other numbers can be checked.

mod metrics;
mod models;
mod objectives;
mod segmentation;
