//! Encoders that other programs trained, and self-distillation.

mod distillation;
mod distillation_runs;
mod imports;
