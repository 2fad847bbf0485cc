//! Shows progress on stderr: a bar with rate and time left on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub use crate::progress::{Canceled, OnProgress, Progress};

/// Pause between two plain lines.
const PLAIN_PAUSE: Duration = Duration::from_secs(10);

/// A progress bar with rate and time left, or plain lines where stderr is not a terminal.
pub struct Meter {
    bar: ProgressBar,
    unit: &'static str,
    plain: Option<Mutex<Instant>>,
}

impl Meter {
    /// A meter that counts in a unit, such as `records` or `studies`; `bytes` are shown as MB.
    pub fn new(unit: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let counts = match unit {
            "bytes" => "{bytes}/{total_bytes}, {bytes_per_sec}".to_owned(),
            unit => format!("{{human_pos}}/{{human_len}} {unit}, {{per_sec}}"),
        };
        let template = format!("{{elapsed_precise}} {{wide_bar}} {counts}, {{eta}} left");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        let plain = (!std::io::stderr().is_terminal()).then(|| Mutex::new(Instant::now()));
        Self { bar, unit, plain }
    }

    /// Updates the meter; never cancels.
    ///
    /// # Errors
    /// None.
    pub fn step(&self, step: Progress) -> Result<(), Canceled> {
        match step {
            Progress::Started { records, done } => {
                self.bar.set_length(records);
                self.bar.set_position(done);
                self.bar.reset_elapsed();
                self.bar.reset_eta();
            }
            Progress::Advanced(records) => self.bar.inc(records),
            Progress::Working => return Ok(()),
        }
        if let Some(Ok(mut last)) = self.plain.as_ref().map(Mutex::lock)
            && last.elapsed() >= PLAIN_PAUSE
        {
            *last = Instant::now();
            let (position, length) = (self.bar.position(), self.bar.length().unwrap_or(0));
            let (rate, left) = (self.bar.per_sec(), self.bar.eta().as_secs());
            let line = match self.unit {
                "bytes" => format!("{}/{} MB, {:.1} MB/s", position / 1_000_000, length / 1_000_000, rate / 1e6),
                unit => format!("{position}/{length} {unit}, {rate:.1}/s"),
            };
            let _ = writeln!(std::io::stderr(), "{line}, {left} s left");
        }
        Ok(())
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
