//! Transforms of stored images of 8 and of 16 bits a pixel. Pixels of 16 bits are cropped and resized as they are stored, then
//! windowed to gray levels that are not rounded; from there on they are treated as those of 8 bits.
//!
//! In a window of at least 256 values, a gray level differs by less than 0.05 from that of exact arithmetic.

use crate::error::Result;
use crate::transform::choices::{Choices, Workspace};
use crate::transform::float_resample::Words;
use crate::transform::normalize::Normalize;
use crate::transform::pipeline::Transform;
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
        Choices { geometry, steps, window }: &Choices,
        Workspace { floats, levels, .. }: &mut Workspace,
        out: &mut [f32],
    ) -> Result<()> {
        let (center, width) = window.of(self.window.of(source.0, stored));
        let (window, normalize) = (LinearWindow::new(center, width), Normalize::new(self.mean, self.std));
        let (rows, columns, size) = (geometry.rows(), geometry.columns(), geometry.size as usize);
        let to = geometry.mirrored(columns.start, columns.length);
        let wanted = rows.from as u32..(rows.from + rows.length) as u32;
        // Calls for each row of the output that shows the image, with the gray levels from column `to` on.
        let mut each_row = |take: &mut dyn FnMut(usize, &[f32])| {
            floats.each_row(source, geometry.part, geometry.resized, self.filter, wanted.clone(), |y, row| {
                let row = &mut row[columns.from..columns.from + columns.length];
                window.levels(row);
                if geometry.flip {
                    row.reverse();
                }
                take(y - rows.from + rows.start, row);
            })
        };
        if steps.is_empty() {
            if rows.length.min(columns.length) < size {
                out.fill(normalize.level(0));
            }
            each_row(&mut |y, row| normalize.floats(row, &mut out[y * size + to..][..row.len()]))?;
        } else {
            levels.begin(size);
            each_row(&mut |y, row| levels.set_floats(y, to, row))?;
            levels.apply(steps);
            levels.rows().zip(out.chunks_exact_mut(size)).for_each(|(row, out)| normalize.floats(row, out));
        }
        Ok(())
    }
}
