//! The task `contrast`: images and reports as pairs, alone or beside the reconstructions of masked record modeling. Its objectives
//! (`clip`, `siglip`, `maco`, `mrm-clip`) are settings of one model; docs/objectives.md has the equations.

mod encoding;
mod evaluation;
mod objective;
mod retrieval;
mod zero_shot;

use anyhow::{Result, bail};

use super::pretrain;
use super::{
    Comparison, ComparisonRequest, DataSource, Evaluated, EvaluationOption, EvaluationRequest, Metric,
    PredictionRequest, Prepared, Request, Stage, Task,
};
use crate::config::{ConfigFile, PRESETS, PretrainConfig, objective_preset};
use crate::report::{Run, Section, metrics_section};

pub use evaluation::{ContrastReport, Direction, RetrievalScores, ZeroShotScores};
pub use objective::Contrasting;
pub use retrieval::{Ranks, ranks};
pub use zero_shot::Prompts;

/// Contrast of images and reports.
#[derive(Debug, Clone, Copy, Default)]
pub struct Contrast;

impl Task for Contrast {
    fn kind(&self) -> &'static str {
        "contrast"
    }

    fn title(&self) -> &'static str {
        "contrast"
    }

    fn stage(&self) -> Stage {
        Stage::Pretraining
    }

    fn names(&self) -> &'static [&'static str] {
        &["clip", "siglip", "maco", "mrm-clip"]
    }

    fn resolve(&self, request: &Request) -> Result<ConfigFile> {
        let preset = objective_preset(request.preset.unwrap_or(PRESETS[0]), request.task)?;
        ConfigFile::of(self.kind(), &pretrain::resolve(request, &preset)?)
    }

    fn check(&self, config: &ConfigFile) -> Result<()> {
        let config: PretrainConfig = config.read()?;
        if config.model.contrast.is_none() {
            bail!("model.contrast: a run of this kind has this section");
        }
        config.validate()
    }

    fn prepare<'a>(&self, config: &ConfigFile, source: &'a DataSource) -> Result<Prepared<'a>> {
        self.check(config)?;
        pretrain::prepare(config.read()?, source, |making| {
            let objective = Contrasting::new(&making.config.model, making.compute)?;
            Ok(Box::new(objective.in_place_loss(making.config.run.in_place_loss).record_losses(making.by_record)))
        })
    }

    fn takes_mixtures(&self) -> bool {
        true
    }

    fn evaluation_options(&self) -> &'static [EvaluationOption] {
        &[EvaluationOption::ZeroShot]
    }

    fn evaluate(&self, request: &EvaluationRequest) -> Result<Evaluated> {
        evaluation::evaluate(request)
    }

    fn metrics(&self, evaluation: &serde_json::Value) -> Result<Vec<Metric>> {
        evaluation::metrics(evaluation)
    }

    fn compare(&self, request: &ComparisonRequest) -> Result<Comparison> {
        evaluation::compare(request)
    }

    fn predict(&self, request: &PredictionRequest) -> Result<String> {
        bail!(
            "{0} is a contrast run, whose findings are prompts: `trainer evaluate --zero-shot labels:A,B` writes their scores; \
             `trainer finetune --init {0}` trains a classifier",
            request.run.display()
        )
    }

    fn curves(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("loss_contrast", "contrast loss"),
            ("loss_image", "image loss"),
            ("loss_report", "report loss"),
            ("temperature", "temperature"),
        ]
    }

    fn report(&self, runs: &[&Run]) -> Result<Vec<Section>> {
        let (mut rows, mut titles) = (Vec::new(), Vec::new());
        for run in runs {
            for evaluation in &run.evaluations {
                let metrics = self.metrics(&evaluation.json)?;
                titles = metrics.iter().map(|metric| metric.title).collect();
                rows.push((*run, evaluation, metrics.into_iter().map(|metric| metric.value).collect()));
            }
        }
        let mut sections = metrics_section("image–text retrieval and zero-shot classification", &titles, &rows);
        sections.extend(evaluation::zero_shot_sections(runs)?);
        sections.extend(pretrain::reconstruction_sections(runs)?);
        Ok(sections)
    }
}
