//! The values that a record may have. `verify` checks all of them, a loader those that it returns; `ingest` writes no others.

use crate::format::image_codec::decode_mask;
use crate::format::label::Label;
use crate::format::record::{BoundingBox, Record};

/// Largest length of an identifier or path in bytes, that of paths of the operating system.
pub const MAX_ID_BYTES: usize = 4096;

/// How far an edge of a box may be outside of its image, in pixels, since coordinates are rounded.
const BOX_TOLERANCE: f32 = 1.0;

/// The result of a check; an error says what is wrong.
type Checked = Result<(), String>;

/// Checks an identifier or path: at most [`MAX_ID_BYTES`], and no control characters, which would break lines of tables.
///
/// # Errors
/// Says what is wrong.
pub fn identifier(column: &str, text: &str) -> Checked {
    if text.len() > MAX_ID_BYTES {
        return Err(format!("`{column}` has {} bytes, the most is {MAX_ID_BYTES}", text.len()));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(control) => Err(format!("`{column}` contains the control character U+{:04X}", u32::from(control))),
        None => Ok(()),
    }
}

/// Checks the identifiers and the path of a record, given with the names of their columns.
///
/// # Errors
/// Says what is wrong with the first invalid one.
pub fn identifiers(named: [(&str, &str); 5]) -> Checked {
    named.into_iter().try_for_each(|(column, text)| identifier(column, text))
}

/// Checks that token ids are below the size of the vocabulary.
pub(crate) fn token_ids(ids: &[i32], vocabulary: usize) -> Checked {
    match ids.iter().find(|&&id| usize::try_from(id).map_or(true, |id| id >= vocabulary)) {
        Some(id) => Err(format!("token id {id}, but the vocabulary has {vocabulary} pieces")),
        None => Ok(()),
    }
}

/// The label of a code, where there is one.
///
/// # Errors
/// When the code is none of 1, 0, -1.
pub fn label(code: Option<i8>) -> Result<Option<Label>, String> {
    let invalid = |code| format!("label code {code}, which is none of 1, 0, -1");
    code.map(|code| Label::from_code(code).ok_or_else(|| invalid(code))).transpose()
}

/// Checks a box (x, y, width, height, in pixels) of an image of this height and width.
///
/// # Errors
/// When it is empty, more than a pixel of it is outside of the image, or a coordinate is not a number.
pub fn rectangle([x, y, width, height]: [f32; 4], image: (u16, u16)) -> Checked {
    let (most_x, most_y) = (f32::from(image.1) + BOX_TOLERANCE, f32::from(image.0) + BOX_TOLERANCE);
    // Comparisons with NaN are false.
    let is_inside = x >= -BOX_TOLERANCE && y >= -BOX_TOLERANCE && x + width <= most_x && y + height <= most_y;
    if is_inside && width > 0.0 && height > 0.0 {
        return Ok(());
    }
    Err(format!(
        "a box at {x}, {y} of {width} × {height} pixels, which is not inside its image of {} × {}",
        image.1, image.0
    ))
}

/// Checks the mask of an image of this height and width.
fn mask(png: &[u8], (height, width): (u16, u16)) -> Checked {
    let mask = decode_mask(png).map_err(|error| error.to_string())?;
    if (mask.height, mask.width) == (height.into(), width.into()) {
        return Ok(());
    }
    Err(format!("its mask has another size ({} × {}) than its image ({width} × {height})", mask.width, mask.height))
}

/// All that is wrong with a record except for its image.
pub(crate) fn record(record: &Record, vocabulary: usize, max_tokens: usize) -> Vec<String> {
    let sides = (record.height, record.width);
    let of_box = |b: &BoundingBox| rectangle([b.x, b.y, b.width, b.height], sides);
    let length = match record.token_ids.len() {
        length if length > max_tokens => Err(format!("{length} token ids, the manifest says {max_tokens} at most")),
        _ => Ok(()),
    };
    let checked = [
        identifiers(record.identifiers()),
        length,
        token_ids(&record.token_ids, vocabulary),
        record.boxes.iter().try_for_each(of_box),
        record.mask.as_ref().map_or(Ok(()), |png| mask(png, sides)),
    ];
    checked.into_iter().filter_map(Result::err).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_inside_their_image() {
        let image = (100, 50);
        for inside in [[0.0, 0.0, 50.0, 100.0], [-0.9, -0.5, 3.0, 3.0], [49.0, 99.0, 1.9, 1.9]] {
            assert_eq!(rectangle(inside, image), Ok(()));
        }
        let nan = f32::NAN;
        for outside in [
            [0.0, 0.0, 52.0, 10.0],
            [0.0, 0.0, 10.0, 102.0],
            [-2.0, 0.0, 10.0, 10.0],
            [0.0, -2.0, 10.0, 10.0],
            [1.0, 1.0, 0.0, 1.0],
            [1.0, 1.0, 1.0, -1.0],
            [nan, 1.0, 1.0, 1.0],
            [1.0, nan, 1.0, 1.0],
            [1.0, 1.0, nan, 1.0],
            [1.0, 1.0, 1.0, nan],
            [1.0, 1.0, f32::INFINITY, 1.0],
            [f32::NEG_INFINITY, 1.0, f32::INFINITY, 1.0],
        ] {
            assert!(rectangle(outside, image).is_err(), "{outside:?}");
        }
    }

    #[test]
    fn identifiers_are_one_short_line() {
        assert_eq!(identifier("record_id", "folder/Müller 1 (2).png"), Ok(()));
        assert_eq!(identifier("record_id", &"x".repeat(MAX_ID_BYTES)), Ok(()));
        assert!(identifier("record_id", &"x".repeat(MAX_ID_BYTES + 1)).is_err());
        let refused = identifier("image_id", "a\nb").unwrap_err();
        assert_eq!(refused, "`image_id` contains the control character U+000A");
        assert!(identifier("image_id", "a\u{9b}b").is_err());
    }
}
