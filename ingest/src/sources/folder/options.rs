//! The options of a folder's table.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::image::mask::RunForm;
use crate::run::path_names::PathNames;
use crate::sources::folder::labels::LabelWord;
use crate::sources::folder::named_column::NamedColumn;

/// A table (text separated by commas, semicolons or tabs, JSON lines, or Parquet) and the names of its columns.
#[derive(Clone, Debug, Default)]
pub struct TableOptions {
    /// Path of the table, relative to the working directory or to the raw directory; or a pattern of the paths of several
    /// tables, relative to the raw directory.
    pub table: PathBuf,
    /// The text of the table, where it is in no file. `table` is its name in rejects, messages and the manifest then, and
    /// paths are relative to the raw directory.
    pub text: Option<Vec<u8>>,
    /// Paths relative to the raw directory or to the table, absolute paths below the raw directory, or names of files
    /// anywhere below it. In Parquet also the encoded images: byte strings, or structs `{bytes, path}`.
    pub image_column: String,
    /// Identifiers of the images; without it they are made of the paths.
    pub id_column: Option<String>,
    /// Report texts, or paths of text files.
    pub report_column: Option<String>,
    /// Sections of reports and their names; the report is their texts, one after the other. Not beside `report_column`.
    pub text_columns: Vec<NamedColumn>,
    /// Patients; without it each image is a patient of its own.
    pub patient_column: Option<String>,
    /// Studies; without it each image is a study of its own.
    pub study_column: Option<String>,
    /// Views; without it they come from the DICOM headers.
    pub view_column: Option<String>,
    /// Subsets: `train`, `validate`, `test` or other words for them.
    pub subset_column: Option<String>,
    /// Sex: F, M, O or words for them.
    pub sex_column: Option<String>,
    /// Ages in years or in DICOM's form.
    pub age_column: Option<String>,
    /// Dates, or dates and times, of the studies.
    pub date_column: Option<String>,
    /// Whole numbers by which the studies of a patient are ordered in time.
    pub order_column: Option<String>,
    /// Distances of pixels in millimeters: one column, or one for rows and one for columns.
    pub spacing_columns: Vec<String>,
    /// Masks: run lengths, or paths of PNG or JPEG files.
    pub mask_columns: Vec<NamedColumn>,
    /// What the run lengths of masks mean.
    pub mask_runs: RunForm,
    /// Where the labels are from.
    pub label_origin: Option<String>,
    /// Findings: 1, 0, -1 (uncertain), common words for them, or empty.
    pub label_columns: Vec<String>,
    /// Columns of class names: each distinct class is a finding.
    pub class_columns: Vec<String>,
    /// Meaning of further words of the label columns.
    pub label_map: Vec<LabelWord>,
}

impl TableOptions {
    /// The options that were given, in the form in which a later run names those that changed.
    pub fn noted(&self, names: PathNames) -> BTreeMap<String, serde_json::Value> {
        let table = self.table.file_name().unwrap_or_default().to_string_lossy();
        let words: Vec<String> = self.label_map.iter().map(ToString::to_string).collect();
        let one = |value: &Option<String>| value.iter().cloned().collect::<Vec<_>>();
        let named = |columns: &[NamedColumn]| columns.iter().map(ToString::to_string).collect::<Vec<_>>();
        let all = [
            ("table", vec![names.stored(&table)]),
            ("image_column", vec![self.image_column.clone()]),
            ("id_column", one(&self.id_column)),
            ("report_column", one(&self.report_column)),
            ("patient_column", one(&self.patient_column)),
            ("study_column", one(&self.study_column)),
            ("view_column", one(&self.view_column)),
            ("subset_column", one(&self.subset_column)),
            ("sex_column", one(&self.sex_column)),
            ("age_column", one(&self.age_column)),
            ("text_columns", named(&self.text_columns)),
            ("date_column", one(&self.date_column)),
            ("order_column", one(&self.order_column)),
            ("spacing_columns", self.spacing_columns.clone()),
            ("mask_columns", named(&self.mask_columns)),
            (
                "mask_runs",
                if self.mask_columns.is_empty() { Vec::new() } else { vec![self.mask_runs.name().to_owned()] },
            ),
            ("label_origin", one(&self.label_origin)),
            ("label_columns", self.label_columns.clone()),
            ("class_column", self.class_columns.clone()),
            ("label_map", words),
        ];
        let given = all.into_iter().filter(|(_, values)| !values.is_empty());
        given.map(|(name, values)| (name.to_owned(), values.join(",").into())).collect()
    }
}
