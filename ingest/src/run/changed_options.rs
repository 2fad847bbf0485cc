//! The options in which two runs differ, in the form in which they are typed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::run::keys::{INPUT, NOTED, TOOL_NOTE};
use crate::run::source_digest::SourceDigest;

/// The arguments of a run, as the manifest stores them.
pub type Arguments = BTreeMap<String, Value>;

/// Digits of a digest that are printed.
const SHORT: usize = 12;

/// The arguments that decide the bytes of a dataset.
pub fn deciding(arguments: &Arguments) -> impl Iterator<Item = (&String, &Value)> + '_ {
    arguments.iter().filter(|(name, _)| *name != NOTED)
}

/// Whether the arguments are those of a version of `ingest` that wrote datasets of format 1. Its options `--tone` and `--fit`
/// are now `--intensity` and `--resize`.
pub fn are_of_format_1(arguments: &Arguments) -> bool {
    arguments.contains_key("tone") || arguments.contains_key("fit")
}

/// Each option that changed, with both values: `--size was 512, is 224`. The digest of the input and the version are not
/// listed.
pub fn changed(before: &Arguments, now: &Arguments) -> Vec<String> {
    // Some versions did not store the options of the source.
    let noted = before.contains_key(NOTED) && now.contains_key(NOTED);
    let (before, now) = (flat(before, noted), flat(now, noted));
    let names: BTreeSet<&&str> = before.keys().chain(now.keys()).collect();
    let differing = names.into_iter().filter(|name| given(&before, name) != given(&now, name));
    differing
        .map(|name| {
            let has_digest = |of: &BTreeMap<&str, &Value>| of.get("reports").is_some_and(|value| is_digest(value));
            if *name == "reports" && has_digest(&before) && has_digest(&now) {
                // The value is a digest of the paths and sizes of the files.
                return "--reports has other files".to_owned();
            }
            let value = |arguments: &BTreeMap<&str, &Value>| shown(name, arguments.get(*name).copied());
            format!("{} was {}, is {}", flag(name), value(&before), value(&now))
        })
        .collect()
}

/// The value of an option, unless that of an option that was not given.
fn given<'a>(options: &BTreeMap<&str, &'a Value>, name: &str) -> Option<&'a Value> {
    options.get(name).copied().filter(|value| !matches!(value, Value::Null | Value::Bool(false)))
}

/// Options by name, with those of the source where they are wanted.
fn flat(arguments: &Arguments, with_noted: bool) -> BTreeMap<&str, &Value> {
    let own = deciding(arguments).filter(|(name, _)| !matches!(name.as_str(), INPUT | TOOL_NOTE));
    let noted = arguments.get(NOTED).filter(|_| with_noted).and_then(Value::as_object).into_iter().flatten();
    own.chain(noted).map(|(name, value)| (name.as_str(), value)).collect()
}

fn flag(name: &str) -> String {
    if name == "source" { "SOURCE".to_owned() } else { format!("--{}", name.replace('_', "-")) }
}

fn is_digest(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn shown(name: &str, value: Option<&Value>) -> String {
    match value {
        Some(Value::Null) if name == "tokenizer" => "none".to_owned(),
        // The only algorithm of earlier versions.
        None if name == "source_digest" => SourceDigest::Sha256.name().to_owned(),
        None | Some(Value::Null | Value::Bool(false)) => "not given".to_owned(),
        Some(Value::Bool(true)) => "given".to_owned(),
        Some(digest) if is_digest(digest) && name == "reports" => "given".to_owned(),
        Some(Value::String(text)) if value.is_some_and(is_digest) => format!("a file of SHA-256 {}…", &text[..SHORT]),
        Some(Value::String(text)) => match text.strip_prefix("train ") {
            Some(vocabulary) if name == "tokenizer" => format!("train (--vocab-size {vocabulary})"),
            _ => text.clone(),
        },
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_option_is_named_with_both_values() {
        let of = |value: Value| serde_json::from_value::<Arguments>(value).unwrap();
        let before = of(json!({
            "size": 512, "limit": null, "no_images": false, "tokenizer": "train 400", "source": "nih", "resize": "pad",
            INPUT: "a", TOOL_NOTE: "1", NOTED: { "label_columns": "A", "table": "t.csv" },
        }));
        let now = of(json!({
            "size": 224, "limit": 9, "no_images": true, "tokenizer": null, "source": "rsna", "resize": "pad",
            INPUT: "b", TOOL_NOTE: "2", NOTED: { "label_columns": "A,B", "table": "t.csv", "sex_column": "sex" },
        }));
        assert_eq!(
            changed(&before, &now),
            [
                "--label-columns was A, is A,B",
                "--limit was not given, is 9",
                "--no-images was not given, is given",
                "--sex-column was not given, is sex",
                "--size was 512, is 224",
                "SOURCE was nih, is rsna",
                "--tokenizer was train (--vocab-size 400), is none",
            ]
        );
        assert!(changed(&now, &now).is_empty());
        let unnoted: Arguments = now.clone().into_iter().filter(|(name, _)| name != NOTED).collect();
        assert!(changed(&unnoted, &now).is_empty() && deciding(&unnoted).eq(deciding(&now)));
        let digests = |digest: &str| of(json!({ "reports": digest.repeat(4), "tokenizer": digest.repeat(4) }));
        assert_eq!(
            changed(&digests("0123456789abcdef"), &digests("abcdef0123456789")),
            [
                "--reports has other files",
                "--tokenizer was a file of SHA-256 0123456789ab…, is a file of SHA-256 abcdef012345…"
            ]
        );
    }
}
