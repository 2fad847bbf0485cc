//! The stored size of an image: how raw images are resized, and where the raw image is in the stored one.

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

/// Adds black borders to a resized image where [`Resize::Pad`] needs them; returns the pixels, their width and height, and
/// the position of the raw image of this width and height.
pub(super) fn bordered<T: Copy + Default>(
    resized: Vec<T>,
    (width, height): (u32, u32),
    source: (u32, u32),
    size: u32,
    resize: Resize,
) -> (Vec<T>, (u32, u32), Placement) {
    let scale = (f64::from(width) / f64::from(source.0), f64::from(height) / f64::from(source.1));
    if resize != Resize::Pad || (width, height) == (size, size) {
        return (resized, (width, height), Placement { scale, offset: (0.0, 0.0) });
    }
    let (left, top) = ((size - width) / 2, (size - height) / 2);
    let mut padded = vec![T::default(); size as usize * size as usize];
    for (y, row) in resized.chunks_exact(width as usize).enumerate() {
        let start = (top as usize + y) * size as usize + left as usize;
        padded[start..start + row.len()].copy_from_slice(row);
    }
    (padded, (size, size), Placement { scale, offset: (f64::from(left), f64::from(top)) })
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
