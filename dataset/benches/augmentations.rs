//! Time of each augmentation of an image of 224 × 224 pixels, on one thread: the least of many runs, in microseconds.
//!
//! `cargo bench --profile release --workspace --bench augmentations | python dataset/python/benches/augmentations.py` shows
//! them beside those of torchvision, OpenCV and albumentations.

use std::io::Write;
use std::time::Instant;

use dataset::random::{Stream, digest};
use dataset::transform::Augmentation;
use dataset::transform::augment::{Levels, draw};

const SIZE: usize = 224;
const RUNS: u64 = 1000;

fn main() -> anyhow::Result<()> {
    let augmentations = [
        Augmentation::Affine {
            probability: 1.0,
            degrees: (10.0, 10.0),
            translate: (0.0, 0.0),
            scale: (0.9, 0.9),
            shear_x: (0.0, 0.0),
            shear_y: (0.0, 0.0),
            fill: 0.0,
        },
        Augmentation::Brightness { probability: 1.0, factor: (1.2, 1.2) },
        Augmentation::Contrast { probability: 1.0, factor: (1.2, 1.2) },
        Augmentation::Gamma { probability: 1.0, gamma: (1.2, 1.2) },
        Augmentation::Clahe { probability: 1.0, clip: (2.0, 2.0), tiles: 8 },
        Augmentation::GaussianNoise { probability: 1.0, sigma: (0.1, 0.1) },
        Augmentation::GaussianBlur { probability: 1.0, sigma: (1.0, 1.0) },
        Augmentation::GaussianBlur { probability: 1.0, sigma: (2.75, 2.75) },
        Augmentation::Erase { probability: 1.0, scale: (0.1, 0.1), aspect: (1.0, 1.0), fill: 0.0 },
    ];
    // A smooth image, as a radiograph is.
    let pixel = |x: usize, y: usize| (128.0 + 80.0 * (x as f64 / 40.0).sin() * (y as f64 / 60.0).cos()) as u8;
    let rows: Vec<Vec<u8>> = (0..SIZE).map(|y| (0..SIZE).map(|x| pixel(x, y)).collect()).collect();
    let mut levels = Levels::default();
    for augmentation in augmentations {
        let mut least = f64::INFINITY;
        for run in 0..RUNS {
            levels.begin(SIZE);
            rows.iter().enumerate().for_each(|(y, row)| levels.set(y, 0, row));
            let began = Instant::now();
            let steps = draw(&[augmentation], SIZE, |name| Stream::new(&[digest(name), run]));
            levels.apply(&steps);
            least = least.min(began.elapsed().as_secs_f64());
        }
        let name = match augmentation {
            Augmentation::GaussianBlur { sigma, .. } => format!("{} {}", augmentation.kind(), sigma.0),
            _ => augmentation.kind().to_owned(),
        };
        writeln!(std::io::stdout(), "{name}\t{:.1}", least * 1e6)?;
    }
    Ok(())
}
