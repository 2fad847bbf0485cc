//! The source `openi`.

use std::collections::BTreeMap;
use std::fs;

use dataset::Dataset;
use helpers::{args, fails, files_with, folder, ingest, phantom_of, real_data, records, rejects};
use ingest::run::plan::Source;
use ingest::sources::OpenI;

use crate::shared::{no_images, says};

#[test]
fn sections_and_terms_come_from_the_xml() {
    let temporary = folder();
    let raw = phantom_of("openi", temporary.path(), 30);
    let out = temporary.path().join("set");
    ingest("openi", &raw, &out, &[]);
    assert_eq!(rejects(&out), []);
    let records = records(&out);
    let images = files_with(&raw, ".png");
    assert_eq!(records.len(), images.len());
    assert!(images.len() > 30);
    let dataset = Dataset::open(&out).expect("a dataset");
    assert!(dataset.findings().is_sorted() && dataset.findings().iter().any(|name| name == "No Finding"));
    assert_eq!(dataset.manifest().totals.studies, 30);
    let mut without_headings = 0;
    for record in &records {
        assert_eq!(record.source_path, format!("NLMCXR_png/{}.png", record.image_id));
        assert_eq!(record.image_id.split('_').next(), Some(format!("CXR{}", record.patient_id).as_str()));
        assert_eq!(record.study_id, record.patient_id);
        let xml = fs::read_to_string(raw.join(format!("ecgen-radiology/{}.xml", record.patient_id))).expect("a report");
        let report = record.report.as_deref().expect("a report");
        let mut lines = report.lines();
        for label in ["COMPARISON", "INDICATION", "FINDINGS", "IMPRESSION"] {
            let open = format!("<AbstractText Label=\"{label}\">");
            let Some((_, rest)) = xml.split_once(&open) else {
                without_headings += usize::from(label == "INDICATION");
                continue;
            };
            let text =
                rest.split_once('<').expect("an end").0.replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&");
            assert_eq!(lines.next(), Some(format!("{label}: {text}").as_str()));
            match label {
                "FINDINGS" => assert_eq!(record.findings.as_deref(), Some(text.as_str())),
                "IMPRESSION" => assert_eq!(record.impression.as_deref(), Some(text.as_str())),
                _ => {}
            }
        }
        assert_eq!(lines.next(), None);
        for (finding, code) in dataset.findings().iter().zip(helpers::label_codes(record)) {
            let term = if finding == "No Finding" { "normal" } else { finding };
            let named = xml.contains(&format!("<major>{term}<")) || xml.contains(&format!("<major>{term}/"));
            assert_eq!(code, Some(i8::from(named)), "{finding}");
        }
        assert!(record.token_ids.len() > 10);
        assert_eq!(record.label_origin.as_deref(), Some("indexer"));
    }
    assert!(without_headings > 0);
    let short = temporary.path().join("short");
    ingest("openi", &raw, &short, &["--report-text", "impression"]);
    assert!(helpers::records(&short).iter().all(|record| record.report == record.impression));
}

#[test]
fn faults_are_rejects() {
    let temporary = folder();
    let raw = phantom_of("openi", temporary.path(), 16);
    let images = files_with(&raw, ".png");
    let of = |number: usize| -> Vec<&String> {
        images.iter().filter(|image| image.contains(&format!("/CXR{number}_"))).collect()
    };
    let xml = |number: usize| raw.join(format!("ecgen-radiology/{number}.xml"));
    let text = fs::read_to_string(xml(1)).expect("a report");
    fs::write(xml(1), &text[..text.len() / 2]).expect("written");
    fs::remove_file(raw.join(of(2)[0])).expect("removed");
    fs::copy(raw.join(of(3)[0]), raw.join("NLMCXR_png/CXR99_IM-1-1.png")).expect("copied");
    fs::copy(raw.join(of(3)[0]), raw.join("ecgen-radiology/CXR3_1_IM-0003-1001.png")).expect("copied");
    let text = fs::read_to_string(xml(4)).expect("a report");
    let bare: String =
        text.lines().filter(|line| !line.contains("parentImage")).map(|line| format!("{line}\n")).collect();
    fs::write(xml(4), bare).expect("written");
    let text = fs::read_to_string(xml(5))
        .expect("a report")
        .replace("<major>", "<automatic>")
        .replace("</major>", "</automatic>");
    fs::write(xml(5), text).expect("written");
    fs::copy(xml(6), raw.join("ecgen-radiology/6-again.xml")).expect("copied");
    let out = temporary.path().join("set");
    ingest("openi", &raw, &out, &["--max-reject-rate", "1"]);
    says(&out, "ecgen-radiology/1.xml", "table", "malformed XML");
    for image in of(1).into_iter().chain(of(4)) {
        says(&out, image, "plan", "no report lists this image");
    }
    says(&out, of(2)[0], "read", "listed, but the file is missing");
    says(&out, "NLMCXR_png/CXR99_IM-1-1.png", "plan", "no report lists this image");
    says(&out, "ecgen-radiology/CXR3_1_IM-0003-1001.png", "plan", "another file of this image is used");
    says(&out, "ecgen-radiology/4.xml", "report", "the report lists no image, so it has no record");
    assert!(rejects(&out).iter().filter(|reject| reject.error.contains("listed twice")).count() == of(6).len());
    assert_eq!(rejects(&out).len(), 1 + of(1).len() + 1 + 1 + 1 + 1 + of(4).len() + of(6).len());
    let records = records(&out);
    assert_eq!(records.len(), images.len() - of(1).len() - 1 - of(4).len());
    let unlabeled = records.iter().filter(|record| record.patient_id == "5");
    assert!(unlabeled.clone().count() > 0 && unlabeled.clone().all(|r| r.labels.iter().all(Option::is_none)));
    fs::create_dir(temporary.path().join("empty")).expect("a folder");
    let message = fails("ingest", 1, args!["openi", temporary.path().join("empty"), temporary.path().join("x")]);
    assert!(message.contains("no report (*.xml); give the directory"), "{message}");
}

#[test]
fn all_real_reports_are_ingested() {
    let Some(data) = real_data() else { return };
    let temporary = folder();
    let status = std::process::Command::new("tar")
        .arg("xzf")
        .arg(data.join("openi-reports/NLMCXR_reports.tgz"))
        .arg("-C")
        .arg(temporary.path())
        .status();
    assert!(status.expect("tar").success());
    let raw = temporary.path().join("ecgen-radiology");
    let out = temporary.path().join("set");
    let dataset = no_images("openi", &raw, &out, &[]);
    assert_eq!(rejects(&out), []);
    let column = |name: &str| dataset.texts(name).expect("a column");
    let (study, image) = (column("study_id"), column("image_id"));
    let images: usize = [446, 2 * 3_208, 3 * 181, 4 * 15, 5].iter().sum();
    assert_eq!(dataset.len(), images + 104, "an entry for each image, and one for each report without images");
    let is_alone = |row: usize| image[row] == study[row].as_ref().map(|number| format!("CXR{number}"));
    assert_eq!((0..dataset.len()).filter(|row| is_alone(*row)).count(), 104);
    let reports: BTreeMap<&str, usize> =
        study.iter().enumerate().map(|(row, study)| (study.as_deref().expect("a study"), row)).collect();
    assert_eq!(reports.len(), 3_955);
    let (report, findings, impression) = (column("report"), column("findings"), column("impression"));
    let with = |heading: &str| {
        let heading = format!("{heading}: ");
        let stated = |row: &&usize| {
            report[**row].as_deref().is_some_and(|text| text.lines().any(|line| line.starts_with(&heading)))
        };
        reports.values().filter(stated).count()
    };
    let counts = ["COMPARISON", "INDICATION", "FINDINGS", "IMPRESSION"].map(with);
    assert_eq!(counts, [3_333, 3_865, 3_425, 3_921]);
    let stated = |column: &[Option<String>]| reports.values().filter(|row| column[**row].is_some()).count();
    assert_eq!((stated(&findings), stated(&impression)), (3_425, 3_921));
    let labels = helpers::dataset_codes(&dataset);
    let count = |finding: &str| {
        let at = dataset.findings().iter().position(|name| name == finding).expect("a finding");
        reports.values().filter(|row| labels[**row][at] == Some(1)).count()
    };
    // As many files contain `<major>normal<`, and so on.
    assert_eq!([count("No Finding"), count("Cardiomegaly"), count("Pneumothorax")], [1_391, 375, 23]);
    assert_eq!(dataset.findings().len(), 118);
    let is_open = |row: &&usize| labels[**row].iter().all(Option::is_none);
    assert_eq!(reports.values().filter(is_open).count(), 95, "not indexed");
    assert_eq!(
        report[reports["1"]].as_deref(),
        Some(
            "COMPARISON: None.\nINDICATION: Positive TB test\nFINDINGS: The cardiac silhouette and mediastinum size are \
             within normal limits. There is no pulmonary edema. There is no focal consolidation. There are no XXXX of a \
             pleural effusion. There is no evidence of pneumothorax.\nIMPRESSION: Normal chest x-XXXX."
        )
    );
}

#[test]
fn every_dicom_file_has_its_report() {
    let Some(data) = real_data() else { return };
    let temporary = folder();
    let archive = data.join("openi-reports/NLMCXR_reports.tgz");
    let status = std::process::Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(temporary.path()).status();
    assert!(status.expect("tar").success());
    let plan = || OpenI { reports_alone: false }.plan(temporary.path()).expect("a plan");
    // As the DICOM download names them: `2_IM-0652-1001`, and for the first report `1_IM-0001-3001`.
    for record in plan().records {
        let name = record.image_id.strip_prefix("CXR1_1_").map_or_else(
            || record.image_id.strip_prefix("CXR").expect("the collection's prefix").to_owned(),
            |rest| format!("1_{rest}"),
        );
        fs::write(temporary.path().join(format!("{name}.dcm")), "a radiograph").expect("written");
    }
    let plan = plan();
    assert_eq!(plan.records.len(), 7_470);
    assert!(plan.records.iter().all(|record| record.source_bytes == Some(12)));
    assert!(plan.rejects.iter().all(|reject| reject.error == "the report lists no image, so it has no record"));
}
