//! The source `nih`.

use std::collections::HashMap;
use std::fs;

use dataset::Dataset;
use dataset::Label;
use dataset::format::record::ImageEncoding;
use helpers::{
    args, folder, ingest, ok, phantom_of, read_text, real_data, records_by_id, rejects, write_file, write_png,
};
use ingest::run::plan::Source;
use ingest::sources;

use crate::shared::rows;

#[test]
fn a_phantom_is_ingested() {
    let temporary = folder();
    let raw = phantom_of("nih", temporary.path(), 60);
    let out = temporary.path().join("set");
    ok("ingest", args!["nih", &raw, &out, "--size", "96"]);
    assert_eq!(rejects(&out), []);
    let found = records_by_id(&out);
    let dataset = Dataset::open(&out).expect("a dataset");
    let entries = read_text(&raw.join("Data_Entry_2017_v2020.csv"));
    assert!(entries.starts_with(
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,\
         OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n00000001_000.png,"
    ));
    let (train, test) = (read_text(&raw.join("train_val_list.txt")), read_text(&raw.join("test_list.txt")));
    let rows_of = rows(&entries);
    assert_eq!(rows_of.len(), found.len());
    for row in &rows_of {
        let record = &found[&format!("nih/{}", row["Image Index"])];
        let named: Vec<&str> = dataset
            .findings()
            .iter()
            .zip(&record.labels)
            .filter(|(_, label)| **label == Some(Label::Positive))
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
        assert_eq!(record.study_order, row["Follow-up #"].parse().ok());
        assert_eq!(record.label_origin.as_deref(), Some("nlp:nih"));
        // The table has the spacing of the image that the file was resized from.
        let number = |name: &str| row[name].parse::<f32>().expect("a number");
        let [down, across] = record.pixel_spacing.expect("a spacing");
        let expected = number("y]") * number("Height]") / record.source_height as f32;
        assert!((down - expected).abs() < 1e-5 * expected, "{down} {expected}");
        let expected =
            number("OriginalImagePixelSpacing[x") * number("OriginalImage[Width") / record.source_width as f32;
        assert!((across - expected).abs() < 1e-5 * expected, "{across} {expected}");
        let lists =
            (train.lines().any(|line| line == record.image_id), test.lines().any(|line| line == record.image_id));
        assert_eq!(lists, (record.subset.as_deref() == Some("train"), record.subset.as_deref() == Some("test")));
    }
    // Boxes are as listed, of findings in the entry table, inside the image.
    let list = read_text(&raw.join("BBox_List_2017.csv"));
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
        assert!(record.labels[at] == Some(Label::Positive) && record.subset.as_deref() == Some("test"));
        boxes += 1;
    }
    assert!(boxes > 5 && boxes == found.values().map(|record| record.boxes.len()).sum::<usize>());
    // A few files have four channels; they decode to the same gray.
    let color = |path: &str| fs::read(raw.join(path)).expect("an image")[25] == 6;
    let with_alpha: Vec<_> = found.values().filter(|record| color(&record.source_path)).collect();
    assert!((1..20).contains(&with_alpha.len()), "{}", with_alpha.len());
    for record in with_alpha {
        let gray = ingest::image::pipeline::decode(
            &fs::read(raw.join(&record.source_path)).expect("an image"),
            ingest::image::intensity::Intensity::Voi,
        );
        let gray = gray.expect("an image");
        assert_eq!(gray.encode(ImageEncoding::Raw).expect("pixels"), record.image);
    }
}

#[test]
fn labels_boxes_and_subset_are_read() {
    let temporary = folder();
    let path = temporary.path();
    let nih = path.join("nih");
    write_png(&nih.join("images_001/images/00000001_000.png"), 128, 128);
    write_png(&nih.join("images_002/images/00000002_000.png"), 128, 128);
    let entries = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,\
                   OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n\
                   00000001_000.png,Cardiomegaly|Effusion,0,1,058Y,M,PA,2682,2749,0.143,0.143,\n\
                   00000002_000.png,No Finding,0,2,081Y,F,AP,2500,2048,0.168,0.168,\n";
    fs::write(nih.join("Data_Entry_2017.csv"), entries).expect("written");
    fs::write(
        nih.join("BBox_List_2017.csv"),
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_000.png,Cardiomegaly,20,40,60,30,,,\n",
    )
    .expect("written");
    fs::write(nih.join("train_val_list.txt"), "00000001_000.png\n").expect("written");
    fs::write(nih.join("test_list.txt"), "00000002_000.png\n").expect("written");
    let out = path.join("nih-set");
    ingest("nih", &nih, &out, &[]);
    let dataset = Dataset::open(&out).expect("a dataset");
    let record = dataset.record(0).expect("a record");
    assert_eq!((record.subset.as_deref(), record.age_years), (Some("train"), Some(58.0)));
    assert_eq!(record.labels.iter().filter(|label| **label == Some(Label::Positive)).count(), 2);
    let found = &record.boxes[0];
    assert_eq!(
        (found.x, found.y, found.width, found.height),
        (10.0, 20.0, 30.0, 15.0),
        "scaled to the stored 64 pixels"
    );
    assert_eq!(rejects(&out), []);

    // A box outside of its image would fail `verify`: the image is rejected.
    let boxes = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_000.png,Cardiomegaly,20,40,60,130,,,\n";
    fs::write(nih.join("BBox_List_2017.csv"), boxes).expect("written");
    let out = path.join("nih-outside");
    ingest("nih", &nih, &out, &["--max-reject-rate", "1"]);
    let rejected = rejects(&out);
    assert_eq!((rejected.len(), rejected[0].source_path.as_str()), (1, "images_001/images/00000001_000.png"));
    assert_eq!(rejected[0].error, "a box at 10, 20 of 30 × 65 pixels, which is not inside its image of 64 × 64");
    assert!(ok("dataset", args!["verify", &out]).contains("1 record, all whole"));
}

#[test]
fn invalid_rows_are_rejected_and_both_tables_are_read() {
    let temporary = folder();
    let raw = phantom_of("nih", temporary.path(), 12);
    let table = raw.join("Data_Entry_2017_v2020.csv");
    let text = read_text(&table);
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
    write_file(&raw.join("Data_Entry_2017.csv.gz"), &of_2017);
    ingest("nih", &raw, &second, &[]);
    assert!(records_by_id(&first) == records_by_id(&second));

    let mut lines: Vec<String> = of_2017.lines().map(str::to_owned).collect();
    let name = lines[1].split(',').next().expect("an image").to_owned();
    lines[1] = lines[1].replacen(lines[1].split(',').nth(1).expect("findings"), "Gout", 1);
    lines.push("x,y".to_owned());
    // A repeated row must not replace the one that has the file.
    lines.push(lines[2].clone());
    let kept = format!("nih/{}", lines[2].split(',').next().expect("an image"));
    write_file(&raw.join("Data_Entry_2017.csv.gz"), lines.join("\n"));
    write_file(
        &raw.join("images_002/images").join(&name),
        fs::read(raw.join("images_001/images").join(&name)).expect("PNG"),
    );
    let boxes = read_text(&raw.join("BBox_List_2017.csv"));
    write_file(
        &raw.join("BBox_List_2017.csv"),
        format!("{boxes}99999999_000.png,Mass,1,2,3,4\n00000002_000.png,Mass,one,2,3,4\n"),
    );
    let out = temporary.path().join("dirty");
    ingest("nih", &raw, &out, &["--max-reject-rate", "1"]);
    let found = rejects(&out);
    for words in [
        "unknown finding `Gout`",
        "2 fields, the header has 11",
        "another file has the same name; images_001/",
        "no table lists this file, so it has no record",
        "the box list has this image, the entry table does not",
        "not a box of four numbers",
        "this identifier is listed twice",
    ] {
        assert_eq!(found.iter().filter(|reject| reject.error.contains(words)).count(), 1, "{words}: {found:?}");
    }
    assert_eq!(found.len(), 7);
    assert_eq!(records_by_id(&out)[&kept].source_path, records_by_id(&second)[&kept].source_path);
}

#[test]
fn the_real_tables_agree_with_the_published_lists() {
    let Some(data) = real_data() else { return };
    let temporary = folder();
    let raw = temporary.path().join("raw");
    fs::create_dir(&raw).expect("a folder");
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
    // MRM's three lists: each image with its fourteen labels, in the order of the lists.
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
    // The lists follow the table of 2017. The table of 2020 has more findings for 181 images, and none less; their
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
        let text = read_text(&data.join(format!("labels/mrm-splits/NIH_ChestX-ray/{list}.txt.gz")));
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

    // The two real images.
    let out = temporary.path().join("sample");
    ok("ingest", args!["nih", data.join("nih-sample"), &out, "--size", "128"]);
    assert_eq!(rejects(&out), []);
    let found = records_by_id(&out);
    let first = &found["nih/00000001_000.png"];
    assert_eq!((first.source_height, first.source_width, first.height, first.width), (512, 512, 128, 128));
    assert_eq!((first.age_years, first.sex.as_deref(), first.view.as_deref()), (Some(57.0), Some("M"), Some("PA")));
    assert_eq!(first.labels.iter().filter(|label| **label == Some(Label::Positive)).count(), 1);
    assert_eq!(first.labels[1], Some(Label::Positive), "Cardiomegaly");
    assert_eq!(found["nih/00027426_000.png"].labels.last(), Some(&Some(Label::Positive)), "No Finding");
}

#[test]
fn the_real_entry_table_is_read_without_the_box_list() {
    let Some(data) = real_data() else { return };
    let temporary = folder();
    let path = temporary.path();
    let real = path.join("real-nih");
    fs::create_dir(&real).expect("a folder");
    fs::copy(data.join("labels/Data_Entry_2017_v2020.csv.gz"), real.join("Data_Entry_2017_v2020.csv.gz"))
        .expect("copied");
    let out = path.join("real-nih-set");
    ok("ingest", args!["nih", &real, &out, "--no-images"]);
    let totals = Dataset::open(&out).expect("a dataset").manifest().totals;
    assert_eq!((totals.records, totals.patients), (112_120, 30_805));
}
