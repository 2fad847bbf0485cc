//! The words and numbers of a folder's table as the columns of a record have them.

use dataset::format::record_checks;
use dataset::split::Subset;

use crate::dicom::header::years;
use crate::sources::folder::labels::shortened;
use crate::sources::shared::dates;

/// Highest age of a patient in years: a larger number is a year of birth or an error.
const MAX_AGE: f32 = 130.0;

/// Words for an unknown value.
const UNKNOWN: [&str; 8] = ["unknown", "unk", "u", "na", "n/a", "nan", "null", "none"];

fn is_unknown(text: &str) -> bool {
    UNKNOWN.contains(&text.to_lowercase().as_str())
}

/// The subset of a cell.
pub fn subset(column: &str, text: &str) -> Result<String, String> {
    let found = Subset::parse(text).ok_or_else(|| {
        let text = shortened(text);
        format!("column `{column}`: unknown subset `{text}`; leave it empty or write one of {}", Subset::accepted())
    });
    found.map(|subset| subset.name().to_owned())
}

/// `F`, `M` or `O`; `None` where the sex is unknown.
pub fn sex(column: &str, text: &str) -> Result<Option<String>, String> {
    let sex = match text.to_lowercase().as_str() {
        "f" | "female" | "woman" => "F",
        "m" | "male" | "man" => "M",
        "o" | "other" => "O",
        unknown if is_unknown(unknown) => return Ok(None),
        _ => {
            let text = shortened(text);
            return Err(format!(
                "column `{column}`: `{text}` is no sex; write F, M, O (or the words), or leave it empty"
            ));
        }
    };
    Ok(Some(sex.to_owned()))
}

/// An age in years, the middle of a range of ages; `None` where it is unknown.
pub fn age(column: &str, text: &str) -> Result<Option<f32>, String> {
    if is_unknown(text) {
        return Ok(None);
    }
    let plain = text.to_uppercase().replace(' ', "").replacen(',', ".", 1);
    let stated = years(&plain).or_else(|| middle(text)).filter(|age| *age <= MAX_AGE);
    let unknown = || {
        let text = shortened(text);
        format!(
            "column `{column}`: `{text}` is no age; write years (34, 34.5), DICOM's form (034Y, 006M) or a range (40-44, \
             90+), or leave it empty"
        )
    };
    stated.map(Some).ok_or_else(unknown)
}

/// The middle of a range: `40-44`, `[40, 45)`, `40 to 44`; the bound of an open one: `90+`, `>89`, `<1`.
fn middle(text: &str) -> Option<f32> {
    let text = text.trim().trim_start_matches(['[', '(']).trim_end_matches([']', ')']);
    let number = |text: &str| text.trim().parse::<f32>().ok().filter(|age| age.is_finite() && *age >= 0.0);
    let open = text.strip_suffix('+').or_else(|| text.strip_prefix(['>', '<', '≥', '≤']));
    if let Some(bound) = open {
        return number(bound.strip_prefix('=').unwrap_or(bound));
    }
    let (first, last) = ["-", "–", " to ", ","].iter().find_map(|between| text.split_once(between))?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(f32::midpoint(first, last))
}

/// A date or a time as `study_datetime` has it; `None` where it is unknown.
pub fn datetime(column: &str, text: &str) -> Result<Option<String>, String> {
    if is_unknown(text) {
        return Ok(None);
    }
    dates::of_text(text).map(Some).ok_or_else(|| {
        let text = shortened(text);
        format!(
            "column `{column}`: `{text}` is no date; write 2021-03-07, 2021-03-07 14:05, 20210307 or 07.03.2021, or leave it \
             empty"
        )
    })
}

/// A number that orders the studies of a patient; `None` where it is unknown.
pub fn order(column: &str, text: &str) -> Result<Option<u32>, String> {
    if is_unknown(text) {
        return Ok(None);
    }
    let number = text.trim().strip_suffix(".0").unwrap_or(text.trim()).parse();
    number.map(Some).map_err(|_| {
        format!("column `{column}`: `{}` is no whole number from 0 on; write one or leave it empty", shortened(text))
    })
}

/// Distances of rows and of columns: one number for both, or two, in one text or in two; `None` where one is unknown.
pub fn pixel_spacing(column: &str, texts: &[&str]) -> Result<Option<[f32; 2]>, String> {
    if texts.is_empty() || texts.iter().any(|text| is_unknown(text)) {
        return Ok(None);
    }
    let text = texts.join("\\");
    let numbers: Option<Vec<f32>> = text
        .split(['\\', 'x', '×', ' ', '[', ']', '(', ')', ';'])
        .flat_map(|part| part.split(", "))
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| part.trim_end_matches(',').replacen(',', ".", 1).parse().ok())
        .collect();
    let spacing = match numbers.as_deref() {
        Some([both]) => Some([*both, *both]),
        Some([row, column]) => Some([*row, *column]),
        _ => None,
    };
    spacing.filter(|spacing| record_checks::pixel_spacing(*spacing).is_ok()).map(Some).ok_or_else(|| {
        let text = shortened(&text);
        format!(
            "column `{column}`: `{text}` is no distance in millimeters; write 0.139 or 0.139\\0.139, or leave it empty"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_may_be_ranges() {
        let of = |text: &str| age("A", text);
        for (text, expected) in [
            ("34", 34.0),
            ("34,5", 34.5),
            ("045Y", 45.0),
            ("006M", 0.5),
            ("40-44", 42.0),
            ("40 – 45", 42.5),
            ("[40, 45)", 42.5),
            ("40 to 50", 45.0),
            ("90+", 90.0),
            (">= 89", 89.0),
            ("<1", 1.0),
        ] {
            assert_eq!(of(text), Ok(Some(expected)), "{text}");
        }
        assert_eq!(of("N/A"), Ok(None));
        for text in ["1950", "44-40", "old", "40-", "-5", "90++", "40-1950"] {
            assert!(of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spacings_are_one_number_or_two() {
        let of = |texts: &[&str]| pixel_spacing("S", texts);
        for texts in [&["0.14"][..], &["0.14", "0.14"], &["0.14\\0.14"], &["[0.14, 0.14]"], &["0.14x0.14"], &["0,14"]] {
            assert_eq!(of(texts), Ok(Some([0.14, 0.14])), "{texts:?}");
        }
        assert_eq!(of(&["0.14", "0.2"]), Ok(Some([0.14, 0.2])));
        assert_eq!((of(&["na"]), of(&[])), (Ok(None), Ok(None)));
        for texts in [&["0"][..], &["-1"], &["0.1\\0.1\\0.1"], &["wide"], &["nan\\1"], &["1e999"]] {
            assert!(of(texts).is_err(), "{texts:?}");
        }
        assert_eq!((order("O", "3.0"), order("O", "-1").is_err()), (Ok(Some(3)), true));
    }
}
