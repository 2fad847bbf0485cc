//! Files of radiographs, reports and tokenizers.

use std::fs;
use std::path::Path;

use dataset::format::image_codec::GrayPixels;
use dataset::format::record::ImageEncoding;
use helpers::{contents, folder, golden_json, phantom, real_data};
use ingest::image::intensity::Intensity;
use ingest::image::pipeline::{self, Scratch};
use ingest::image::resize::Resize;
use ingest::image::store16;
use ingest::report;
use ingest::report::tokenizer;
use ingest::sources::shared::table;

use crate::cases::{IMAGE_BYTES, TEXT, mutate_and_try, named};

/// Small synthetic DICOM files, and all real ones.
fn dicom_files(temporary: &Path) -> Vec<(String, Vec<u8>)> {
    let dicom = |(name, _): &(String, Vec<u8>)| name.ends_with(".dcm");
    let mut files = named(contents(&phantom(temporary, 3)).into_iter().filter(dicom));
    if let Some(data) = real_data() {
        files.extend(named(contents(&data.join("dicom")).into_iter().filter(dicom)));
    }
    files
}

pub fn decode(bytes: &[u8]) -> Result<GrayPixels, String> {
    let intensity = [Intensity::Voi, Intensity::Minmax, Intensity::MimicCxrJpg][bytes.len() % 3];
    let gray = pipeline::decode(bytes, intensity)?;
    assert_eq!(gray.pixels.len(), gray.width as usize * gray.height as usize);
    Ok(gray)
}

fn images(_: &Path, _: &str, bytes: &[u8]) {
    if let Ok(gray) = decode(bytes) {
        let resize = [Resize::Shorter, Resize::Pad, Resize::Stretch][bytes.len() % 3];
        let stored = pipeline::store(bytes, Intensity::Voi, 64, resize, &mut Scratch::default()).expect("it decodes");
        assert_eq!(stored.source, (gray.width, gray.height));
    }
    let deep = store16::store(bytes, Intensity::Voi, 64, Resize::Shorter, &mut Scratch::default());
    if let Some(deep) = deep.ok().and_then(|stored| stored.deep) {
        let pixels = deep.pixels.width as usize * deep.pixels.height as usize;
        assert!(deep.pixels.pixels.len() == pixels && deep.window[0].is_finite() && deep.window[1] >= 1.0);
    }
    // Files of classes that are no radiographs as well.
    if let Ok(dicom) = ingest::dicom::read(bytes) {
        let mut gray = Vec::new();
        ingest::image::intensity::to_gray(&dicom, Intensity::Voi, &mut gray);
        assert_eq!(gray.len(), dicom.width as usize * dicom.height as usize);
    }
}

fn reports(_: &Path, _: &str, bytes: &[u8]) {
    let text = table::decode_text(bytes.to_vec());
    report::sections(&text);
    report::main_sections(&text);
    report::normalize_heading(&text);
}

fn tokenizers(place: &Path, _: &str, bytes: &[u8]) {
    let path = place.join("tokenizer.json");
    fs::write(&path, bytes).expect("written");
    if let Ok(tokenizer) = tokenizer::load(&path) {
        let printed =
            tokenizer::token_ids(&tokenizer, "The lungs are clear; no ___ effusion, heart is énlarged (12.5 cm).", 48);
        assert!(printed.is_err() || printed.is_ok_and(|ids| ids.len() <= 48));
    }
}

#[test]
fn dicom() {
    let temporary = folder();
    mutate_and_try("dicom", &dicom_files(temporary.path()), temporary.path(), IMAGE_BYTES, &images);
}

#[test]
fn rasters() {
    let temporary = folder();
    let gray = GrayPixels { width: 40, height: 30, pixels: (0..1200).map(|at| (at % 251) as u8).collect() };
    let encoded = |encoding| gray.clone().encode(encoding).expect("an image");
    let mut seeds = vec![
        ("gray.png".to_owned(), encoded(ImageEncoding::Png)),
        ("gray.jpg".to_owned(), encoded(ImageEncoding::Jpeg)),
    ];
    if let Some(data) = real_data() {
        let mut real = named(contents(&data.join("covid-chestxray/images")));
        real.sort_by_key(|(_, bytes)| bytes.len());
        real.truncate(20);
        seeds.extend(real);
        seeds.extend(named(contents(&data.join("nih-sample")).into_iter().filter(|(name, _)| name.ends_with(".png"))));
    }
    mutate_and_try("rasters", &seeds, temporary.path(), IMAGE_BYTES, &images);
}

#[test]
fn report_texts() {
    let temporary = folder();
    let texts = contents(&phantom(temporary.path(), 20)).into_iter().filter(|(name, _)| name.ends_with(".txt"));
    let mut seeds = named(texts);
    let golden = golden_json("report_sections.json");
    let mut wait = vec![&golden];
    // Every longer text of the golden file.
    while let Some(value) = wait.pop() {
        match value {
            serde_json::Value::String(text) if text.len() > 200 && seeds.len() < 200 => {
                seeds.push((format!("golden-{}", seeds.len()), text.clone().into_bytes()));
            }
            serde_json::Value::Array(values) => wait.extend(values),
            serde_json::Value::Object(values) => wait.extend(values.values()),
            _ => {}
        }
    }
    mutate_and_try("report_texts", &seeds, temporary.path(), TEXT, &reports);
}

#[test]
fn tokenizer_files() {
    let temporary = folder();
    let texts: Vec<String> =
        (0..50).map(|i| format!("Small left pleural effusion, {i} cm. No pneumothorax.")).collect();
    let trained = tokenizer::train(&texts, 120).expect("trained").to_string(true).expect("JSON");
    // A large vocabulary is slow to read, so the real file alternates with small ones.
    let mut seeds: Vec<_> = (0..20).map(|i| (format!("trained-{i}"), trained.clone().into_bytes())).collect();
    if let Some(data) = real_data() {
        seeds.push(("real".to_owned(), fs::read(data.join("mimic_wordpiece.json")).expect("a tokenizer")));
    }
    mutate_and_try("tokenizer_files", &seeds, temporary.path(), TEXT, &tokenizers);
}
