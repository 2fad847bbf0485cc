//! Real DICOM files in many encodings against expected stored values and images.

use std::fs;

use dataset::transform::window::LinearWindow;
use helpers::real_data;
use ingest::dicom::Dicom;
use ingest::dicom::transforms::{Modality, Voi, WindowFunction};
use ingest::image::intensity::{Intensity, to_gray};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Gray levels by which the mean of a block of the image may differ: rounding for lossless files, the differences of decoders
/// for lossy ones.
const LOSSLESS: f64 = 0.51;
const LOSSY: f64 = 4.0;

fn expected() -> Option<(std::path::PathBuf, Vec<Value>)> {
    let folder = real_data()?.join("dicom");
    let text = fs::read(folder.join("expected.json")).expect("expected.json");
    let mut json: Value = serde_json::from_slice(&text).expect("JSON");
    let Value::Array(files) = json["files"].take() else { panic!("files") };
    Some((folder, files))
}

/// Means of a 16 × 16 grid of blocks.
fn thumbnail(gray: &[u8], rows: usize, columns: usize) -> Vec<f64> {
    let mut means = Vec::new();
    for i in 0..16 {
        for j in 0..16 {
            let (mut sum, mut count) = (0.0, 0.0);
            for y in i * rows / 16..(i + 1) * rows / 16 {
                for x in j * columns / 16..(j + 1) * columns / 16 {
                    sum += f64::from(gray[y * columns + x]);
                    count += 1.0;
                }
            }
            means.push(sum / count);
        }
    }
    means
}

/// Differences between a decoded file and the expected values.
fn problem(dicom: &Dicom, file: &Value, lossy: bool) -> Option<String> {
    if let Some(values) = dicom.pixels.stored() {
        let expected = &file["stored"];
        let sum: i64 = values.iter().sum();
        let mean = sum as f64 / values.len() as f64;
        let (low, high) = (values.iter().min()?, values.iter().max()?);
        let number = |key: &str| expected[key].as_f64().expect("a number");
        let same = if lossy {
            let span = number("max") - number("min");
            (mean - number("mean")).abs() <= 0.01 * span
                && (*low as f64 - number("min")).abs() <= 0.05 * span
                && (*high as f64 - number("max")).abs() <= 0.05 * span
        } else {
            let bytes: Vec<u8> = values.iter().flat_map(|v| (*v as i32).to_le_bytes()).collect();
            dataset::store::files::hex(&Sha256::digest(&bytes)) == expected["sha256_i32le"].as_str().expect("a digest")
        };
        if !same {
            return Some(format!("stored {low} {high} {mean}, expected {expected}"));
        }
    }
    let display = &file["display"];
    let mut gray = Vec::new();
    to_gray(dicom, Intensity::Voi, &mut gray);
    let tolerance = if lossy { LOSSY } else { LOSSLESS };
    let mean = gray.iter().map(|&v| f64::from(v)).sum::<f64>() / gray.len() as f64;
    if (mean - display["mean"].as_f64().expect("a mean")).abs() > tolerance {
        return Some(format!("image's mean {mean}, expected {}", display["mean"]));
    }
    let blocks = display["thumb16"].as_array()?;
    let ours = thumbnail(&gray, dicom.height as usize, dicom.width as usize);
    let off = |(a, b): (&f64, &Value)| (a - b.as_f64().expect("a mean")).abs();
    let worst = ours.iter().zip(blocks).map(off).fold(0.0, f64::max);
    (worst > tolerance).then(|| format!("a block of the image is off by {worst}"))
}

#[test]
fn real_dicom_files_decode_to_the_expected_values() {
    let Some((folder, files)) = expected() else { return };
    let mut problems = Vec::new();
    let (mut decoded, mut refused) = (0, 0);
    for file in &files {
        let name = file["file"].as_str().expect("a name");
        let bytes = fs::read(folder.join(name)).expect("a file");
        let result = ingest::dicom::read(&bytes);
        // For some files that a strict decoder refuses, the expected values are those of the file with one byte corrected.
        let mended = file["patched"].is_object().then_some(&file["patched"]);
        let found = match (&result, file["error"] == true, mended) {
            (Ok(dicom), false, _) => problem(dicom, file, file["lossy"] == true),
            (Ok(dicom), true, Some(mended)) => problem(dicom, mended, true),
            (Ok(_), true, None) => Some("decodes, and is no image".to_owned()),
            (Err(reason), false, _) => Some(format!("refused: {reason}")),
            (Err(reason), true, _) => {
                refused += 1;
                println!("{name}: {reason}");
                (reason.len() < 10).then(|| format!("refused without a cause: {reason}"))
            }
        };
        decoded += u32::from(result.is_ok());
        problems.extend(found.map(|found| format!("{name} ({}): {found}", file["transfer_syntax_uid"])));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert_eq!((decoded, refused), (46, 6), "number of decoded and of refused files");
}

#[test]
fn real_dicom_files_keep_their_steps_in_16_bits_and_are_shown_as_in_8() {
    let Some((folder, files)) = expected() else { return };
    let (mut kept, mut shown) = (0, 0);
    for file in &files {
        let name = file["file"].as_str().expect("a name");
        let bytes = fs::read(folder.join(name)).expect("a file");
        let Ok(dicom) = ingest::dicom::read(&bytes) else { continue };
        let mut deep = Vec::new();
        let Some([center, width]) = ingest::image::deep::pixels(&dicom, Intensity::Voi, &mut deep) else {
            assert!(dicom.pixels.stored().is_none(), "{name}: only color has no 16 bits");
            continue;
        };
        let pixels = || deep.chunks_exact(2).map(|word| u16::from_le_bytes([word[0], word[1]]));
        let stored = dicom.pixels.stored().expect("gray values");
        assert_eq!(pixels().count(), stored.len(), "{name}");
        let real: Vec<(i64, i64)> = stored
            .iter()
            .copied()
            .zip(pixels().map(i64::from))
            .filter(|(value, _)| !dicom.is_padding(*value))
            .collect();
        if let Modality::Rescale { slope, .. } = dicom.modality {
            // A step of the file is a step of the pixels, except of files with more than 16 bits.
            let step = if slope.fract() == 0.0 { slope as i64 } else { slope.signum() as i64 };
            let step = if dicom.inverted { -step } else { step };
            let range = real.iter().map(|(value, _)| value * step);
            let span = range.clone().max().expect("pixels") - range.min().expect("pixels");
            let first = real[0];
            if span <= 65_535 {
                let is_kept = |(value, pixel): &(i64, i64)| pixel - first.1 == (value - first.0) * step;
                assert!(real.iter().all(is_kept), "{name}: steps of {slope}");
                kept += 1;
            }
        }
        let is_linear = match &dicom.voi {
            None => true,
            Some(Voi::Window { function, .. }) => *function != WindowFunction::Sigmoid,
            Some(Voi::Table(_)) => false,
        };
        if is_linear {
            let mut gray = Vec::new();
            to_gray(&dicom, Intensity::Voi, &mut gray);
            let ours = LinearWindow::new(center.into(), width.into()).gray(pixels());
            let both = ours.iter().zip(&gray).zip(&stored).filter(|(_, value)| !dicom.is_padding(**value));
            let worst = both.map(|((ours, theirs), _)| ours.abs_diff(*theirs)).max().expect("pixels");
            assert!(worst <= 1, "{name}: off by {worst} with {:?}", dicom.voi);
            shown += 1;
        }
    }
    assert!(kept >= 20 && shown >= 20, "{kept} files keep their steps, {shown} are shown");
}
