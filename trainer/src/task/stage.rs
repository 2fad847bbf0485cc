//! Which command trains a task.

/// The command that trains a [`Task`](super::Task). Names of tasks belong to a stage: `--task` and `--objective` do not see each
/// other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// `trainer pretrain --objective NAME`: the encoder of such a run is what other runs start from.
    Pretraining,
    /// `trainer finetune --task NAME`, and `sweep`.
    Finetuning,
}

impl Stage {
    /// The option that names a task of this stage.
    pub fn option(self) -> &'static str {
        match self {
            Self::Pretraining => "--objective",
            Self::Finetuning => "--task",
        }
    }

    /// What a name after this option means, as a noun.
    pub(super) fn noun(self) -> &'static str {
        self.option().trim_start_matches('-')
    }
}
