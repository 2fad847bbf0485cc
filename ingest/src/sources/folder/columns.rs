//! The columns of a folder's table that were named, and the records of its rows.

use std::path::Path;
use std::sync::Arc;

use dataset::name_suggestion::nearest;
use polars::prelude::PlSmallStr;

use crate::error::{Error, Result};
use crate::image::mask::Runs;
use crate::run::plan::{MaskSource, PlannedMask, PlannedRecord, ReportSource};
use crate::sources::folder::cells;
use crate::sources::folder::labels::{Findings, Values};
use crate::sources::folder::named_column::NamedColumn;
use crate::sources::folder::options::TableOptions;
use crate::sources::folder::paths::{PathResolver, RowError};
use crate::sources::shared::table::{Table, texts};

/// The values of the columns that were named.
pub struct Columns<'a> {
    pub image: Values<'a>,
    pub id: Option<Values<'a>>,
    report: Option<Values<'a>>,
    pub patient: Option<Values<'a>>,
    pub study: Option<Values<'a>>,
    view: Option<Values<'a>>,
    subset: Option<Values<'a>>,
    sex: Option<Values<'a>>,
    age: Option<Values<'a>>,
    date: Option<Values<'a>>,
    order: Option<Values<'a>>,
    spacing: Vec<Values<'a>>,
    texts: Vec<(&'a str, Values<'a>)>,
    masks: Vec<(&'a str, Values<'a>)>,
    pub findings: Findings<'a>,
    options: &'a TableOptions,
}

impl<'a> Columns<'a> {
    pub fn of(table: &'a Table, path: &Path, options: &'a TableOptions) -> Result<Self> {
        let values = |name: &str| -> Result<Values<'a>> {
            let names = || table.frame.get_column_names().into_iter().map(PlSmallStr::as_str);
            if names().any(|found| found == name) {
                return texts(&table.frame, name);
            }
            let nearest: Vec<String> = nearest(name, names()).into_iter().map(|name| format!("`{name}`")).collect();
            Err(Error::UnknownColumn { path: path.to_path_buf(), column: name.to_owned(), nearest: nearest.join(", ") })
        };
        let optional = |name: &Option<String>| name.as_deref().map(values).transpose();
        let named = |names: &'a [String]| -> Result<Vec<(&'a str, Values<'a>)>> {
            names.iter().map(|name| Ok((name.as_str(), values(name)?))).collect()
        };
        let with_names = |columns: &'a [NamedColumn]| -> Result<Vec<(&'a str, Values<'a>)>> {
            columns.iter().map(|named| Ok((named.name.as_str(), values(&named.column)?))).collect()
        };
        let (labels, classes) = (named(&options.label_columns)?, named(&options.class_columns)?);
        let findings = Findings::new(labels, classes, &options.label_map);
        Ok(Self {
            image: values(&options.image_column)?,
            id: optional(&options.id_column)?,
            report: optional(&options.report_column)?,
            patient: optional(&options.patient_column)?,
            study: optional(&options.study_column)?,
            view: optional(&options.view_column)?,
            subset: optional(&options.subset_column)?,
            sex: optional(&options.sex_column)?,
            age: optional(&options.age_column)?,
            date: optional(&options.date_column)?,
            order: optional(&options.order_column)?,
            spacing: options.spacing_columns.iter().map(|name| values(name)).collect::<Result<_>>()?,
            texts: with_names(&options.text_columns)?,
            masks: with_names(&options.mask_columns)?,
            findings: findings.map_err(|message| Error::Table { path: path.to_path_buf(), message })?,
            options,
        })
    }

    /// The record of a row, without the fields that are made of its identifier.
    pub fn record(&self, row: usize, source_path: String, paths: &PathResolver) -> Result<PlannedRecord, RowError> {
        let text = |column: &Option<Values>| column.as_ref().and_then(|values| values[row]).map(str::to_owned);
        let needed = |column: &Option<Values>, name: &str| match (column, text(column)) {
            (Some(_), None) => Err(format!("the {name} column is empty")),
            (_, value) => Ok(value.unwrap_or_default()),
        };
        let name = |name: &'a Option<String>| name.as_deref().unwrap_or_default();
        let options = self.options;
        let subset = text(&self.subset).map(|text| cells::subset(name(&options.subset_column), &text)).transpose()?;
        let sex = text(&self.sex).map(|text| cells::sex(name(&options.sex_column), &text)).transpose()?;
        let age = text(&self.age).map(|text| cells::age(name(&options.age_column), &text)).transpose()?;
        let date = text(&self.date).map(|text| cells::datetime(name(&options.date_column), &text)).transpose()?;
        let order = text(&self.order).map(|text| cells::order(name(&options.order_column), &text)).transpose()?;
        let spacing: Option<Vec<&str>> = self.spacing.iter().map(|values| values[row]).collect();
        let spacing = cells::pixel_spacing(&options.spacing_columns.join(","), &spacing.unwrap_or_default())?;
        let patient_id = needed(&self.patient, "patient")?;
        let study_id = needed(&self.study, "study")?;
        Ok(PlannedRecord {
            // Names of studies may repeat from patient to patient.
            study_id: if patient_id.is_empty() { study_id } else { format!("{patient_id}/{study_id}") },
            patient_id,
            source_path,
            subset,
            view: text(&self.view),
            sex: sex.flatten(),
            age_years: age.flatten(),
            study_datetime: date.flatten(),
            study_order: order.flatten(),
            pixel_spacing: spacing,
            labels: self.findings.row(row)?,
            label_origin: options.label_origin.clone(),
            masks: self.masks(row, paths)?,
            report: match text(&self.report) {
                Some(text) => paths.report(text)?,
                None => self.sections(row),
            },
            ..PlannedRecord::default()
        })
    }

    /// The report of the columns of sections.
    fn sections(&self, row: usize) -> ReportSource {
        let named = self.texts.iter().filter_map(|(name, values)| Some((*name, values[row]?)));
        let sections: Vec<(String, Arc<str>)> = named.map(|(name, text)| (name.to_owned(), text.into())).collect();
        if sections.is_empty() {
            return ReportSource::None;
        }
        let text = sections.iter().map(|(_, text)| text.as_ref()).collect::<Vec<_>>().join("\n");
        ReportSource::Sections { text: text.into(), sections }
    }

    /// The masks of a row: run lengths, or paths of image files; none where a cell is empty.
    fn masks(&self, row: usize, paths: &PathResolver) -> Result<Vec<PlannedMask>, RowError> {
        let is_runs = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b' ' || byte == b'-');
        let mut masks = Vec::new();
        for (name, values) in &self.masks {
            let Some(text) = values[row] else { continue };
            let pixels = if is_runs(text) {
                let runs = Runs::parse_as(text, self.options.mask_runs);
                MaskSource::Runs(runs.map_err(|error| format!("the mask `{name}`: {error}"))?)
            } else {
                MaskSource::File(paths.mask(text)?)
            };
            masks.push(PlannedMask { name: (*name).to_owned(), pixels });
        }
        Ok(masks)
    }
}
