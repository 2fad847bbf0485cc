//! The subcommand `folder`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use dataset::format::record_checks;

use super::arguments::CommonArguments;
use super::request::Request;
use crate::image::mask::RunForm;
use crate::sources::{Folder, Glob, LabelWord, MaskFolder, NamedColumn, TableOptions};

pub const EXAMPLES: &str = "Examples:\n  \
    ingest folder /raw/ward data/ward\n  \
    ingest folder /raw/ward data/ward --table list.csv --image-column file \\\n    \
    --patient-column mrn --report-column report --label-columns Effusion,Edema";

#[derive(Args)]
pub struct FolderArguments {
    #[command(flatten)]
    common: CommonArguments,
    /// Table of the images: text separated by commas, semicolons or tabs, JSON lines (.jsonl), each plain or gzipped, or
    /// Parquet; or a pattern of several, relative to RAW_DIR ('data/*.parquet'). Without one, the first folder of a path is
    /// the patient.
    #[arg(long, value_name = "FILE", requires = "image_column")]
    table: Option<PathBuf>,
    /// Column of image paths (relative to RAW_DIR or to the table, or absolute), or of names of files anywhere below
    /// RAW_DIR. In Parquet also of the encoded images: bytes, or structs {bytes, path}, as Hugging Face has them.
    #[arg(long, value_name = "C", requires = "table")]
    image_column: Option<String>,
    /// Column of identifiers of the images, each in one row; without it they are made of the paths.
    #[arg(long, value_name = "C", requires = "table", conflicts_with = "hash_paths")]
    id_column: Option<String>,
    /// Column of report texts, or of paths of text files.
    #[arg(long, value_name = "C", requires = "table")]
    report_column: Option<String>,
    /// Columns of sections of reports, each with its name; the report is their texts, one after the other.
    #[arg(long, value_name = "NAME=C,…", value_delimiter = ',', requires = "table", conflicts_with = "report_column")]
    text_columns: Vec<NamedColumn>,
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
    /// Column of the age: years (34, 34.5), DICOM's form (034Y, 006M), or a range (40-44, 90+), of which the middle is stored.
    #[arg(long, value_name = "C", requires = "table")]
    age_column: Option<String>,
    /// Column of the date of the study, or date and time: 2021-03-07, 2021-03-07 14:05, 20210307, 07.03.2021.
    #[arg(long, value_name = "C", requires = "table")]
    date_column: Option<String>,
    /// Column of whole numbers by which the studies of a patient are ordered in time.
    #[arg(long, value_name = "C", requires = "table")]
    order_column: Option<String>,
    /// Column of the distance of pixels in millimeters, or one of rows and one of columns; without it that of the DICOM
    /// headers.
    #[arg(long, value_name = "C[,C]", value_delimiter = ',', requires = "table")]
    spacing_columns: Vec<String>,
    /// Columns of masks, each with its name: run lengths, or paths of PNG or JPEG files of the size of their images.
    #[arg(long, value_name = "NAME=C,…", value_delimiter = ',', requires = "table")]
    mask_columns: Vec<NamedColumn>,
    /// What the run lengths of masks mean; all go down the columns of the image.
    #[arg(long, value_enum, default_value_t, requires = "mask_columns")]
    mask_runs: RunForm,
    /// Where the labels are from: radiologist, consensus, nlp:PROGRAM …
    #[arg(long, value_name = "TEXT", requires = "table", value_parser = origin)]
    label_origin: Option<String>,
    /// Columns of findings: 1, 0, -1 (uncertain) or blank, or words: yes, no, positive, absent, maybe, unknown …
    #[arg(long, value_name = "A,B", value_delimiter = ',', requires = "table")]
    label_columns: Vec<String>,
    /// Meaning of other words of the label columns: 1, 0, -1 or blank. COLUMN:WORD=CODE is for one column.
    #[arg(long, value_name = "WORD=CODE,…", value_delimiter = ',', requires = "table", allow_hyphen_values = true)]
    label_map: Vec<LabelWord>,
    /// Columns of class names (bacteria, virus, normal): each class becomes a finding, 1 in its rows and 0 in others.
    #[arg(long, value_name = "C", value_delimiter = ',', requires = "table")]
    class_column: Vec<String>,
    /// Language of the reports: en, es, pt-BR …
    #[arg(long, value_name = "TAG", value_parser = language)]
    language: Option<String>,
    /// Only files with such a path are images: * and ? within a name, ** for any folders. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    images: Vec<Glob>,
    /// Folder of masks below RAW_DIR, PNG or JPEG files with the names of their images. Without NAME, that of the folder.
    /// May be repeated.
    #[arg(long, value_name = "FOLDER[=NAME]")]
    masks: Vec<MaskFolder>,
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

/// A tag of BCP 47.
fn language(text: &str) -> Result<String, String> {
    record_checks::language(text).map(|()| text.to_owned())
}

/// A name of an origin of labels.
fn origin(text: &str) -> Result<String, String> {
    record_checks::name("label_origin", text).map(|()| text.to_owned())
}

impl FolderArguments {
    /// The directory as a source. `text` is the text of the table where it is in no file.
    pub fn request(self, text: Option<Vec<u8>>) -> Request {
        let table = self.table.zip(self.image_column).map(|(table, image_column)| TableOptions {
            table,
            text,
            image_column,
            id_column: self.id_column,
            report_column: self.report_column,
            text_columns: self.text_columns,
            patient_column: self.patient_column,
            study_column: self.study_column,
            view_column: self.view_column,
            subset_column: self.subset_column,
            sex_column: self.sex_column,
            age_column: self.age_column,
            date_column: self.date_column,
            order_column: self.order_column,
            spacing_columns: self.spacing_columns,
            mask_columns: self.mask_columns,
            mask_runs: self.mask_runs,
            label_origin: self.label_origin,
            label_columns: self.label_columns,
            class_columns: self.class_column,
            label_map: self.label_map,
        });
        let (patient_from_header, hash_paths) = (self.patient_from_header, self.hash_paths);
        let (images, masks, language) = (self.images, self.masks, self.language);
        let source = Arc::new(Folder { table, patient_from_header, hash_paths, images, masks, language });
        Request { source, arguments: self.common, path_map: self.path_map }
    }
}
