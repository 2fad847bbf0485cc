//! Labels of CheXpert Plus, `{findings,impression,report}_fixed.json`: JSON lines of what CheXbert found in a part of the
//! report, by image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::chexpert_names::Name;
use crate::error::{Error, Result};
use crate::file_system::is_file;
use crate::reject::Reject;
use crate::run::plan::label_codes;
use crate::sources::shared::json_lines;
use crate::sources::shared::table::{texts, texts_or_null};

/// The column of the image.
const PATH: &str = "path_to_image";
/// The folder that the published archive unpacks to.
const FOLDER: &str = "chexbert_labels";

/// The part of the report that labels are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LabeledPart {
    /// `findings_fixed.json`.
    Findings,
    /// `impression_fixed.json`.
    Impression,
    /// `report_fixed.json`.
    Report,
}

impl LabeledPart {
    /// Name in the file name, in the manifest and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Findings => "findings",
            Self::Impression => "impression",
            Self::Report => "report",
        }
    }
}

/// The labels of one file.
pub struct PartLabels {
    /// The findings that it has.
    pub findings: Vec<String>,
    /// Codes by [`Name::key`], in the order of `findings`.
    codes: BTreeMap<String, Vec<Option<i8>>>,
}

impl PartLabels {
    /// Reads the file of a part from the first of these folders that has it, or its folder `chexbert_labels`.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn read(raw: &Path, folders: &[PathBuf], part: LabeledPart, rejects: &mut Vec<Reject>) -> Result<Self> {
        let name = format!("{}_fixed.json", part.name());
        let places = folders.iter().flat_map(|folder| [folder.join(&name), folder.join(FOLDER).join(&name)]);
        let mut path = None;
        for place in places {
            if path.is_none() && is_file(&place)? {
                path = Some(place);
            }
        }
        let path = path.ok_or_else(|| Error::MissingTable {
            folder: raw.to_path_buf(),
            wanted: format!("{name}, here or in {FOLDER}/"),
            remedy: "leave out --labels or add the labels of CheXpert Plus".to_owned(),
        })?;
        let mut table = json_lines::read(raw, &path, &[PATH])?;
        rejects.append(&mut table.rejects);
        let names = table.frame.get_column_names().into_iter().map(ToString::to_string);
        let findings: Vec<String> = names.filter(|name| name != PATH).collect();
        let columns: Vec<_> = findings.iter().map(|finding| texts_or_null(&table.frame, finding)).collect();
        let mut codes = BTreeMap::new();
        for (row, path) in texts(&table.frame, PATH)?.into_iter().enumerate() {
            let Some(image) = path.and_then(Name::parse) else {
                rejects.push(table.reject(row, format!("{PATH} does not contain patient and study")));
                continue;
            };
            match label_codes(&findings, columns.iter().map(|column| column[row])) {
                Ok(labels) => drop(codes.insert(image.key(), labels)),
                Err(error) => {
                    rejects.push(table.reject(row, format!("{error}; its image is kept without these labels")));
                }
            }
        }
        Ok(Self { findings, codes })
    }

    /// The labels of an image, in the order of the plan's `findings`; `None` where the file does not have it.
    pub fn of(&self, key: &str, findings: &[String]) -> Option<Vec<Option<i8>>> {
        let codes = self.codes.get(key)?;
        let code = |finding: &String| self.findings.iter().position(|own| own == finding).and_then(|at| codes[at]);
        Some(findings.iter().map(code).collect())
    }
}
