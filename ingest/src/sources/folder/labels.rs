//! The findings of a folder's table: the words of label columns become codes, and each class of a class column becomes a
//! finding.

use std::collections::{BTreeMap, HashMap};

use dataset::Label;

/// Most classes of a column; a column with more has texts or identifiers.
const MAX_CLASSES: usize = 100;

/// Most words that one warning lists.
const MAX_LISTED: usize = 8;

/// Words of label columns that need no mapping, in lower case.
const WORDS: [(Option<i8>, &[&str]); 4] = [
    (Some(1), &["1", "yes", "y", "true", "t", "positive", "pos", "present"]),
    (Some(0), &["0", "no", "n", "false", "f", "negative", "neg", "absent"]),
    (Some(Label::Uncertain.code()), &["-1", "uncertain", "unclear", "maybe", "possible", "equivocal", "indeterminate"]),
    (None, &["", "na", "n/a", "#n/a", "<na>", "nan", "null", "none", "unknown", "missing", "blank", "not mentioned"]),
];

/// The meaning of a word of a label column: an entry of `--label-map`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelWord {
    /// The word, or `COLUMN:word`.
    word: String,
    /// 1, 0, -1, or `None` for a blank label.
    code: Option<i8>,
}

impl std::str::FromStr for LabelWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "give WORD=CODE or COLUMN:WORD=CODE, where CODE is 1, 0, -1 or blank".to_owned();
        let (word, code) = text.rsplit_once('=').ok_or_else(form)?;
        let word = word.trim();
        if word.is_empty() {
            return Err(form());
        }
        Ok(Self { word: word.to_owned(), code: common_code(&key(code)).ok_or_else(form)? })
    }
}

impl std::fmt::Display for LabelWord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code {
            Some(code) => write!(f, "{}={code}", self.word),
            None => write!(f, "{}=blank", self.word),
        }
    }
}

/// The form in which words are compared: lower case, numbers in their shortest form (`1.0` and `1,0` are `1`).
fn key(text: &str) -> String {
    let text = text.trim().to_lowercase();
    match text.replacen(',', ".", 1).parse::<f32>() {
        Ok(0.0) => "0".to_owned(),
        Ok(number) if number.is_finite() => number.to_string(),
        _ => text,
    }
}

/// The code of a [`key`] that needs no mapping; `Some(None)` is a blank label, `None` an unknown word.
#[expect(clippy::option_option, reason = "`None` is an unknown word, `Some(None)` a blank label")]
fn common_code(key: &str) -> Option<Option<i8>> {
    WORDS.into_iter().find(|(_, words)| words.contains(&key)).map(|(code, _)| code)
}

/// Whether a value of a label column needs no mapping.
pub fn is_label(value: &str) -> bool {
    common_code(&key(value)).is_some()
}

/// All values of a table's column, in the order of its rows.
pub type Values<'a> = Vec<Option<&'a str>>;

/// The findings of a table and their labels in each row.
pub struct Findings<'a> {
    /// The findings.
    pub names: Vec<String>,
    columns: Vec<FindingColumn<'a>>,
    /// Warnings, a line each.
    pub warnings: Vec<String>,
}

/// A column and the codes of its distinct values: one for a label column, one for each class of a class column.
struct FindingColumn<'a> {
    values: Values<'a>,
    blank: Vec<Option<i8>>,
    codes: HashMap<&'a str, Result<Vec<Option<i8>>, String>>,
}

impl<'a> Findings<'a> {
    /// Reads the columns of labels, then those of classes.
    ///
    /// # Errors
    /// When a column has too many classes, or two findings have the same name.
    pub fn new(
        labels: Vec<(&'a str, Values<'a>)>,
        classes: Vec<(&'a str, Values<'a>)>,
        map: &[LabelWord],
    ) -> Result<Self, String> {
        let mut found = Self { names: Vec::new(), columns: Vec::new(), warnings: Vec::new() };
        let mut words = Words { map, used: vec![false; map.len()] };
        for (name, values) in labels {
            found.labels(name, values, &mut words);
        }
        for (name, values) in classes {
            found.classes(name, values, &mut words)?;
        }
        let mut names: Vec<&String> = found.names.iter().collect();
        names.sort_unstable();
        if let Some([name, _]) = names.array_windows().find(|[name, next]| name == next) {
            return Err(format!("two findings have the name `{name}`; rename a column or a class, or leave one out"));
        }
        let unused = map.iter().zip(&words.used).filter(|(_, used)| !**used);
        found.warnings.extend(
            unused.map(|(word, _)| format!("--label-map {word}: no cell of the label columns is `{}`", word.word)),
        );
        Ok(found)
    }

    /// The codes of a row, in the order of the names.
    ///
    /// # Errors
    /// A sentence that names the column and the unknown word.
    pub fn row(&self, row: usize) -> Result<Vec<Option<i8>>, String> {
        let mut codes = Vec::with_capacity(self.names.len());
        for column in &self.columns {
            match column.values[row].and_then(|value| column.codes.get(value)) {
                Some(Ok(found)) => codes.extend(found),
                Some(Err(error)) => return Err(error.clone()),
                None => codes.extend(&column.blank),
            }
        }
        Ok(codes)
    }

    fn labels(&mut self, name: &str, values: Values<'a>, words: &mut Words) {
        let mut codes = HashMap::new();
        let mut unknown: Vec<(&str, usize)> = Vec::new();
        for (value, count) in counted(&values) {
            let code = words.code(name, value).or_else(|| common_code(&key(value)));
            codes.insert(
                value,
                code.map(|code| vec![code]).ok_or_else(|| {
                    unknown.push((value, count));
                    let value = shortened(value);
                    format!(
                        "column `{name}`: `{value}` is no label; map it with --label-map '{value}=1' (or 0, -1, blank), as it \
                         is meant"
                    )
                }),
            );
        }
        self.warnings.extend(unknown_words_warning(name, unknown));
        self.columns.push(FindingColumn { values, blank: vec![None], codes });
        self.names.push(name.to_owned());
    }

    fn classes(&mut self, name: &str, values: Values<'a>, words: &mut Words) -> Result<(), String> {
        // Spellings that differ only in capitals are one class, named by the most frequent spelling.
        let mut classes: BTreeMap<String, Vec<(&str, usize)>> = BTreeMap::new();
        for (value, count) in counted(&values) {
            let is_blank = words.code(name, value).or_else(|| common_code(&key(value))) == Some(None);
            if !is_blank {
                classes.entry(value.to_lowercase()).or_default().push((value, count));
            }
        }
        if classes.len() > MAX_CLASSES {
            let first: Vec<String> = classes.keys().take(3).map(|class| format!("`{}`", shortened(class))).collect();
            return Err(format!(
                "column `{name}` has {} distinct values ({}, …), but a class column may have at most {MAX_CLASSES}; give a \
                 column of classes to --class-column",
                classes.len(),
                first.join(", ")
            ));
        }
        let mut spellings: Vec<Vec<(&str, usize)>> = classes.into_values().collect();
        for spelling in &mut spellings {
            spelling.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        }
        spellings.sort_by_key(|spelling| spelling[0].0);
        let mut codes = HashMap::new();
        for (own, spelling) in spellings.iter().enumerate() {
            let row: Vec<Option<i8>> = (0..spellings.len()).map(|class| Some(i8::from(class == own))).collect();
            codes.extend(spelling.iter().map(|(value, _)| (*value, Ok(row.clone()))));
        }
        self.names.extend(spellings.iter().map(|spelling| spelling[0].0.to_owned()));
        self.columns.push(FindingColumn { values, blank: vec![None; spellings.len()], codes });
        Ok(())
    }
}

/// The mapping, and which of its entries match a cell.
struct Words<'a> {
    map: &'a [LabelWord],
    used: Vec<bool>,
}

impl Words<'_> {
    /// The code of a value by the mapping; an entry for its column takes precedence.
    #[expect(clippy::option_option, reason = "`None` is an unknown word, `Some(None)` a blank label")]
    fn code(&mut self, column: &str, value: &str) -> Option<Option<i8>> {
        let value = key(value);
        let of_column = |word: &str| word.strip_prefix(column)?.strip_prefix(':').map(key);
        let found = self
            .map
            .iter()
            .position(|entry| of_column(&entry.word).is_some_and(|word| word == value))
            .or_else(|| self.map.iter().position(|entry| key(&entry.word) == value))?;
        self.used[found] = true;
        Some(self.map[found].code)
    }
}

/// The beginning of a value on one line, for messages: a wrong column may have whole reports.
pub fn shortened(value: &str) -> String {
    const LONGEST: usize = 60;
    let rest = if value.chars().nth(LONGEST).is_some() { "…" } else { "" };
    value.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect::<String>() + rest
}

/// The distinct values of a column, sorted, with their numbers of rows.
fn counted<'a>(values: &Values<'a>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for value in values.iter().flatten() {
        *counts.entry(*value).or_default() += 1;
    }
    counts
}

/// A warning with the unknown words of a column, the most frequent ones first, and the option that maps them. The option has
/// `?` in place of codes, because codes that are copied from a message would be wrong labels.
fn unknown_words_warning(column: &str, mut unknown: Vec<(&str, usize)>) -> Option<String> {
    if unknown.is_empty() {
        return None;
    }
    unknown.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let rest =
        if unknown.len() > MAX_LISTED { format!(" and {} more", unknown.len() - MAX_LISTED) } else { String::new() };
    unknown.truncate(MAX_LISTED);
    let listed: Vec<String> = unknown.iter().map(|(word, rows)| format!("`{}` ({rows})", shortened(word))).collect();
    let example: Vec<String> = unknown.iter().map(|(word, _)| format!("{}=?", shortened(word))).collect();
    Some(format!(
        "column `{column}` has words that are no labels: {}{rest}; their rows are rejected. Map them with --label-map \
         '{}', with 1, 0, -1 or blank in place of each `?`, or make each class a finding with --class-column '{column}'",
        listed.join(", "),
        example.join(",")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<LabelWord> {
        text.split(',').map(|word| word.parse().unwrap()).collect()
    }

    #[test]
    fn common_words_are_labels_in_any_case() {
        let of = |text: &str| common_code(&key(text));
        for text in ["1", "1.0", "1,0", "YES", "y", "Positive", "POS", "present", "True", "T", " +1 "] {
            assert_eq!(of(text), Some(Some(1)), "{text}");
        }
        for text in ["0", "0.0", "-0", "No", "n", "negative", "Neg", "absent", "FALSE"] {
            assert_eq!(of(text), Some(Some(0)), "{text}");
        }
        for text in ["-1", "-1.0", "uncertain", "Maybe", "equivocal", "possible"] {
            assert_eq!(of(text), Some(Some(-1)), "{text}");
        }
        for text in ["", " ", "NA", "n/a", "NaN", "None", "unknown", "NULL"] {
            assert_eq!(of(text), Some(None), "{text}");
        }
        for text in ["2", "0.5", "abnormal", "inf", "-", "1.0.0"] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn a_mapping_overrides_common_words_and_an_entry_for_a_column_overrides_others() {
        let map = words("abnormal=1,Normal=no,none=0,2=1,B:none=blank,a:b=-1");
        let values = vec![Some("Abnormal"), Some("normal"), Some("NONE"), Some("2.0"), Some("yes"), None, Some("a:b")];
        let found = Findings::new(vec![("A", values.clone()), ("B", values)], Vec::new(), &map).unwrap();
        let codes: Vec<_> = (0..7).map(|row| found.row(row).unwrap()).collect();
        let first: Vec<_> = codes.iter().map(|codes| codes[0]).collect();
        assert_eq!(first, [Some(1), Some(0), Some(0), Some(1), Some(1), None, Some(-1)]);
        assert_eq!(codes[2][1], None, "the entry of its own column");
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
        assert!(["", "x", "=1", "x=7", "x=y=2"].iter().all(|text| text.parse::<LabelWord>().is_err()));
        assert_eq!("x=y= 1.0".parse::<LabelWord>().unwrap().to_string(), "x=y=1");
    }

    #[test]
    fn unknown_and_unused_words_are_listed() {
        let values = vec![Some("virus"), Some("normal"), Some("virus")];
        let found = Findings::new(vec![("A", values)], Vec::new(), &words("normal=0,abnromal=1")).unwrap();
        let error = found.row(0).unwrap_err();
        assert!(error.starts_with("column `A`: `virus` is no label; ") && error.contains("--label-map 'virus=1'"));
        assert_eq!(found.row(1), Ok(vec![Some(0)]));
        assert_eq!(found.warnings.len(), 2);
        assert!(found.warnings[0].contains("`virus` (2)") && found.warnings[0].contains("--class-column 'A'"));
        assert!(found.warnings[1].contains("abnromal"));
    }

    #[test]
    fn each_class_is_a_finding() {
        let values =
            vec![Some("virus"), Some("Normal"), None, Some("normal"), Some("normal"), Some("n/a"), Some("todo")];
        let labels = vec![("Edema", vec![Some("1"); 7])];
        let found = Findings::new(labels, vec![("d", values)], &words("d:todo=blank")).unwrap();
        assert_eq!(found.names, ["Edema", "normal", "virus"]);
        let row = |row| found.row(row).unwrap()[1..].to_vec();
        assert_eq!(row(0), [Some(0), Some(1)]);
        assert_eq!((row(1), row(3)), (vec![Some(1), Some(0)], vec![Some(1), Some(0)]));
        assert_eq!([row(2), row(5), row(6)], [vec![None; 2], vec![None; 2], vec![None; 2]]);

        let twice = Findings::new(vec![("virus", vec![None])], vec![("d", vec![Some("virus")])], &[]);
        assert!(twice.err().unwrap().contains("two findings have the name `virus`"));
        let names: Vec<String> = (0..=MAX_CLASSES).map(|number| format!("patient {number}")).collect();
        let many = Findings::new(Vec::new(), vec![("d", names.iter().map(|name| Some(name.as_str())).collect())], &[]);
        assert!(many.err().unwrap().contains("column `d` has 101 distinct values (`patient 0`, "));
    }
}
