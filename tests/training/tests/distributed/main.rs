//! Training in several processes, started by the real `torchrun`, by the variables that launchers set, and by Slurm.

mod distillation;
mod interruptions;
mod launch;
mod numbers;
mod refusals;
mod slurm;
