//! How a run learns that it should stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR2};
use signal_hook::flag;

/// Set when the process is asked to stop; one for the whole process.
static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Whether the process was asked to stop. From the first call on, SIGTERM, SIGINT and SIGUSR2 ask for it. A second SIGTERM or
/// SIGINT ends the process at once; a SIGTERM after a SIGUSR2 does not, since schedulers send them in this order. (SIGUSR1 is
/// NCCL's.)
///
/// # Errors
/// When the signal handlers cannot be installed.
pub fn stop_requested() -> Result<bool> {
    if let Some(stop) = STOP.get() {
        return Ok(stop.load(Ordering::Relaxed));
    }
    // The loader's requests to an object store check the same flag, so an unreachable store does not delay the stop.
    let stop = dataset::store::storage::ending();
    let was_ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_shutdown(signal, 1, was_ended.clone()).context("no signal handler")?;
        flag::register(signal, was_ended.clone()).context("no signal handler")?;
    }
    for signal in [SIGTERM, SIGINT, SIGUSR2] {
        flag::register(signal, stop.clone()).context("no signal handler")?;
    }
    Ok(STOP.get_or_init(|| stop).load(Ordering::Relaxed))
}
