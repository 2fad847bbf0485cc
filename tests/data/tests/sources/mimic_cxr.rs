//! The source `mimic-cxr`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dataset::Dataset;
use dataset::format::record::{ImageEncoding, Record};
use helpers::{
    args, contents, fails, folder, golden_json, ingest, phantom, read_text, records_by_id, rejects, rename, write_file,
};
use ingest::report::{CHARACTERS, Conclusion, SECTIONS, sections_with};

use crate::shared::rows;

/// Writes the images of a phantom as JPEG, and copies the other files.
fn jpg_tree(raw: &Path, to: &Path) {
    for (path, bytes) in contents(raw) {
        match path.strip_suffix(".dcm") {
            Some(stem) => {
                let gray = ingest::image::pipeline::decode(&bytes, ingest::image::intensity::Intensity::MimicCxrJpg)
                    .expect("an image");
                write_file(&to.join(format!("{stem}.jpg")), gray.encode(ImageEncoding::Jpeg).expect("a JPEG"));
            }
            None if path.ends_with(".txt") || path == "phantom.json" => {}
            // Unchanged: it is packed already, or not packed.
            None => {
                fs::create_dir_all(to).expect("a folder");
                fs::write(to.join(path), bytes).expect("written");
            }
        }
    }
}

/// The fields of records that must not depend on the layout.
fn without_layout(records: &BTreeMap<String, Record>) -> Vec<Record> {
    let bare = |record: &Record| Record {
        source_path: String::new(),
        source_digest: [0; 32],
        image: Vec::new(),
        // These are in DICOM headers only.
        sex: None,
        age_years: None,
        pixel_spacing: None,
        ..record.clone()
    };
    records.values().map(bare).collect()
}

#[test]
fn mimic_cxr_jpg_and_reports_are_found_in_every_layout() {
    let temporary = folder();
    let path = temporary.path();
    let raw = phantom(path, 20);
    let of = |name: &str, raw: &Path, more: &[&str]| {
        let out = path.join(name);
        ingest("mimic-cxr", raw, &out, more);
        assert_eq!(rejects(&out), [], "{name}");
        records_by_id(&out)
    };
    let dicom = of("dicom", &raw, &[]);
    assert!(dicom.values().all(|record| record.report.is_some() && record.source_path.ends_with(".dcm")));

    // As downloaded: the server's folders; JPG files with the tables, DICOM files with the reports.
    let server = path.join("server");
    let jpg_home = server.join("physionet.org/files/mimic-cxr-jpg/2.1.0");
    let dicom_home = server.join("physionet.org/files/mimic-cxr/2.1.0");
    jpg_tree(&raw, &jpg_home);
    for (file, bytes) in contents(&raw.join("files")) {
        write_file(&dicom_home.join("files").join(file), bytes);
    }
    let jpg = of("jpg", &server, &[]);
    assert!(
        jpg.values().all(|record| record.source_path.starts_with("physionet.org/files/mimic-cxr-jpg/2.1.0/files/"))
    );
    assert_eq!(without_layout(&jpg), without_layout(&dicom));
    let chosen = of("chosen", &server, &["--images", "dicom"]);
    assert!(chosen.values().all(|record| record.source_path.starts_with("physionet.org/files/mimic-cxr/2.1.0/files/")));
    assert!(chosen.values().zip(dicom.values()).all(|(a, b)| a.image == b.image && a.report == b.report));
    // The complete kind of files is preferred to a part of the other kind, DICOM or JPG.
    let some_jpg = contents(&jpg_home).into_keys().find(|file| file.ends_with(".jpg")).expect("a JPEG");
    fs::remove_file(jpg_home.join(some_jpg)).expect("removed");
    assert!(of("majority", &server, &[]).values().all(|record| record.source_path.ends_with(".dcm")));

    // Reports in a separate root.
    let (alone, reports) = (path.join("alone"), path.join("reports-elsewhere"));
    jpg_tree(&raw, &alone);
    for (file, bytes) in contents(&raw.join("files")).into_iter().filter(|(file, _)| file.ends_with(".txt")) {
        write_file(&reports.join("mimic-cxr-reports/files").join(file), bytes);
    }
    assert!(of("silent", &alone, &[]).values().all(|record| record.report.is_none()));
    let warned = helpers::run("ingest", args!["mimic-cxr", &alone, path.join("x"), "--dry-run"]);
    assert!(helpers::text(&warned.stderr).contains("warning: no reports found"), "{warned:?}");
    let elsewhere = reports.to_string_lossy().into_owned();
    let given = of("given", &alone, &["--reports", &elsewhere]);
    assert_eq!(without_layout(&given), without_layout(&dicom));
    // The manifest does not contain their place on this machine.
    assert!(!read_text(&path.join("given/dataset.json")).contains("reports-elsewhere"));
    // A relative path starts at the working directory; other reports in folders of the same form are another input.
    let again = |reports: &str| {
        let mut command = helpers::command("ingest");
        command.current_dir(path).args(args!["mimic-cxr", &alone, path.join("given"), "--reports", reports]);
        let output = command.args(helpers::SMALL).output().expect("the binary starts");
        helpers::text(&output.stdout) + &helpers::text(&output.stderr)
    };
    assert!(again("reports-elsewhere").contains("nothing to do"));
    let others = path.join("reports-of-others");
    for (file, bytes) in contents(&reports) {
        write_file(&others.join(file), [bytes.as_slice(), b"More."].concat());
    }
    let refused = again("reports-of-others");
    assert!(refused.contains("holds another dataset: --reports has other files; take another OUT"), "{refused}");

    // A packed archive is reported, not read.
    write_file(&alone.join("mimic-cxr-reports.zip"), "PK");
    let out = path.join("packed");
    ingest("mimic-cxr", &alone, &out, &[]);
    let found = rejects(&out);
    assert!(
        found.len() == 1 && found[0].source_path == "mimic-cxr-reports.zip" && found[0].stage == "report",
        "{found:?}"
    );
    assert!(found[0].error.contains("unpack it here, or give the folder of"), "{found:?}");
    let zip = alone.join("mimic-cxr-reports.zip");
    let refused = fails("ingest", 1, args!["mimic-cxr", &alone, path.join("x"), "--reports", &zip]);
    assert!(refused.contains("a zip archive is not read; unpack it"), "{refused}");
    let refused = fails("ingest", 1, args!["mimic-cxr", &alone, path.join("x"), "--reports", path.join("nowhere")]);
    assert!(refused.contains("nowhere: no report here; give the folder that contains"), "{refused}");
    // Unpacked beside it.
    rename(&reports.join("mimic-cxr-reports"), &alone.join("mimic-cxr-reports"));
    assert_eq!(without_layout(&of("unpacked", &alone, &[])), without_layout(&dicom));
}

#[test]
fn mimic_cxr_without_tables_needs_only_its_record_list() {
    let temporary = folder();
    let path = temporary.path();
    let raw = phantom(path, 15);
    let with_tables = path.join("with");
    ingest("mimic-cxr", &raw, &with_tables, &[]);
    let expected = records_by_id(&with_tables);
    let (mut list, mut studies) =
        ("subject_id,study_id,dicom_id,path\n".to_owned(), "subject_id,study_id,path\n".to_owned());
    for row in rows(&read_text(&raw.join("mimic-cxr-2.0.0-metadata.csv.gz"))) {
        let (subject, study, dicom) = (row["subject_id"], row["study_id"], row["dicom_id"]);
        let patient = format!("files/p{}/p{subject}", &subject[..2]);
        list += &format!("{subject},{study},{dicom},{patient}/s{study}/{dicom}.dcm\n");
        // The study list has the path of each report; here the reports were moved.
        studies += &format!("{subject},{study},{patient}/moved/s{study}.txt\n");
    }
    for report in contents(&raw).into_keys().filter(|file| file.ends_with(".txt")) {
        let name = report.rsplit_once('/').expect("a folder");
        rename(&raw.join(&report), &raw.join(format!("{}/moved/{}", name.0, name.1)));
        write_file(&raw.join(format!("{}/other.txt", name.0)), "no study's");
    }
    for name in ["metadata", "split", "chexpert"] {
        fs::remove_file(raw.join(format!("mimic-cxr-2.0.0-{name}.csv.gz"))).expect("removed");
    }
    write_file(&raw.join("cxr-record-list.csv.gz"), list);
    write_file(&raw.join("cxr-study-list.csv"), studies);
    let out = path.join("set");
    ingest("mimic-cxr", &raw, &out, &[]);
    assert_eq!(rejects(&out), []);
    let found = records_by_id(&out);
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
    for (a, b) in records_by_id(&out).values().zip(found.values()) {
        assert_eq!((&a.source_path, &a.report, &a.token_ids), (&b.source_path, &b.report, &b.token_ids));
    }
    let refused = fails("ingest", 1, args!["mimic-cxr", &raw, path.join("x")]);
    assert!(refused.contains("no image below `files/`; add the images, or give --no-images"), "{refused}");
    let refused = fails("ingest", 1, args!["mimic-cxr", &raw, path.join("x"), "--no-images", "--labels", "negbio"]);
    assert!(refused.contains("no mimic-cxr-*-negbio.csv[.gz]; leave out --labels"), "{refused}");
}

#[test]
fn labels_of_both_labelers_are_read_packed_or_not() {
    let temporary = folder();
    let path = temporary.path();
    let raw = phantom(path, 20);
    let names = ["metadata", "split", "chexpert"];
    let of = |name: &str, more: &[&str]| {
        let out = path.join(name);
        ingest("mimic-cxr", &raw, &out, &[&["--no-images", "--max-reject-rate", "0.1"], more].concat());
        (records_by_id(&out), rejects(&out))
    };
    let (packed, _) = of("packed", &[]);
    // Plain tables, of a later version.
    for name in names {
        let table = raw.join(format!("mimic-cxr-2.0.0-{name}.csv.gz"));
        write_file(&raw.join(format!("mimic-cxr-2.1.0-{name}.csv")), read_text(&table));
        fs::remove_file(table).expect("removed");
    }
    let (plain, rows_lost) = of("plain", &[]);
    assert!(plain == packed && rows_lost.is_empty());
    // NegBio's table with the opposite in every cell, and one invalid row.
    let table = raw.join("mimic-cxr-2.1.0-chexpert.csv");
    let text = read_text(&table);
    let swapped = text.replace(",1.0", ",one").replace(",0.0", ",1.0").replace(",one", ",0.0");
    let mut lines: Vec<&str> = swapped.lines().collect();
    let study = lines[1].split(',').nth(1).expect("a study").to_owned();
    let spoilt = format!("{},perhaps", lines[1].rsplit_once(',').expect("fields").0);
    lines[1] = &spoilt;
    write_file(&raw.join("mimic-cxr-2.1.0-negbio.csv.gz"), lines.join("\n"));
    assert!(of("both", &[]).0 == packed, "CheXpert's table has priority");
    let (negbio, lost) = of("negbio", &["--labels", "negbio"]);
    assert!(lost.len() == 1 && lost[0].error.contains("column `Support Devices`: `perhaps`"), "{lost:?}");
    for (a, b) in negbio.values().zip(packed.values()) {
        let opposite = |code: &Option<i8>| code.map(|code| if code >= 0 { 1 - code } else { code });
        let expected: Vec<_> =
            if a.study_id == study { vec![None; 14] } else { helpers::label_codes(b).iter().map(opposite).collect() };
        assert_eq!(helpers::label_codes(a), expected);
    }
    let manifest = Dataset::open(path.join("negbio")).expect("a dataset").manifest().clone();
    assert_eq!(manifest.arguments["labels"], "negbio");
    fs::remove_file(&table).expect("removed");
    assert!(of("without", &[]).0 == negbio, "NegBio's table if there is no other");
}

#[test]
fn times_sections_and_origins_are_read() {
    let temporary = folder();
    let path = temporary.path();
    let raw = phantom(path, 20);
    let out = path.join("set");
    ingest("mimic-cxr", &raw, &out, &[]);
    let found = records_by_id(&out);
    let (mut labeled, mut sections) = (0, 0);
    for row in rows(&read_text(&raw.join("mimic-cxr-2.0.0-metadata.csv.gz"))) {
        let record = &found[&format!("mimic-cxr/{}", row["dicom_id"])];
        let (date, time) = (row["StudyDate"], row["StudyTime"]);
        let expected =
            format!("{}-{}-{}T{}:{}:{}", &date[..4], &date[4..6], &date[6..], &time[..2], &time[2..4], &time[4..6]);
        assert_eq!(record.study_datetime.as_ref(), Some(&expected));
        assert_eq!(record.language.as_deref(), Some("en"));
        let is_labeled = record.labels.iter().any(Option::is_some);
        assert_eq!(record.label_origin.as_deref(), is_labeled.then_some("nlp:chexpert"));
        labeled += usize::from(is_labeled);
        let report = record.report.as_deref().expect("a report");
        let has_section = |name: &str| record.texts.iter().any(|text| text.name == name);
        assert_eq!(has_section("impression"), report.contains("IMPRESSION:"), "{report}");
        let mut at = 0;
        for text in &record.texts {
            at += report[at..].find(&text.text).unwrap_or_else(|| panic!("{} in its order: {report}", text.name));
            assert!(text.token_ids.len() > 1 && text.token_ids[0] == 2);
        }
        sections += record.texts.len();
        let last = |name: &str| record.texts.iter().rfind(|text| text.name == name).map(|text| text.text.clone());
        assert_eq!((last("findings"), last("impression")), (record.findings.clone(), record.impression.clone()));
    }
    assert!(labeled > 10 && sections > 40, "{labeled} {sections}");
    assert!(found.values().any(|record| record.texts.iter().any(|text| text.name == "indication")));

    // The labels that a radiologist gave to studies of the test subset.
    let test = found.values().find(|record| record.subset.as_deref() == Some("test")).expect("a test record");
    write_file(
        &raw.join("mimic-cxr-2.1.0-test-set-labeled.csv"),
        format!("study_id,Atelectasis,Airspace Opacity,Edema\n{},1.0,-1.0,\n1,0,0,0\n", test.study_id),
    );
    let out = path.join("manual");
    ingest("mimic-cxr", &raw, &out, &["--no-images", "--labels", "manual"]);
    let dataset = Dataset::open(&out).expect("a dataset");
    assert_eq!(dataset.findings(), ["Atelectasis", "Lung Opacity", "Edema"]);
    assert_eq!(dataset.manifest().arguments["labels"], "manual");
    for record in records_by_id(&out).values() {
        let own = record.study_id == test.study_id;
        assert_eq!(record.label_origin.as_deref(), own.then_some("radiologist"));
        let expected = if own { [Some(1), Some(-1), None] } else { [None; 3] };
        assert_eq!(helpers::label_codes(record), expected);
    }
    let out = path.join("usual");
    ingest("mimic-cxr", &raw, &out, &["--no-images"]);
    assert_eq!(Dataset::open(&out).expect("a dataset").findings().len(), 14, "no default");
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
    let found = records_by_id(&out);
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
        // The last section with the heading of the override counts.
        let heading = section.to_uppercase();
        let text = format!(
            " FINAL REPORT\n {heading}: The former.\n \n FINDINGS: Wires.\n \n {heading}: Large\n effusion.\n \n IMPRESSION: As above.\n"
        );
        let found = sections_with(&text, Conclusion::of_mimic_study(number));
        assert_eq!(found.impression.as_deref(), Some("Large\n effusion."), "{study}");
        assert_eq!((found.conclusion(), found.findings.as_deref()), (Some("Large\n effusion."), Some("Wires.")));
        // Without that section the report is unchanged.
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
        assert_eq!(found.impression, (!inside.is_empty()).then_some(inside), "{study}");
        assert_eq!(found.conclusion(), found.impression.as_deref());
        if end == 0 {
            let text = " FINAL REPORT\n FINDINGS: See below.\n \n IMPRESSION: See above.\n";
            assert_eq!(sections_with(text, Conclusion::of_mimic_study(number)).conclusion(), None, "{study}");
        }
    }
    assert_eq!(Conclusion::of_mimic_study("50414267"), Conclusion::Usual);
}

#[test]
fn overridden_reports_are_in_the_shards() {
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
        write_file(&raw.join(format!("files/p10/p10000032/s{study}.txt")), text);
    }
    write_file(&raw.join("mimic-cxr-2.0.0-metadata.csv"), table);
    let out = temporary.path().join("set");
    ingest("mimic-cxr", &raw, &out, &["--no-images", "--report-text", "impression", "--tokenizer", "none"]);
    let found = records_by_id(&out);
    let impression = |study: &str| found[&format!("mimic-cxr/image-{study}")].impression.clone();
    assert_eq!(impression("50913680").as_deref(), Some("Dry."));
    let expected: String = range.chars().skip(59).take(218 - 59).collect();
    assert_eq!(impression("56579911").as_deref(), Some(expected.trim()));
    assert_eq!(impression("58235663"), None);
    assert_eq!(impression("50000001").as_deref(), Some("Usual."));
    assert!(found.values().all(|record| record.report == record.impression));
}
