//! `ingest --bits 16`: each stored pixel and each window against plain computations from the raw files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use dataset::Dataset;
use dataset::format::record::{ImageEncoding, Record};
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, InMemDicomObject};
use helpers::{args, command, contents, fails, files_with, folder, ok, phantom, phantom_of, records, rejects};

/// Images keep their size.
const WHOLE: [&str; 2] = ["--size", "4096"];

fn ingest(source: &str, raw: &Path, out: &Path, more: &[&str]) {
    let small = ["--vocab-size", "400", "--rows-per-shard", "8"];
    ok("ingest", args![source, raw, out].into_iter().chain(small.iter().chain(more).map(Into::into)));
}

fn put(object: &mut InMemDicomObject, tag: Tag, vr: VR, value: &str) {
    object.put(DataElement::new(tag, vr, PrimitiveValue::from(value)));
}

fn number(object: &mut InMemDicomObject, tag: Tag, value: u16) {
    object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
}

fn words(object: &InMemDicomObject) -> Vec<u16> {
    object.element(tags::PIXEL_DATA).expect("pixels").to_multi_int::<u16>().expect("words")
}

fn change_words(object: &mut InMemDicomObject, change: impl Fn(u16) -> u16) {
    let changed: Vec<u16> = words(object).into_iter().map(change).collect();
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(changed.into())));
}

/// Changes an object of the phantom: 12 bits, with a window.
type Change = fn(&mut InMemDicomObject);

/// Kinds of files.
const KINDS: [(&str, Change); 10] = [
    ("as it is", |_| {}),
    ("signed", |object| {
        change_words(object, |word| word.wrapping_sub(2048) & 0xFFF);
        number(object, tags::PIXEL_REPRESENTATION, 1);
        put(object, tags::WINDOW_CENTER, VR::DS, "-40.5");
    }),
    ("slope 2", |object| {
        put(object, tags::RESCALE_SLOPE, VR::DS, "2");
        put(object, tags::RESCALE_INTERCEPT, VR::DS, "-1000");
        put(object, tags::WINDOW_CENTER, VR::DS, "2500");
    }),
    ("slope 0.25", |object| {
        put(object, tags::RESCALE_SLOPE, VR::DS, "0.25");
        put(object, tags::RESCALE_INTERCEPT, VR::DS, "-7.5");
        put(object, tags::WINDOW_CENTER, VR::DS, "450");
        put(object, tags::WINDOW_WIDTH, VR::DS, "600.5");
    }),
    ("falling", |object| put(object, tags::RESCALE_SLOPE, VR::DS, "-1")),
    ("no window", |object| {
        object.remove_element(tags::WINDOW_CENTER);
    }),
    ("exact", |object| put(object, tags::VOILUT_FUNCTION, VR::CS, "LINEAR_EXACT")),
    ("sigmoid", |object| put(object, tags::VOILUT_FUNCTION, VR::CS, "SIGMOID")),
    ("16 bits, dark is high", |object| {
        change_words(object, |word| word * 16 + 9);
        number(object, tags::BITS_STORED, 16);
        number(object, tags::HIGH_BIT, 15);
        put(object, tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1");
        put(object, tags::WINDOW_CENTER, VR::DS, "30000");
        put(object, tags::WINDOW_WIDTH, VR::DS, "40000");
    }),
    ("padded", |object| {
        let first = words(object)[0];
        number(object, tags::PIXEL_PADDING_VALUE, first);
    }),
];

/// A phantom of MIMIC-CXR whose files are of all kinds, by their paths.
fn raw(folder: &Path, studies: usize) -> (PathBuf, Vec<(String, &'static str)>) {
    let raw = phantom(folder, studies);
    let change = |(at, name): (usize, String)| {
        let (kind, change) = KINDS[at % KINDS.len()];
        let path = raw.join(&name);
        let mut object = dicom_object::open_file(&path).expect("DICOM");
        change(&mut object);
        object.write_to_file(&path).expect("written");
        (name, kind)
    };
    let kinds = files_with(&raw, ".dcm").into_iter().enumerate().map(change).collect();
    (raw, kinds)
}

/// What a file holds, computed plainly: its pixels, and of each the gray level from 0 to 255 that its header shows.
fn naive(object: &DefaultDicomObject) -> (Vec<u16>, Vec<f64>) {
    let first = |tag| object.element_opt(tag).ok().flatten().and_then(|it| it.to_multi_float64().ok()).map(|it| it[0]);
    let text =
        |tag| object.element_opt(tag).ok().flatten().and_then(|it| it.to_str().ok().map(|it| it.trim().to_owned()));
    let bits = first(tags::BITS_STORED).expect("bits") as u32;
    let signed = first(tags::PIXEL_REPRESENTATION) == Some(1.0);
    let half = f64::from(1u32 << (bits - 1));
    let stored: Vec<f64> = words(object)
        .into_iter()
        .map(|word| f64::from(u32::from(word) & ((1u32 << bits) - 1)))
        .map(|value| if signed && value >= half { value - 2.0 * half } else { value })
        .collect();
    let padding = first(tags::PIXEL_PADDING_VALUE);
    let slope = first(tags::RESCALE_SLOPE).unwrap_or(1.0);
    let intercept = first(tags::RESCALE_INTERCEPT).unwrap_or(0.0);
    let whole = slope.fract() == 0.0 && intercept.fract() == 0.0;
    let inverted = text(tags::PHOTOMETRIC_INTERPRETATION).as_deref() == Some("MONOCHROME1");
    let number = |value: f64| if whole { value * slope + intercept } else { value * slope.signum() };
    let ends = if signed { [-half, half - 1.0] } else { [0.0, 2.0 * half - 1.0] };
    let brightness =
        |value: f64| if inverted { number(ends[0]) + number(ends[1]) - number(value) } else { number(value) };
    let real = || stored.iter().copied().filter(|value| Some(*value) != padding);
    let extremes = |of: &dyn Fn(f64) -> f64| {
        real().map(of).fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)))
    };
    let (low, high) = extremes(&brightness);
    let least = if low >= 0.0 && high <= 65_535.0 { 0.0 } else { low };
    let modality = |value: f64| value * slope + intercept;
    let function = text(tags::VOILUT_FUNCTION);
    let share = |value: f64| {
        let x = modality(value);
        let shown = match (first(tags::WINDOW_CENTER), first(tags::WINDOW_WIDTH), function.as_deref()) {
            (Some(center), Some(width), None) => (x - (center - 0.5)) / (width - 1.0) + 0.5,
            // The tangent of the sigmoid is the exact linear function.
            (Some(center), Some(width), Some(_)) => (x - center) / width + 0.5,
            _ => {
                let (low, high) = extremes(&modality);
                (x - low) / (high - low)
            }
        };
        if inverted { 1.0 - shown } else { shown }
    };
    let is_padding = |value: &f64| Some(*value) == padding;
    let pixels = stored.iter().map(|value| if is_padding(value) { 0 } else { (brightness(*value) - least) as u16 });
    let levels = stored.iter().map(|&value| (share(value) * 255.0).clamp(0.0, 255.0));
    (pixels.collect(), levels.collect())
}

/// The linear function of DICOM PS3.3 C.11.2.1.2.1.
fn level(pixel: u16, [center, width]: [f32; 2]) -> f64 {
    let (center, width) = (f64::from(center), f64::from(width));
    (((f64::from(pixel) - (center - 0.5)) / (width - 1.0) + 0.5) * 255.0).clamp(0.0, 255.0)
}

/// The pixels of a record of 16 bits, decoded by another library where they are a PNG.
fn pixels(record: &Record, encoding: ImageEncoding) -> Vec<u16> {
    if encoding == ImageEncoding::Raw16 {
        return record.image.chunks_exact(2).map(|word| u16::from_le_bytes([word[0], word[1]])).collect();
    }
    let mut reader = png::Decoder::new(std::io::Cursor::new(&record.image)).read_info().expect("a PNG");
    let mut bytes = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut bytes).expect("pixels");
    assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Grayscale, png::BitDepth::Sixteen));
    bytes.chunks_exact(2).map(|word| u16::from_be_bytes([word[0], word[1]])).collect()
}

#[test]
fn every_pixel_is_that_of_the_detector_and_every_window_that_of_the_header() {
    let temporary = folder();
    let (raw, kinds) = raw(temporary.path(), 24);
    for (name, encoding) in [("raw", ImageEncoding::Raw16), ("png", ImageEncoding::Png16)] {
        let out = temporary.path().join(name);
        ingest("mimic-cxr", &raw, &out, &[&["--bits", "16", "--image-encoding", name], &WHOLE[..]].concat());
        assert_eq!(rejects(&out), []);
        assert!(ok("dataset", args!["verify", &out]).contains("all whole"));
        let dataset = Dataset::open(&out).expect("a dataset");
        let image = &dataset.manifest().image;
        assert_eq!((image.encoding, image.bits), (encoding, 16));
        let (mut sum, mut count) = (0.0, 0.0);
        let found = records(&out);
        assert_eq!(found.len(), kinds.len());
        for (row, record) in found.iter().enumerate() {
            let (_, kind) = kinds.iter().find(|(name, _)| *name == record.source_path).expect("a file");
            let object = dicom_object::open_file(raw.join(&record.source_path)).expect("DICOM");
            let (expected, levels) = naive(&object);
            let pixels = pixels(record, encoding);
            assert!(pixels == expected, "{kind}: pixels differ");
            assert_eq!(dataset.image16(row).expect("an image").pixels, expected, "{kind}");
            let window = record.window.expect("a window");
            let shown = dataset.image(row).expect("an image").pixels;
            let padding = *kind == "padded";
            for ((&pixel, expected), shown) in pixels.iter().zip(levels).zip(shown) {
                let found = level(pixel, window);
                assert!((found - expected).abs() < 0.02 || padding && pixel == 0, "{kind}: {found}, not {expected}");
                assert!((f64::from(shown) - found).abs() < 0.51, "{kind}: shown as {shown}, not {found}");
                sum += f64::from(shown);
                count += 1.0;
            }
        }
        assert!((image.mean - sum / count / 255.0).abs() < 1e-9, "the mean is that of the shown pixels");
        // The range of the values shows that bits were kept.
        assert!(found.iter().any(|record| pixels(record, encoding).iter().any(|&pixel| pixel > 4095)));
    }
}

#[test]
fn a_stopped_run_of_16_bits_continues_to_the_same_bytes_and_tasks_make_them_too() {
    let temporary = folder();
    let (raw, _) = raw(temporary.path(), 30);
    let arguments = |out: &Path, more: &[&str]| {
        let mut all = args!["mimic-cxr", &raw, out, "--bits", "16", "--image-encoding", "png", "--size", "80"].to_vec();
        all.extend(
            ["--resize", "pad", "--rows-per-shard", "8", "--vocab-size", "400"].iter().chain(more).map(Into::into),
        );
        all
    };
    let path = |name: &str| temporary.path().join(name);
    ok("ingest", arguments(&path("whole"), &["--jobs", "3"]));
    let whole = contents(&path("whole"));
    let mut child = command("ingest")
        .args(arguments(&path("stopped"), &["--jobs", "1"]))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    while !path("stopped").join(".ingest/part-00001.json").exists() && child.try_wait().expect("a state").is_none() {}
    child.kill().expect("SIGKILL");
    child.wait().expect("it ends");
    ok("ingest", arguments(&path("stopped"), &["--jobs", "2"]));
    assert!(contents(&path("stopped")) == whole);
    for task in ["1/2", "0/2"] {
        ok("ingest", arguments(&path("tasks"), &["--task", task]));
    }
    assert!(contents(&path("tasks")) == whole);
    // Another number of bits is another dataset.
    let message =
        fails("ingest", 1, args!["mimic-cxr", &raw, path("whole"), "--image-encoding", "png", "--size", "80"]);
    assert!(message.contains("--bits was 16, is not given"), "{message}");
}

#[test]
fn images_of_16_bits_are_resized_as_those_of_8_bits() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 12);
    for resize in ["shorter", "pad", "stretch"] {
        let small = ["--size", "48", "--resize", resize];
        let out = |bits: &str| {
            let out = temporary.path().join(format!("{resize}-{bits}"));
            ingest("mimic-cxr", &raw, &out, &[&["--bits", bits], &small[..]].concat());
            Dataset::open(&out).expect("a dataset")
        };
        let (gray, deep) = (out("8"), out("16"));
        assert_eq!(gray.manifest().image.bits, 8);
        for row in 0..gray.len() {
            let (a, b) = (gray.image(row).expect("an image"), deep.image(row).expect("an image"));
            assert_eq!((a.width, a.height), (b.width, b.height));
            // Windowing before or after resizing differs where values beyond the window are mixed in.
            let off: f64 = a.pixels.iter().zip(&b.pixels).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
            let mean = off / a.pixels.len() as f64;
            assert!(mean < 1.5, "{resize}, row {row}: {mean} on average");
        }
    }
}

#[test]
fn png_files_of_16_bits_keep_them_and_files_of_8_bits_have_their_whole_range() {
    let temporary = folder();
    let raw = phantom_of("padchest", temporary.path(), 12);
    let out = temporary.path().join("padchest-16");
    ingest("padchest", &raw, &out, &[&["--bits", "16"], &WHOLE[..]].concat());
    for record in records(&out) {
        let file = Record { image: fs::read(raw.join(&record.source_path)).expect("a file"), ..record.clone() };
        assert!(pixels(&record, ImageEncoding::Raw16) == pixels(&file, ImageEncoding::Png16));
        assert_eq!(record.window, Some([2048.0, 4096.0]), "12 of 16 bits");
    }
    let raw = phantom_of("nih", temporary.path(), 12);
    let [gray, deep] = ["8", "16"].map(|bits| {
        let out = temporary.path().join(format!("nih-{bits}"));
        ingest("nih", &raw, &out, &["--bits", bits, "--size", "64"]);
        Dataset::open(&out).expect("a dataset")
    });
    for row in 0..gray.len() {
        let pixels = gray.image(row).expect("an image").pixels;
        assert!(
            deep.image16(row).expect("an image").pixels.into_iter().eq(pixels.iter().map(|&level| u16::from(level)))
        );
        assert_eq!(deep.image(row).expect("an image").pixels, pixels);
        assert_eq!(deep.record(row).expect("a record").window, Some([128.0, 256.0]));
    }
    assert_eq!(
        (deep.manifest().image.mean, deep.manifest().image.std),
        (gray.manifest().image.mean, gray.manifest().image.std)
    );
}

#[test]
fn options_that_exclude_each_other_are_usage_errors() {
    let temporary = folder();
    let raw = phantom_of("nih", temporary.path(), 2);
    let out = temporary.path().join("out");
    for (more, message) in [
        (["--image-encoding", "jpeg"], "--bits 16 with --image-encoding jpeg, which has 8 bits; take raw or png"),
        (
            ["--intensity", "mimic-cxr-jpg"],
            "--bits 16 with --intensity mimic-cxr-jpg, which is no window; take voi or minmax",
        ),
    ] {
        let printed = fails("ingest", 2, args!["nih", &raw, &out, "--bits", "16", more[0], more[1]]);
        assert!(printed.contains(message), "{printed}");
        assert!(!out.exists());
    }
    assert!(fails("ingest", 2, args!["nih", &raw, &out, "--bits", "12"]).contains("8, 16"));
    assert!(fails("ingest", 2, args!["nih", &raw, &out, "--image-encoding", "raw16"]).contains("raw, png, jpeg"));
}
