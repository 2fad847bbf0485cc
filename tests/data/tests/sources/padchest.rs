//! The source `padchest`.

use std::collections::BTreeMap;
use std::fs;

use dataset::Dataset;
use helpers::{
    args, edit, fails, files_with, folder, ingest, label_codes, ok, phantom_of, read_text, records_by_id, rejects,
    write_file,
};

use crate::shared::{header, no_images, quoted_rows, says, verifies};

const TABLE: &str = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz";
/// The columns of the published table.
const HEADER: &str = ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,\
    Projection,MethodProjection,Pediatric,Modality_DICOM,Manufacturer_DICOM,PhotometricInterpretation_DICOM,\
    PixelRepresentation_DICOM,PixelAspectRatio_DICOM,SpatialResolution_DICOM,BitsStored_DICOM,WindowCenter_DICOM,\
    WindowWidth_DICOM,Rows_DICOM,Columns_DICOM,XRayTubeCurrent_DICOM,Exposure_DICOM,ExposureInuAs_DICOM,ExposureTime,\
    RelativeXRayExposure_DICOM,ReportID,Report,MethodLabel,Labels,Localizations,LabelsLocalizationsBySentence,labelCUIS,\
    LocalizationsCUIS";

/// The names of a list literal without quotes in its names.
fn names(literal: &str) -> Vec<String> {
    let inner = literal.trim_start_matches('[').trim_end_matches(']');
    inner
        .split(',')
        .map(|name| name.trim().trim_matches('\'').trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn every_column_is_read() {
    let temporary = folder();
    let raw = phantom_of("padchest", temporary.path(), 60);
    assert_eq!(header(&raw.join(TABLE)), HEADER);
    let out = temporary.path().join("set");
    ingest("padchest", &raw, &out, &[]);
    assert_eq!(rejects(&out), []);
    verifies(&out);
    let dataset = Dataset::open(&out).expect("a dataset");
    let rows = quoted_rows(&raw.join(TABLE));
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    rows.iter()
        .flat_map(|row| names(row["Labels"].as_deref().expect("labels")))
        .for_each(|name| *counts.entry(name).or_default() += 1);
    assert_eq!(dataset.findings(), counts.keys().cloned().collect::<Vec<_>>());
    let found = records_by_id(&out);
    assert_eq!((found.len(), files_with(&raw, ".png").len()), (rows.len(), rows.len()));
    let mut seen = BTreeMap::new();
    for row in &rows {
        let cell = |name: &str| row[name].as_deref();
        let image = cell("ImageID").expect("an image");
        let record = &found[&format!("padchest/{image}")];
        assert_eq!(Some(record.patient_id.as_str()), cell("PatientID"));
        assert_eq!((Some(record.study_id.as_str()), record.image_id.as_str()), (cell("StudyID"), image));
        assert_eq!(record.source_path, format!("{}/{image}", cell("ImageDir").expect("a folder")));
        assert_eq!((record.subset.as_deref(), record.sex.as_deref()), (None, cell("PatientSex_DICOM")));
        let date = cell("StudyDate_DICOM").expect("a date");
        assert_eq!(record.study_datetime, Some(format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..])));
        let year = |text: &str| text.split('.').next().and_then(|year| year.parse::<f32>().ok()).expect("a year");
        assert_eq!(record.age_years, Some(year(&date[..4]) - year(cell("PatientBirth").expect("a year"))));
        let view = match cell("Projection").expect("a view") {
            "L" => "LATERAL",
            "AP_horizontal" => "AP HORIZONTAL",
            view => view,
        };
        assert_eq!(record.view.as_deref(), Some(view));
        assert_eq!(record.pixel_spacing, Some([0.143, 0.143]));
        assert_eq!((record.report.as_deref(), record.language.as_deref()), (cell("Report"), Some("es")));
        let origin = if cell("MethodLabel") == Some("Physician") { "physician" } else { "nlp:padchest" };
        assert_eq!(record.label_origin.as_deref(), Some(origin));
        let own = names(cell("Labels").expect("labels"));
        let wanted: Vec<_> = dataset.findings().iter().map(|name| Some(i8::from(own.contains(name)))).collect();
        assert_eq!(label_codes(record), wanted);
        assert_eq!((record.height.min(record.width), record.token_ids.is_empty()), (64, false));
        assert!(
            record.image.iter().max().expect("pixels") - record.image.iter().min().expect("pixels") > 100,
            "12 of 16 bits"
        );
        *seen.entry((view, origin)).or_insert(0) += 1;
    }
    assert!(seen.len() >= 5, "{seen:?}");

    // Labels of few images are left out; the images are kept.
    let least = *counts.values().max().expect("labels");
    let few = no_images("padchest", &raw, &temporary.path().join("few"), &["--min-label-count", &least.to_string()]);
    let frequent: Vec<String> = counts.into_iter().filter(|(_, count)| *count >= least).map(|(name, _)| name).collect();
    assert_eq!((few.findings(), few.len()), (frequent.as_slice(), rows.len()));
}

#[test]
fn images_that_the_authors_exclude_and_broken_ones_are_rejects() {
    let temporary = folder();
    let raw = phantom_of("padchest", temporary.path(), 30);
    let text = read_text(&raw.join(TABLE));
    fs::remove_file(raw.join(TABLE)).expect("removed");
    // The images are in one more folder in some copies, and the table is unpacked.
    fs::create_dir(raw.join("images")).expect("a folder");
    for folder in ["0", "1"] {
        fs::rename(raw.join(folder), raw.join("images").join(folder)).expect("moved");
    }
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let image = |lines: &[String], row: usize| lines[row].split(',').nth(1).expect("an image").to_owned();
    let with_labels = |line: &str, labels: &str| {
        let start = line
            .rfind("_model,")
            .map(|at| at + 7)
            .or_else(|| line.rfind("Physician,").map(|at| at + 10))
            .expect("labels");
        format!("{}{labels},[],[],[],[]", &line[..start])
    };
    lines[1] = with_labels(&lines[1], "\"['exclude', 'pneumonia']\"");
    lines[2] = with_labels(&lines[2], "[' suboptimal study']");
    lines[3] = with_labels(&lines[3], "\"['pneumonia\"");
    lines[4] = with_labels(&lines[4], "");
    lines[5] = with_labels(&lines[5], "\"['hemidiaphragm elevation', \"\"Chilaiditi's sign\"\"]\"");
    let projection = ["PA", "L", "AP", "AP_horizontal"]
        .into_iter()
        .find(|view| lines[6].contains(&format!(",{view},")))
        .expect("a view");
    lines[6] = lines[6].replacen(&format!(",{projection},"), ",EXCLUDE,", 1);
    lines.push(",,0,20140101,1,2,1950.0,F,,PA".to_owned() + &",".repeat(26));
    write_file(&raw.join(TABLE.trim_end_matches(".gz")), lines.join("\n"));
    let file = |name: &str| files_with(&raw, name).into_iter().next().expect("a file");
    // A download that was cut, and a file without a picture.
    edit(&raw.join(file(&image(&lines, 7))), |bytes| bytes.truncate(bytes.len() / 2));
    write_file(&raw.join(file(&image(&lines, 8))), "");
    write_file(&raw.join("images/1/unlisted.png"), "x");
    let out = temporary.path().join("set");
    ok("ingest", args!["padchest", &raw, &out, "--size", "64", "--vocab-size", "300", "--max-reject-rate", "1"]);
    says(&out, &file(&image(&lines, 1)), "table", "labeled `exclude`");
    says(&out, &file(&image(&lines, 2)), "table", "labeled `suboptimal study`");
    says(&out, &file(&image(&lines, 3)), "table", "Labels: a text of the literal has no closing quote");
    says(&out, &file(&image(&lines, 6)), "table", "the projection is EXCLUDE");
    says(&out, &file(&image(&lines, 7)), "decode", "cannot be decoded");
    says(&out, &file(&image(&lines, 8)), "decode", "");
    says(&out, "images/1/unlisted.png", "plan", "no table lists this file");
    says(&out, TABLE.trim_end_matches(".gz"), "table", "ImageID, PatientID or StudyID is empty");
    assert_eq!(rejects(&out).len(), 8);
    let found = records_by_id(&out);
    assert_eq!(found.len(), lines.len() - 2 - 6);
    let dataset = Dataset::open(&out).expect("a dataset");
    assert!(dataset.findings().iter().any(|name| name == "Chilaiditi's sign"));
    assert!(!dataset.findings().iter().any(|name| name == "exclude"));
    let blank = &found[&format!("padchest/{}", image(&lines, 4))];
    assert!(blank.labels.iter().all(Option::is_none) && blank.report.is_some());
    let message = fails("ingest", 1, args!["padchest", raw.join("images"), temporary.path().join("x")]);
    assert!(message.contains("PADCHEST_chest_x_ray_images_labels"), "{message}");
}
