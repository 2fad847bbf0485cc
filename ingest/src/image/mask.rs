//! Segmentation masks: run lengths of a table are drawn on the raw image; masks are resized and stored as a 1-bit PNG.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::image::resize::Placement;

/// The text of the tables for an empty mask.
pub(crate) const NOTHING: &str = "-1";

/// Marked pixels of a raw image as runs in column-major order: down the first column, then down the second one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs(Vec<Range<u64>>);

/// The order of pixels that runs go along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum RunOrder {
    /// Down the first column, then down the second one.
    #[default]
    Columns,
    /// Along the first row, then along the second one.
    Rows,
}

/// What the numbers of run lengths mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum RunForm {
    /// Each offset is counted from the end of the run before it, the first from 0, as in SIIM-ACR.
    #[default]
    Relative,
    /// Each start is the number of a pixel, counted from 1, as in most challenges of Kaggle.
    Absolute,
    /// Each start is the number of a pixel, counted from 0.
    FromZero,
}

impl RunForm {
    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relative => "relative",
            Self::Absolute => "absolute",
            Self::FromZero => "from-zero",
        }
    }
}

impl Runs {
    /// Parses pairs of a start and a length in this form; `-1` is an empty mask.
    ///
    /// # Errors
    /// As [`Runs::parse`]; also where a start is 0.
    pub fn parse_as(text: &str, form: RunForm) -> Result<Self, String> {
        if form == RunForm::Relative || text.trim() == NOTHING {
            return Self::parse(text);
        }
        let counted_from = u64::from(form == RunForm::Absolute);
        let run = |[start, length]: &[u64; 2]| {
            let first = start.checked_sub(counted_from).ok_or("a run starts at 0, but pixels are counted from 1")?;
            Ok(first..first.checked_add(*length).ok_or("the run lengths are too large")?)
        };
        pairs(text)?.iter().map(run).collect::<Result<_, String>>().map(Self)
    }

    /// Parses `offset length offset length …`, each offset counted from the end of the run before it; `-1` is an empty mask.
    ///
    /// # Errors
    /// A sentence that names the cause: an odd count, a word that is no whole number, an empty text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim() == NOTHING {
            return Ok(Self::default());
        }
        let pairs = pairs(text)?;
        let (mut runs, mut at) = (Vec::with_capacity(pairs.len()), 0u64);
        for [offset, length] in &pairs {
            let start = at.checked_add(*offset);
            let end = start.and_then(|start| start.checked_add(*length));
            let (Some(start), Some(end)) = (start, end) else {
                return Err("the run lengths are too large".to_owned());
            };
            runs.push(start..end);
            at = end;
        }
        Ok(Self(runs))
    }

    /// Adds the pixels of another region.
    pub(crate) fn unite(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether no pixel is marked.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Range::is_empty)
    }

    /// The mask, row-major, 1 where marked: `[height, width]`.
    ///
    /// # Errors
    /// When a run ends behind the last pixel.
    pub fn draw(&self, width: u32, height: u32) -> Result<Vec<u8>, String> {
        self.draw_along(RunOrder::Columns, width, height)
    }

    /// As [`Runs::draw`], of runs that go along the pixels in another order.
    ///
    /// # Errors
    /// As [`Runs::draw`].
    pub fn draw_along(&self, order: RunOrder, width: u32, height: u32) -> Result<Vec<u8>, String> {
        let pixels = u64::from(width) * u64::from(height);
        if let Some(end) = self.0.iter().map(|run| run.end).max().filter(|end| *end > pixels) {
            return Err(format!("the mask reaches pixel {end}, the image has {width}×{height} = {pixels}"));
        }
        let (width, height) = (width as usize, height as usize);
        let mut mask = vec![0; width * height];
        if order == RunOrder::Rows {
            self.0.iter().for_each(|run| mask[run.start as usize..run.end as usize].fill(1));
            return Ok(mask);
        }
        for at in self.0.iter().cloned().flatten() {
            let (column, row) = (at as usize / height, at as usize % height);
            mask[row * width + column] = 1;
        }
        Ok(mask)
    }
}

/// The numbers of run lengths, two by two.
fn pairs(text: &str) -> Result<Vec<[u64; 2]>, String> {
    let number = |word: &str| word.parse::<u64>().map_err(|_| format!("`{word}` is no run length"));
    let numbers = text.split_ascii_whitespace().map(number).collect::<Result<Vec<_>, _>>()?;
    let (pairs, []) = numbers.as_chunks::<2>() else {
        return Err(format!("{} numbers make no pairs of offset and length", numbers.len()));
    };
    if pairs.is_empty() {
        return Err("the run lengths are empty".to_owned());
    }
    Ok(pairs.to_vec())
}

/// A mask as records have it: a 1-bit PNG of the size `stored` (width, height), for a `mask` of the size `raw`, 1 where
/// marked, at the position `place` of the stored image. A stored pixel is marked where marked raw pixels cover at least half
/// of it.
///
/// # Errors
/// A sentence, when it cannot be encoded.
pub(crate) fn stored(mask: &[u8], raw: (u32, u32), stored: (u32, u32), place: Placement) -> Result<Vec<u8>, String> {
    scaled(mask, raw, raw, stored, place)
}

/// As [`stored`], for a `mask` of another `size` that shows the same as the raw image.
///
/// # Errors
/// As [`stored`].
pub(crate) fn scaled(
    mask: &[u8],
    size: (u32, u32),
    raw: (u32, u32),
    stored: (u32, u32),
    place: Placement,
) -> Result<Vec<u8>, String> {
    let side = |raw: u32, scale: f64| ((f64::from(raw) * scale).round() as usize).max(1);
    let inner = (side(raw.0, place.scale.0), side(raw.1, place.scale.1));
    let resized = resize(mask, (size.0 as usize, size.1 as usize), inner);
    let (left, top) = (place.offset.0 as usize, place.offset.1 as usize);
    let (width, height) = (stored.0 as usize, stored.1 as usize);
    let row_bytes = width.div_ceil(8);
    let mut bits = vec![0u8; row_bytes * height];
    for (y, row) in resized.chunks_exact(inner.0).enumerate() {
        for x in row.iter().enumerate().filter(|(_, marked)| **marked).map(|(x, _)| x + left) {
            bits[(y + top) * row_bytes + x / 8] |= 0x80 >> (x % 8);
        }
    }
    encode(&bits, stored.0, stored.1).map_err(|error| format!("the mask cannot be encoded: {error}"))
}

/// Resizes a mask of (width, height) pixels: a new pixel is marked where at least half of its area is. Areas are whole
/// numbers, in units of 1 / (new width · new height) of a raw pixel.
fn resize(mask: &[u8], (width, height): (usize, usize), (new_width, new_height): (usize, usize)) -> Vec<bool> {
    if (width, height) == (new_width, new_height) {
        return mask.iter().map(|&marked| marked == 1).collect();
    }
    let across = overlaps(width, new_width);
    let mut narrow = vec![0u64; new_width * height];
    for (row, sums) in mask.chunks_exact(width).zip(narrow.chunks_exact_mut(new_width)) {
        if row.contains(&1) {
            for (sum, covered) in sums.iter_mut().zip(&across) {
                *sum = covered.iter().map(|&(x, share)| u64::from(row[x]) * share).sum();
            }
        }
    }
    let whole = width as u64 * height as u64;
    let mut resized = Vec::with_capacity(new_width * new_height);
    for covered in overlaps(height, new_height) {
        resized.extend((0..new_width).map(|x| {
            let area: u64 = covered.iter().map(|&(y, share)| narrow[y * new_width + x] * share).sum();
            2 * area >= whole
        }));
    }
    resized
}

/// For each new pixel of a line: the raw pixels that it covers, and how much of each in units of 1/`new` raw pixel. A new
/// pixel covers `old` of these units.
fn overlaps(old: usize, new: usize) -> Vec<Vec<(usize, u64)>> {
    let pixel = |at: usize| {
        let (start, end) = (at * old, (at + 1) * old);
        let share = |x: usize| (end.min((x + 1) * new) - start.max(x * new)) as u64;
        (start / new..end.div_ceil(new)).map(|x| (x, share(x))).collect()
    };
    (0..new).map(pixel).collect()
}

fn encode(bits: &[u8], width: u32, height: u32) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(bits)?;
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_from_the_last_run_and_down_the_columns() {
        let runs = Runs::parse("1 2 3 1").unwrap();
        // Pixels 1, 2 and 6 of an image of height 3: column 0 rows 1 and 2, column 2 row 0.
        assert_eq!(runs.draw(3, 3).unwrap(), [0, 0, 1, 1, 0, 0, 1, 0, 0]);
        assert!(Runs::parse(" -1").unwrap().is_empty());
        assert_eq!(Runs::parse("-1").unwrap().draw(2, 2).unwrap(), [0; 4]);
        let absolute = |text: &str| Runs::parse_as(text, RunForm::Absolute);
        assert_eq!(absolute("2 2 7 1").as_ref(), Ok(&runs), "the same pixels, counted from 1");
        assert_eq!(Runs::parse_as("1 2 6 1", RunForm::FromZero).as_ref(), Ok(&runs), "the same pixels, counted from 0");
        assert_eq!(runs.draw_along(RunOrder::Rows, 3, 3).unwrap(), [0, 1, 1, 0, 0, 0, 1, 0, 0]);
        assert!(runs.draw_along(RunOrder::Rows, 3, 2).is_err());
        assert!(absolute("-1").unwrap().is_empty() && absolute("0 2").is_err() && absolute("1 2 3").is_err());
        let mut both = runs.clone();
        both.unite(Runs::parse("0 1 1 1").unwrap());
        assert_eq!(both.draw(3, 3).unwrap(), [1, 0, 1, 1, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn an_error_names_what_is_wrong_with_the_runs() {
        let error = |text: &str| Runs::parse(text).unwrap_err();
        assert_eq!(error("3 4 5"), "3 numbers make no pairs of offset and length");
        assert_eq!(error("3 x"), "`x` is no run length");
        assert_eq!(error("-1 4"), "`-1` is no run length");
        assert_eq!(error("  "), "the run lengths are empty");
        assert_eq!(error(&format!("{} 2", u64::MAX)), "the run lengths are too large");
        assert_eq!(
            Runs::parse("7 3").unwrap().draw(3, 3).unwrap_err(),
            "the mask reaches pixel 10, the image has 3×3 = 9"
        );
        assert!(Runs::parse("7 2").unwrap().draw(3, 3).is_ok());
    }

    #[test]
    fn text_and_mask_go_both_ways() {
        let (width, height) = (13, 7);
        let mask: Vec<bool> = (0..width * height).map(|i| (i * i + i / 5) % 3 == 0).collect();
        let runs = Runs::parse(&phantom::run_lengths(&mask, width, height)).unwrap();
        let drawn = runs.draw(width as u32, height as u32).unwrap();
        assert!(drawn.iter().zip(&mask).all(|(&drawn, &marked)| (drawn == 1) == marked));
    }

    #[test]
    fn half_of_the_area_marks_a_pixel() {
        // 4×2 to 2×1: two of four, then one of four.
        assert_eq!(resize(&[1, 1, 0, 0, 0, 0, 1, 0], (4, 2), (2, 1)), [true, false]);
        // 3×1 to 2×1: a new pixel covers one and a half old ones.
        assert_eq!(resize(&[1, 0, 0], (3, 1), (2, 1)), [true, false]);
        assert_eq!(resize(&[0, 1, 0], (3, 1), (2, 1)), [false, false]);
        // Larger: 2×1 to 3×1, the middle pixel covers half of each.
        assert_eq!(resize(&[1, 0], (2, 1), (3, 1)), [true, true, false]);
        let full = vec![1; 37 * 23];
        assert!(resize(&full, (37, 23), (11, 9)).into_iter().all(|marked| marked));
    }

    #[test]
    fn padding_moves_the_mask() {
        let place = Placement { scale: (0.25, 0.25), offset: (0.0, 2.0) };
        let mut mask = vec![false; 40 * 20];
        (0..4).for_each(|y| mask[y * 40..y * 40 + 8].fill(true));
        let drawn = Runs::parse(&phantom::run_lengths(&mask, 40, 20)).unwrap().draw(40, 20).unwrap();
        let bytes = stored(&drawn, (40, 20), (10, 10), place).unwrap();
        assert_eq!((bytes[24], bytes[25]), (1, 0), "one bit of gray");
        let image = dataset::format::image_codec::decode(&bytes).unwrap();
        let marked: Vec<usize> = (0..100).filter(|&i| image.pixels[i] > 0).collect();
        assert_eq!(marked, [20, 21], "row 2, columns 0 and 1");
    }
}
