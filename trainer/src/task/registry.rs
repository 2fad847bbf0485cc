//! The tasks of a program.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use dataset::commands::cli::UsageError;
use dataset::name_suggestion::did_you_mean;

use super::request::run_of_init;
use super::{Classify, Contrast, Dino, EvaluationOption, Pretrain, Segment, Stage, Task, Views};
use crate::config::{CommonKeys, ConfigFile, RANDOM};
use crate::train::run_dir;

/// The tasks that a program knows.
///
/// ```no_run
/// # use trainer::task::{Registry, Pretrain};
/// # type MyTask = Pretrain;
/// fn main() -> std::process::ExitCode {
///     trainer::cli::main_with(Registry::builtin().with::<MyTask>(), std::env::args_os()).into()
/// }
/// ```
pub struct Registry {
    tasks: Vec<Box<dyn Task>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::builtin()
    }
}

impl Registry {
    /// Masked record modeling, contrast, several views, self-distillation, classification, segmentation.
    pub fn builtin() -> Self {
        let tasks: Vec<Box<dyn Task>> = vec![
            Box::new(Pretrain),
            Box::new(Contrast),
            Box::new(Views),
            Box::new(Dino),
            Box::new(Classify),
            Box::new(Segment),
        ];
        Self { tasks }
    }

    /// Adds a task. One of the same kind replaces the former one.
    #[must_use]
    pub fn with<T: Task + Default + 'static>(self) -> Self {
        self.with_task(Box::new(T::default()))
    }

    /// Adds a task that needs to be made.
    #[must_use]
    pub fn with_task(mut self, task: Box<dyn Task>) -> Self {
        self.tasks.retain(|other| other.kind() != task.kind());
        self.tasks.push(task);
        self
    }

    /// All tasks.
    pub fn tasks(&self) -> impl Iterator<Item = &dyn Task> {
        self.tasks.iter().map(Box::as_ref)
    }

    /// The task of a kind.
    ///
    /// # Errors
    /// When there is none.
    pub fn of_kind(&self, kind: &str) -> Result<&dyn Task> {
        let kinds = || self.tasks().map(Task::kind);
        self.tasks().find(|task| task.kind() == kind).with_context(|| {
            format!("this program has no task of kind `{kind}`; it has: {}", kinds().collect::<Vec<_>>().join(", "))
        })
    }

    /// The tasks that a command trains.
    fn of_stage(&self, stage: Stage) -> impl Iterator<Item = &dyn Task> {
        self.tasks().filter(move |task| task.stage() == stage)
    }

    /// The task that a name after the option of a stage means: `--task NAME` of fine-tuning, `--objective NAME` of
    /// pre-training.
    ///
    /// # Errors
    /// When there is none: an error of usage.
    pub fn named(&self, stage: Stage, name: &str) -> Result<&dyn Task> {
        for task in self.of_stage(stage) {
            if task.takes(name).map_err(UsageError::of)? {
                return Ok(task);
            }
        }
        let names = self.of_stage(stage).flat_map(|task| task.names().iter().copied());
        let nearest = did_you_mean(name, names.filter(|name| !name.contains(':')));
        Err(UsageError::of(anyhow!("no {} `{name}`; there are: {}{nearest}", stage.noun(), self.names(stage))))
    }

    /// The names that the option of a stage takes: `nih14, … (classification); siim (segmentation)`.
    pub fn names(&self, stage: Stage) -> String {
        let named = self.of_stage(stage).filter(|task| !task.names().is_empty());
        named.map(|task| format!("{} ({})", task.names().join(", "), task.title())).collect::<Vec<_>>().join("; ")
    }

    /// Titles of the tasks that have an option of `evaluate`.
    pub(crate) fn with_option(&self, option: EvaluationOption) -> String {
        let with_it = self.tasks().filter(|task| task.evaluation_options().contains(&option));
        with_it.map(Task::title).collect::<Vec<_>>().join(" and ")
    }

    /// The configuration of a run, checked by its task. That of a kind which this program does not have is read as far as
    /// other runs need it.
    ///
    /// # Errors
    /// When the folder is no run, or its configuration is damaged.
    pub fn load(&self, run: &Path) -> Result<ConfigFile> {
        let config = run_dir::load_config(run)?;
        let place = || run_dir::config_path(run).display().to_string();
        match self.of_kind(config.kind()) {
            Ok(task) => task.check(&config).with_context(place)?,
            Err(_) => config.common().map(|_| ()).with_context(place)?,
        }
        Ok(config)
    }

    /// Preset and encoder of the run that pretrained weights belong to, for [`Request::model`](super::Request::model); none
    /// for random initialization and for a file that is in no run.
    ///
    /// # Errors
    /// When they are a folder that is no run, or its configuration is damaged.
    pub fn pretrained(&self, init: Option<&Path>) -> Result<Option<CommonKeys>> {
        let Some(init) = init.filter(|init| *init != Path::new(RANDOM) || init.exists()) else { return Ok(None) };
        run_of_init(init).map(|run| self.load(&run)?.common()).transpose()
    }

    /// The task and the checked configuration of a run.
    ///
    /// # Errors
    /// When the folder is no run, its configuration is damaged, or this program lacks its task.
    pub fn open(&self, run: &Path) -> Result<(&dyn Task, ConfigFile)> {
        let config = self.load(run)?;
        match self.of_kind(config.kind()) {
            Ok(task) => Ok((task, config)),
            Err(error) => bail!("{}: {error}", run.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{DataSource, Prepared, Request};

    /// An objective of a program's own.
    #[derive(Default)]
    struct Own;

    impl Task for Own {
        fn kind(&self) -> &'static str {
            "own"
        }

        fn title(&self) -> &'static str {
            "an objective of one's own"
        }

        fn stage(&self) -> Stage {
            Stage::Pretraining
        }

        fn names(&self) -> &'static [&'static str] {
            &["jigsaw", "nih14"]
        }

        fn resolve(&self, _: &Request) -> Result<ConfigFile> {
            bail!("never asked for")
        }

        fn check(&self, _: &ConfigFile) -> Result<()> {
            Ok(())
        }

        fn prepare<'a>(&self, _: &ConfigFile, _: &'a DataSource) -> Result<Prepared<'a>> {
            bail!("never asked for")
        }
    }

    #[test]
    fn other_programs_add_objectives() {
        let registry = Registry::builtin().with::<Own>();
        assert_eq!(registry.named(Stage::Pretraining, "jigsaw").unwrap().kind(), "own");
        assert!(registry.names(Stage::Pretraining).ends_with("; jigsaw, nih14 (an objective of one's own)"));
        // A task and an objective of one name do not hide each other.
        assert_eq!(registry.named(Stage::Pretraining, "nih14").unwrap().kind(), "own");
        assert_eq!(registry.named(Stage::Finetuning, "nih14").unwrap().kind(), "classify");
        assert!(registry.named(Stage::Finetuning, "jigsaw").is_err());
    }

    #[test]
    fn names_and_kinds_lead_to_their_task() {
        let registry = Registry::builtin();
        for (name, kind) in [("nih14", "classify"), ("labels:Edema,Hernia", "classify"), ("siim", "segment")] {
            assert_eq!(registry.named(Stage::Finetuning, name).unwrap().kind(), kind);
            assert_eq!(registry.of_kind(kind).unwrap().kind(), kind);
        }
        let error = |name: &str| registry.named(Stage::Finetuning, name).err().unwrap().to_string();
        assert!(error("CheXpert5").ends_with("did you mean `chexpert5`?"));
        assert!(error("labels:A,A").contains("give each finding once"));
        assert!(error("everything").contains("there are: nih14, chexpert5, "));
        assert!(error("pretrain").starts_with("no task `pretrain`"));
        assert!(error("mrm").starts_with("no task `mrm`"), "an objective is no task");
        assert_eq!(registry.named(Stage::Pretraining, "mrm").unwrap().kind(), "pretrain");
        let error = registry.named(Stage::Pretraining, "nih14").err().unwrap().to_string();
        assert!(error.starts_with("no objective `nih14`; there are: mrm (pre-training); clip, siglip, "), "{error}");
        let error = registry.of_kind("age").err().unwrap().to_string();
        assert!(error.contains("it has: pretrain, contrast, views, dino, classify, segment"), "{error}");
        assert_eq!(registry.with_option(EvaluationOption::MinArea), "segmentation");
        assert_eq!(registry.with::<Segment>().tasks().count(), 6);
    }
}
