//! What a process of a job does when it fails: it reports to the others and to the launcher.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::launcher::Launch;
use super::watchdog::Job;
use super::{error_file, join};
use crate::error::ModelError;
use crate::torch::c10d::C10dError;

/// The process with the store stays so long for the others to read why it failed.
const UNTIL_READ: Duration = Duration::from_secs(2);

/// The job of this process, from the time it has joined.
static JOB: OnceLock<Arc<Job>> = OnceLock::new();

pub(super) fn watch(job: &Arc<Job>) {
    let _ = JOB.set(job.clone());
}

/// Whether an error means that another process was lost.
pub fn was_lost(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.is::<C10dError>() || matches!(cause.downcast_ref(), Some(ModelError::Collective(_))))
}

/// Reports an error of this process to the others and to the launcher; returns the message to print. For an error that only
/// follows from another process's, the message names that process. Does nothing in a run of one process.
pub fn report(message: &str, lost: bool) -> String {
    let Ok(Some(launch)) = Launch::from_environment() else { return message.to_owned() };
    let Some(job) = JOB.get() else {
        error_file::write(message);
        join::fail(&launch, message);
        return format!("rank {}: {message}", launch.rank);
    };
    let own = job.name(job.rank);
    // The time that this takes lets the launcher see the process first that failed first.
    let culprit = if lost { job.post_mortem() } else { None };
    let follows = culprit.is_some();
    let message = culprit.map_or_else(|| message.to_owned(), |(rank, why)| format!("{} {why}", job.name(rank)));
    job.fail(&message, follows);
    error_file::write(&message);
    if job.server.is_some() {
        std::thread::sleep(UNTIL_READ);
    }
    format!("{own}: {message}")
}
