//! The table of CheXpert Plus, `df_chexpert_plus_*.csv`: reports and their sections. Of the columns about the patient only sex
//! and age are read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chexpert_names::{Name, sex_code, view};
use crate::dicom::header::years;
use crate::error::Result;
use crate::reject::Reject;
use crate::run::plan::ReportSource;
use crate::sources::shared::table::{Table, tables, texts, texts_or_null};

const PREFIX: &str = "df_chexpert_plus";

/// The sections with a column each, `section_NAME`, in the order of a report. The number of the examination is left out.
const SECTIONS: [&str; 10] = [
    "narrative",
    "clinical_history",
    "history",
    "comparison",
    "technique",
    "procedure_comments",
    "findings",
    "impression",
    "end_of_impression",
    "summary",
];

/// The row of an image.
#[derive(Clone, Default)]
pub struct PlusRow {
    /// `train/patient00001/study1/view1_frontal.jpg`.
    pub path: String,
    /// Path of the same image as DICOM.
    pub dicom: Option<String>,
    pub subset: Option<String>,
    pub view: Option<String>,
    pub sex: Option<String>,
    pub age_years: Option<f32>,
    pub study_order: Option<u32>,
    pub report: ReportSource,
}

/// The table's rows by [`Name::key`].
#[derive(Default)]
pub struct Plus {
    rows: BTreeMap<String, PlusRow>,
}

impl Plus {
    /// The table in this folder, the newest if there are several.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn table(folder: &Path) -> Result<Option<PathBuf>> {
        Ok(tables(folder, |name| name.starts_with(PREFIX))?.pop())
    }

    /// Reads the table.
    ///
    /// # Errors
    /// When it cannot be read or lacks `path_to_image` or `report`.
    pub fn read(raw: &Path, path: &Path, rejects: &mut Vec<Reject>) -> Result<Self> {
        let mut table = Table::read(raw, path, &["path_to_image", "report"])?;
        rejects.append(&mut table.rejects);
        let frame = &table.frame;
        let (path, report) = (texts(frame, "path_to_image")?, texts(frame, "report")?);
        let column = |name: &str| texts_or_null(frame, name);
        let sections: Vec<_> = SECTIONS.iter().map(|name| (*name, column(&format!("section_{name}")))).collect();
        let (dicom, split) = (column("path_to_dcm"), column("split"));
        let (side, projection, sex, age) = (column("frontal_lateral"), column("ap_pa"), column("sex"), column("age"));
        let order = column("patient_report_date_order");
        let mut rows = BTreeMap::new();
        for row in 0..frame.height() {
            let path = path[row].unwrap_or_default();
            let Some(name) = Name::parse(path) else {
                rejects.push(table.reject(row, "path_to_image does not contain patient and study"));
                continue;
            };
            let plus_row = PlusRow {
                path: path.to_owned(),
                dicom: dicom[row].map(str::to_owned),
                subset: match split[row] {
                    Some("valid") => Some("validate".to_owned()),
                    other => other.map(str::to_owned),
                },
                view: view(side[row], projection[row]),
                sex: sex_code(sex[row]),
                age_years: age[row].and_then(years),
                study_order: order[row].and_then(whole),
                report: report_of(
                    report[row],
                    sections.iter().filter_map(|(name, column)| Some((*name, column[row]?))).collect(),
                ),
            };
            if rows.insert(name.key(), plus_row).is_some() {
                rejects.push(table.reject(row, format!("{path} is listed twice; the last row is used")));
            }
        }
        Ok(Self { rows })
    }

    /// Takes out the row of an image.
    pub fn take(&mut self, key: &str) -> Option<PlusRow> {
        self.rows.remove(key)
    }

    /// The rows that were not taken, in the order of their keys.
    pub fn rest(self) -> impl Iterator<Item = PlusRow> {
        self.rows.into_values()
    }
}

/// A number of a table, which may be written `3.0`.
fn whole(text: &str) -> Option<u32> {
    text.strip_suffix(".0").unwrap_or(text).parse().ok()
}

/// The whole text if the table has it, else the findings and the impression with their headings; and all sections.
fn report_of(report: Option<&str>, sections: Vec<(&str, &str)>) -> ReportSource {
    let headed = || {
        let main = sections.iter().filter(|(name, _)| ["findings", "impression"].contains(name));
        let lines: Vec<String> = main.map(|(name, text)| format!("{}: {text}", name.to_uppercase())).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    };
    match report.map(str::to_owned).or_else(headed) {
        Some(text) => ReportSource::Sections {
            text: Arc::from(text),
            sections: sections.into_iter().map(|(name, text)| (name.replace('_', " "), Arc::from(text))).collect(),
        },
        None => ReportSource::None,
    }
}
