//! Public sets that the source `folder` reads with the commands of docs/datasets.md.

use std::collections::BTreeMap;
use std::path::Path;

use dataset::Dataset;
use helpers::pages::page;
use helpers::{binary, folder, label_codes, records_by_id, rejects, text, write_file, write_png};

use crate::shared::verifies;

/// Runs the commands of a section of docs/datasets.md in a folder that has its raw data under `raw/`.
fn run_section(section: &str, place: &Path) {
    let page = page("docs/datasets.md");
    let own =
        page.split(&format!("\n## {section}\n")).nth(1).expect("a section").split("\n## ").next().expect("a section");
    let commands = own.split("```\n").find(|block| block.contains("ingest folder")).expect("a command");
    let folder = binary("ingest");
    let path =
        format!("{}:{}", folder.parent().expect("a folder").display(), std::env::var("PATH").unwrap_or_default());
    let commands = commands.replace("/raw/", "raw/");
    let run = std::process::Command::new("bash").args(["-ec", &commands]).current_dir(place).env("PATH", path).output();
    let run = run.expect("bash starts");
    assert!(run.status.success(), "{commands}\n{}\n{}", text(&run.stdout), text(&run.stderr));
}

#[test]
fn brax_is_read_by_folder() {
    let temporary = folder();
    let raw = temporary.path().join("raw/brax");
    let header = "DicomPath,PngPath,PatientID,PatientSex,PatientAge,StudyDate,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,\
                  Lung Lesion,Lung Opacity,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,\
                  Fracture,Support Devices,Manufacturer,AccessionNumber,Rows,Columns,ViewPosition";
    let image = |number: usize, kind: &str| {
        let (folder, ending) = if kind == "dcm" { ("Anonymized_DICOMs", "dcm") } else { ("images", "png") };
        format!("{folder}/id_{number}/Study_1.{number}/Series_1.{number}.1/image-1.{number}.1.1.{ending}")
    };
    let rows = [
        (1, "F", "35", "20140203", "1.0,,,,,,,,,,,,,", "PA"),
        (2, "M", "80", "20150406", ",,1.0,,-1.0,,,,,0.0,1.0,,,", "L"),
    ];
    let lines = rows.map(|(number, sex, age, date, labels, view)| {
        let (dicom, png) = (image(number, "dcm"), image(number, "png"));
        write_png(&raw.join(&png), 96, 80);
        format!("{dicom},{png},id_{number},{sex},{age},{date},{labels},Philips,acc{number},80,96,{view}\n")
    });
    write_file(&raw.join("master_spreadsheet_update.csv"), format!("{header}\n{}", lines.concat()));
    run_section("BRAX", temporary.path());
    let out = temporary.path().join("data/brax");
    assert_eq!(rejects(&out), []);
    verifies(&out);
    let dataset = Dataset::open(&out).expect("a dataset");
    let findings: Vec<&str> = header.split(',').skip(6).take(14).map(str::trim).collect();
    assert_eq!(dataset.findings(), findings);
    let found: BTreeMap<String, _> =
        records_by_id(&out).into_values().map(|record| (record.patient_id.clone(), record)).collect();
    for (number, sex, age, date, labels, view) in rows {
        let record = &found[&format!("id_{number}")];
        assert_eq!(record.source_path, image(number, "png"));
        assert_eq!(record.study_id, format!("id_{number}/acc{number}"));
        assert_eq!((record.sex.as_deref(), record.age_years), (Some(sex), age.parse().ok()));
        assert_eq!(record.study_datetime, Some(format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..])));
        assert_eq!(record.view.as_deref(), Some(view));
        let codes: Vec<Option<i8>> =
            labels.split(',').map(|code| code.parse::<f32>().ok().map(|code| code as i8)).collect();
        assert_eq!(label_codes(record), codes);
        assert_eq!(record.label_origin.as_deref(), Some("nlp:chexpert"));
    }
}

#[test]
fn hannovers_covid_repository_is_read_by_folder() {
    let temporary = folder();
    let raw = temporary.path().join("raw/covid-19-image-repository");
    let header = "patient_id,image_id,sex,age,size,weight,admission_offset,icu_admission_offset,icu_release_offset,death_offset,\
                  modality,projection,crp_offset,crp_val,d-dimer_offset,d-dimer_val,factor_xii_offset,factor_xii_val,ldh_offset,\
                  ldh_val,lymphocytes_offset,lymphocytes_val,neutrophils_offset,neutrophils_val,pco2_offset,pco2_val,po2_offset,\
                  po2_val";
    let rows = [
        "042f06a9,b343e657,m,,,,0,0.0,4.0,,CR,ap,0.0,5.0,,,0.0,145.0,,,,,,,0.0,45.0,0.0,55.0",
        "042f06a9,c9280a30,m,,,,-2,-2.0,2.0,,CR,ap,0.0,38.0,,,-2.0,145.0,,,,,,,-1.0,40.0,-1.0,80.0",
        "0a359802,61bc50d1,f,,,,0,0.0,1.0,,DX,pa,0.0,-inf,,,0.0,45.0,,,,,,,0.0,45.0,0.0,40.0",
    ];
    write_file(&raw.join("data.csv"), format!("{header}\n{}\n", rows.join("\n")));
    rows.iter()
        .for_each(|row| write_png(&raw.join(format!("png/{}.png", row.split(',').nth(1).expect("an image"))), 80, 64));
    run_section("Hannover's COVID-19 image repository", temporary.path());
    let out = temporary.path().join("data/hannover");
    assert_eq!(rejects(&out), []);
    verifies(&out);
    let found = records_by_id(&out);
    assert_eq!(found.len(), 3);
    for row in rows {
        let fields: Vec<&str> = row.split(',').collect();
        let record = found.values().find(|record| record.image_id == fields[1]).expect("a record");
        assert_eq!(
            (record.patient_id.as_str(), record.source_path.clone()),
            (fields[0], format!("png/{}.png", fields[1]))
        );
        assert_eq!(record.sex, Some(fields[2].to_uppercase()));
        assert_eq!((record.view.as_deref(), record.age_years), (Some(fields[11]), None));
        assert!(record.labels.iter().all(Option::is_none));
    }
}
