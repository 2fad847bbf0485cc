//! Each kind of raw directory in every form in which it is found: phantoms, the real tables, directories with another
//! layout, and faults.

mod candid_ptx;
mod chexpert;
mod covid;
mod custom;
mod folder;
mod folder_columns;
mod folder_table;
mod image_tables;
mod kermany;
mod mimic_cxr;
mod nih;
mod nlm_tb;
mod openi;
mod padchest;
mod padchest_gr;
mod rexgradient;
mod rsna;
mod shared;
mod siim;
mod siim_covid;
mod table_away;
mod taix_ray;
mod vindr;
