//! The values that a record may have. `verify` checks all of them, a loader those that it returns; `ingest` writes no others.

use crate::format::grade::GradeScale;
use crate::format::image_codec::decode_mask;
use crate::format::label::Label;
use crate::format::manifest::{ImageSpec, Manifest};
use crate::format::record::{BoundingBox, NamedText, Record};
use crate::split::types::Subset;

/// Largest length of an identifier or path in bytes, that of paths of the operating system.
pub const MAX_ID_BYTES: usize = 4096;

/// How far an edge of a box may be outside of its image, in pixels, since coordinates are rounded.
const BOX_TOLERANCE: f32 = 1.0;

/// What is wrong with a record of 16-bit pixels that states no window.
pub(crate) const NO_WINDOW: &str = "its pixels have 16 bits, and the column `window` is null";

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

/// Checks a date or time of a study: `YYYY-MM-DD` or `YYYY-MM-DDTHH:MM:SS`, in the calendar.
///
/// # Errors
/// When it has another form.
pub fn datetime(text: &str) -> Checked {
    let number = |range: std::ops::Range<usize>| -> Option<u32> {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let is_date = || {
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 => 28 + u32::from(leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => 0,
        };
        Some((1..=days).contains(&day) && text.get(4..5)? == "-" && text.get(7..8)? == "-")
    };
    let is_time = || {
        let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
        let marks = (text.get(10..11)?, text.get(13..14)?, text.get(16..17)?) == ("T", ":", ":");
        Some(marks && hour < 24 && minute < 60 && second < 60)
    };
    let is_valid = match text.len() {
        10 => is_date(),
        19 => is_date().zip(is_time()).map(|(date, time)| date && time),
        _ => None,
    };
    if is_valid == Some(true) {
        return Ok(());
    }
    let text: String = text.chars().take(40).collect();
    Err(format!("study_datetime {text:?}, which is neither YYYY-MM-DD nor YYYY-MM-DDTHH:MM:SS"))
}

/// Checks the form of a language tag: words of up to eight letters and digits, joined by `-`, the first of letters.
///
/// # Errors
/// When it has another form.
pub fn language(tag: &str) -> Checked {
    let is_word = |word: &str| (1..=8).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let first = tag.split('-').next().unwrap_or_default();
    let is_language = (2..=8).contains(&first.len()) && first.bytes().all(|byte| byte.is_ascii_alphabetic());
    if is_language && tag.split('-').all(is_word) && tag.len() <= 35 {
        return Ok(());
    }
    let tag: String = tag.chars().take(40).collect();
    Err(format!("language {tag:?}, which is no tag of BCP 47, such as `en` or `pt-BR`"))
}

/// Checks the distances of rows and columns in millimeters.
///
/// # Errors
/// When one is not a positive number.
pub fn pixel_spacing([row, column]: [f32; 2]) -> Checked {
    if [row, column].iter().all(|spacing| spacing.is_finite() && *spacing > 0.0) {
        return Ok(());
    }
    Err(format!("a pixel spacing of {row} and {column} mm"))
}

/// Checks the window of pixels, as center and width; `None` is valid for 8-bit pixels only.
///
/// # Errors
/// When it is missing, its width is below 1, or a number is not finite.
pub fn window(window: Option<[f32; 2]>, bits: u8) -> Checked {
    match window {
        None if bits > 8 => Err(NO_WINDOW.to_owned()),
        None => Ok(()),
        Some([center, width]) if center.is_finite() && width.is_finite() && width >= 1.0 => Ok(()),
        Some([center, width]) => Err(format!("a window of center {center} and width {width}")),
    }
}

/// Checks a name of a dataset's own: a mask, a section, a reader, an origin of labels.
///
/// # Errors
/// When it is empty, too long, or has control characters.
pub fn name(column: &str, text: &str) -> Checked {
    if text.trim().is_empty() { Err(format!("a name in `{column}` is empty")) } else { identifier(column, text) }
}

/// Checks the grades of a record.
///
/// # Errors
/// When a grade is outside of its scale, or there is another number of them.
pub fn grades(grades: &[Option<i8>], scales: &[GradeScale]) -> Checked {
    if grades.len() != scales.len() {
        return Err(format!("{} grades, the dataset has {}", grades.len(), scales.len()));
    }
    let is_outside = |grade: i8, scale: &GradeScale| usize::try_from(grade).map_or(true, |at| at >= scale.values.len());
    let wrong = |(grade, scale): (&Option<i8>, &GradeScale)| {
        let grade = grade.filter(|grade| is_outside(*grade, scale))?;
        Some(format!("grade {grade} of `{}`, which has {} values", scale.name, scale.values.len()))
    };
    grades.iter().zip(scales).find_map(wrong).map_or(Ok(()), Err)
}

/// Checks the names of a record's masks.
///
/// # Errors
/// When the dataset does not know a name, or one occurs twice.
pub fn mask_names<'a>(names: impl Iterator<Item = &'a str>, known: &[String]) -> Checked {
    let mut seen: Vec<&str> = Vec::new();
    for name in names {
        if !known.iter().any(|known| known == name) {
            return Err(format!("a mask `{name}`, which is none of the manifest's: {}", known.join(", ")));
        }
        if seen.contains(&name) {
            return Err(format!("two masks `{name}`"));
        }
        seen.push(name);
    }
    Ok(())
}

/// Checks a section: its name, and its token ids.
pub(crate) fn text(text: &NamedText, vocabulary: usize, max_tokens: usize) -> Checked {
    name("texts", &text.name)?;
    token_count(&text.token_ids, max_tokens)?;
    token_ids(&text.token_ids, vocabulary)
}

fn token_count(ids: &[i32], max_tokens: usize) -> Checked {
    match ids.len() {
        length if length > max_tokens => Err(format!("{length} token ids, the manifest says {max_tokens} at most")),
        _ => Ok(()),
    }
}

/// Checks a box of an image of this height and width, and what it has besides its rectangle.
///
/// # Errors
/// As [`rectangle`] and [`box_details`].
pub fn boxed(stored: &BoundingBox, sides: (u16, u16)) -> Checked {
    rectangle([stored.x, stored.y, stored.width, stored.height], sides)?;
    box_details(stored)
}

/// Checks what a box has besides its rectangle.
///
/// # Errors
/// When its score is not a number, or its reader has no name.
pub fn box_details(stored: &BoundingBox) -> Checked {
    match stored.score {
        Some(score) if !score.is_finite() => Err(format!("a box with the score {score}")),
        _ => stored.reader.as_ref().map_or(Ok(()), |reader| name("boxes", reader)),
    }
}

/// Checks the mask of an image of this height and width.
pub(crate) fn mask(png: &[u8], sides: (u16, u16)) -> Checked {
    decode_mask(png, sides).map(drop).map_err(|error| error.to_string())
}

/// Checks an age in years.
///
/// # Errors
/// When it is negative or not a number.
pub fn age(years: f32) -> Checked {
    if years.is_finite() && years >= 0.0 { Ok(()) } else { Err(format!("an age of {years} years")) }
}

/// Checks the word of a source's own subset.
///
/// # Errors
/// When it is none that splits know.
pub fn subset(word: &str) -> Checked {
    let shown = || word.chars().take(40).collect::<String>();
    Subset::parse(word).map(drop).ok_or_else(|| format!("unknown subset {:?}", shown()))
}

/// Checks that the stored image has the proportions of the raw one, as images are resized. An image of raw pixels whose sides
/// are exchanged has the bytes of another one.
fn sides(record: &Record, image: &ImageSpec) -> Checked {
    let [height, width, source_height, source_width] =
        [record.height.into(), record.width.into(), record.source_height, record.source_width].map(u64::from);
    if height == 0 || width == 0 || source_height == 0 || source_width == 0 {
        return Ok(());
    }
    let is_resized = match image.resize.as_str() {
        // A side is rounded by less than a pixel.
        "shorter" => (height * source_width).abs_diff(width * source_height) <= source_height.max(source_width),
        "pad" | "stretch" => (height, width) == (image.size.into(), image.size.into()),
        _ => true,
    };
    if is_resized {
        return Ok(());
    }
    Err(format!(
        "an image of {width} × {height} pixels, which does not become of one of {source_width} × {source_height} by resizing \
         `{}` to {}",
        image.resize, image.size
    ))
}

/// All that is wrong with a record of a dataset except for its image and its labels.
pub(crate) fn record(record: &Record, manifest: &Manifest) -> Vec<String> {
    let (vocabulary, max_tokens) = (manifest.text.vocabulary, manifest.text.max_tokens);
    let sides = (record.height, record.width);
    let checked = [
        identifiers(record.identifiers()),
        record.subset.as_deref().map_or(Ok(()), subset),
        record.age_years.map_or(Ok(()), age),
        self::sides(record, &manifest.image),
        record.study_datetime.as_deref().map_or(Ok(()), datetime),
        record.pixel_spacing.map_or(Ok(()), pixel_spacing),
        window(record.window, if record.height == 0 { 0 } else { manifest.image.bits }),
        record.language.as_deref().map_or(Ok(()), language),
        token_count(&record.token_ids, max_tokens),
        token_ids(&record.token_ids, vocabulary),
        record.texts.iter().try_for_each(|section| text(section, vocabulary, max_tokens)),
        record.label_origin.as_deref().map_or(Ok(()), |origin| name("label_origin", origin)),
        grades(&record.grades, &manifest.grades),
        record.readings.iter().try_for_each(|reading| name("readings", &reading.reader)),
        record.boxes.iter().try_for_each(|stored| boxed(stored, sides)),
        mask_names(record.masks.iter().map(|mask| mask.name.as_str()), &manifest.masks),
        record.masks.iter().try_for_each(|stored| mask(&stored.png, sides)),
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
    fn dates_and_languages_have_one_form() {
        for text in ["2110-03-07", "2000-02-29", "2110-03-07T14:05:09", "0001-12-31T23:59:59"] {
            assert_eq!(datetime(text), Ok(()), "{text}");
        }
        for text in [
            "",
            "2110-3-7",
            "2110-02-29",
            "2110-13-01",
            "2110-00-10",
            "2110-04-31",
            "2110/03/07",
            "+110-03-07",
            "2110-03-07 14:05:09",
            "2110-03-07T24:00:00",
            "2110-03-07T14:60:09",
            "2110-03-07T14:05",
            "2110-03-07T14:05:09Z",
            "21é0-03-07",
            "2110-03-é7",
        ] {
            assert!(datetime(text).is_err(), "{text}");
        }
        for tag in ["en", "es", "pt-BR", "zh-Hans-CN", "de-1996"] {
            assert_eq!(language(tag), Ok(()), "{tag}");
        }
        for tag in ["", "e", "english text", "en_US", "en-", "-en", "12", "é", "abcdefghi"] {
            assert!(language(tag).is_err(), "{tag}");
        }
    }

    #[test]
    fn grades_masks_and_spacings_are_those_of_the_dataset() {
        let scale = |name: &str| GradeScale { name: name.to_owned(), values: ["none", "+"].map(str::to_owned).into() };
        let scales = [scale("a"), scale("b")];
        assert_eq!(grades(&[Some(1), None], &scales), Ok(()));
        for wrong in [&[Some(2), None][..], &[None, Some(-1)], &[None], &[]] {
            assert!(grades(wrong, &scales).is_err(), "{wrong:?}");
        }
        let known = ["left", "right"].map(str::to_owned);
        assert_eq!(mask_names(["right", "left"].into_iter(), &known), Ok(()));
        assert!(mask_names(["left", "left"].into_iter(), &known).is_err());
        assert!(mask_names(["heart"].into_iter(), &known).is_err());
        assert_eq!(pixel_spacing([0.139, 0.139]), Ok(()));
        for wrong in [[0.0, 1.0], [1.0, -1.0], [f32::NAN, 1.0], [1.0, f32::INFINITY]] {
            assert!(pixel_spacing(wrong).is_err(), "{wrong:?}");
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
