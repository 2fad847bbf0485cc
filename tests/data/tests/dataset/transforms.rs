//! Transforms against Pillow's filters on real radiographs and torchvision's rule for random crops.

use std::path::Path;

use dataset::random::Stream;
use dataset::transform::resample::{Filter, Rectangle, Resample};
use dataset::transform::{ASPECT, Crop, Transform, Workspace, random_resized_crop};
use helpers::{folder, python, python_output, real_data};

/// Noise and some radiographs: the gray pixels, crops resized by Pillow, and a table of the operations.
const PILLOW: &str = r#"
import json, pathlib, random, sys
from PIL import Image
out, files = pathlib.Path(sys.argv[1]), []
if len(sys.argv) > 2:
    data = pathlib.Path(sys.argv[2])
    files = sorted((data / "covid-chestxray/images").glob("*.jpg"))[::60] + sorted((data / "nih-sample").rglob("*.png"))
draw, table = random.Random(5), []
images = [Image.open(file).convert("L") for file in files]
# Noise, whose every pixel is an edge; then the radiographs.
images = [Image.frombytes("L", size, draw.randbytes(size[0] * size[1])) for size in [(301, 260), (77, 500)]] + images
for number, image in enumerate(images):
    image.thumbnail((640, 640))
    (out / f"{number}.raw").write_bytes(image.tobytes())
    for case in range(6):
        filter = [Image.Resampling.BICUBIC, Image.Resampling.BILINEAR][case % 2]
        w, h = (draw.randint(max(1, side // 8), side) for side in image.size)
        x, y = draw.randint(0, image.width - w), draw.randint(0, image.height - h)
        to = [(448, 448), (224, 224), (64, 300)][case // 2]
        name = f"{number}-{case}.raw"
        (out / name).write_bytes(image.crop((x, y, x + w, y + h)).resize(to, filter).tobytes())
        table.append([number, [*image.size, x, y, w, h, *to, case % 2], name])
    # The evaluation's way: the shorter side to 224, as torchvision computes the longer one, and the center.
    scale = 224 / min(image.size)
    short, long = sorted(image.size)
    new_long = int(224 * long / short)
    size = (224, new_long) if image.width <= image.height else (new_long, 224)
    resized = image.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - 224) / 2.0), round((size[1] - 224) / 2.0)
    (out / f"{number}-center.raw").write_bytes(resized.crop((left, top, left + 224, top + 224)).tobytes())
(out / "table.json").write_text(json.dumps(table))
"#;

#[test]
fn resizing_gives_the_pixels_of_pillow() {
    let (folder, data) = (folder(), real_data());
    let arguments: Vec<&Path> = [folder.path()].into_iter().chain(data.as_deref()).collect();
    python_output(python().args(["-c", PILLOW]).args(&arguments));
    let read = |name: &str| std::fs::read(folder.path().join(name)).expect("written by Python");
    let table: Vec<(usize, [u32; 9], String)> = serde_json::from_slice(&read("table.json")).expect("a table");
    assert!(table.len() >= if data.is_some() { 72 } else { 12 }, "{} cases", table.len());
    let mut scratch = Resample::default();
    for (number, [width, height, left, top, w, h, to_width, to_height, bilinear], name) in &table {
        let pixels = read(&format!("{number}.raw"));
        let filter = if *bilinear == 1 { Filter::Bilinear } else { Filter::Bicubic };
        let part = Rectangle { left: *left, top: *top, width: *w, height: *h };
        let ours = scratch.resize((&pixels, *width, *height), part, *to_width, *to_height, filter).expect("resized");
        assert_eq!(ours.len(), read(name).len());
        let differing = ours.iter().zip(&read(name)).filter(|(ours, theirs)| ours != theirs).count();
        assert_eq!(differing, 0, "{name}: {filter:?} {part:?} to {to_width}×{to_height}: pixels differ");
    }

    let numbers: std::collections::BTreeMap<usize, (u32, u32)> =
        table.iter().map(|(number, numbers, _)| (*number, (numbers[0], numbers[1]))).collect();
    let mut workspace = Workspace::default();
    for (number, (width, height)) in numbers {
        let pixels = read(&format!("{number}.raw"));
        // Not normalized: floats are gray levels.
        let transform = Transform { mean: 0.0, std: 1.0 / 255.0, ..Transform::evaluate(224) };
        let choices = transform.choose(width, height, |_| Stream::new(&[0])).expect("drawn");
        let mut out = vec![0.0; 224 * 224];
        transform.apply((&pixels, width, height), &choices, &mut workspace, &mut out).expect("applied");
        let theirs = read(&format!("{number}-center.raw"));
        assert_eq!(out.len(), theirs.len());
        let worst = out.iter().zip(&theirs).map(|(ours, &level)| (ours - f32::from(level)).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-3, "{number}: center off by {worst}");
    }
}

/// torchvision's rule for RandomResizedCrop, reimplemented, with many draws for some image sizes.
const RULE: &str = r#"
import math, pathlib, random, struct, sys
out, draw = pathlib.Path(sys.argv[1]), random.Random(11)
def crop(width, height, scale, ratio):
    for _ in range(10):
        area = width * height * draw.uniform(*scale)
        aspect = math.exp(draw.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return draw.randint(0, width - w), draw.randint(0, height - h), w, h
    whole = width / height
    if whole < ratio[0]: w, h = width, round(width / ratio[0])
    elif whole > ratio[1]: w, h = round(height * ratio[1]), height
    else: w, h = width, height
    return (width - w) // 2, (height - h) // 2, w, h
for name, sides, scale in [("a", (512, 624), (0.2, 1.0)), ("b", (512, 512), (0.08, 1.0)), ("c", (900, 310), (0.5, 1.0))]:
    crops = [crop(*sides, scale, (3 / 4, 4 / 3)) for _ in range(20000)]
    (out / name).write_bytes(b"".join(struct.pack("<4I", *c) for c in crops))
"#;

/// A measure of a crop (left, top, width, height) of an image (width, height).
type Measure = fn(&[u32; 4], (u32, u32)) -> f64;

/// Largest difference of two samples' distribution functions (Kolmogorov, Smirnov).
fn distance(mut a: Vec<f64>, mut b: Vec<f64>) -> f64 {
    a.sort_by(f64::total_cmp);
    b.sort_by(f64::total_cmp);
    let share = |sample: &[f64], at: f64| sample.partition_point(|&x| x <= at) as f64 / sample.len() as f64;
    a.iter().chain(&b).map(|&at| (share(&a, at) - share(&b, at)).abs()).fold(0.0, f64::max)
}

#[test]
fn random_crops_are_distributed_as_those_of_torchvision() {
    let folder = folder();
    python_output(python().args(["-c", RULE]).args([folder.path()]));
    for (name, sides, scale) in
        [("a", (512, 624), (0.2, 1.0)), ("b", (512, 512), (0.08, 1.0)), ("c", (900, 310), (0.5, 1.0))]
    {
        let bytes = std::fs::read(folder.path().join(name)).expect("written by Python");
        let theirs: Vec<[u32; 4]> = bytes
            .as_chunks::<16>()
            .0
            .iter()
            .map(|crop| {
                let mut numbers = crop.as_chunks::<4>().0.iter().map(|number| u32::from_le_bytes(*number));
                std::array::from_fn(|_| numbers.next().expect("four numbers"))
            })
            .collect();
        let mut random = Stream::new(&[17]);
        let ours: Vec<[u32; 4]> = (0..theirs.len())
            .map(|_| {
                let part = random_resized_crop(sides, scale, ASPECT, &mut random);
                [part.left, part.top, part.width, part.height]
            })
            .collect();
        let measures: [(&str, Measure); 5] = [
            ("area", |c, _| f64::from(c[2] * c[3])),
            ("aspect", |c, _| f64::from(c[2]) / f64::from(c[3])),
            ("left", |c, _| c[0].into()),
            ("top", |c, _| c[1].into()),
            ("left of what is free", |c, (width, _)| f64::from(c[0]) / f64::from(width - c[2] + 1)),
        ];
        for (what, measure) in measures {
            let values = |crops: &[[u32; 4]]| crops.iter().map(|crop| measure(crop, sides)).collect();
            // Two samples of 20,000 from one distribution differ by more with a probability of 0.001.
            let found = distance(values(&ours), values(&theirs));
            assert!(found < 1.95 * (2.0 / 20_000.0f64).sqrt(), "{name}: {what} differs by {found}");
        }
    }
}

#[test]
fn an_image_smaller_than_its_center_crop_is_padded_as_by_torchvision() {
    // torchvision pads (size - side) // 2 before the image, for sides of 29 to 31 in 32; larger ones are cropped.
    for (side, before) in [(29, 1), (30, 1), (31, 0), (28, 2), (33, 0), (35, -2), (37, -2), (34, -1)] {
        let transform = Transform { crop: Crop::Center { shorter: side }, ..Transform::evaluate(32) };
        let geometry = transform.geometry(100, 100, &mut Stream::new(&[0])).expect("drawn");
        assert_eq!(geometry.corner, (-before, -before), "{side}");
    }
}

#[test]
fn small_images_are_padded_cropped_and_stretched_without_gaps() {
    let mut workspace = Workspace::default();
    for (width, height) in [(1, 1), (3, 7), (7, 3), (31, 32), (400, 17), (2, 900)] {
        let pixels = vec![255; width as usize * height as usize];
        for crop in [
            Crop::RandomResized { scale: (0.08, 1.0), aspect: ASPECT },
            Crop::Center { shorter: 24 },
            Crop::Center { shorter: 40 },
            Crop::Random { shorter: 40 },
            Crop::Pad,
            Crop::Stretch,
        ] {
            let transform = Transform { crop, mean: 0.0, std: 1.0 / 255.0, ..Transform::pretrain(32) };
            let choices = transform.choose(width, height, |_| Stream::new(&[3])).expect("drawn");
            let mut out = vec![f32::NAN; 32 * 32];
            transform.apply((&pixels, width, height), &choices, &mut workspace, &mut out).expect("applied");
            let geometry = choices.geometry;
            // White inside the image, black outside, nothing else.
            let shown = geometry.rows().length * geometry.columns().length;
            assert_eq!(out.iter().filter(|&&level| (level - 255.0).abs() < 1e-3).count(), shown, "{crop:?}");
            assert_eq!(out.iter().filter(|&&level| level.abs() < 1e-3).count(), 32 * 32 - shown, "{crop:?}");
            assert_eq!(
                matches!(crop, Crop::RandomResized { .. } | Crop::Stretch),
                shown == 32 * 32
                    && !matches!(crop, Crop::Center { shorter: 40 } | Crop::Random { shorter: 40 })
                    && !(crop == Crop::Pad && width == height),
                "{crop:?}"
            );
        }
    }
}
