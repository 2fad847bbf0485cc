//! Common parts of several sources: tables, directory walks, layouts.

pub(crate) mod challenge;
pub(crate) mod dates;
pub(crate) mod files_by_name;
pub(crate) mod json;
pub(crate) mod json_lines;
pub(crate) mod label_origins;
pub(crate) mod mimic_tree;
pub(crate) mod parquet_table;
pub(crate) mod python_literal;
pub(crate) mod report_sections;
pub(crate) mod run_lengths;
pub mod table;
pub(crate) mod table_builder;
pub(crate) mod table_file;
pub(crate) mod walk;
