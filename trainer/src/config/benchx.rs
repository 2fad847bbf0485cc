//! BenchX's recipe of classification, from its presets.

use anyhow::{Context, Result};
use serde::Deserialize;
use toml::Table;

use super::{RecipeLength, merge};

const BASE: &str = include_str!("presets/classify/benchx.toml");
const TINY: &str = include_str!("presets/classify/benchx-tiny.toml");

/// The content of the files.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Benchx {
    /// Sections of a configuration, laid over those of the release.
    settings: Table,
    /// The length of runs.
    pub length: RecipeLength,
    /// Keys of `[optimizer]` by task.
    tasks: Table,
}

impl Benchx {
    /// The recipe for a preset.
    pub fn of(preset: &str) -> Result<Self> {
        let mut table: Table = BASE.parse()?;
        if preset == "mrm-vit-tiny" {
            merge(&mut table, TINY.parse()?);
            // The lengths and rates of published data sets are those of the large model.
            table.insert("tasks".to_owned(), Table::new().into());
        }
        table.try_into().context("the preset of BenchX's recipe")
    }

    /// Lays the settings for a task over a configuration.
    pub fn lay_over(&self, config: &mut Table, task: &str) {
        merge(config, self.settings.clone());
        if let Some(of_task) = self.tasks.get(task) {
            let mut section = Table::new();
            section.insert("optimizer".to_owned(), of_task.clone());
            merge(config, section);
        }
    }

    /// The length of runs of a task; findings of the user's own have a cosine that ends with the run.
    pub fn length_of(&self, task: &str) -> RecipeLength {
        let cosine_steps = if self.tasks.contains_key(task) { self.length.cosine_steps } else { 0 };
        RecipeLength { cosine_steps, ..self.length.clone() }
    }
}
