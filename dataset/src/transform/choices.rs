//! A transform with its random choices made, for image, mask and boxes alike.

use crate::transform::augment::{self, Levels, Step};
use crate::transform::float_resample::FloatResample;
use crate::transform::geometry::Geometry;
use crate::transform::resample::Resample;
use crate::transform::window::WindowChange;

/// The random choices of a transform for one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Choices {
    /// Crop, resizing, flip.
    pub geometry: Geometry,
    /// The augmentations that act on it, in their order.
    pub steps: Vec<Step>,
    /// The change of its window.
    pub window: WindowChange,
}

impl Choices {
    /// Transforms a mask of the stored image (row-major, `width` pixels in each row) into `out` `[size, size]`, as
    /// [`Geometry::mask`] does; augmentations that move the image move it, too.
    pub fn mask(&self, mask: &[u8], width: usize, workspace: &mut Workspace, out: &mut [u8]) {
        self.geometry.mask(mask, width, out);
        workspace.levels.mask(&self.steps, out);
    }

    /// Transforms a rectangle (x, y, width, height) of the stored image into the output, as [`Geometry::rectangle`] does.
    /// Where an augmentation moves the image, it is the rectangle around the moved corners, clipped to the output; `None`
    /// where less than [`MIN_BOX_SHARE`](augment::MIN_BOX_SHARE) of that is left.
    pub fn rectangle(&self, rectangle: [f32; 4]) -> Option<[f32; 4]> {
        augment::rectangle(&self.steps, self.geometry.rectangle(rectangle)?, self.geometry.size)
    }
}

/// Memory that transforms work in, used again for each image.
#[derive(Default)]
pub struct Workspace {
    pub(super) resample: Resample,
    pub(super) levels: Levels,
    pub(super) floats: FloatResample,
    /// Pixels of an 8-bit image in 16 bits.
    pub(super) words: Vec<u8>,
}
