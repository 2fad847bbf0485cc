//! The training loop, one optimizer step, checkpoints, logs, and the run directory.

pub mod amp;
pub mod checkpoint;
pub mod cuda_graph;
pub mod distributed;
pub mod ema;
pub mod logger;
pub mod lr_range_test;
pub mod lr_schedule;
pub mod master_weights;
pub mod optimizer;
mod progress;
mod recorder;
pub mod run_dir;
mod source_losses;
pub mod step;
pub mod stop;
pub mod threads;
pub(crate) mod timing;
pub mod train_loop;
