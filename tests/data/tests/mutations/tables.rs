//! Tables, lists and trees of raw directories.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use dataset::format::byte_column::ByteColumn;
use helpers::{contents, folder, phantom_of};
use ingest::run::plan::{MaskSource, Source};
use ingest::sources::{self, TableOptions};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::cases::{TEXT, mutate_and_try};

/// Plans a raw directory of which one table is replaced.
fn plans(source: &dyn Source, raw: &Path, name: &str, bytes: &[u8]) {
    let path = raw.join(name);
    let before = fs::read(&path).ok();
    fs::write(&path, bytes).expect("written");
    if let Ok(plan) = source.plan(raw) {
        assert!(plan.records.is_sorted_by(|a, b| a.record_id < b.record_id));
        assert!(plan.records.iter().all(|record| record.labels.len() == plan.findings.len()));
        assert!(plan.check().is_ok());
        for mask in plan.records.iter().flat_map(|record| &record.masks) {
            if let MaskSource::Runs(runs) = &mask.pixels {
                let drawn = runs.draw(64, 48);
                assert!(drawn.is_err() || drawn.is_ok_and(|mask| mask.len() == 64 * 48));
            }
        }
        plan.sha256();
    }
    match before {
        Some(before) => fs::write(&path, before).expect("written"),
        None => fs::remove_file(&path).expect("removed"),
    }
}

/// The tables, XML and JSON files and readings of a raw directory; gzipped tables also plain.
fn tables(raw: &Path) -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (name, bytes) in contents(raw) {
        if let Some(plain) = name.strip_suffix(".gz").filter(|name| name.ends_with(".csv")) {
            let mut text = Vec::new();
            std::io::copy(&mut flate2::read::GzDecoder::new(bytes.as_slice()), &mut text).expect("gzip");
            fs::remove_file(raw.join(&name)).expect("removed");
            fs::write(raw.join(plain), &text).expect("written");
            seeds.push((plain.to_owned(), text));
            seeds.push((name, bytes));
        } else if [".csv", "_list.txt", "_0.txt", "_1.txt", "_position.json", "0819.json", ".xml"]
            .iter()
            .any(|ending| name.ends_with(ending))
        {
            seeds.push((name, bytes));
        }
    }
    seeds
}

/// Mutates the tables (and XML files) of a source's raw directory, one at a time, and plans it.
fn source_tables(layout: &str, source: &dyn Source) {
    let temporary = folder();
    let raw = phantom_of(layout, temporary.path(), 6);
    mutate_and_try(&format!("{layout}_tables"), &tables(&raw), &raw, TEXT, &|raw, name, bytes| {
        plans(source, raw, name, bytes);
    });
}

#[test]
fn mimic_cxr_tables() {
    source_tables("mimic-cxr", &sources::MimicCxr::default());
}

#[test]
fn chexpert_tables() {
    source_tables("chexpert", &sources::Chexpert::default());
}

#[test]
fn nih_tables() {
    source_tables("nih", &sources::Nih { no_images: false });
}

#[test]
fn covid_tables() {
    source_tables("covid", &sources::Covid { no_images: false });
}

#[test]
fn rsna_tables() {
    source_tables("rsna", &sources::Rsna);
}

/// The run lengths of the masks are drawn too.
#[test]
fn siim_tables() {
    source_tables("siim", &sources::Siim);
}

/// Labels and boxes of readers.
#[test]
fn vindr_tables() {
    source_tables("vindr-cxr", &sources::VindrCxr::default());
}

/// List literals.
#[test]
fn padchest_tables() {
    source_tables("padchest", &sources::Padchest { no_images: false, min_label_count: 2 });
}

/// JSON and a table.
#[test]
fn padchest_gr_tables() {
    source_tables("padchest-gr", &sources::PadchestGr::default());
}

/// JSON.
#[test]
fn rexgradient_tables() {
    source_tables("rexgradient", &sources::Rexgradient::default());
}

#[test]
fn taix_ray_tables() {
    source_tables("taix-ray", &sources::TaixRay { no_images: false, fold: 0, threshold: 1 });
}

/// The run lengths of the masks are drawn too.
#[test]
fn candid_ptx_tables() {
    source_tables("candid-ptx", &sources::CandidPtx::default());
}

/// Literals of dictionaries.
#[test]
fn siim_covid_tables() {
    source_tables("siim-covid", &sources::SiimCovid);
}

/// Readings.
#[test]
fn nlm_tb_readings() {
    source_tables("nlm-tb", &sources::NlmTb::default());
}

/// XML reports.
#[test]
fn openi_reports() {
    source_tables("openi", &sources::OpenI { reports_alone: false });
}

#[test]
fn folder_tables() {
    let column = |name: &str| Some(name.to_owned());
    let source = |raw: &Path| {
        let table = TableOptions {
            table: raw.join("films.csv"),
            image_column: "file".to_owned(),
            report_column: column("report"),
            patient_column: column("patient"),
            study_column: column("study"),
            view_column: column("view"),
            subset_column: column("subset"),
            label_columns: vec!["Edema".to_owned()],
            class_columns: vec!["Pneumonia".to_owned()],
            ..TableOptions::default()
        };
        sources::Folder { table: Some(table), ..sources::Folder::default() }
    };
    let temporary = folder();
    let raw = phantom_of("folder", temporary.path(), 6);
    mutate_and_try("folder_tables", &tables(&raw), &raw, TEXT, &|raw, name, bytes| {
        plans(&source(raw), raw, name, bytes);
    });
}

/// Parquet files with images, in pages of both kinds.
#[test]
fn image_tables() {
    let temporary = folder();
    let radiographs = contents(&phantom_of("taix-ray", temporary.path(), 5));
    let images: Vec<&[u8]> =
        radiographs.iter().filter(|(name, _)| name.ends_with(".png")).map(|(_, bytes)| bytes.as_slice()).collect();
    let column: ArrayRef = Arc::new(images.iter().map(|bytes| Some(*bytes)).chain([None]).collect::<BinaryArray>());
    let names: ArrayRef = Arc::new((0..=images.len()).map(|number| Some(number.to_string())).collect::<StringArray>());
    let batch =
        RecordBatch::try_from_iter_with_nullable([("id", names, true), ("image", column, true)]).expect("a batch");
    let seeds = [(true, Compression::SNAPPY), (false, Compression::UNCOMPRESSED)].map(|(dictionary, compression)| {
        let properties = WriterProperties::builder().set_compression(compression).set_dictionary_enabled(dictionary);
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.build())).expect("a table");
        writer.write(&batch).expect("written");
        (format!("{compression}.parquet"), writer.into_inner().expect("a table"))
    });
    mutate_and_try("image_tables", &seeds, temporary.path(), TEXT, &|place, name, bytes| {
        let path = place.join(name);
        fs::write(&path, bytes).expect("written");
        let table = TableOptions { table: path.clone(), image_column: "image".to_owned(), ..TableOptions::default() };
        let source = sources::Folder { table: Some(table), ..sources::Folder::default() };
        let _ = source.plan(place);
        let read = || -> std::io::Result<()> {
            let column = ByteColumn::open(&path, "image")?;
            for row in 0..column.rows().min(20) {
                if let Ok(place) = column.place(row) {
                    let _ = column.read(place).map(|values| values.get(row).map(<[u8]>::len));
                    let _ = column.read_again(place, row);
                }
            }
            Ok(())
        };
        // The library may panic; who reads files catches that.
        let _ = std::panic::catch_unwind(read);
    });
}
