//! Common parts of several sources: tables, directory walks, layouts.

pub(crate) mod challenge;
pub(crate) mod label_origins;
pub(crate) mod mimic_tree;
pub mod table;
pub(crate) mod walk;
