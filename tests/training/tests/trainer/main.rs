//! `trainer` as a user runs it.

mod augmentation;
mod classification_metrics;
mod command_line;
mod contrast;
mod custom_task;
mod embedding;
mod evaluation;
mod faults;
mod finetuning;
mod gpu_check;
mod joins;
mod mixture;
mod notebooks;
mod object_store;
mod peers;
mod pretraining;
mod probe;
mod recipes;
mod report_page;
mod reproduce;
mod resume;
mod robustness;
mod segmentation;
mod soak;
mod splits;
mod studies;
