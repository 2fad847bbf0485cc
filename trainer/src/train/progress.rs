//! Progress of a run: images/s, losses and time left.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::train::step::StepMetrics;

/// Seconds between two plain progress lines.
const PLAIN_PAUSE: f64 = 10.0;

/// A progress bar on the standard error; where that is no terminal, a line from time to time.
pub(super) struct Progress {
    bar: ProgressBar,
    plain: bool,
    started: Instant,
    last_line: Instant,
    images: usize,
    steps: u64,
}

impl Progress {
    /// Progress of `steps` steps, of which `done` are made; if not `shown`, it only counts.
    pub(super) fn new(steps: u64, done: u64, shown: bool) -> Self {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(steps), target);
        if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} {msg}, {eta} left") {
            bar.set_style(style);
        }
        bar.set_position(done);
        bar.reset_eta();
        let plain = shown && !std::io::IsTerminal::is_terminal(&std::io::stderr());
        Self { bar, plain, started: Instant::now(), last_line: Instant::now(), images: 0, steps }
    }

    /// Images a second since the start.
    pub(super) fn images_per_second(&self) -> f64 {
        self.images as f64 / self.started.elapsed().as_secs_f64()
    }

    /// Counts a step of so many images.
    pub(super) fn advance(&mut self, images: usize) {
        self.images += images;
        self.bar.inc(1);
    }

    /// Shows the metrics of the newest step; returns a line to print where there is no bar and a line is due.
    pub(super) fn show(&mut self, metrics: &StepMetrics) -> Option<String> {
        let mut message = format!("loss {:.4}", metrics.loss);
        for (name, value) in &metrics.parts {
            message += &format!(" {} {value:.4}", name.trim_start_matches("loss_"));
        }
        message += &format!(", {:.0} images/s", self.images_per_second());
        let due = self.plain && self.last_line.elapsed().as_secs_f64() >= PLAIN_PAUSE;
        let line = due.then(|| {
            self.last_line = Instant::now();
            format!("{}/{} {message}, {} s left", self.bar.position(), self.steps, self.bar.eta().as_secs())
        });
        self.bar.set_message(message);
        line
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
