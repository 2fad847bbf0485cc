//! The training loop, one optimizer step, and the run directory.

pub mod amp;
pub mod ema;
pub mod lr_schedule;
pub mod optimizer;
pub mod run_dir;
pub mod step;
pub mod tensorboard;
pub mod threads;
pub mod train_loop;
