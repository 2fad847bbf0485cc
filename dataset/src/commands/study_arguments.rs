//! Studies as samples, on the command line.

use clap::Args;

use crate::loader::{StudyOptions, ViewChoice};

/// Options of studies as samples.
#[derive(Args, Clone, Debug, Default)]
pub struct StudyArguments {
    /// Make a sample of each study, in place of each record.
    #[arg(long)]
    studies: bool,
    /// Views of a study; a study with fewer has empty places [default: 2].
    #[arg(long, value_name = "V", requires = "studies", value_parser = clap::value_parser!(u64).range(1..=64))]
    views: Option<u64>,
    /// Draw the views of a study that has more, in place of the first ones (PA, AP, frontal, lateral, others).
    #[arg(long, requires = "studies")]
    random_views: bool,
    /// Views of the patient's latest earlier study [default: 0].
    #[arg(long, value_name = "P", requires = "studies", value_parser = clap::value_parser!(u64).range(0..=64))]
    prior: Option<u64>,
}

impl StudyArguments {
    /// The options; none where a sample is a record.
    pub fn options(&self) -> Option<StudyOptions> {
        let default = StudyOptions::default();
        self.studies.then(|| StudyOptions {
            views: self.views.map_or(default.views, |views| views as usize),
            choose: if self.random_views { ViewChoice::Random } else { ViewChoice::First },
            prior: self.prior.map_or(default.prior, |prior| prior as usize),
        })
    }
}
