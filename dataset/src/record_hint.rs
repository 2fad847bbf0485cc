//! Suggests records where a user gave an image, a file, a study or a patient in place of a record.

use crate::error::Result;

/// Number of records that are named; the rest is counted.
const SHOWN: usize = 3;

/// `; did you mean X …?` for a name that is not a record identifier. `texts` reads a text column of the dataset.
///
/// # Errors
/// When the identifiers cannot be read.
pub(crate) fn hint(texts: &dyn Fn(&str) -> Result<Vec<Option<String>>>, wanted: &str) -> Result<String> {
    let ids = texts("record_id")?;
    let ids: Vec<&str> = ids.iter().map(Option::as_deref).map(Option::unwrap_or_default).collect();
    let wanted = wanted.trim().to_lowercase();
    // Identifiers without the source, then the columns, from the smallest unit to the largest.
    let matching = |matches: &dyn Fn(usize) -> bool| (0..ids.len()).filter(|&row| matches(row)).collect::<Vec<usize>>();
    let of_id = matching(&|row| ids[row].split_once('/').is_some_and(|(_, name)| name.to_lowercase() == wanted));
    if !of_id.is_empty() {
        return Ok(suggestion("record", &of_id, &ids));
    }
    for (column, noun) in
        [("image_id", "image"), ("source_path", "image"), ("study_id", "study"), ("patient_id", "patient")]
    {
        let values = texts(column)?;
        let rows =
            matching(&|row| values[row].as_deref().is_some_and(|value| is_named(&value.to_lowercase(), &wanted)));
        if !rows.is_empty() {
            return Ok(suggestion(noun, &rows, &ids));
        }
    }
    Ok(ids.first().map(|first| format!("; its records are named like `{first}`")).unwrap_or_default())
}

/// Whether a name means a path or an identifier: the whole of it or its last parts, with or without the extension, or a
/// longer path that ends with it.
fn is_named(value: &str, wanted: &str) -> bool {
    let stem =
        value.rsplit_once('.').map_or(value, |(stem, extension)| if extension.contains('/') { value } else { stem });
    let ends = |long: &str, short: &str| {
        !short.is_empty() && long.strip_suffix(short).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
    };
    ends(value, wanted) || ends(stem, wanted) || ends(wanted, value)
}

fn suggestion(noun: &str, rows: &[usize], ids: &[&str]) -> String {
    if let [only] = rows {
        let whose = if noun == "record" { String::new() } else { format!(", the record of this {noun}") };
        return format!("; did you mean `{}`{whose}?", ids[*only]);
    }
    let shown: Vec<String> = rows.iter().take(SHOWN).map(|&row| format!("`{}`", ids[row])).collect();
    let more = match rows.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let what = if noun == "image" { "have an image of this name".to_owned() } else { format!("are of this {noun}") };
    format!("; {} records {what}: {}{more}", rows.len(), shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_meant_by_its_last_parts() {
        for wanted in ["im-0001-0001", "im-0001-0001.jpeg", "normal/im-0001-0001", "train/normal/im-0001-0001.jpeg"] {
            assert!(is_named("train/normal/im-0001-0001.jpeg", wanted), "{wanted}");
        }
        assert!(is_named("a/b.png", "/raw/ward/a/b.png") && is_named("p7/s1", "s1"));
        for wanted in ["", "0001", "im-0001-0001.png", "mal/im-0001-0001.jpeg", "im-0001"] {
            assert!(!is_named("train/normal/im-0001-0001.jpeg", wanted), "{wanted}");
        }
    }

    #[test]
    fn a_few_records_are_named_and_the_rest_counted() {
        let ids = ["f/a", "f/b", "f/c", "f/d", "f/e"];
        assert_eq!(suggestion("image", &[1], &ids), "; did you mean `f/b`, the record of this image?");
        assert_eq!(suggestion("record", &[1], &ids), "; did you mean `f/b`?");
        assert_eq!(suggestion("study", &[0, 2], &ids), "; 2 records are of this study: `f/a`, `f/c`");
        assert_eq!(
            suggestion("patient", &[0, 1, 2, 3, 4], &ids),
            "; 5 records are of this patient: `f/a`, `f/b`, `f/c` and 2 more"
        );
    }
}
