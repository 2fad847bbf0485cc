//! What a run did.

use dataset::format::manifest::Manifest;

use crate::reject::Stage;
use crate::run::check_sums::CheckedFiles;
use crate::run::guards::Guards;

/// Result of a run.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The manifest of the dataset.
    pub manifest: Manifest,
    /// The dataset was complete before this run, from the same input; nothing was written.
    pub already_done: bool,
    /// Shards that an earlier run had finished.
    pub resumed_shards: usize,
    /// Rejects of the plan that do not count in [`Summary::reject_rate`], because
    /// [`Options::limit`](crate::run::Options::limit) took only a part of its records.
    pub uncounted_rejects: u64,
    /// Rejects that the system refused to read:
    /// [`Options::retry_rejects`](crate::run::Options::retry_rejects) tries them again.
    pub refused: u64,
    /// Records without a view because the ViewPosition of their DICOM header is no view code.
    pub unknown_views: u64,
    /// Suspicious records that were kept; empty where the dataset was complete before.
    pub guards: Guards,
    /// How the files that were read compare with their published checksums; `None` without
    /// [`Options::check_sums`](crate::run::Options::check_sums), and where the dataset was complete before.
    pub checked: Option<CheckedFiles>,
}

impl Summary {
    /// That of a run which found a complete dataset of the same input.
    pub(crate) fn of_complete(manifest: Manifest, uncounted_rejects: u64, refused: u64) -> Self {
        Self {
            manifest,
            already_done: true,
            resumed_shards: 0,
            uncounted_rejects,
            refused,
            unknown_views: 0,
            guards: Guards::default(),
            checked: None,
        }
    }

    /// Share of the inputs that were rejected, 0..1. Rejects of stage `report` do not count: their images are kept.
    pub fn reject_rate(&self) -> f64 {
        let is_lost = |(stage, _): &(&String, &u64)| stage.as_str() != Stage::Report.name();
        let rejected: u64 = self.manifest.rejects.iter().filter(is_lost).map(|(_, count)| count).sum();
        let rejected = rejected.saturating_sub(self.uncounted_rejects);
        rejected as f64 / (self.manifest.totals.records + rejected).max(1) as f64
    }
}
