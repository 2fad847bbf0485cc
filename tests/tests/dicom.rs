//! Real DICOM files in many encodings against expected stored values and pictures.

use std::fs;

use ingest::dicom::{Pixels, Values};
use ingest::tone::{Tone, to_grey};
use mrm_tests::real_data;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Grey levels by which the mean of a block of the picture may differ: rounding for lossless files, the codec's freedom
/// for lossy ones.
const LOSSLESS: f64 = 0.51;
const LOSSY: f64 = 4.0;

/// Transfer syntaxes that are not read: JPEG-LS, lossless and near-lossless.
const NOT_READ: [&str; 2] = ["1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"];

fn expected() -> Option<(std::path::PathBuf, Vec<Value>)> {
    let folder = real_data()?.join("dicom");
    let text = fs::read(folder.join("expected.json")).expect("expected.json");
    let mut json: Value = serde_json::from_slice(&text).expect("JSON");
    let Value::Array(files) = json["files"].take() else { panic!("files") };
    Some((folder, files))
}

/// Stored values, signed where they are.
fn stored(pixels: &Pixels) -> Option<Vec<i64>> {
    let Pixels::Grey { values, bits, signed } = pixels else { return None };
    let sign = 1i64 << (bits - 1);
    let extend = |pattern: i64| if *signed && pattern & sign != 0 { pattern - 2 * sign } else { pattern };
    Some(match values {
        Values::U8(values) => values.iter().map(|&v| extend(v.into())).collect(),
        Values::U16(values) => values.iter().map(|&v| extend(v.into())).collect(),
        Values::I64(values) => values.clone(),
    })
}

/// Means of a 16 × 16 grid of blocks.
fn thumbnail(grey: &[u8], rows: usize, columns: usize) -> Vec<f64> {
    let mut means = Vec::new();
    for i in 0..16 {
        for j in 0..16 {
            let (mut sum, mut count) = (0.0, 0.0);
            for y in i * rows / 16..(i + 1) * rows / 16 {
                for x in j * columns / 16..(j + 1) * columns / 16 {
                    sum += f64::from(grey[y * columns + x]);
                    count += 1.0;
                }
            }
            means.push(sum / count);
        }
    }
    means
}

#[test]
fn real_dicom_files_decode_to_the_expected_values() {
    let Some((folder, files)) = expected() else { return };
    let mut problems = Vec::new();
    let mut checked = 0;
    for file in &files {
        let name = file["file"].as_str().expect("a name");
        let syntax = file["transfer_syntax_uid"].as_str().unwrap_or_default();
        let decoded = ingest::dicom::read(&fs::read(folder.join(name)).expect("a file"));
        if file["error"] == true {
            // Whoever reads such a file all the same is as good; whoever refuses must say why.
            if let Err(reason) = decoded
                && reason.len() < 10
            {
                problems.push(format!("{name}: refused without a reason"));
            }
            continue;
        }
        if NOT_READ.contains(&syntax) {
            if decoded.is_ok() {
                problems.push(format!("{name}: reads {syntax} now: take it off the list"));
            }
            continue;
        }
        let dicom = match decoded {
            Ok(dicom) => dicom,
            Err(reason) => {
                problems.push(format!("{name} ({syntax}): {reason}"));
                continue;
            }
        };
        checked += 1;
        let lossy = file["lossy"] == true;
        if let Some(values) = stored(&dicom.pixels) {
            let expected = &file["stored"];
            let sum: i64 = values.iter().sum();
            let mean = sum as f64 / values.len() as f64;
            let (low, high) = (values.iter().min().expect("pixels"), values.iter().max().expect("pixels"));
            if lossy {
                let close = |ours: f64, key: &str, tolerance: f64| {
                    (ours - expected[key].as_f64().expect("a number")).abs() <= tolerance
                };
                let span = expected["max"].as_f64().expect("a number") - expected["min"].as_f64().expect("a number");
                if !close(mean, "mean", 0.01 * span)
                    || !close(*low as f64, "min", 0.05 * span)
                    || !close(*high as f64, "max", 0.05 * span)
                {
                    problems.push(format!("{name}: stored {low} {high} {mean}, expected {expected}"));
                }
            } else {
                let bytes: Vec<u8> = values.iter().flat_map(|v| (*v as i32).to_le_bytes()).collect();
                let digest = dataset::files::hex(&Sha256::digest(&bytes));
                if digest != expected["sha256_i32le"].as_str().expect("a digest") {
                    problems.push(format!("{name}: stored {low} {high} {mean}, expected {expected}"));
                }
            }
        }
        let display = &file["display"];
        let grey = to_grey(&dicom, Tone::Voi);
        let tolerance = if lossy { LOSSY } else { LOSSLESS };
        let mean = grey.iter().map(|&v| f64::from(v)).sum::<f64>() / grey.len() as f64;
        if (mean - display["mean"].as_f64().expect("a mean")).abs() > tolerance {
            problems.push(format!("{name}: picture's mean {mean}, expected {}", display["mean"]));
        } else if let Some(blocks) = display["thumb16"].as_array() {
            let ours = thumbnail(&grey, dicom.height as usize, dicom.width as usize);
            let worst =
                ours.iter().zip(blocks).map(|(a, b)| (a - b.as_f64().expect("a mean")).abs()).fold(0.0, f64::max);
            if worst > tolerance {
                problems.push(format!("{name}: a block of the picture is off by {worst}"));
            }
        }
    }
    assert!(problems.is_empty(), "{checked} checked\n{}", problems.join("\n"));
    assert!(checked >= 25, "{checked} files checked");
}
