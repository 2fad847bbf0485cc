//! A layout of no data set: `patient0001/study01/film1.dcm`, without extension or as PNG, a text file beside each, and a table
//! `films.csv` of all images.

use std::path::Path;

use dataset::progress::OnProgress;

use crate::disease::Kind;
use crate::files::{dicom_file, each_study, plain_header, png_file};
use crate::patient::Patient;
use crate::table::Table;
use crate::{Error, Summary, radiograph, report, write_file};

/// Columns of `films.csv` before those of the findings.
const COLUMNS: [&str; 6] = ["file", "report", "patient", "study", "view", "subset"];

/// Writes the whole set. Files that exist are complete and are kept.
pub(crate) fn write(out: &Path, plan: &[Patient], progress: &OnProgress) -> Result<Summary, Error> {
    let rows = each_study(plan, progress, |patient, study| {
        let name = format!("patient{:04}", patient.index + 1);
        let number = patient.studies.iter().position(|own| own.index == study.index).unwrap_or_default() + 1;
        let report = report::write(patient, study, &radiograph::anatomy(patient, study));
        let mut rows = Vec::new();
        for (i, image) in study.images.iter().enumerate() {
            let stem = format!("{name}/study{number:02}/film{}", i + 1);
            let ending = [".dcm", "", ".png"][(study.index + i) % 3];
            let file = format!("{stem}{ending}");
            let render = || radiograph::render(patient, study, image);
            if ending == ".png" {
                png_file(&out.join(&file), render)?;
            } else {
                let header = plain_header(&name, &format!("{name}-{number}"), i + 1);
                dicom_file(&out.join(&file), render, image, patient, &header)?;
            }
            let text = format!("{stem}.txt");
            if !out.join(&text).is_file() {
                write_file(&out.join(&text), report.text.as_bytes())?;
            }
            let study = format!("study{number:02}");
            let mut row: Vec<String> = vec![file, text, name.clone(), study, image.view.name().into()];
            row.push(patient.subset.name().to_owned());
            let code = |kind| report.label(kind).map_or_else(String::new, |code: i8| code.to_string());
            row.extend(Kind::ALL.map(code));
            rows.push(row);
        }
        Ok(rows)
    })?;
    let header: Vec<&str> = COLUMNS.into_iter().chain(Kind::ALL.map(Kind::name)).collect();
    let mut table = Table::new(&out.join("films.csv"), &header)?;
    for row in rows.iter().flatten() {
        table.row(&row.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    table.finish()?;
    Ok(Summary { patients: plan.len(), studies: rows.len(), images: rows.iter().map(Vec::len).sum() })
}
