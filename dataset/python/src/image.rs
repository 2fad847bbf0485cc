//! The stored image of a record, with the bits that it has.

use dataset::format::image_codec::{Gray16Pixels, GrayPixels};

use crate::array::Array;

/// A stored image.
pub enum Image {
    /// Of 8 bits.
    Gray(GrayPixels),
    /// Of 16 bits.
    Gray16(Gray16Pixels),
}

impl Image {
    /// Reads the image of a row.
    ///
    /// # Errors
    /// As `Dataset::image`.
    pub fn read(dataset: &dataset::Dataset, row: usize) -> dataset::Result<Self> {
        if dataset.has_16_bits() { dataset.image16(row).map(Self::Gray16) } else { dataset.image(row).map(Self::Gray) }
    }

    /// The pixels: ``uint8`` or ``uint16 [height, width]``.
    pub fn array(self) -> Array {
        match self {
            Self::Gray(image) => Array::owned(image.pixels, &[image.height as usize, image.width as usize]),
            Self::Gray16(image) => Array::owned(image.pixels, &[image.height as usize, image.width as usize]),
        }
    }
}
