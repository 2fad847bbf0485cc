//! PadChest: 16-bit PNG files in numbered folders (`0/`, `images/0/` …) and `PADCHEST_chest_x_ray_images_labels_160K_*.csv[.gz]`
//! with Spanish reports and labels as list literals.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use crate::dicom::header::sex;
use crate::error::{Error, Result};
use crate::reject::{Reject, Stage};
use crate::run::plan::{Plan, PlannedRecord, ReportSource, Source};
use crate::sources::shared::files_by_name::{files_by, name};
use crate::sources::shared::label_origins::{PADCHEST, PHYSICIAN};
use crate::sources::shared::table::{Table, tables, texts, texts_or_null};
use crate::sources::shared::walk::{Walk, is_name};
use crate::sources::shared::{dates, python_literal};

/// What the table's name begins with.
const TABLE: &str = "PADCHEST_chest_x_ray_images_labels";
const REQUIRED: [&str; 4] = ["ImageID", "PatientID", "StudyID", "Labels"];
const OPTIONAL: [&str; 8] = [
    "ImageDir",
    "StudyDate_DICOM",
    "PatientBirth",
    "PatientSex_DICOM",
    "Projection",
    "SpatialResolution_DICOM",
    "Report",
    "MethodLabel",
];
/// Labels by which the authors exclude an image.
const EXCLUDING: [&str; 2] = ["exclude", "suboptimal study"];
/// The projection by which the authors exclude an image.
const EXCLUDED_PROJECTION: &str = "EXCLUDE";
/// Highest age in years; a larger one is an error of the table.
const MAX_AGE: u32 = 130;

/// The source `padchest`.
#[derive(Clone, Debug)]
pub struct Padchest {
    /// Ingest the table without images.
    pub no_images: bool,
    /// Labels of fewer images are no findings.
    pub min_label_count: usize,
}

impl Source for Padchest {
    fn name(&self) -> &'static str {
        "padchest"
    }

    fn options(&self) -> BTreeMap<String, serde_json::Value> {
        BTreeMap::from([("min_label_count".to_owned(), self.min_label_count.into())])
    }

    fn plan(&self, raw: &Path) -> Result<Plan> {
        let path = tables(raw, |name| name.starts_with(TABLE))?.pop().ok_or_else(|| Error::MissingTable {
            folder: raw.to_path_buf(),
            wanted: format!("{TABLE}_160K_01.02.19.csv[.gz]"),
            remedy: "give the directory of PadChest".to_owned(),
        })?;
        let mut table = Table::read_some(raw, &path, &REQUIRED, &OPTIONAL)?;
        let mut rejects = std::mem::take(&mut table.rejects);
        let labels = RowLabels::of(&table, self.min_label_count)?;
        // The texts of a million cells take as much memory as their records.
        table.frame.drop_in_place("Labels")?;
        let mut files = BTreeMap::new();
        if !self.no_images {
            let walk = Walk::of(raw, raw, &["png"])?;
            rejects.extend(walk.rejects);
            files = files_by(walk.files, name, &mut rejects);
        }
        let columns = Columns::of(&table)?;
        let mut records = Vec::with_capacity(table.frame.height());
        for row in 0..table.frame.height() {
            let Some(mut record) = columns.record(row) else {
                rejects.push(table.reject(row, "ImageID, PatientID or StudyID is empty or no plain name"));
                continue;
            };
            if let Some((path, bytes)) = files.remove(&record.image_id) {
                (record.source_path, record.source_bytes) = (path, Some(bytes));
            }
            match labels.codes(row).and_then(|codes| columns.usable(row).map(|()| codes)) {
                Ok(codes) => records.push(PlannedRecord { labels: codes, ..record }),
                Err(error) => {
                    let (source_path, record_id) = (record.source_path, Some(record.record_id));
                    rejects.push(Reject { source_path, record_id, stage: Stage::Table, error });
                }
            }
        }
        rejects.extend(files.into_values().map(|(path, _)| Reject::unlisted(path)));
        let mut plan =
            Plan { records, rejects, findings: labels.findings, arguments: self.options(), ..Plan::default() };
        plan.finalize();
        Ok(plan)
    }
}

/// The columns of the table that become columns of records.
struct Columns<'a> {
    image: Vec<Option<&'a str>>,
    patient: Vec<Option<&'a str>>,
    study: Vec<Option<&'a str>>,
    folder: Vec<Option<&'a str>>,
    date: Vec<Option<&'a str>>,
    birth: Vec<Option<&'a str>>,
    sex: Vec<Option<&'a str>>,
    projection: Vec<Option<&'a str>>,
    spacing: Vec<Option<&'a str>>,
    report: Vec<Option<&'a str>>,
    method: Vec<Option<&'a str>>,
}

impl<'a> Columns<'a> {
    fn of(table: &'a Table) -> Result<Self> {
        let needed = |name| texts(&table.frame, name);
        let optional = |name| texts_or_null(&table.frame, name);
        Ok(Self {
            image: needed("ImageID")?,
            patient: needed("PatientID")?,
            study: needed("StudyID")?,
            folder: optional("ImageDir"),
            date: optional("StudyDate_DICOM"),
            birth: optional("PatientBirth"),
            sex: optional("PatientSex_DICOM"),
            projection: optional("Projection"),
            spacing: optional("SpatialResolution_DICOM"),
            report: optional("Report"),
            method: optional("MethodLabel"),
        })
    }

    /// The record of a row without its labels; `None` where an identifier is missing.
    fn record(&self, row: usize) -> Option<PlannedRecord> {
        let image = self.image[row].filter(|image| is_name(image))?;
        let study_datetime = self.date[row].and_then(dates::of_text);
        let report = self.report[row];
        Some(PlannedRecord {
            record_id: format!("padchest/{image}"),
            patient_id: self.patient[row]?.to_owned(),
            study_id: self.study[row]?.to_owned(),
            image_id: image.to_owned(),
            source_path: format!("{}/{image}", self.folder[row].filter(|folder| is_name(folder)).unwrap_or("images")),
            view: self.projection[row].and_then(view),
            sex: self.sex[row].and_then(sex),
            age_years: study_datetime.as_deref().and_then(|day| age(day, self.birth[row]?)),
            study_datetime,
            pixel_spacing: self.spacing[row].and_then(spacing),
            label_origin: self.method[row].and_then(origin),
            language: Some("es".to_owned()),
            report: report.map_or(ReportSource::None, |text| ReportSource::Text(Arc::from(text))),
            ..PlannedRecord::default()
        })
    }

    /// Whether the authors use the image.
    fn usable(&self, row: usize) -> Result<(), String> {
        match self.projection[row] {
            Some(EXCLUDED_PROJECTION) => Err("the projection is EXCLUDE: not a view of the chest".to_owned()),
            _ => Ok(()),
        }
    }
}

/// The labels of all rows, as indices of findings.
struct RowLabels {
    findings: Vec<String>,
    /// For each row the places of its labels among `findings`; `None` where it has no list.
    rows: Vec<Result<Option<Vec<u16>>, String>>,
}

impl RowLabels {
    fn of(table: &Table, min_count: usize) -> Result<Self> {
        let mut numbers: HashMap<String, u16> = HashMap::new();
        let mut counts: Vec<usize> = Vec::new();
        let mut rows = Vec::with_capacity(table.frame.height());
        for (row, cell) in texts(&table.frame, "Labels")?.into_iter().enumerate() {
            let Some(cell) = cell else {
                rows.push(Ok(None));
                continue;
            };
            let named = python_literal::texts(cell).map_err(|error| format!("{}: Labels: {error}", table.place(row)));
            let excluding =
                |named: &Vec<String>| EXCLUDING.into_iter().find(|label| named.iter().any(|name| name == label));
            rows.push(named.and_then(|named| {
                if let Some(label) = excluding(&named) {
                    return Err(format!("labeled `{label}`: the authors leave this image out"));
                }
                let mut own = Vec::with_capacity(named.len());
                for name in named {
                    let next = u16::try_from(numbers.len()).map_err(|_| "the table has too many labels".to_owned())?;
                    let number = *numbers.entry(name).or_insert(next);
                    if !own.contains(&number) {
                        own.push(number);
                    }
                    if usize::from(number) == counts.len() {
                        counts.push(0);
                    }
                }
                own.iter().for_each(|&number| counts[usize::from(number)] += 1);
                Ok(Some(own))
            }));
        }
        let frequent: BTreeMap<String, u16> =
            numbers.into_iter().filter(|(_, number)| counts[usize::from(*number)] >= min_count).collect();
        let mut places = vec![None; counts.len()];
        for (place, number) in frequent.values().enumerate() {
            places[usize::from(*number)] = u16::try_from(place).ok();
        }
        for own in rows.iter_mut().flatten().flatten() {
            *own = own.iter().filter_map(|&number| places[usize::from(number)]).collect();
        }
        Ok(Self { findings: frequent.into_keys().collect(), rows })
    }

    /// The codes of a row: 1 for its labels, 0 for the others; null for all without a list.
    fn codes(&self, row: usize) -> Result<Vec<Option<i8>>, String> {
        let own = self.rows[row].as_ref().map_err(Clone::clone)?;
        let mut codes = vec![own.as_ref().map(|_| 0); self.findings.len()];
        own.iter().flatten().for_each(|&place| codes[usize::from(place)] = Some(1));
        Ok(codes)
    }
}

/// The view of a projection.
fn view(projection: &str) -> Option<String> {
    let view = match projection {
        "L" => "LATERAL",
        "AP_horizontal" => "AP HORIZONTAL",
        EXCLUDED_PROJECTION | "UNK" => return None,
        view => view,
    };
    Some(view.to_owned())
}

/// Where the labels of a report are from.
fn origin(method: &str) -> Option<String> {
    match method {
        "Physician" => Some(PHYSICIAN.to_owned()),
        "RNN_model" => Some(PADCHEST.to_owned()),
        _ => None,
    }
}

/// Years from the year of birth (`1930.0`) to that of the study.
fn age(day: &str, birth: &str) -> Option<f32> {
    let year = day.get(..4)?.parse::<u32>().ok()?;
    let birth = birth.parse::<f32>().ok().filter(|birth| birth.fract() == 0.0 && *birth >= 0.0)? as u32;
    year.checked_sub(birth).filter(|age| *age <= MAX_AGE).map(|age| age as f32)
}

/// Millimeters between pixels, the same in both directions.
fn spacing(text: &str) -> Option<[f32; 2]> {
    let spacing = text.parse::<f32>().ok().filter(|spacing| spacing.is_finite() && *spacing > 0.0)?;
    Some([spacing; 2])
}
