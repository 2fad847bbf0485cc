//! The stored size of an image: how raw images are resized, and where the raw image is in the stored one.

use dataset::format::record::BoundingBox;
use serde::{Deserialize, Serialize};

/// How an image is brought to the stored size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// Shorter side to the size; smaller images stay as they are.
    #[default]
    Shorter,
    /// Longer side to the size, then black borders to a square.
    Pad,
    /// Both sides to the size; the aspect ratio changes.
    Stretch,
}

impl Resize {
    /// Name in the manifest and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shorter => "shorter",
            Self::Pad => "pad",
            Self::Stretch => "stretch",
        }
    }
}

/// Position of the raw image in the stored one: stored = raw · scale + offset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    /// Factors of x and y.
    pub scale: (f64, f64),
    /// Stored pixels to the left of and above the raw image's corner.
    pub offset: (f64, f64),
}

impl Placement {
    /// The position of an image of `source` (width, height) that was resized to `resized`, before borders were added.
    fn of(source: (u32, u32), resized: (u32, u32), size: u32, resize: Resize) -> Self {
        let scale = (f64::from(resized.0) / f64::from(source.0), f64::from(resized.1) / f64::from(source.1));
        let border = |side: u32| if resize == Resize::Pad { f64::from((size - side) / 2) } else { 0.0 };
        Self { scale, offset: (border(resized.0), border(resized.1)) }
    }

    /// The position of a raw image of `source` (width, height) in its stored image, and width and height of that.
    ///
    /// # Errors
    /// When the raw image is empty, or too long and narrow.
    pub fn in_stored(source: (u32, u32), size: u32, resize: Resize) -> Result<(Self, (u32, u32)), String> {
        if source.0 == 0 || source.1 == 0 {
            return Err("it has no image".to_owned());
        }
        let resized = resized_size(source, size, resize)?;
        let stored = if resize == Resize::Pad { (size, size) } else { resized };
        Ok((Self::of(source, resized, size, resize), stored))
    }

    /// A box of the raw image, whose coordinates are in units of so many raw pixels, in pixels of the stored image.
    pub fn boxed(self, raw: &BoundingBox, unit: (f64, f64)) -> BoundingBox {
        let scale = (self.scale.0 * unit.0, self.scale.1 * unit.1);
        BoundingBox {
            x: (f64::from(raw.x) * scale.0 + self.offset.0) as f32,
            y: (f64::from(raw.y) * scale.1 + self.offset.1) as f32,
            width: (f64::from(raw.width) * scale.0) as f32,
            height: (f64::from(raw.height) * scale.1) as f32,
            ..raw.clone()
        }
    }
}

/// Adds black borders to a resized image where [`Resize::Pad`] needs them; returns the pixels, their width and height, and
/// the position of the raw image of this width and height.
pub(super) fn bordered<T: Copy + Default>(
    resized: Vec<T>,
    (width, height): (u32, u32),
    source: (u32, u32),
    size: u32,
    resize: Resize,
) -> (Vec<T>, (u32, u32), Placement) {
    let place = Placement::of(source, (width, height), size, resize);
    if resize != Resize::Pad || (width, height) == (size, size) {
        return (resized, (width, height), place);
    }
    let (left, top) = ((size - width) / 2, (size - height) / 2);
    let mut padded = vec![T::default(); size as usize * size as usize];
    for (y, row) in resized.chunks_exact(width as usize).enumerate() {
        let start = (top as usize + y) * size as usize + left as usize;
        padded[start..start + row.len()].copy_from_slice(row);
    }
    (padded, (size, size), place)
}

/// Width and height of an image after resizing, without borders.
///
/// # Errors
/// When a side would be longer than the column for it can hold.
pub(super) fn resized_size((width, height): (u32, u32), size: u32, resize: Resize) -> Result<(u32, u32), String> {
    let scale = match resize {
        Resize::Shorter => (f64::from(size) / f64::from(width.min(height))).min(1.0),
        Resize::Pad => f64::from(size) / f64::from(width.max(height)),
        Resize::Stretch => return Ok((size, size)),
    };
    let [new_width, new_height] = [width, height].map(|side| ((f64::from(side) * scale).round() as u32).max(1));
    if new_width.max(new_height) > u16::MAX.into() {
        return Err(format!("{width}×{height} pixels: too long and narrow for a radiograph"));
    }
    Ok((new_width, new_height))
}
