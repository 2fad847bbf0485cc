//! Images of 16 bits in the loader, in exports and damaged: against plain computations in double precision.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use dataset::format::image_codec::{Gray16Pixels, GrayPixels};
use dataset::format::record::{ImageEncoding, Record};
use dataset::random::{Stream, digest};
use dataset::transform::resample::Filter;
use dataset::transform::{ASPECT, Augmentation, Crop, StoredImage, Transform, Window, Workspace};
use dataset::{Dataset, Loader};
use helpers::{args, fails, folder, made_record, ok, python, python_output, run, text, write_dataset};

const FIRST: &str = "shards/part-00000.parquet";

/// A record of 16 bits: waves and noise around a level, some pixels far from it.
fn deep(row: usize, (width, height): (u16, u16), encoding: ImageEncoding) -> Record {
    let mut random = Stream::new(&[row as u64, 0xDEE9]);
    let middle = [2048.0, 20_000.0, 60_000.0][row % 3];
    let pixels: Vec<u16> = (0..usize::from(width) * usize::from(height))
        .map(|at| {
            let (x, y) = ((at % usize::from(width)) as f64, (at / usize::from(width)) as f64);
            let wave = 900.0 * (x / 5.0 + row as f64).sin() * (y / 7.0).cos();
            match random.below(200) {
                0 => 65_535,
                1 => 0,
                noise => (middle + wave + noise as f64) as u16,
            }
        })
        .collect();
    let image = Gray16Pixels { width: width.into(), height: height.into(), pixels };
    Record {
        window: Some([middle as f32 + 100.25, [1500.0, 3000.5, 400.0][row / 3 % 3]]),
        image: image.encode(encoding).expect("encoded"),
        ..made_record(row, (width, height), 1)
    }
}

fn write(folder: &Path, encoding: ImageEncoding, count: usize) -> Arc<Dataset> {
    let records = (0..count).map(|row| deep(row, (70 + row as u16 % 4, 61), encoding)).collect();
    write_dataset(folder, &["A"], encoding, &[records]);
    Arc::new(Dataset::open(folder).expect("a dataset"))
}

/// The weight of a filter by its formula, and its support.
fn filter(filter: Filter) -> (fn(f64) -> f64, f64) {
    fn sinc(x: f64) -> f64 {
        let angle = std::f64::consts::PI * x;
        if x == 0.0 { 1.0 } else { angle.sin() / angle }
    }
    match filter {
        Filter::Bilinear => (|x| (1.0 - x.abs()).max(0.0), 1.0),
        Filter::Bicubic => (
            |x| match x.abs() {
                x if x < 1.0 => 1.5 * x.powi(3) - 2.5 * x.powi(2) + 1.0,
                x if x < 2.0 => -0.5 * x.powi(3) + 2.5 * x.powi(2) - 4.0 * x + 2.0,
                _ => 0.0,
            },
            2.0,
        ),
        Filter::Lanczos => (|x| if x.abs() < 3.0 { sinc(x) * sinc(x / 3.0) } else { 0.0 }, 3.0),
    }
}

/// Weights of all pixels of an axis for each output.
fn weights(from: usize, to: usize, kind: Filter) -> Vec<Vec<f64>> {
    let (weight, support) = filter(kind);
    let scale = from as f64 / to as f64;
    let spread = scale.max(1.0);
    let of = |output: usize| {
        let center = (output as f64 + 0.5) * scale;
        let near = |x: f64| if x.abs() <= support { weight(x) } else { 0.0 };
        let all: Vec<f64> = (0..from).map(|x| near((x as f64 + 0.5 - center) / spread)).collect();
        let sum: f64 = all.iter().sum();
        all.into_iter().map(|weight| weight / sum).collect()
    };
    (0..to).map(of).collect()
}

/// Gray levels of a transformed image: cropped and resized as it is stored, then windowed, then flipped.
fn naive(image: &Gray16Pixels, transform: &Transform, stream: impl Fn(&str) -> Stream, window: (f64, f64)) -> Vec<f64> {
    let geometry = transform.choose(image.width, image.height, stream).expect("choices").geometry;
    let part = geometry.part;
    let [width, height] = [geometry.resized.0, geometry.resized.1].map(|side| side as usize);
    let same = (part.width as usize, part.height as usize) == (width, height);
    let (columns, rows) = (
        weights(part.width as usize, width, transform.filter),
        weights(part.height as usize, height, transform.filter),
    );
    let at = |x: usize, y: usize| {
        let row = (part.top as usize + y) * image.width as usize;
        f64::from(image.pixels[row + part.left as usize + x])
    };
    let resized = |x: usize, y: usize| -> f64 {
        if same {
            return at(x, y);
        }
        let line = |y: usize| columns[x].iter().enumerate().map(|(x, w)| w * at(x, y)).sum::<f64>();
        rows[y].iter().enumerate().filter(|(_, w)| **w != 0.0).map(|(y, w)| w * line(y)).sum()
    };
    let (center, span) = window;
    let level = |value: f64| (((value - (center - 0.5)) / (span - 1.0) + 0.5) * 255.0).clamp(0.0, 255.0);
    let size = geometry.size as usize;
    let mut out = vec![0.0; size * size];
    for (index, out) in out.iter_mut().enumerate() {
        let (mut x, y) = (index % size, index / size);
        if geometry.flip {
            x = size - 1 - x;
        }
        let (x, y) = (x as i64 + geometry.corner.0, y as i64 + geometry.corner.1);
        if (0..width as i64).contains(&x) && (0..height as i64).contains(&y) {
            *out = level(resized(x as usize, y as usize));
        }
    }
    out
}

/// Gray levels by which a pixel may differ, in windows of at least 256 values.
const TOLERANCE: f64 = 0.05;

#[test]
fn floats_are_those_of_double_precision() {
    let temporary = folder();
    let dataset = write(temporary.path(), ImageEncoding::Raw16, 9);
    let crops = [
        Crop::RandomResized { scale: (0.2, 1.0), aspect: ASPECT },
        Crop::Center { shorter: 40 },
        Crop::Center { shorter: 20 },
        Crop::Pad,
        Crop::Stretch,
    ];
    let windows = [Window::Stored, Window::Full, Window::Fixed { center: 20_100.0, width: 1800.0 }];
    let mut workspace = Workspace::default();
    let mut worst: f64 = 0.0;
    for (number, crop) in crops.into_iter().enumerate() {
        for (kind, window) in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos].into_iter().zip(windows) {
            let plain =
                Transform { crop, filter: kind, window, mean: 0.0, std: 1.0 / 255.0, ..Transform::pretrain(32) };
            for row in 0..dataset.len() {
                let image = dataset.image16(row).expect("an image");
                let record = dataset.record(row).expect("a record");
                let stream = |name: &str| Stream::new(&[digest(name), row as u64, number as u64]);
                let choices = plain.choose(image.width, image.height, stream).expect("choices");
                let mut out = vec![f32::NAN; 32 * 32];
                let (width, height) = (image.width, image.height);
                let stored = StoredImage { pixels: &record.image, width, height, window: record.window };
                plain.apply_stored(stored, &choices, &mut workspace, &mut out).expect("applied");
                let chosen = match window {
                    Window::Stored => record.window.map(|[center, width]| (center.into(), width.into())).expect("one"),
                    Window::Fixed { center, width } => (center, width),
                    Window::Full => {
                        let ends = [image.pixels.iter().min(), image.pixels.iter().max()];
                        let [low, high] = ends.map(|end| f64::from(*end.expect("pixels")));
                        ((low + high + 1.0) / 2.0, high - low + 1.0)
                    }
                };
                let expected = naive(&image, &plain, stream, chosen);
                for (found, expected) in out.iter().zip(&expected) {
                    worst = worst.max((f64::from(*found) - expected).abs());
                    assert!((f64::from(*found) - expected).abs() < TOLERANCE, "{crop:?} {kind:?} {window:?} row {row}");
                }
                assert!(expected.iter().any(|level| (1.0..254.0).contains(level)) || window != Window::Stored);
            }
        }
    }
    assert!(worst > 0.0);

    // The loader gives the same, for both encodings.
    let other = folder();
    let encoded = write(other.path(), ImageEncoding::Png16, 9);
    let transform = Transform { mean: 0.4, std: 0.3, filter: Filter::Bicubic, ..Transform::evaluate(40) };
    let batch = |dataset: &Arc<Dataset>| {
        let loader = Loader::builder(dataset).transform(transform.clone()).shuffle(false).batch_size(9);
        loader.build().expect("a loader").next_batch().expect("a batch").images().to_vec()
    };
    let images = batch(&dataset);
    assert!(images == batch(&encoded));
    for (row, found) in images.chunks(40 * 40).enumerate() {
        let image = dataset.image16(row).expect("an image");
        let [center, width] = dataset.window(row).expect("a window").map(f64::from);
        let expected = naive(&image, &transform, |_| Stream::new(&[0]), (center, width));
        for (found, level) in found.iter().zip(expected) {
            let expected = (level / 255.0 - f64::from(transform.mean)) / f64::from(transform.std);
            assert!((f64::from(*found) - expected).abs() < TOLERANCE / 255.0 / 0.3, "row {row}");
        }
    }
}

#[test]
fn random_windows_are_those_of_the_seed_for_any_number_of_threads() {
    let temporary = folder();
    let dataset = write(temporary.path(), ImageEncoding::Raw16, 24);
    let jittered = Transform { window_jitter: (0.2, 0.4), ..Transform::pretrain(24) };
    let noise = vec![Augmentation::GaussianNoise { probability: 1.0, sigma: (0.0, 0.1) }];
    let images = |transform: &Transform, threads: usize, seed: u64| -> Vec<u32> {
        let builder = Loader::builder(&dataset).transform(transform.clone()).batch_size(5).seed(seed).threads(threads);
        let mut loader =
            builder.crops(vec![(Transform { size: 16, ..transform.clone() }, 2)]).build().expect("a loader");
        let mut all = Vec::new();
        for _ in 0..8 {
            let batch = loader.next_batch().expect("a batch");
            all.extend(batch.images().iter().chain(batch.crops(0)).map(|value| value.to_bits()));
        }
        all
    };
    for transform in [jittered.clone(), Transform { augment: noise, ..jittered.clone() }] {
        let one = images(&transform, 1, 3);
        assert!(one == images(&transform, 2, 3) && one == images(&transform, 5, 3));
        assert!(one != images(&transform, 2, 4), "another seed");
        let plain = Transform { window_jitter: (0.0, 0.0), ..transform };
        assert!(one != images(&plain, 2, 3));
    }

    // The windows of images that are neither cropped nor resized, by the levels of a ramp.
    let ramps = folder();
    let ramp = |row| {
        let image = Gray16Pixels { width: 8, height: 8, pixels: (0..64).map(|at| 1000 + at * 10).collect() };
        let image = image.encode(ImageEncoding::Raw16).expect("encoded");
        Record { window: Some([1315.0, 2000.0]), image, ..made_record(row, (8, 8), 1) }
    };
    write_dataset(ramps.path(), &["A"], ImageEncoding::Raw16, &[(0..40).map(ramp).collect()]);
    let dataset = Arc::new(Dataset::open(ramps.path()).expect("a dataset"));
    let transform = Transform { crop: Crop::Stretch, mean: 0.0, std: 1.0 / 255.0, flip: 0.0, ..jittered };
    let transform = Transform { size: 8, ..transform };
    let loader = Loader::builder(&dataset).transform(transform).batch_size(40).build();
    let mut loader = loader.expect("a loader");
    let (mut centers, mut widths) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let batch = loader.next_batch().expect("a batch");
        for image in batch.images().chunks(64) {
            let gain = (f64::from(image[40]) - f64::from(image[20])) / 200.0;
            let width = 255.0 / gain + 1.0;
            widths.push(width / 2000.0);
            let middle = 1200.0 + (127.5 - f64::from(image[20])) / gain;
            centers.push((middle + 0.5 - 1315.0) / 2000.0);
        }
    }
    let ends = |values: &[f64]| values.iter().fold((f64::MAX, f64::MIN), |(a, b), &v| (a.min(v), b.max(v)));
    let (low, high) = ends(&widths);
    assert!((0.598..0.7).contains(&low) && (1.3..1.402).contains(&high), "{low} to {high}");
    let (low, high) = ends(&centers);
    assert!((-0.202..-0.12).contains(&low) && (0.12..0.202).contains(&high), "{low} to {high}");
    widths.sort_by(f64::total_cmp);
    widths.dedup_by(|a, b| (*a - *b).abs() < 1e-6);
    assert!(widths.len() > 100, "each record and epoch has its own");
}

#[test]
fn images_of_8_bits_have_windows_only_where_they_are_asked_for() {
    let temporary = folder();
    write_dataset(
        temporary.path(),
        &["A"],
        ImageEncoding::Raw,
        &[(0..6).map(|row| Record { window: Some([60.0, 9.0]), ..made_record(row, (40, 30), 1) }).collect()],
    );
    assert!(ok("dataset", args!["verify", temporary.path()]).contains("all whole"));
    let dataset = Arc::new(Dataset::open(temporary.path()).expect("a dataset"));
    let levels = |window| {
        let transform =
            Transform { window, mean: 0.0, std: 1.0 / 255.0, crop: Crop::Stretch, ..Transform::evaluate(30) };
        let loader = Loader::builder(&dataset).transform(transform).shuffle(false).batch_size(6);
        loader.build().expect("a loader").next_batch().expect("a batch").images().to_vec()
    };
    let (plain, same) = (levels(Window::Stored), levels(Window::Fixed { center: 128.0, width: 256.0 }));
    let off = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // Two passes round to whole levels.
    assert!(off(&plain, &same) < 1.1, "{}", off(&plain, &same));
    assert!(plain.iter().all(|level| (level - level.round()).abs() < 1e-3));
    assert!(off(&plain, &levels(Window::Fixed { center: 60.0, width: 100.0 })) > 50.0);
}

#[test]
fn damaged_images_of_16_bits_name_their_record() {
    let shown = |name: &str, encoding: ImageEncoding, damage: &dyn Fn(&mut Record)| {
        let temporary = folder();
        let out = temporary.path().join("set");
        let mut records: Vec<Record> = (0..3).map(|row| deep(row, (10, 14), encoding)).collect();
        damage(&mut records[1]);
        write_dataset(&out, &["A"], encoding, &[records]);
        let printed = fails("dataset", 1, args!["verify", &out]);
        assert!(printed.starts_with(&format!("{FIRST}, row 1: ")), "{name}: {printed}");
        // What uses the image says so, too.
        let dataset = Arc::new(Dataset::open(&out).expect("a dataset"));
        let loader = Loader::builder(&dataset).shuffle(false).batch_size(3).transform(Transform::evaluate(8)).build();
        let error = loader.expect("a loader").next_batch().err().expect("an error").to_string();
        assert!(error.contains(&format!("{FIRST}, row 1: ")), "{name}: {error}");
        for more in [&["inspect", "--montage"][..], &["export", "--to", "csv"]] {
            let target = temporary.path().join(if more[0] == "inspect" { "m.png" } else { "csv" });
            let mut words = args![more[0], &out].to_vec();
            words.extend(more[1..].iter().map(Into::into));
            words.push(target.into());
            let output = run("dataset", words);
            let printed = text(&output.stderr);
            assert!(output.status.code() == Some(1) && printed.contains("row 1: "), "{name}: {printed}");
            assert!(!printed.contains("panicked") && !printed.contains("bug"), "{name}: {printed}");
        }
        printed
    };
    let gray = || GrayPixels { width: 10, height: 14, pixels: vec![7; 140] };
    let odd = shown("odd", ImageEncoding::Raw16, &|record| record.image.truncate(279));
    assert!(odd.contains("does not contain 280 bytes"), "{odd}");
    let half = shown("half", ImageEncoding::Raw16, &|record| record.image.truncate(140));
    assert!(half.contains("does not contain 280 bytes"), "{half}");
    let cut = shown("cut", ImageEncoding::Png16, &|record| record.image.truncate(record.image.len() / 2));
    assert!(cut.contains("image decoding"), "{cut}");
    let eight = shown("8 bits", ImageEncoding::Png16, &|record| {
        record.image = gray().encode(ImageEncoding::Png).expect("encoded");
    });
    assert!(eight.contains("its image is png of L8, the dataset's images are 16-bit gray png16"), "{eight}");
    let size = shown("size", ImageEncoding::Png16, &|record| {
        let other = Gray16Pixels { width: 14, height: 10, pixels: vec![7; 140] };
        record.image = other.encode(ImageEncoding::Png16).expect("encoded");
    });
    assert!(size.contains("image of 10×14, its columns say 14×10"), "{size}");
    let missing = shown("window", ImageEncoding::Raw16, &|record| record.window = None);
    assert!(missing.contains("its pixels have 16 bits, and the column `window` is null"), "{missing}");

    // 16 bits in a dataset of 8, and a manifest that contradicts itself.
    let temporary = folder();
    let mut records: Vec<Record> = (0..3).map(|row| deep(row, (10, 14), ImageEncoding::Png16)).collect();
    for row in [0, 2] {
        records[row].image = gray().encode(ImageEncoding::Png).expect("encoded");
    }
    write_dataset(temporary.path(), &["A"], ImageEncoding::Png, &[records]);
    let printed = fails("dataset", 1, args!["verify", temporary.path()]);
    assert!(printed.contains("row 1: its image is png of L16, the dataset's images are 8-bit gray png"), "{printed}");
    let manifest = temporary.path().join("dataset.json");
    let text = fs::read_to_string(&manifest).expect("a manifest").replace("\"bits\": 8", "\"bits\": 16");
    fs::write(&manifest, text).expect("written");
    let printed = fails("dataset", 1, args!["inspect", temporary.path()]);
    assert!(printed.contains("image.bits is 16, which images stored as png do not have"), "{printed}");
}

#[test]
fn windows_that_are_widths_of_nothing_are_refused() {
    let temporary = folder();
    for (window, message) in
        [([5.0, 0.5], "width 0.5"), ([f32::NAN, 9.0], "center NaN"), ([1.0, f32::INFINITY], "width inf")]
    {
        let out = temporary.path().join(message);
        let record = Record { window: Some(window), ..deep(0, (10, 14), ImageEncoding::Raw16) };
        write_dataset(&out, &["A"], ImageEncoding::Raw16, &[vec![record]]);
        let printed = fails("dataset", 1, args!["verify", &out]);
        assert!(printed.contains(message), "{printed}");
    }
    let out = temporary.path().join("good");
    write(&out, ImageEncoding::Raw16, 3);
    for (option, value, message) in [
        ("--window", "9", "CENTER,WIDTH"),
        ("--window", "9,0.2", "at least 1"),
        ("--window-jitter", "0.1,1", "from 0 to below 1"),
    ] {
        let printed = fails("dataset", 2, args!["bench", &out, option, value]);
        assert!(printed.contains(message), "{printed}");
    }
    let printed =
        fails("dataset", 2, args!["inspect", &out, "--montage", temporary.path().join("m.png"), "--window", "full"]);
    assert!(printed.contains("need --transform"), "{printed}");
}

/// Reads the three exports and the shards with other programs.
const READ: &str = r#"
import csv, glob, io, json, sys, tarfile
import numpy, PIL.Image, pyarrow.parquet
root, out = sys.argv[1:3]
rows = pyarrow.parquet.read_table(glob.glob(root + "/shards/*.parquet")).to_pylist()
encoding = json.load(open(root + "/dataset.json"))["image"]["encoding"]
def pixels(data):
    image = PIL.Image.open(io.BytesIO(data))
    assert image.mode.startswith("I;16"), image.mode
    return numpy.asarray(image).astype(int)
stored = {}
for row in rows:
    sides = (row["height"], row["width"])
    raw = numpy.frombuffer(row["image"], "<u2").reshape(sides) if encoding == "raw16" else pixels(row["image"])
    window = row["window"]
    levels = ((raw - (window["center"] - 0.5)) / (window["width"] - 1) + 0.5) * 255
    stored[row["record_id"]] = (raw, [window["center"], window["width"]], levels.clip(0, 255))
assert len(stored) == 6
with tarfile.open(glob.glob(out + "/webdataset/*.tar")[0]) as tar:
    files = {member.name: tar.extractfile(member).read() for member in tar}
for name in [name for name in files if name.endswith(".json")]:
    found = json.loads(files[name])
    raw, window, _ = stored[found["record_id"]]
    assert (pixels(files[name.replace(".json", ".png")]) == raw).all() and found["window"] == window
for row in pyarrow.parquet.read_table(glob.glob(out + "/hf/data/*.parquet")).to_pylist():
    raw, window, _ = stored[row["record_id"]]
    assert (pixels(row["image"]["bytes"]) == raw).all() and list(row["window"].values()) == window
for row in csv.DictReader(open(out + "/csv/metadata.csv")):
    image = PIL.Image.open(out + "/csv/" + row["file_name"])
    assert image.mode == "L" and abs(numpy.asarray(image) - stored[row["record_id"]][2]).max() < 0.51
print("read")
"#;

#[test]
fn exports_keep_16_bits_or_show_them() {
    for encoding in [ImageEncoding::Raw16, ImageEncoding::Png16] {
        let temporary = folder();
        let root = temporary.path().join("set");
        write(&root, encoding, 6);
        for format in ["webdataset", "hf", "csv"] {
            ok("dataset", args!["export", &root, "--to", format, temporary.path().join(format)]);
        }
        let printed = python_output(python().args(["-c", READ]).args([root.as_path(), temporary.path()]));
        assert!(printed.contains("read"), "{printed}");
        let page = ok("dataset", args!["inspect", &root, "--montage", temporary.path().join("stored.png")]);
        assert!(page.contains(encoding.name()), "{page}");
        let mut levels = Vec::new();
        for (name, window) in [("own", "stored"), ("full", "full"), ("narrow", "2148.25,300")] {
            let path = temporary.path().join(format!("{name}.png"));
            let more = ["--transform", "evaluate", "--size", "48", "--window", window].map(Into::into);
            ok("dataset", args!["inspect", &root, "--montage", &path].into_iter().chain(more));
            levels.push(dataset::format::image_codec::decode(&fs::read(path).expect("a montage")).expect("an image"));
        }
        assert!(levels[0] != levels[1] && levels[0] != levels[2] && levels[1] != levels[2]);
        let row = ok("dataset", args!["inspect", &root, "--row", "made/00001"]);
        assert!(row.contains("center 20100.25, width 1500 (stored values)"), "{row}");
        // Tools that measure run on them.
        let bench =
            ok("dataset", args!["bench", &root, "--seconds", "0.1", "--size", "32", "--window-jitter", "0.1,0.1"]);
        assert!(bench.contains("images/s"), "{bench}");
        let doctor = ok("dataset", args!["doctor", &root, "--seconds", "0.05", "--size", "32"]);
        assert!(doctor.contains("transform"), "{doctor}");
    }
}

#[test]
fn equal_images_of_16_bits_are_found_and_constant_ones_are_not() {
    let temporary = folder();
    let mut records: Vec<Record> = (0..6).map(|row| deep(row, (10, 14), ImageEncoding::Raw16)).collect();
    records[4].image = records[1].image.clone();
    for row in [2, 3] {
        records[row].image = [1, 2].repeat(140);
    }
    write_dataset(temporary.path(), &["A"], ImageEncoding::Raw16, &[records]);
    let found = ok("dataset", args!["inspect", temporary.path(), "--duplicates", "--json"]);
    assert!(found.contains("made/00001") && found.contains("made/00004"), "{found}");
    assert!(!found.contains("made/00002") && !found.contains("made/00003"), "{found}");
}
