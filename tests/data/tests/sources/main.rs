//! Each kind of raw directory in every form in which it is found: phantoms, the real tables, directories with another
//! layout, and faults.

mod chexpert;
mod covid;
mod custom;
mod folder;
mod folder_columns;
mod folder_table;
mod mimic_cxr;
mod nih;
mod openi;
mod rsna;
mod shared;
mod siim;
