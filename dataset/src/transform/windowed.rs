//! Transforms of stored images of 8 and of 16 bits a pixel. Pixels of 16 bits are cropped and resized as they are stored, then
//! windowed to gray levels that are not rounded; from there on they are treated as those of 8 bits.
//!
//! In a window of at least 256 values, a gray level differs by less than 0.05 from that of exact arithmetic.

use crate::error::Result;
use crate::transform::choices::{Choices, Workspace};
use crate::transform::float_resample::Words;
use crate::transform::normalize::Normalize;
use crate::transform::pipeline::{TakeRow, Transform};
use crate::transform::window::{LinearWindow, OF_8_BITS};

/// A stored image.
#[derive(Clone, Copy, Debug)]
pub struct StoredImage<'a> {
    /// One byte for each pixel; two in little-endian order where there is a window. `[height, width]`.
    pub pixels: &'a [u8],
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Center and width of the window of an image of 16 bits.
    pub window: Option<[f32; 2]>,
}

impl Transform {
    /// Transforms an image by the choices that were made for it. `out` has shape `[size, size]`.
    ///
    /// # Errors
    /// When the image has another size than the one of the choices.
    pub fn apply_stored(
        &self,
        image: StoredImage,
        choices: &Choices,
        workspace: &mut Workspace,
        out: &mut [f32],
    ) -> Result<()> {
        let StoredImage { pixels, width, height, window } = image;
        match window {
            Some(window) => self.apply_words((pixels, width, height), window, choices, workspace, out),
            None if self.keeps_windows() => self.apply((pixels, width, height), choices, workspace, out),
            None => {
                let mut words = std::mem::take(&mut workspace.words);
                words.clear();
                words.extend(pixels.iter().flat_map(|&level| [level, 0]));
                let done = self.apply_words((&words, width, height), OF_8_BITS, choices, workspace, out);
                workspace.words = words;
                done
            }
        }
    }

    /// Transforms an image of 16 bits with this stored window by the choices that were made for it. `out` has shape
    /// `[size, size]`.
    fn apply_words(
        &self,
        source: Words,
        stored: [f32; 2],
        choices: &Choices,
        Workspace { floats, levels, .. }: &mut Workspace,
        out: &mut [f32],
    ) -> Result<()> {
        let (center, width) = choices.window.of(self.window.of(source.0, stored));
        let window = LinearWindow::new(center, width);
        let (part, resized) = (choices.geometry.part, choices.geometry.resized);
        let each_row = |rows, take: TakeRow<f32>| {
            floats.each_row(source, part, resized, self.filter, rows, |y, row| {
                window.levels(row);
                take(y, row);
            })
        };
        self.finish(choices, levels, out, each_row, Normalize::floats)
    }
}
