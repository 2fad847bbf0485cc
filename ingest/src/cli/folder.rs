//! The subcommand `folder`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::arguments::CommonArguments;
use super::request::Request;
use crate::sources::{Folder, LabelWord, TableOptions};

pub const EXAMPLES: &str = "Examples:\n  \
    ingest folder /raw/ward data/ward\n  \
    ingest folder /raw/ward data/ward --table list.csv --image-column file --patient-column mrn \\\n    \
    --report-column report --label-columns Effusion,Edema\n  \
    ingest folder /raw/ward data/ward --table list.csv --image-column file --label-columns Effusion \\\n    \
    --label-map 'abnormal=1,normal=0,unclear=-1' --class-column diagnosis --dry-run";

#[derive(Args)]
pub struct FolderArguments {
    #[command(flatten)]
    common: CommonArguments,
    /// Table of the images, separated by commas, semicolons or tabs, plain or gzipped. Without one, the first folder of a
    /// path is the patient.
    #[arg(long, value_name = "FILE", requires = "image_column")]
    table: Option<PathBuf>,
    /// Column of image paths (relative to RAW_DIR or to the table, or absolute), or of names of files anywhere below
    /// RAW_DIR.
    #[arg(long, value_name = "C", requires = "table")]
    image_column: Option<String>,
    /// Column of report texts, or of paths of text files.
    #[arg(long, value_name = "C", requires = "table")]
    report_column: Option<String>,
    /// Column of patients; without it every image is a patient of its own.
    #[arg(long, value_name = "C", requires = "table")]
    patient_column: Option<String>,
    /// Column of studies; without it every image is a study of its own.
    #[arg(long, value_name = "C", requires = "table")]
    study_column: Option<String>,
    /// Column of views (PA, AP, LATERAL …); without it they come from the DICOM headers.
    #[arg(long, value_name = "C", requires = "table")]
    view_column: Option<String>,
    /// Column of subsets: train, validate, test, or other words for them (training, val, dev, holdout …).
    #[arg(long, value_name = "C", requires = "table")]
    subset_column: Option<String>,
    /// Column of the sex: F, M, O, or the words.
    #[arg(long, value_name = "C", requires = "table")]
    sex_column: Option<String>,
    /// Column of the age: years (34, 34.5) or DICOM's form (034Y, 006M).
    #[arg(long, value_name = "C", requires = "table")]
    age_column: Option<String>,
    /// Columns of findings: 1, 0, -1 (uncertain) or blank, or words: yes, no, positive, absent, maybe, unknown …
    #[arg(long, value_name = "A,B", value_delimiter = ',', requires = "table")]
    label_columns: Vec<String>,
    /// Meaning of other words of the label columns: 1, 0, -1 or blank. COLUMN:WORD=CODE is for one column.
    #[arg(long, value_name = "WORD=CODE,…", value_delimiter = ',', requires = "table", allow_hyphen_values = true)]
    label_map: Vec<LabelWord>,
    /// Columns of class names (bacteria, virus, normal): each class becomes a finding, 1 in its rows and 0 in others.
    #[arg(long, value_name = "C", value_delimiter = ',', requires = "table")]
    class_column: Vec<String>,
    /// Take the patient from PatientID of the DICOM headers, which is stored unchanged.
    #[arg(long, conflicts_with = "patient_column")]
    patient_from_header: bool,
    /// Store hashes in place of paths, and in place of identifiers that are made of paths.
    #[arg(long)]
    hash_paths: bool,
    /// Write a table of each hash and its path; keep it outside of OUT.
    #[arg(long, value_name = "FILE", requires = "hash_paths")]
    path_map: Option<PathBuf>,
}

impl FolderArguments {
    /// The directory as a source. `text` is the text of the table where it is in no file.
    pub fn request(self, text: Option<Vec<u8>>) -> Request {
        let table = self.table.zip(self.image_column).map(|(table, image_column)| TableOptions {
            table,
            text,
            image_column,
            report_column: self.report_column,
            patient_column: self.patient_column,
            study_column: self.study_column,
            view_column: self.view_column,
            subset_column: self.subset_column,
            sex_column: self.sex_column,
            age_column: self.age_column,
            label_columns: self.label_columns,
            class_columns: self.class_column,
            label_map: self.label_map,
        });
        let (patient_from_header, hash_paths) = (self.patient_from_header, self.hash_paths);
        let source = Arc::new(Folder { table, patient_from_header, hash_paths });
        Request { source, arguments: self.common, path_map: self.path_map }
    }
}
