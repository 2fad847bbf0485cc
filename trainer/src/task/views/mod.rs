//! The task `views`: masked record modeling over the views of a study (`mvmae`, with its report `mvmae-v2t`). It is a setting of
//! masked record modeling's model; docs/objectives.md has the equations.

mod objective;

use anyhow::{Result, bail};

use super::pretrain;
use super::{PredictionRequest, Prepared, Request, Stage, Task};
use crate::config::{ConfigFile, PRESETS, PretrainConfig, objective_preset};
use crate::report::{Run, Section};
use crate::task::DataSource;

pub use objective::ViewModeling;

/// Reconstruction and alignment of the views of a study.
#[derive(Debug, Clone, Copy, Default)]
pub struct Views;

impl Task for Views {
    fn kind(&self) -> &'static str {
        "views"
    }

    fn title(&self) -> &'static str {
        "multi-view pre-training"
    }

    fn stage(&self) -> Stage {
        Stage::Pretraining
    }

    fn names(&self) -> &'static [&'static str] {
        &["mvmae", "mvmae-v2t"]
    }

    fn resolve(&self, request: &Request) -> Result<ConfigFile> {
        let preset = objective_preset(request.preset.unwrap_or(PRESETS[0]), request.task)?;
        ConfigFile::of(self.kind(), &pretrain::resolve(request, &preset)?)
    }

    fn check(&self, config: &ConfigFile) -> Result<()> {
        let config: PretrainConfig = config.read()?;
        if config.model.views.is_none() {
            bail!("model.views: a run of this kind has this section");
        }
        config.validate()
    }

    fn prepare<'a>(&self, config: &ConfigFile, source: &'a DataSource) -> Result<Prepared<'a>> {
        self.check(config)?;
        pretrain::prepare(config.read()?, source, |making| {
            let objective = ViewModeling::new(&making.config.model, making.steps, making.compute)?;
            Ok(Box::new(objective.in_place_loss(making.config.run.in_place_loss).record_losses(making.by_record)))
        })
    }

    fn predict(&self, request: &PredictionRequest) -> Result<String> {
        bail!(
            "{0} is a run of {1}, which knows no findings; `trainer finetune --init {0}` trains a classifier",
            request.run.display(),
            self.title()
        )
    }

    fn takes_mixtures(&self) -> bool {
        true
    }

    fn curves(&self) -> &'static [(&'static str, &'static str)] {
        &[("loss_image", "image loss"), ("loss_report", "report loss"), ("loss_alignment", "alignment of views")]
    }

    fn report(&self, runs: &[&Run]) -> Result<Vec<Section>> {
        pretrain::reconstruction_sections(runs)
    }
}
