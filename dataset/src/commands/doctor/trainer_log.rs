//! What a run of the trainer logged about the time of its steps.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::store::files;

/// Lines of the log that are used: the newest ones.
const NEWEST: usize = 20;

/// The log of a run, of which the dataset reads these keys.
const LOG: &str = "metrics.jsonl";

/// Means of the newest lines of a run's log.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Training {
    /// Records of a step, over all processes.
    pub step_records: f64,
    /// Seconds of a step.
    pub step_seconds: f64,
    /// Seconds of a step that the trainer waited for batches.
    pub loader_wait_seconds: f64,
    /// Batches that were ready when one was asked for.
    pub loader_ready: f64,
    /// Seconds of a step that the host spent on sending batches to the device.
    pub transfer_seconds: f64,
}

#[derive(Deserialize)]
struct Line {
    step_records: f64,
    step_s: f64,
    loader_wait_s: f64,
    loader_ready: f64,
    transfer_s: f64,
}

impl Training {
    /// Reads the log of a run.
    ///
    /// # Errors
    /// When it cannot be read, or has no line with times of steps.
    pub fn read(run: &Path) -> Result<Self> {
        let path = run.join(LOG);
        let bytes = files::read(&path, files::MAX_TABLE_BYTES)?;
        // Evaluations have lines without these keys, and a line may still be being written.
        let lines: Vec<Line> =
            bytes.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
        let newest = &lines[lines.len().saturating_sub(NEWEST)..];
        if newest.is_empty() {
            return Err(Error::Invalid(format!(
                "{}: no line has `step_s` and `loader_wait_s`: give a run of this version that has made run.log_every steps",
                path.display()
            )));
        }
        let mean = |of: fn(&Line) -> f64| newest.iter().map(of).sum::<f64>() / newest.len() as f64;
        Ok(Self {
            step_records: mean(|line| line.step_records),
            step_seconds: mean(|line| line.step_s),
            loader_wait_seconds: mean(|line| line.loader_wait_s),
            loader_ready: mean(|line| line.loader_ready),
            transfer_seconds: mean(|line| line.transfer_s),
        })
    }

    /// Images a second of the run.
    pub fn images_per_second(&self) -> f64 {
        self.step_records / self.step_seconds
    }

    /// Images a second that the device could train on if it never waited for a batch.
    pub fn device_images_per_second(&self) -> f64 {
        self.step_records / (self.step_seconds - self.loader_wait_seconds).max(f64::MIN_POSITIVE)
    }

    /// Share of a step that the trainer waited for batches.
    pub fn wait_share(&self) -> f64 {
        self.loader_wait_seconds / self.step_seconds
    }

    pub(super) fn line(&self) -> String {
        format!(
            "training    {:>9.0} images/s: {:.1} ms a step, of which {:.1} ms waiting for batches ({:.1} ready) and {:.1} ms \
             sending them",
            self.images_per_second(),
            self.step_seconds * 1e3,
            self.loader_wait_seconds * 1e3,
            self.loader_ready,
            self.transfer_seconds * 1e3
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_count_and_others_are_left_out() {
        let run = tempfile::tempdir().unwrap();
        let line = |step: u32, wait: f64| {
            format!(
                "{{\"step\":{step},\"step_records\":64,\"step_s\":0.5,\"loader_wait_s\":{wait},\"loader_ready\":1.5,\
                 \"transfer_s\":0.01,\"loss\":1}}\n"
            )
        };
        let old: String = (0..30).map(|step| line(step, 0.4)).collect();
        let new: String = (30..50).map(|step| line(step, 0.1)).collect();
        let text = format!("{old}{{\"step\":30,\"validate_auroc\":0.5}}\n{new}{{\"step\":5");
        std::fs::write(run.path().join(LOG), text).unwrap();
        let training = Training::read(run.path()).unwrap();
        assert!((training.loader_wait_seconds - 0.1).abs() < 1e-9);
        assert!((training.images_per_second() - 128.0).abs() < 1e-9);
        assert!((training.device_images_per_second() - 160.0).abs() < 1e-6);
        std::fs::write(run.path().join(LOG), "{\"step\": 1, \"loss\": 1}\n").unwrap();
        assert!(Training::read(run.path()).unwrap_err().to_string().contains("step_s"));
    }
}
