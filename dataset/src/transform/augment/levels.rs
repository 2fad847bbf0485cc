//! The gray levels of an image while augmentations act on it.

use super::affine::{AffineMap, moved_box};
use super::choices::Step;
use super::clahe::{Tiles, equalize};
use super::tone::WHITE;
use super::{blur, noise, tone};
use crate::random::Stream;

/// Gray levels `[size, size]`, and memory that is used again.
#[derive(Default)]
pub struct Levels {
    gray: Vec<f32>,
    size: usize,
    /// Memory of single steps.
    other: Vec<f32>,
    more: Vec<f32>,
    bits: Vec<u16>,
    tiles: Tiles,
    classes: Vec<u8>,
}

impl Levels {
    /// Begins an image of `size` × `size` black pixels.
    pub fn begin(&mut self, size: usize) {
        self.size = size;
        self.gray.clear();
        self.gray.resize(size * size, 0.0);
    }

    /// Sets a part of a row, from a column on, to gray levels from 0 to 255.
    pub fn set<L: Copy + Into<f32>>(&mut self, row: usize, column: usize, levels: &[L]) {
        let start = row * self.size + column;
        self.gray[start..start + levels.len()].iter_mut().zip(levels).for_each(|(gray, &level)| *gray = level.into());
    }

    /// Does the steps in their order.
    pub fn apply(&mut self, steps: &[Step]) {
        let Self { gray, size, other, more, bits, tiles, .. } = self;
        for step in steps {
            match *step {
                Step::Affine(map) => {
                    more.resize(gray.len(), 0.0);
                    map.image(gray, other, more);
                    std::mem::swap(gray, more);
                }
                Step::Brightness { factor } => tone::brightness(gray, factor),
                Step::Contrast { factor } => tone::contrast(gray, factor),
                Step::Gamma { gamma } => tone::gamma(gray, gamma),
                Step::Clahe { clip, tiles: count } => equalize(gray, *size, clip, count, tiles),
                Step::GaussianNoise { sigma, seed } => {
                    noise::add_noise(gray, sigma * WHITE, &mut Stream::new(&[seed]), bits);
                }
                Step::GaussianBlur { sigma } => blur::blur(gray, *size, sigma, other, more),
                Step::Erase { part, fill } => {
                    for row in part.top..part.top + part.height {
                        let start = row as usize * *size + part.left as usize;
                        gray[start..start + part.width as usize].fill(fill * WHITE);
                    }
                }
            }
        }
    }

    /// The rows of the image.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.gray.chunks_exact(self.size.max(1))
    }

    /// Moves a mask `[size, size]` as [`apply`](Self::apply) moves the image.
    pub fn mask(&mut self, steps: &[Step], mask: &mut [u8]) {
        for map in maps(steps) {
            self.classes.clear();
            self.classes.extend_from_slice(mask);
            map.mask(&self.classes, mask);
        }
    }
}

/// Moves a box (x, y, width, height) of an image of this size as its image; `None` where less than
/// [`MIN_BOX_SHARE`](super::affine::MIN_BOX_SHARE) of it is left.
pub fn rectangle(steps: &[Step], rectangle: [f32; 4], size: u32) -> Option<[f32; 4]> {
    let maps: Vec<_> = maps(steps).collect();
    if maps.is_empty() { Some(rectangle) } else { moved_box(&maps, rectangle, size) }
}

fn maps(steps: &[Step]) -> impl Iterator<Item = &AffineMap> {
    steps.iter().filter_map(|step| match step {
        Step::Affine(map) => Some(map),
        _ => None,
    })
}
