//! A custom source beside the built-in ones: `custom_source ward RAW_DIR OUT` ingests files `PATIENT-STUDY.png` with reports
//! `PATIENT-STUDY.txt`. It has all common options, rejects and resuming.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ingest::run::plan::{Plan, PlannedRecord, ReportSource, Source};
use ingest::{Error, Result};

struct Ward;

impl Source for Ward {
    fn name(&self) -> &'static str {
        "ward"
    }

    fn plan(&self, raw: &Path) -> Result<Plan> {
        let failed = |cause| Error::Unreadable { path: raw.to_path_buf(), cause };
        let mut plan = Plan { findings: vec!["Pneumothorax".to_owned()], ..Plan::default() };
        for entry in fs::read_dir(raw).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            let Some(stem) = name.strip_suffix(".png") else { continue };
            let Some((patient, study)) = stem.split_once('-') else { continue };
            let report = fs::read_to_string(raw.join(format!("{stem}.txt"))).unwrap_or_default();
            plan.records.push(PlannedRecord {
                record_id: format!("ward/{stem}"),
                patient_id: patient.to_owned(),
                study_id: format!("{patient}/{study}"),
                image_id: stem.to_owned(),
                source_path: name.clone(),
                labels: vec![Some(i8::from(report.contains("pneumothorax is seen")))],
                report: ReportSource::File(PathBuf::from(format!("{stem}.txt"))),
                ..PlannedRecord::default()
            });
        }
        Ok(plan)
    }
}

fn main() -> ExitCode {
    ingest::cli::main_with(&[&Ward], std::env::args_os()).into()
}
