//! The sources `mimic-cxr`, `chexpert`, `nih` and `covid` on every form in which their sets are found: phantoms, the real
//! tables, and directories that are laid out otherwise.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use dataset::Dataset;
use dataset::format::record::{ImageEncoding, Record};
use ingest::report::{CHARACTERS, Conclusion, SECTIONS, sections_with};
use ingest::run::plan::Source;
use ingest::sources;
use ingest::sources::shared::table::{Table, texts};
use mrm_tests::{args, contents, fails, folder, golden_json, ingest, ok, phantom, phantom_of, real_data, rejects};

/// The records of a dataset by identifier.
fn records(out: &Path) -> BTreeMap<String, Record> {
    let dataset = Dataset::open(out).expect("a dataset");
    let record = |row| dataset.record(row).expect("a record");
    (0..dataset.len()).map(record).map(|record| (record.record_id.clone(), record)).collect()
}

/// A table as rows of fields by column; for tables without quotes.
fn rows(text: &str) -> Vec<HashMap<&str, &str>> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().expect("a header").split(',').collect();
    lines.map(|line| header.iter().copied().zip(line.split(',')).collect()).collect()
}

fn read(path: &Path) -> String {
    let bytes = fs::read(path).expect("a file");
    if path.extension().is_some_and(|extension| extension == "gz") {
        let mut text = String::new();
        flate2::read::GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).expect("gzip");
        return text;
    }
    String::from_utf8(bytes).expect("UTF-8")
}

fn write(path: &Path, text: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    if path.extension().is_some_and(|extension| extension == "gz") {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_ref()).expect("gzip");
        fs::write(path, encoder.finish().expect("gzip")).expect("written");
    } else {
        fs::write(path, text).expect("written");
    }
}

fn rename(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("a folder")).expect("made");
    fs::rename(from, to).expect("moved");
}

/// The label codes of a table's row.
fn codes(row: &HashMap<&str, &str>, findings: &[String]) -> Vec<Option<i8>> {
    let code = |finding: &String| match row[finding.as_str()] {
        "1.0" => Some(1),
        "0.0" => Some(0),
        "-1.0" => Some(-1),
        "" => None,
        other => panic!("{other}"),
    };
    findings.iter().map(code).collect()
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[test]
fn a_chexpert_phantom_becomes_a_dataset() {
    let temporary = folder();
    let raw = phantom_of("chexpert", temporary.path(), 60);
    let out = temporary.path().join("set");
    ingest("chexpert", &raw, &out, &[]);
    assert_eq!(rejects(&out), []);
    let found = records(&out);
    let dataset = Dataset::open(&out).expect("a dataset");
    let mut seen = 0;
    let mut kinds = std::collections::BTreeSet::new();
    for (table, subset) in [("train", "train"), ("valid", "validate")] {
        let text = read(&raw.join(format!("CheXpert-v1.0-small/{table}.csv")));
        assert_eq!(dataset.findings(), text.lines().next().expect("a header").split(',').skip(5).collect::<Vec<_>>());
        for row in rows(&text) {
            seen += 1;
            let inner = row["Path"].strip_prefix("CheXpert-v1.0-small/").expect("the release's folder");
            let record = &found[&format!("chexpert/{}", inner.strip_suffix(".jpg").expect("a JPEG"))];
            assert_eq!(record.source_path, row["Path"]);
            assert_eq!(record.labels, codes(&row, dataset.findings()), "{inner}");
            let view = if row["Frontal/Lateral"] == "Lateral" { "LATERAL" } else { row["AP/PA"] };
            let parts: Vec<&str> = inner.split('/').collect();
            assert_eq!(
                (record.patient_id.as_str(), &record.study_id),
                (parts[1], &format!("{}/{}", parts[1], parts[2]))
            );
            assert_eq!((record.view.as_deref(), record.subset.as_deref()), (Some(view), Some(subset)));
            assert_eq!(record.sex.as_deref(), Some(&row["Sex"][..1]));
            assert_eq!(record.age_years, row["Age"].parse().ok());
            assert!(record.report.is_none() && record.width.min(record.height) == 64);
            kinds.extend(record.labels.iter().copied());
            kinds.insert(Some(if view == "LATERAL" { 7 } else { 8 }));
        }
    }
    assert_eq!((seen, found.len()), (contents(&raw).keys().filter(|path| path.ends_with(".jpg")).count(), seen));
    assert_eq!(kinds.len(), 6, "1, 0, -1, blank, frontal, lateral: {kinds:?}");
    assert!(ok("dataset", args!["verify", &out]).contains("all whole"));
}

#[test]
fn chexpert_is_found_in_batches_in_any_case_and_without_its_pictures() {
    let temporary = folder();
    let raw = phantom_of("chexpert", temporary.path(), 40);
    let whole = temporary.path().join("whole");
    ingest("chexpert", &raw, &whole, &[]);
    let expected = records(&whole);

    // The full release: tables and validation pictures in the first batch, training pictures in two others.
    let batches = temporary.path().join("batches");
    let home = batches.join("chexpert-V1.0");
    let first = home.join("CheXpert-v1.0 batch 1 (validate & csv)");
    for name in ["train", "valid"] {
        let text = read(&raw.join(format!("CheXpert-v1.0-small/{name}.csv")));
        let ending = if name == "train" { "csv.gz" } else { "csv" };
        write(&first.join(format!("{name}.{ending}")), text.replace("CheXpert-v1.0-small/", "CheXpert-v1.0/"));
    }
    for path in contents(&raw).keys().filter(|path| path.ends_with(".jpg")) {
        let inner = path.strip_prefix("CheXpert-v1.0-small/").expect("the release's folder");
        let to = match inner.strip_prefix("train/") {
            Some(rest) if rest < "patient00012" => home.join("CheXpert-v1.0 batch 2 (train 1)").join(rest),
            Some(rest) => home.join("CheXpert-v1.0 batch 3 (train 2)").join(rest),
            None => first.join(inner),
        };
        write(&to, fs::read(raw.join(path)).expect("a picture"));
    }
    write(&home.join("CheXpert-v1.0 batch 3 (train 2)/patient99999/study1/view1_frontal.jpg"), "nobody lists me");
    let out = temporary.path().join("set");
    ingest("chexpert", &batches, &out, &["--max-reject-rate", "0.1"]);
    let found = rejects(&out);
    assert!(found.len() == 1 && found[0].error == "no table names this file", "{found:?}");
    let apart = |records: BTreeMap<String, Record>| -> Vec<_> {
        records.into_values().map(|record| Record { source_path: String::new(), ..record }).collect()
    };
    assert!(apart(records(&out)) == apart(expected.clone()));

    // The tables alone.
    let bare = temporary.path().join("bare/CHEXPERT");
    for name in ["train.csv", "valid.csv"] {
        write(&bare.join(name), read(&raw.join("CheXpert-v1.0-small").join(name)));
    }
    let out = temporary.path().join("bare-set");
    ingest("chexpert", &temporary.path().join("bare"), &out, &["--no-images"]);
    assert_eq!(rejects(&out), []);
    let found = records(&out);
    assert!(found.keys().eq(expected.keys()));
    assert!(found.values().zip(expected.values()).all(|(a, b)| a.labels == b.labels && a.view == b.view));
    // CheXlocalize's names of the tables and of a folder.
    let localize = temporary.path().join("localize/CheXpert");
    let valid = read(&raw.join("CheXpert-v1.0-small/valid.csv"));
    write(&localize.join("val_labels.csv"), &valid);
    write(&localize.join("test_labels.csv"), valid.replace("/valid/", "/test/").replace("CheXpert-v1.0-small/", ""));
    for row in rows(&valid) {
        let inner = row["Path"].strip_prefix("CheXpert-v1.0-small/valid/").expect("the release's folder");
        for folder in ["val", "test"] {
            write(&localize.join(folder).join(inner), fs::read(raw.join(row["Path"])).expect("a picture"));
        }
    }
    let out = temporary.path().join("localize-set");
    ingest("chexpert", &temporary.path().join("localize"), &out, &[]);
    assert_eq!(rejects(&out), []);
    let found = records(&out);
    assert_eq!(found.len(), 2 * rows(&valid).len());
    for (id, record) in &found {
        let listed = &expected[&id.replace("/test/", "/valid/")];
        assert!(record.labels == listed.labels && record.image == listed.image, "{id}");
        assert_eq!(record.subset.as_deref(), Some(if id.contains("/test/") { "test" } else { "validate" }));
    }
    // With pictures, each one that is missing is a row.
    let told = fails("ingest", 3, args!["chexpert", temporary.path().join("bare"), temporary.path().join("none")]);
    assert!(told.contains("--max-reject-rate"), "{told}");
}

#[test]
fn chexpert_rows_that_say_nothing_are_rejected() {
    let temporary = folder();
    let raw = phantom_of("chexpert", temporary.path(), 30);
    let table = raw.join("CheXpert-v1.0-small/train.csv");
    let text = read(&table);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines[1] = format!("{},2.0", lines[1].rsplit_once(',').expect("fields").0);
    let path = lines[2].split(',').next().expect("a path").to_owned();
    lines[2] = lines[2].replacen(&path, "picture.jpg", 1);
    let path = lines[3].split(',').next().expect("a path").to_owned();
    lines[3] = lines[3].replacen(&path, "a/../train/../patient1/study1/view1.jpg", 1);
    lines.push("one,two".to_owned());
    write(&table, lines.join("\n"));
    let out = temporary.path().join("set");
    ingest("chexpert", &raw, &out, &["--max-reject-rate", "1"]);
    let found = rejects(&out);
    let count = |stage: &str, words: &str| found.iter().filter(|r| r.stage == stage && r.error.contains(words)).count();
    assert_eq!(count("table", "line 2: column `Support Devices`: `2.0` is none of 1, 0, -1 and empty"), 1, "{found:?}");
    assert_eq!(count("table", "its path has no patient and study"), 2, "{found:?}");
    assert_eq!(count("table", "2 fields, the header has 19"), 1, "{found:?}");
    assert_eq!(count("plan", "no table names this file"), 3, "{found:?}");
    assert_eq!(found.len(), 7);
}

#[test]
fn chexpert_plus_brings_reports() {
    let temporary = folder();
    let raw = phantom_of("chexpert", temporary.path(), 30);
    let home = raw.join("CheXpert-v1.0-small");
    let train = read(&home.join("train.csv"));
    let listed = rows(&train);
    let mut table = String::from(
        "path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,patient_report_date_order,report,\
         section_findings,section_impression,age,sex,race,insurance_type,split\n",
    );
    for (i, row) in listed.iter().enumerate() {
        let inner = row["Path"].strip_prefix("CheXpert-v1.0-small/").expect("the release's folder");
        let dicom = inner.replace(".jpg", ".dcm");
        let report = match i % 4 {
            0 => "\"NARRATIVE:\r\nThe heart, in short, is normal.\r\n\r\nIMPRESSION:\r\n1. \"\"Clear\"\" lungs.\"",
            1 => "Nothing new.",
            _ => "",
        };
        let (findings, impression) = if i % 4 == 3 { ("", "") } else { ("\"Heart, normal.\"", " Clear lungs. ") };
        table += &format!(
            "{inner},{dicom},{},{},patient{i:05},{i},{report},{findings},{impression},61.5,Female,Martian,Moonshine,train\n",
            row["Frontal/Lateral"], row["AP/PA"]
        );
    }
    write(&home.join("df_chexpert_plus_240401.csv"), &table);
    // One picture is there as DICOM alone.
    let dicom = phantom(temporary.path(), 2);
    let dicom = contents(&dicom).into_iter().find(|(path, _)| path.ends_with(".dcm")).expect("a DICOM file").1;
    let swapped = raw.join(listed[5]["Path"]);
    fs::remove_file(&swapped).expect("removed");
    fs::write(swapped.with_extension("dcm"), dicom).expect("written");

    let out = temporary.path().join("set");
    ingest("chexpert", &raw, &out, &[]);
    assert_eq!(rejects(&out), []);
    let found = records(&out);
    let of = |row: &HashMap<&str, &str>| {
        let inner = row["Path"].strip_prefix("CheXpert-v1.0-small/").expect("the release's folder");
        found[&format!("chexpert/{}", inner.strip_suffix(".jpg").expect("a JPEG"))].clone()
    };
    for (i, row) in listed.iter().enumerate() {
        let record = of(row);
        let report = match i % 4 {
            0 => Some("NARRATIVE:\nThe heart, in short, is normal.\n\nIMPRESSION:\n1. \"Clear\" lungs."),
            1 => Some("Nothing new."),
            2 => Some("FINDINGS: Heart, normal.\nIMPRESSION: Clear lungs."),
            _ => None,
        };
        assert_eq!(record.report.as_deref(), report);
        let sections = (i % 4 != 3).then_some(("Heart, normal.", "Clear lungs."));
        assert_eq!(record.findings.as_deref().zip(record.impression.as_deref()), sections);
        assert_eq!(record.age_years, row["Age"].parse().ok(), "the table with labels comes first");
        assert_eq!(record.token_ids.is_empty(), report.is_none());
    }
    assert!(of(&listed[5]).source_path.ends_with(".dcm"));
    for (path, bytes) in contents(&out) {
        let told = String::from_utf8_lossy(&bytes);
        assert!(!told.contains("Martian") && !told.contains("Moonshine"), "{path}");
    }

    // The Plus table alone: records without labels.
    for name in ["train.csv", "valid.csv"] {
        fs::remove_file(home.join(name)).expect("removed");
    }
    let out = temporary.path().join("alone");
    ingest("chexpert", &raw, &out, &["--no-images", "--report-text", "findings+impression"]);
    let alone = records(&out);
    assert_eq!(alone.len(), listed.len());
    for record in alone.values() {
        assert_eq!((record.age_years, record.sex.as_deref()), (Some(61.5), Some("F")));
        assert!(record.subset.as_deref() == Some("train") && record.view.is_some());
        assert!(record.report.as_deref().is_none_or(|report| report == "Heart, normal.\nClear lungs."));
    }
}

#[test]
fn the_real_chexpert_table_goes_in() {
    let Some(data) = real_data() else { return };
    let temporary = folder();
    let raw = temporary.path().join("raw");
    fs::create_dir(&raw).expect("made");
    fs::copy(data.join("labels/chexpert_train.csv.gz"), raw.join("train.csv.gz")).expect("copied");
    let out = temporary.path().join("set");
    ok("ingest", args!["chexpert", &raw, &out, "--no-images"]);
    assert_eq!(rejects(&out), []);
    let dataset = Dataset::open(&out).expect("a dataset");
    let totals = dataset.manifest().totals;
    assert_eq!((totals.records, totals.patients, totals.studies), (223_414, 64_540, 187_641));
    // Counted with Python's csv module: positive, negative, uncertain.
    let expected = [
        ("No Finding", [22_381, 0, 0]),
        ("Enlarged Cardiomediastinum", [10_798, 21_638, 12_403]),
        ("Cardiomegaly", [27_000, 11_116, 8_087]),
        ("Lung Opacity", [105_581, 6_599, 5_598]),
        ("Lung Lesion", [9_186, 1_270, 1_488]),
        ("Edema", [52_246, 20_726, 12_984]),
        ("Consolidation", [14_783, 28_097, 27_742]),
        ("Pneumonia", [6_039, 2_799, 18_770]),
        ("Atelectasis", [33_376, 1_328, 33_739]),
        ("Pneumothorax", [19_448, 56_341, 3_145]),
        ("Pleural Effusion", [86_187, 35_396, 11_628]),
        ("Pleural Other", [3_523, 316, 2_653]),
        ("Fracture", [9_040, 2_512, 642]),
        ("Support Devices", [116_001, 6_137, 1_079]),
    ];
    assert_eq!(dataset.findings(), expected.map(|(finding, _)| finding));
    let labels = dataset.labels().expect("labels");
    for (at, (finding, counts)) in expected.into_iter().enumerate() {
        let count = |code: i8| labels.iter().filter(|codes| codes[at] == Some(code)).count();
        assert_eq!([count(1), count(0), count(-1)], counts, "{finding}");
    }
}

#[test]
fn an_nih_phantom_becomes_a_dataset() {
    let temporary = folder();
    let raw = phantom_of("nih", temporary.path(), 60);
    let out = temporary.path().join("set");
    ok("ingest", args!["nih", &raw, &out, "--size", "96"]);
    assert_eq!(rejects(&out), []);
    let found = records(&out);
    let dataset = Dataset::open(&out).expect("a dataset");
    let entries = read(&raw.join("Data_Entry_2017_v2020.csv"));
    assert!(entries.starts_with(
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,\
         OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n00000001_000.png,"
    ));
    let (train, test) = (read(&raw.join("train_val_list.txt")), read(&raw.join("test_list.txt")));
    let rows_of = rows(&entries);
    assert_eq!(rows_of.len(), found.len());
    for row in &rows_of {
        let record = &found[&format!("nih/{}", row["Image Index"])];
        let named: Vec<&str> = dataset
            .findings()
            .iter()
            .zip(&record.labels)
            .filter(|(_, code)| **code == Some(1))
            .map(|(finding, _)| finding.as_str())
            .collect();
        let mut expected: Vec<&str> = row["Finding Labels"].split('|').collect();
        expected.sort_by_key(|name| dataset.findings().iter().position(|finding| finding == name));
        assert_eq!(named, expected);
        assert!(record.labels.iter().all(Option::is_some));
        assert_eq!(
            (record.patient_id.as_str(), record.view.as_deref()),
            (row["Patient ID"], Some(row["View Position"]))
        );
        assert_eq!(
            (record.sex.as_deref(), record.age_years),
            (Some(row["Patient Gender"]), row["Patient Age"].parse().ok())
        );
        let lists =
            (train.lines().any(|line| line == record.image_id), test.lines().any(|line| line == record.image_id));
        assert_eq!(lists, (record.subset.as_deref() == Some("train"), record.subset.as_deref() == Some("test")));
    }
    // Boxes: as listed, for findings that the entry table names, inside the picture.
    let list = read(&raw.join("BBox_List_2017.csv"));
    let mut lines = list.lines();
    assert_eq!(lines.next(), Some("Image Index,Finding Label,Bbox [x,y,w,h],,,"));
    let mut boxes = 0;
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        assert_eq!(fields.len(), 6);
        let record = &found[&format!("nih/{}", fields[0])];
        let label = if fields[1] == "Infiltrate" { "Infiltration" } else { fields[1] };
        let number = |at: usize| fields[at].parse::<f32>().expect("a number");
        let expected = (label, number(2), number(3), number(4), number(5));
        let same = record.boxes.iter().filter(|b| (b.label.as_str(), b.x, b.y, b.width, b.height) == expected).count();
        assert_eq!(same, 1, "{line}: {:?}", record.boxes);
        assert!(expected.1 + expected.3 <= 96.01 && expected.2 + expected.4 <= 96.01, "{line}");
        let at = dataset.findings().iter().position(|finding| finding == label).expect("a finding");
        assert!(record.labels[at] == Some(1) && record.subset.as_deref() == Some("test"));
        boxes += 1;
    }
    assert!(boxes > 5 && boxes == found.values().map(|record| record.boxes.len()).sum::<usize>());
    // A few files have four channels; they decode to the same gray.
    let color = |path: &str| fs::read(raw.join(path)).expect("a picture")[25] == 6;
    let with_alpha: Vec<_> = found.values().filter(|record| color(&record.source_path)).collect();
    assert!((1..20).contains(&with_alpha.len()), "{}", with_alpha.len());
    for record in with_alpha {
        let gray = ingest::image::pipeline::decode(
            &fs::read(raw.join(&record.source_path)).expect("a picture"),
            ingest::image::intensity::Tone::Voi,
        );
        let gray = gray.expect("a picture");
        assert_eq!(gray.encode(ImageEncoding::Raw).expect("pixels"), record.image);
    }
}

#[test]
fn nih_dirt_is_rejected_and_both_tables_are_read() {
    let temporary = folder();
    let raw = phantom_of("nih", temporary.path(), 12);
    let table = raw.join("Data_Entry_2017_v2020.csv");
    let text = read(&table);
    // The table of 2017: another name, ages with a unit, a comma at each line's end.
    let of_2017: String = text
        .lines()
        .enumerate()
        .map(|(i, line)| {
            let mut fields: Vec<String> = line.split(',').map(str::to_owned).collect();
            if i > 0 {
                fields[4] = format!("{:03}Y", fields[4].parse::<u32>().expect("an age"));
            }
            format!("{},\n", fields.join(","))
        })
        .collect();
    let (first, second) = (temporary.path().join("2020"), temporary.path().join("2017"));
    ingest("nih", &raw, &first, &[]);
    fs::remove_file(&table).expect("removed");
    write(&raw.join("Data_Entry_2017.csv.gz"), &of_2017);
    ingest("nih", &raw, &second, &[]);
    assert!(records(&first) == records(&second));

    let mut lines: Vec<String> = of_2017.lines().map(str::to_owned).collect();
    let name = lines[1].split(',').next().expect("an image").to_owned();
    lines[1] = lines[1].replacen(lines[1].split(',').nth(1).expect("findings"), "Gout", 1);
    lines.push("x,y".to_owned());
    // A repeated row must not take the place of the one that has the file.
    lines.push(lines[2].clone());
    let kept = format!("nih/{}", lines[2].split(',').next().expect("an image"));
    write(&raw.join("Data_Entry_2017.csv.gz"), lines.join("\n"));
    write(
        &raw.join("images_002/images").join(&name),
        fs::read(raw.join("images_001/images").join(&name)).expect("PNG"),
    );
    let boxes = read(&raw.join("BBox_List_2017.csv"));
    write(
        &raw.join("BBox_List_2017.csv"),
        format!("{boxes}99999999_000.png,Mass,1,2,3,4\n00000002_000.png,Mass,one,2,3,4\n"),
    );
    let out = temporary.path().join("dirty");
    ingest("nih", &raw, &out, &["--max-reject-rate", "1"]);
    let found = rejects(&out);
    for words in [
        "unknown finding `Gout`",
        "2 fields, the header has 11",
        "another file has this name; images_001/",
        "no table names this file",
        "the box list names this image, the entry table does not",
        "no box of four numbers",
        "this identifier is listed twice",
    ] {
        assert_eq!(found.iter().filter(|reject| reject.error.contains(words)).count(), 1, "{words}: {found:?}");
    }
    assert_eq!(found.len(), 7);
    assert_eq!(records(&out)[&kept].source_path, records(&second)[&kept].source_path);
}

#[test]
fn the_real_nih_tables_agree_with_the_published_lists() {
    let Some(data) = real_data() else { return };
    let temporary = folder();
    let raw = temporary.path().join("raw");
    fs::create_dir(&raw).expect("made");
    for name in ["Data_Entry_2017_v2020.csv.gz", "BBox_List_2017.csv.gz"] {
        fs::copy(data.join("labels").join(name), raw.join(name)).expect("copied");
    }
    let plan = sources::Nih { no_images: true }.plan(&raw).expect("a plan");
    assert_eq!(plan.rejects, []);
    let boxed = plan.records.iter().filter(|record| !record.boxes.is_empty());
    assert_eq!((boxed.clone().count(), boxed.map(|record| record.boxes.len()).sum::<usize>()), (880, 984));
    for record in &plan.records {
        for found in &record.boxes {
            assert!(plan.findings.contains(&found.label), "{}", found.label);
            assert!(found.x >= 0.0 && found.y >= 0.0 && found.x + found.width <= 1024.5 && found.width > 0.0);
        }
    }
    // MRM's three lists: each image with its fourteen labels, in an order of their own.
    let order = [
        "Atelectasis",
        "Cardiomegaly",
        "Effusion",
        "Infiltration",
        "Mass",
        "Nodule",
        "Pneumonia",
        "Pneumothorax",
        "Consolidation",
        "Edema",
        "Emphysema",
        "Fibrosis",
        "Pleural_Thickening",
        "Hernia",
    ];
    let places = order.map(|name| plan.findings.iter().position(|finding| finding == name).expect("a finding"));
    let of: HashMap<&str, &Vec<Option<i8>>> =
        plan.records.iter().map(|record| (record.image_id.as_str(), &record.labels)).collect();
    // The lists follow the table of 2017. That of 2020 knows more findings of 181 images, and takes none back: their
    // numbers and the totals by finding were counted with Python's csv module.
    let published = [
        (
            "train_list",
            (78_468, 127),
            [8014, 1954, 9268, 13_930, 4013, 4381, 1031, 3708, 3263, 1690, 1799, 1158, 2279, 144],
            [7996, 1950, 9261, 13_914, 3988, 4375, 978, 3705, 3263, 1690, 1799, 1158, 2279, 144],
        ),
        (
            "val_list",
            (11_219, 18),
            [1122, 240, 1293, 2020, 630, 613, 140, 505, 447, 200, 208, 166, 372, 41],
            [1119, 240, 1292, 2018, 625, 613, 133, 504, 447, 200, 208, 166, 372, 41],
        ),
        (
            "test_list",
            (22_433, 36),
            [2423, 582, 2756, 3944, 1139, 1337, 260, 1089, 957, 413, 509, 362, 734, 42],
            [2420, 582, 2754, 3938, 1133, 1335, 242, 1089, 957, 413, 509, 362, 734, 42],
        ),
    ];
    let mut listed = 0;
    for (list, (length, differing), expected, in_list) in published {
        let text = read(&data.join(format!("labels/mrm-splits/NIH_ChestX-ray/{list}.txt.gz")));
        let (mut ours, mut theirs, mut others) = ([0; 14], [0; 14], 0);
        assert_eq!(text.lines().count(), length);
        for line in text.lines() {
            let mut fields = line.split_whitespace();
            let image = of[fields.next().expect("an image")];
            let labels = places.map(|place| image[place]);
            let published: Vec<bool> = fields.map(|field| field == "1").collect();
            assert_eq!(published.len(), 14);
            for (at, (code, published)) in labels.into_iter().zip(&published).enumerate() {
                assert!(code == Some(1) || (code == Some(0) && !published), "{line}");
                ours[at] += i32::from(code == Some(1));
                theirs[at] += i32::from(*published);
            }
            others +=
                usize::from(labels.iter().zip(&published).any(|(code, published)| (*code == Some(1)) != *published));
            listed += 1;
        }
        assert_eq!((ours, theirs, others), (expected, in_list, differing), "{list}");
    }
    assert_eq!(listed, plan.records.len());

    // The two real pictures.
    let out = temporary.path().join("sample");
    ok("ingest", args!["nih", data.join("nih-sample"), &out, "--size", "128"]);
    assert_eq!(rejects(&out), []);
    let found = records(&out);
    let first = &found["nih/00000001_000.png"];
    assert_eq!((first.source_height, first.source_width, first.height, first.width), (512, 512, 128, 128));
    assert_eq!((first.age_years, first.sex.as_deref(), first.view.as_deref()), (Some(57.0), Some("M"), Some("PA")));
    assert_eq!(first.labels.iter().filter(|code| **code == Some(1)).count(), 1);
    assert_eq!(first.labels[1], Some(1), "Cardiomegaly");
    assert_eq!(found["nih/00027426_000.png"].labels.last(), Some(&Some(1)), "No Finding");
}

#[test]
fn a_covid_phantom_becomes_a_dataset() {
    let temporary = folder();
    let raw = phantom_of("covid", temporary.path(), 60);
    let out = temporary.path().join("set");
    ingest("covid", &raw, &out, &[]);
    assert_eq!(rejects(&out), []);
    let header = read(&raw.join("metadata.csv")).lines().next().expect("a header").to_owned();
    if let Some(data) = real_data() {
        let real = read(&data.join("covid-chestxray/metadata.csv"));
        assert_eq!(Some(header.as_str()), real.lines().next());
    }
    let table = Table::read(&raw, &raw.join("metadata.csv"), &[]).expect("a table").frame;
    let column = |name: &str| texts(&table, name).expect("a column");
    let (names, finding, notes, view) =
        (column("filename"), column("finding"), column("clinical_notes"), column("view"));
    let (patient, offset) = (column("patientid"), column("offset"));
    let found = records(&out);
    let dataset = Dataset::open(&out).expect("a dataset");
    assert_eq!(found.len(), names.len());
    let code = |record: &Record, name: &str| {
        record.labels[dataset.findings().iter().position(|finding| finding == name).expect("a finding")]
    };
    for row in 0..names.len() {
        let record = &found[&format!("covid/{}", names[row].expect("a name"))];
        assert_eq!(record.report.as_deref(), notes[row]);
        assert_eq!(record.view.as_deref(), view[row].map(|view| if view == "L" { "LATERAL" } else { view }));
        assert_eq!(record.study_id, format!("{}/{}", patient[row].expect("one"), offset[row].expect("one")));
        match finding[row].expect("a finding") {
            "todo" => assert!(record.labels.iter().all(Option::is_none)),
            name => {
                assert_eq!(code(record, name), Some(1));
                assert_eq!(code(record, "Pneumonia"), Some(i8::from(name.starts_with("Pneumonia"))));
                assert_eq!(code(record, "No Finding"), Some(i8::from(name == "No Finding")));
            }
        }
    }
    // The table alone gives the same records without pictures.
    let bare = temporary.path().join("bare");
    write(&bare.join("metadata.csv.gz"), read(&raw.join("metadata.csv")));
    let out = temporary.path().join("bare-set");
    ingest("covid", &bare, &out, &["--no-images"]);
    assert_eq!(rejects(&out), []);
    let bare = records(&out);
    assert!(bare.values().zip(found.values()).all(|(a, b)| a.labels == b.labels && a.token_ids == b.token_ids));
    assert_eq!(bare.len(), found.len());
}

#[test]
fn a_tokenizer_is_trained_on_each_text_once() {
    let temporary = folder();
    let raw = temporary.path().join("raw");
    // Two notes of one study; the first of them stands with two pictures, and again in another study.
    write(
        &raw.join("metadata.csv"),
        "patientid,offset,finding,view,modality,filename,clinical_notes\n\
         1,0,todo,PA,X-ray,a.jpg,alphaphage once\n\
         1,0,todo,PA,X-ray,b.jpg,alphaphage once\n\
         1,0,todo,PA,X-ray,c.jpg,betablock betablock betablock\n\
         1,3,todo,PA,X-ray,d.jpg,alphaphage once\n",
    );
    let out = temporary.path().join("set");
    ok("ingest", args!["covid", &raw, &out, "--no-images", "--vocab-size", "400"]);
    let tokenizer = ingest::report::tokenizer::load(&out.join("tokenizer.json")).expect("a tokenizer");
    assert!(tokenizer.token_to_id("betablock").is_some(), "the second note of the study counts");
    assert_eq!(
        tokenizer.token_to_id("alphaphage"),
        None,
        "a word that stands once in one text, however often it repeats"
    );
}

#[test]
fn a_trained_tokenizer_is_of_the_recipes_kind() {
    let Some(data) = real_data() else { return };
    let temporary = folder();
    let raw = phantom(temporary.path(), 40);
    let out = temporary.path().join("set");
    ok("ingest", args!["mimic-cxr", &raw, &out, "--no-images", "--tokenizer", "train", "--vocab-size", "30000"]);
    let json =
        |path: &Path| -> serde_json::Value { serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON") };
    let (ours, recipe) = (json(&out.join("tokenizer.json")), json(&data.join("mimic_wordpiece.json")));
    for section in ["version", "truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"] {
        assert_eq!(ours[section], recipe[section], "{section}");
        assert!(recipe.get(section).is_some(), "{section}");
    }
    let special = |file: &serde_json::Value| -> Vec<(i64, String, bool)> {
        let of = |token: &serde_json::Value| {
            (
                token["id"].as_i64().expect("an id"),
                token["content"].as_str().expect("text").to_owned(),
                token["special"] == true,
            )
        };
        file["added_tokens"].as_array().expect("tokens").iter().map(of).collect()
    };
    assert_eq!(special(&ours), special(&recipe));
    for key in ["type", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word"] {
        assert!(ours["model"][key] == recipe["model"][key] && !recipe["model"][key].is_null(), "{key}");
    }
    for (id, token) in ingest::report::tokenizer::SPECIAL.iter().enumerate() {
        assert!(ours["model"]["vocab"][token] == id && recipe["model"]["vocab"][token] == id, "{token}");
    }
    assert!(ours["model"]["vocab"].as_object().expect("a vocabulary").len() > 300);
}

/// Pictures of a phantom, decoded and written as JPEG; the rest as it is.
fn jpg_tree(raw: &Path, to: &Path) {
    for (path, bytes) in contents(raw) {
        match path.strip_suffix(".dcm") {
            Some(stem) => {
                let gray = ingest::image::pipeline::decode(&bytes, ingest::image::intensity::Tone::MimicCxrJpg)
                    .expect("a picture");
                write(&to.join(format!("{stem}.jpg")), gray.encode(ImageEncoding::Jpeg).expect("a JPEG"));
            }
            None if path.ends_with(".txt") || path == "phantom.json" => {}
            // As it is: packed already, or plain.
            None => {
                fs::create_dir_all(to).expect("made");
                fs::write(to.join(path), bytes).expect("written");
            }
        }
    }
}

/// What a layout must not change.
fn told(records: &BTreeMap<String, Record>) -> Vec<Record> {
    let bare = |record: &Record| Record {
        source_path: String::new(),
        source_sha256: [0; 32],
        image: Vec::new(),
        // A DICOM header tells them, a JPEG file does not.
        sex: None,
        age_years: None,
        ..record.clone()
    };
    records.values().map(bare).collect()
}

#[test]
fn mimic_cxr_jpg_and_reports_are_found_wherever_they_are() {
    let temporary = folder();
    let path = temporary.path();
    let raw = phantom(path, 20);
    let of = |name: &str, raw: &Path, more: &[&str]| {
        let out = path.join(name);
        ingest("mimic-cxr", raw, &out, more);
        assert_eq!(rejects(&out), [], "{name}");
        records(&out)
    };
    let dicom = of("dicom", &raw, &[]);
    assert!(dicom.values().all(|record| record.report.is_some() && record.source_path.ends_with(".dcm")));

    // As downloaded: the server's folders; JPG files with the tables, DICOM files with the reports.
    let server = path.join("server");
    let jpg_home = server.join("physionet.org/files/mimic-cxr-jpg/2.1.0");
    let dicom_home = server.join("physionet.org/files/mimic-cxr/2.1.0");
    jpg_tree(&raw, &jpg_home);
    for (file, bytes) in contents(&raw.join("files")) {
        write(&dicom_home.join("files").join(file), bytes);
    }
    let jpg = of("jpg", &server, &[]);
    assert!(
        jpg.values().all(|record| record.source_path.starts_with("physionet.org/files/mimic-cxr-jpg/2.1.0/files/"))
    );
    assert_eq!(told(&jpg), told(&dicom));
    let chosen = of("chosen", &server, &["--images", "dicom"]);
    assert!(chosen.values().all(|record| record.source_path.starts_with("physionet.org/files/mimic-cxr/2.1.0/files/")));
    assert!(chosen.values().zip(dicom.values()).all(|(a, b)| a.image == b.image && a.report == b.report));
    // A part of the DICOM files is not taken before the whole of the JPG files, nor the other way round.
    let some_jpg = contents(&jpg_home).into_keys().find(|file| file.ends_with(".jpg")).expect("a JPEG");
    fs::remove_file(jpg_home.join(some_jpg)).expect("removed");
    assert!(of("majority", &server, &[]).values().all(|record| record.source_path.ends_with(".dcm")));

    // Reports in a root of their own.
    let (alone, reports) = (path.join("alone"), path.join("reports-elsewhere"));
    jpg_tree(&raw, &alone);
    for (file, bytes) in contents(&raw.join("files")).into_iter().filter(|(file, _)| file.ends_with(".txt")) {
        write(&reports.join("mimic-cxr-reports/files").join(file), bytes);
    }
    assert!(of("silent", &alone, &[]).values().all(|record| record.report.is_none()));
    let warned = mrm_tests::run("ingest", args!["mimic-cxr", &alone, path.join("x"), "--dry-run"]);
    assert!(mrm_tests::text(&warned.stderr).contains("warning: no reports found"), "{warned:?}");
    let elsewhere = reports.to_string_lossy().into_owned();
    let given = of("given", &alone, &["--reports", &elsewhere]);
    assert_eq!(told(&given), told(&dicom));
    // The manifest does not say where on this machine they were.
    assert!(!read(&path.join("given/dataset.json")).contains("reports-elsewhere"));
    // A relative path is one of the working directory; other reports in folders of the same form are another input.
    let again = |reports: &str| {
        let mut command = mrm_tests::command("ingest");
        command.current_dir(path).args(args!["mimic-cxr", &alone, path.join("given"), "--reports", reports]);
        let output = command.args(mrm_tests::SMALL).output().expect("the binary starts");
        mrm_tests::text(&output.stdout) + &mrm_tests::text(&output.stderr)
    };
    assert!(again("reports-elsewhere").contains("nothing to do"));
    let others = path.join("reports-of-others");
    for (file, bytes) in contents(&reports) {
        write(&others.join(file), [bytes.as_slice(), b"More."].concat());
    }
    let refused = again("reports-of-others");
    assert!(refused.contains("holds another dataset: --reports holds other files; take another OUT"), "{refused}");

    // A packed archive is named, not read.
    write(&alone.join("mimic-cxr-reports.zip"), "PK");
    let out = path.join("packed");
    ingest("mimic-cxr", &alone, &out, &[]);
    let found = rejects(&out);
    assert!(
        found.len() == 1 && found[0].source_path == "mimic-cxr-reports.zip" && found[0].stage == "report",
        "{found:?}"
    );
    assert!(found[0].error.contains("unpack it here or name its folder with --reports"), "{found:?}");
    let zip = alone.join("mimic-cxr-reports.zip");
    let refused = fails("ingest", 1, args!["mimic-cxr", &alone, path.join("x"), "--reports", &zip]);
    assert!(refused.contains("a zip archive is not read: unpack it"), "{refused}");
    let refused = fails("ingest", 1, args!["mimic-cxr", &alone, path.join("x"), "--reports", path.join("nowhere")]);
    assert!(refused.contains("nowhere: no report here; --reports takes"), "{refused}");
    // Unpacked beside it.
    rename(&reports.join("mimic-cxr-reports"), &alone.join("mimic-cxr-reports"));
    assert_eq!(told(&of("unpacked", &alone, &[])), told(&dicom));
}

#[test]
fn plain_mimic_cxr_has_a_record_list_alone() {
    let temporary = folder();
    let path = temporary.path();
    let raw = phantom(path, 15);
    let with_tables = path.join("with");
    ingest("mimic-cxr", &raw, &with_tables, &[]);
    let expected = records(&with_tables);
    let (mut list, mut studies) =
        ("subject_id,study_id,dicom_id,path\n".to_owned(), "subject_id,study_id,path\n".to_owned());
    for row in rows(&read(&raw.join("mimic-cxr-2.0.0-metadata.csv.gz"))) {
        let (subject, study, dicom) = (row["subject_id"], row["study_id"], row["dicom_id"]);
        let patient = format!("files/p{}/p{subject}", &subject[..2]);
        list += &format!("{subject},{study},{dicom},{patient}/s{study}/{dicom}.dcm\n");
        // The study list says where a report is: here they were put elsewhere.
        studies += &format!("{subject},{study},{patient}/moved/s{study}.txt\n");
    }
    for report in contents(&raw).into_keys().filter(|file| file.ends_with(".txt")) {
        let name = report.rsplit_once('/').expect("a folder");
        rename(&raw.join(&report), &raw.join(format!("{}/moved/{}", name.0, name.1)));
        write(&raw.join(format!("{}/other.txt", name.0)), "no study's");
    }
    for name in ["metadata", "split", "chexpert"] {
        fs::remove_file(raw.join(format!("mimic-cxr-2.0.0-{name}.csv.gz"))).expect("removed");
    }
    write(&raw.join("cxr-record-list.csv.gz"), list);
    write(&raw.join("cxr-study-list.csv"), studies);
    let out = path.join("set");
    ingest("mimic-cxr", &raw, &out, &[]);
    assert_eq!(rejects(&out), []);
    let found = records(&out);
    assert!(found.keys().eq(expected.keys()));
    for (a, b) in found.values().zip(expected.values()) {
        assert_eq!(
            (&a.source_path, &a.image, &a.report, &a.impression),
            (&b.source_path, &b.image, &b.report, &b.impression)
        );
        assert!(a.subset.is_none());
        assert_eq!((&a.view, &a.sex, a.age_years), (&b.view, &b.sex, b.age_years), "from the headers");
    }
    // Without the files: the same paths, from the list.
    let images: Vec<String> = contents(&raw).into_keys().filter(|file| file.ends_with(".dcm")).collect();
    images.iter().for_each(|file| fs::remove_file(raw.join(file)).expect("removed"));
    let out = path.join("bare");
    ingest("mimic-cxr", &raw, &out, &["--no-images"]);
    assert_eq!(rejects(&out), []);
    for (a, b) in records(&out).values().zip(found.values()) {
        assert_eq!((&a.source_path, &a.report, &a.token_ids), (&b.source_path, &b.report, &b.token_ids));
    }
    let refused = fails("ingest", 1, args!["mimic-cxr", &raw, path.join("x")]);
    assert!(refused.contains("no image below `files/` (with --no-images"), "{refused}");
    let refused = fails("ingest", 1, args!["mimic-cxr", &raw, path.join("x"), "--no-images", "--labels", "negbio"]);
    assert!(refused.contains("no mimic-cxr-*-negbio.csv[.gz]; leave out --labels"), "{refused}");
}

#[test]
fn either_labellers_table_is_taken_plain_or_packed() {
    let temporary = folder();
    let path = temporary.path();
    let raw = phantom(path, 20);
    let names = ["metadata", "split", "chexpert"];
    let of = |name: &str, more: &[&str]| {
        let out = path.join(name);
        ingest("mimic-cxr", &raw, &out, &[&["--no-images", "--max-reject-rate", "0.1"], more].concat());
        (records(&out), rejects(&out))
    };
    let (packed, _) = of("packed", &[]);
    // Plain tables, of a later version.
    for name in names {
        let table = raw.join(format!("mimic-cxr-2.0.0-{name}.csv.gz"));
        write(&raw.join(format!("mimic-cxr-2.1.0-{name}.csv")), read(&table));
        fs::remove_file(table).expect("removed");
    }
    let (plain, rows_lost) = of("plain", &[]);
    assert!(plain == packed && rows_lost.is_empty());
    // NegBio's table: here the opposite in every cell, and one row that is no labels.
    let table = raw.join("mimic-cxr-2.1.0-chexpert.csv");
    let text = read(&table);
    let swapped = text.replace(",1.0", ",one").replace(",0.0", ",1.0").replace(",one", ",0.0");
    let mut lines: Vec<&str> = swapped.lines().collect();
    let study = lines[1].split(',').nth(1).expect("a study").to_owned();
    let spoilt = format!("{},perhaps", lines[1].rsplit_once(',').expect("fields").0);
    lines[1] = &spoilt;
    write(&raw.join("mimic-cxr-2.1.0-negbio.csv.gz"), lines.join("\n"));
    assert!(of("both", &[]).0 == packed, "CheXpert's comes first");
    let (negbio, lost) = of("negbio", &["--labels", "negbio"]);
    assert!(lost.len() == 1 && lost[0].error.contains("column `Support Devices`: `perhaps`"), "{lost:?}");
    for (a, b) in negbio.values().zip(packed.values()) {
        let opposite = |code: &Option<i8>| code.map(|code| if code >= 0 { 1 - code } else { code });
        let expected: Vec<_> =
            if a.study_id == study { vec![None; 14] } else { b.labels.iter().map(opposite).collect() };
        assert_eq!(a.labels, expected);
    }
    let manifest = Dataset::open(path.join("negbio")).expect("a dataset").manifest().clone();
    assert_eq!(manifest.arguments["labels"], "negbio");
    fs::remove_file(&table).expect("removed");
    assert!(of("without", &[]).0 == negbio, "NegBio's where there is no other");
}

#[test]
fn reports_in_every_encoding_are_read() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 12);
    let text = " FINAL REPORT\n FINDINGS: Opacity of 5\u{2013}9 cm, caf\u{e9} au lait.\n \n IMPRESSION: \u{201c}Mass\u{201d}.\n";
    let windows = |text: &str| -> Vec<u8> {
        let byte = |c: char| match c {
            '\u{2013}' => 0x96,
            '\u{201c}' => 0x93,
            '\u{201d}' => 0x94,
            c => u8::try_from(u32::from(c)).expect("Latin-1"),
        };
        text.chars().map(byte).collect()
    };
    let utf_16 = |text: &str, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(bytes).collect()
    };
    let crlf = text.replace('\n', "\r\n");
    let forms: Vec<Vec<u8>> = vec![
        text.into(),
        format!("\u{feff}{text}").into(),
        crlf.clone().into(),
        text.replace('\n', "\r").into(),
        windows(text),
        windows(&crlf),
        utf_16(text, u16::to_le_bytes),
        utf_16(&crlf, u16::to_be_bytes),
    ];
    let reports: Vec<String> = contents(&raw).into_keys().filter(|file| file.ends_with(".txt")).collect();
    assert!(reports.len() >= forms.len());
    for (report, form) in reports.iter().zip(&forms) {
        fs::write(raw.join(report), form).expect("written");
    }
    let out = temporary.path().join("set");
    ingest("mimic-cxr", &raw, &out, &["--no-images"]);
    assert_eq!(rejects(&out), []);
    let found = records(&out);
    for (i, report) in reports.iter().take(forms.len()).enumerate() {
        let study = report.rsplit_once("/s").expect("a study").1.strip_suffix(".txt").expect("a report");
        let record = found.values().find(|record| record.study_id == study).expect("a record");
        assert_eq!(record.report.as_deref(), Some(text.trim()), "form {i}");
        assert_eq!(record.findings.as_deref(), Some("Opacity of 5\u{2013}9 cm, caf\u{e9} au lait."), "form {i}");
        assert_eq!(record.impression.as_deref(), Some("\u{201c}Mass\u{201d}."), "form {i}");
    }
}

#[test]
fn golden_mimic_report_overrides() {
    let golden = golden_json("mimic_report_overrides.json");
    let sections = golden["section_by_study"].as_object().expect("sections");
    let ranges = golden["char_range_by_study"].as_object().expect("ranges");
    assert_eq!((SECTIONS.len(), CHARACTERS.len()), (sections.len(), ranges.len()));
    assert!(sections.len() > 20 && ranges.len() > 30);
    for (study, section) in sections {
        let number = study.strip_prefix('s').expect("a study");
        let section = section.as_str().expect("a name");
        let Conclusion::Section(ours) = Conclusion::of_mimic_study(number) else { panic!("{study}") };
        assert_eq!(ours, section);
        // Under its heading, the last of two, whatever the others say.
        let heading = section.to_uppercase();
        let text = format!(
            " FINAL REPORT\n {heading}: The former.\n \n FINDINGS: Wires.\n \n {heading}: Large\n effusion.\n \n IMPRESSION: As above.\n"
        );
        let found = sections_with(&text, Conclusion::of_mimic_study(number));
        assert_eq!(found.impression.as_deref(), Some("Large\n effusion."), "{study}");
        assert_eq!((found.conclusion(), found.findings.as_deref()), (Some("Large\n effusion."), Some("Wires.")));
        // Without that section the report says what it says.
        let usual = sections_with(" FINAL REPORT\n IMPRESSION: Clear.\n", Conclusion::of_mimic_study(number));
        assert_eq!(usual.impression.as_deref(), Some("Clear."));
    }
    for (study, range) in ranges {
        let number = study.strip_prefix('s').expect("a study");
        let at = |i: usize| usize::try_from(range[i].as_u64().expect("a place")).expect("a place");
        let (start, end) = (at(0), at(1));
        assert_eq!(Conclusion::of_mimic_study(number), Conclusion::Characters(start, end));
        // Characters of two bytes before and after it: bytes would cut elsewhere.
        let inside: String = "q".repeat(end - start);
        let text = format!("{}{inside}{}", "é".repeat(start), "ü".repeat(40));
        let found = sections_with(&text, Conclusion::of_mimic_study(number));
        assert_eq!(found.impression, some(&inside), "{study}");
        assert_eq!(found.conclusion(), found.impression.as_deref());
        if end == 0 {
            let text = " FINAL REPORT\n FINDINGS: See below.\n \n IMPRESSION: See above.\n";
            assert_eq!(sections_with(text, Conclusion::of_mimic_study(number)).conclusion(), None, "{study}");
        }
    }
    assert_eq!(Conclusion::of_mimic_study("50414267"), Conclusion::Usual);
}

#[test]
fn overridden_studies_reach_the_shards() {
    let temporary = folder();
    let raw = temporary.path().join("raw");
    let range = "x".repeat(59) + &"Größere Ergüsse. ".repeat(6) + &"y".repeat(300);
    let studies = [
        // In the section `recommendations`; CRLF counts as one character.
        ("50913680", " FINAL REPORT\r\n IMPRESSION: Wet.\r\n \r\n RECOMMENDATION(S): Dry.\r\n".to_owned()),
        // Characters 59 to 218.
        ("56579911", range.clone()),
        // No conclusion at all.
        ("58235663", " FINAL REPORT\n IMPRESSION: Wet.\n".to_owned()),
        ("50000001", " FINAL REPORT\n IMPRESSION: Usual.\n".to_owned()),
    ];
    let mut table = "dicom_id,subject_id,study_id\n".to_owned();
    for (study, text) in &studies {
        table += &format!("image-{study},10000032,{study}\n");
        write(&raw.join(format!("files/p10/p10000032/s{study}.txt")), text);
    }
    write(&raw.join("mimic-cxr-2.0.0-metadata.csv"), table);
    let out = temporary.path().join("set");
    ingest("mimic-cxr", &raw, &out, &["--no-images", "--report-text", "impression", "--tokenizer", "none"]);
    let found = records(&out);
    let impression = |study: &str| found[&format!("mimic-cxr/image-{study}")].impression.clone();
    assert_eq!(impression("50913680").as_deref(), Some("Dry."));
    let expected: String = range.chars().skip(59).take(218 - 59).collect();
    assert_eq!(impression("56579911").as_deref(), Some(expected.trim()));
    assert_eq!(impression("58235663"), None);
    assert_eq!(impression("50000001").as_deref(), Some("Usual."));
    assert!(found.values().all(|record| record.report == record.impression));
}
