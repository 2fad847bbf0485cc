//! Sizes of the raw and the stored image of each record, and how one lies in the other.

use arrow_array::{UInt16Array, UInt32Array};
use dataset::Dataset;
use dataset::format::table::column;

use crate::error::{Error, Result};
use crate::image::resize::{Placement, Resize};

/// How the raw image of a record lies in the stored one. Sizes are (width, height).
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub source: (u32, u32),
    pub stored: (u16, u16),
    pub place: Placement,
}

/// The sizes of all records, in the order of the dataset.
pub(super) struct Sizes {
    source: Vec<(u32, u32)>,
    stored: Vec<(u16, u16)>,
    size: u32,
    resize: Resize,
}

impl Sizes {
    /// Reads the sizes of a dataset.
    ///
    /// # Errors
    /// When they cannot be read, or the manifest has an unknown way of resizing.
    pub fn read(dataset: &Dataset) -> Result<Self> {
        let spec = &dataset.manifest().image;
        let resize =
            [Resize::Shorter, Resize::Pad, Resize::Stretch].into_iter().find(|known| known.name() == spec.resize);
        let unknown =
            || dataset::Error::Invalid(format!("its images were resized by `{}`, which is unknown", spec.resize));
        let (mut source, mut stored) = (Vec::new(), Vec::new());
        for batch in dataset.columns(&["height", "width", "source_height", "source_width"])? {
            let side = |name| column::<UInt16Array>(&batch, name);
            let raw = |name| column::<UInt32Array>(&batch, name);
            let wrong = || dataset::Error::Invalid("a column of sizes has another type than the format's".to_owned());
            let (width, height) = side("width").zip(side("height")).ok_or_else(wrong)?;
            stored.extend(width.values().iter().copied().zip(height.values().iter().copied()));
            let (width, height) = raw("source_width").zip(raw("source_height")).ok_or_else(wrong)?;
            source.extend(width.values().iter().copied().zip(height.values().iter().copied()));
        }
        Ok(Self { source, stored, size: spec.size, resize: resize.ok_or_else(unknown).map_err(Error::from)? })
    }

    /// The geometry of a record.
    ///
    /// # Errors
    /// A sentence, when the record has no image, or one of another size than its raw image gives.
    pub fn of(&self, row: usize) -> Result<Geometry, String> {
        let (Some(&source), Some(&stored)) = (self.source.get(row), self.stored.get(row)) else {
            return Err("no such record".to_owned());
        };
        if stored.0 == 0 || stored.1 == 0 {
            return Err("the record has no image, so a place in it means nothing".to_owned());
        }
        let (place, expected) = Placement::in_stored(source, self.size, self.resize)?;
        if expected != (stored.0.into(), stored.1.into()) {
            return Err(format!(
                "its image of {}×{} pixels is stored with {}×{} and not {}×{}",
                source.0, source.1, stored.0, stored.1, expected.0, expected.1
            ));
        }
        Ok(Geometry { source, stored, place })
    }
}

impl Geometry {
    /// Height and width of the stored image.
    pub fn sides(&self) -> (u16, u16) {
        (self.stored.1, self.stored.0)
    }

    /// Raw pixels in a pixel, across and down, of an image of the size (width, height) that shows the same.
    ///
    /// # Errors
    /// A sentence, when its sides have another ratio than those of the raw image.
    pub fn unit(&self, size: (u32, u32)) -> Result<(f64, f64), String> {
        let [width, height] = [size.0, size.1].map(f64::from);
        let [raw_width, raw_height] = [self.source.0, self.source.1].map(f64::from);
        // Sides of a smaller copy are rounded.
        let is_copy = (width * raw_height / raw_width - height).abs() <= 1.0
            || (height * raw_width / raw_height - width).abs() <= 1.0;
        if size.0 == 0 || size.1 == 0 || !is_copy {
            return Err(format!(
                "it is about an image of {}×{} pixels, the raw image has {}×{}, which is another shape",
                size.0, size.1, self.source.0, self.source.1
            ));
        }
        Ok((raw_width / width, raw_height / height))
    }
}

/// A size (width, height) in the cells of height and width.
///
/// # Errors
/// A sentence, when a cell is empty or no whole number.
pub(super) fn size(cells: [Option<&str>; 2], columns: &[String; 2]) -> Result<(u32, u32), String> {
    let side = |cell: Option<&str>, column: &String| {
        let text = cell.ok_or_else(|| format!("column `{column}` is empty"))?;
        let number = text.parse::<f64>().ok().filter(|side| side.fract() == 0.0 && (1.0..=1e6).contains(side));
        number.map(|side| side as u32).ok_or_else(|| format!("column `{column}`: `{text}` is no size in pixels"))
    };
    let [height, width] = cells;
    Ok((side(width, &columns[1])?, side(height, &columns[0])?))
}
