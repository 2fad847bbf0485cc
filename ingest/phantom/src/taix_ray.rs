//! The layout of TAIX-Ray: PNG files, a table of grades, and a table of five folds.

use std::path::Path;

use dataset::progress::OnProgress;

use crate::disease::{Finding, Kind, Side};
use crate::files::{each_study, hexadecimal, png_file};
use crate::patient::{Patient, Study};
use crate::table::Table;
use crate::{Error, Summary, radiograph};

/// Columns of `annotation.csv`.
pub const COLUMNS: [&str; 14] = [
    "UID",
    "PatientID",
    "PhysicianID",
    "StudyDate",
    "Age",
    "Sex",
    "HeartSize",
    "PulmonaryCongestion",
    "PleuralEffusion_Right",
    "PleuralEffusion_Left",
    "PulmonaryOpacities_Right",
    "PulmonaryOpacities_Left",
    "Atelectasis_Right",
    "Atelectasis_Left",
];
const FOLDS: usize = 5;

/// Writes the whole set. Files that exist are complete and are kept.
pub(crate) fn write(out: &Path, plan: &[Patient], progress: &OnProgress) -> Result<Summary, Error> {
    let rows = each_study(plan, progress, |patient, study| {
        let image = &study.images[0];
        let uid = format!("{0}{0}", hexadecimal(image));
        png_file(&out.join("data").join(format!("{uid}.png")), || radiograph::render(patient, study, image))?;
        Ok((patient.index, row(patient, study, uid)))
    })?;
    let metadata = out.join("metadata");
    let mut annotations = Table::new(&metadata.join("annotation.csv"), &COLUMNS)?;
    for (_, row) in &rows {
        annotations.row(&row.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    annotations.finish()?;
    let mut splits = Table::new(&metadata.join("split.csv"), &["UID", "PatientID", "Fold", "Split"])?;
    for fold in 0..FOLDS {
        for (patient, row) in &rows {
            // In each fold another fifth of the patients is for testing.
            let split = match (patient + fold) % FOLDS {
                0 => "test",
                1 => "val",
                _ => "train",
            };
            splits.row(&[&row[0], &row[1], &fold.to_string(), split])?;
        }
    }
    splits.finish()?;
    Ok(Summary { patients: plan.len(), studies: rows.len(), images: rows.len() })
}

fn row(patient: &Patient, study: &Study, uid: String) -> Vec<String> {
    let worst = |is_wanted: &dyn Fn(&Finding) -> bool| {
        let severities = study.findings.iter().filter(|finding| is_wanted(finding)).map(|finding| finding.severity);
        severities.fold(None, |worst: Option<f32>, own| Some(worst.map_or(own, |worst| worst.max(own))))
    };
    // 0 none, 1 (+), 2 +, 3 ++, 4 +++
    let grade = |severity: Option<f32>| severity.map_or(0, |severity| 1 + (severity * 3.99) as u32).to_string();
    let on = |kind: Kind, side: Side| {
        grade(worst(&|finding| finding.kind == kind && [side, Side::Both].contains(&finding.side)))
    };
    let cell = |column: &&str| match *column {
        "UID" => uid.clone(),
        "PatientID" => format!("{:064x}", patient.seed),
        "PhysicianID" => format!("{:064x}", study.wording % 134),
        "StudyDate" => format!("{}-{:02}-{:02}", 2010 + study.day / 365, study.day / 30 % 12 + 1, study.day % 28 + 1),
        // The table states days.
        "Age" => ((patient.age * 365.25) as u32 + study.day).to_string(),
        "Sex" => patient.sex.letter().to_owned(),
        "HeartSize" => worst(&|finding| finding.kind == Kind::Cardiomegaly)
            .map_or(0, |severity| 1 + (severity * 2.99) as u32)
            .to_string(),
        "PulmonaryCongestion" => grade(worst(&|finding| finding.kind == Kind::Edema)),
        "PleuralEffusion_Right" => on(Kind::PleuralEffusion, Side::Right),
        "PleuralEffusion_Left" => on(Kind::PleuralEffusion, Side::Left),
        "PulmonaryOpacities_Right" => on(Kind::LungOpacity, Side::Right),
        "PulmonaryOpacities_Left" => on(Kind::LungOpacity, Side::Left),
        "Atelectasis_Right" => on(Kind::Atelectasis, Side::Right),
        _ => on(Kind::Atelectasis, Side::Left),
    };
    COLUMNS.iter().map(cell).collect()
}
