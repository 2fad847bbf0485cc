//! What a sample consists of: crops, the views of a study, texts.

use crate::loader::builder::LoaderBuilder;
use crate::loader::settings::{TextOptions, TextSource};
use crate::loader::studies::StudyOptions;
use crate::loader::token_weights::TokenWeights;
use crate::transform::pipeline::Transform;

impl LoaderBuilder {
    /// Makes several crops of each image, too: for each group a transform and how many crops it makes
    /// ([`Batch::crops`](crate::Batch::crops)). The image is read and decoded once. Each crop of a record has random numbers of
    /// its own, and masks and boxes belong to the image of [`transform`](Self::transform). Default: none.
    pub fn crops(mut self, groups: Vec<(Transform, usize)>) -> Self {
        self.settings.crops = groups;
        self
    }

    /// Makes a sample of each study, in place of each record: of all chosen rows with the same patient and study. Default: a
    /// sample is a record.
    ///
    /// A sample has `views + prior` images, each with random numbers of its own; views have those that their records have in a
    /// loader of records. Its labels are those of all its records: positive where one is positive, else uncertain, else
    /// negative; its report is the first one in the order of its views. The prior study is the latest earlier one of the same
    /// patient among the chosen rows, so that no split leaks: by `study_datetime`, in a study without one by `study_order`; all
    /// of it is before all of the other. An empty slot is zero ([`Batch::view_mask`](crate::Batch::view_mask)). Studies come in
    /// the order of their first rows, or shuffled; an epoch, a batch, the share of a rank, and what is left out when a row cannot
    /// be read are counted in studies.
    pub fn studies(mut self, studies: StudyOptions) -> Self {
        self.settings.studies = Some(studies);
        self
    }

    /// Loads reports, too. Default: images and labels only.
    pub fn text(self, text: TextOptions) -> Self {
        self.texts(vec![(TextSource::Report, text)])
    }

    /// Loads several texts of each sample, each with its own tokens and masks ([`Batch::text`](crate::Batch::text)). Those of one
    /// sample are masked, and their sentences are drawn, by random numbers of their own. Default: none.
    pub fn texts(mut self, texts: Vec<(TextSource, TextOptions)>) -> Self {
        self.settings.texts = texts;
        self
    }

    /// Gives the weight of each token of the texts, too ([`Batch::token_weights`](crate::Batch::token_weights)). Default: no
    /// weights.
    pub fn token_weights(mut self, weights: TokenWeights) -> Self {
        self.token_weights = Some(weights);
        self
    }
}
