//! Keyword arguments as the words of a command line, which the parser of the command line checks: names, defaults and messages
//! are the same in both.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict};

use crate::errors;

/// Options as `--name=value`: `True` is an option without a value, `None` and `False` leave it out, a dictionary gives a
/// `key=value` for each item, and any other iterable repeats the option.
pub fn words(options: &Bound<'_, PyDict>) -> PyResult<Vec<OsString>> {
    let mut words = Vec::new();
    for (name, value) in options {
        if value.is_none() {
            continue;
        }
        let option = format!("--{}", name.extract::<String>()?.replace('_', "-"));
        let mut push = |value: OsString| {
            let mut word = OsString::from(format!("{option}="));
            word.push(value);
            words.push(word);
        };
        if let Ok(flag) = value.cast::<PyBool>() {
            if flag.is_true() {
                words.push(option.into());
            }
        } else if let Ok(items) = value.cast::<PyDict>() {
            for (key, value) in items {
                let mut item = text(&key)?;
                item.push("=");
                item.push(if value.is_none() { "blank".into() } else { text(&value)? });
                push(item);
            }
        } else if let Ok(text) = value.extract::<PathBuf>() {
            push(text.into());
        } else if let Ok(items) = value.try_iter() {
            for item in items {
                push(text(&item?)?);
            }
        } else {
            push(text(&value)?);
        }
    }
    Ok(words)
}

/// A text or path as it is, anything else as `str` gives it.
fn text(value: &Bound<'_, PyAny>) -> PyResult<OsString> {
    match value.extract::<PathBuf>() {
        Ok(path) => Ok(path.into()),
        Err(_) => Ok(value.str()?.extract::<String>()?.into()),
    }
}

/// A command line: a name, options, and the values of positional arguments.
pub fn line(name: &[&str], options: Vec<OsString>, values: &[&PathBuf]) -> Vec<OsString> {
    let values = values.iter().map(|value| value.as_os_str().to_owned());
    name.iter().map(Into::into).chain(options).chain([OsString::from("--")]).chain(values).collect()
}

/// Parses the arguments of the command `name`.
pub fn parse<A: Args>(
    py: Python<'_>,
    name: &'static str,
    options: &Bound<'_, PyDict>,
    values: &[&PathBuf],
) -> PyResult<A> {
    let command = A::augment_args(clap::Command::new(name));
    let matches = command.try_get_matches_from(line(&[name], words(options)?, values));
    matches.and_then(|matches| A::from_arg_matches(&matches)).map_err(|error| usage(py, &error))
}

/// The exception of a usage error: its text without the usage.
pub fn usage(py: Python<'_>, error: &clap::Error) -> PyErr {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let end = ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|part| text.find(part)).min();
    errors::raise(py, "ArgumentError", text[..end.unwrap_or(text.len())].trim_end())
}
