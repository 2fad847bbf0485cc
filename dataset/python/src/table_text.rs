//! A table of Python as the text of a CSV file, which the source `folder` reads.

use std::ffi::OsString;
use std::path::PathBuf;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Decimal128Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use pyo3::prelude::*;

use crate::errors;
use crate::table::Table;

/// The name of a table that is in no file, in messages and in what is written.
const NAME: &str = "table.csv";

/// Values of a column as text; `None` is a blank.
type Texts = Vec<Option<String>>;

/// Adds `--table` to the words of a command line: the path of a file, or a name for a table of Python, whose text is returned.
pub fn add_table(table: &Bound<'_, PyAny>, words: &mut Vec<OsString>) -> PyResult<Option<Vec<u8>>> {
    if let Ok(path) = table.extract::<PathBuf>() {
        let mut word = OsString::from("--table=");
        word.push(path);
        words.push(word);
        return Ok(None);
    }
    let text = csv(&Table::from_python(table)?, words);
    words.push(format!("--table={NAME}").into());
    text.map(Some).map_err(|message| errors::raise(table.py(), "ArgumentError", message))
}

/// The text of a table: every field in quotes, blanks for null and NaN, whole numbers without a decimal point. Columns of dates
/// and lists are left out.
///
/// # Errors
/// When one of these `options` (`--image-column=NAME`) names a column that is left out.
fn csv(table: &Table, options: &[OsString]) -> Result<Vec<u8>, String> {
    let fields = table.schema.fields();
    let is_named = |name: &str| {
        let ending = |option: &OsString| {
            let option = option.to_string_lossy();
            option.split_once('=').is_some_and(|(option, value)| {
                (option.ends_with("-column") || option.ends_with("-columns"))
                    && value.split(',').any(|part| part == name)
            })
        };
        options.iter().any(ending)
    };
    let mut kept = Vec::new();
    for (at, field) in fields.iter().enumerate() {
        if is_text(field.data_type()) {
            kept.push(at);
        } else if is_named(field.name()) {
            let kind = field.data_type();
            return Err(format!(
                "column `{}` of the table has values of type {kind}: convert it to text",
                field.name()
            ));
        }
    }
    let mut text = Vec::new();
    write_row(&mut text, kept.iter().map(|&at| fields[at].name().as_str()));
    for batch in &table.batches {
        let columns: Vec<Texts> = kept.iter().map(|&at| texts(batch.column(at))).collect();
        for row in 0..batch.num_rows() {
            write_row(&mut text, columns.iter().map(|column| column[row].as_deref().unwrap_or_default()));
        }
    }
    Ok(text)
}

fn write_row<'a>(text: &mut Vec<u8>, fields: impl Iterator<Item = &'a str>) {
    for (at, field) in fields.enumerate() {
        text.extend_from_slice(if at == 0 { b"\"" } else { b",\"" });
        text.extend_from_slice(field.replace('"', "\"\"").as_bytes());
        text.push(b'"');
    }
    text.push(b'\n');
}

/// Whether [`texts`] reads columns of a type.
fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Dictionary(_, values) => is_text(values),
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Boolean
        | DataType::Null
        | DataType::Decimal128(..) => true,
        kind => kind.is_integer() || kind.is_floating(),
    }
}

fn texts(array: &ArrayRef) -> Texts {
    let owned = |value: Option<&str>| value.map(str::to_owned);
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().iter().map(owned).collect(),
        DataType::LargeUtf8 => array.as_string::<i64>().iter().map(owned).collect(),
        DataType::Utf8View => array.as_string_view().iter().map(owned).collect(),
        DataType::Boolean => array.as_boolean().iter().map(|value| value.map(|value| value.to_string())).collect(),
        DataType::Int8 => numbers::<Int8Type>(array),
        DataType::Int16 => numbers::<Int16Type>(array),
        DataType::Int32 => numbers::<Int32Type>(array),
        DataType::Int64 => numbers::<Int64Type>(array),
        DataType::UInt8 => numbers::<UInt8Type>(array),
        DataType::UInt16 => numbers::<UInt16Type>(array),
        DataType::UInt32 => numbers::<UInt32Type>(array),
        DataType::UInt64 => numbers::<UInt64Type>(array),
        DataType::Float16 => numbers::<Float16Type>(array),
        DataType::Float32 => numbers::<Float32Type>(array),
        DataType::Float64 => numbers::<Float64Type>(array),
        DataType::Decimal128(..) => {
            let numbers = array.as_primitive::<Decimal128Type>();
            (0..numbers.len()).map(|row| numbers.is_valid(row).then(|| numbers.value_as_string(row))).collect()
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let (values, keys) = (texts(dictionary.values()), dictionary.normalized_keys());
            let value = |(row, key): (usize, usize)| values.get(key).filter(|_| array.is_valid(row)).cloned().flatten();
            keys.into_iter().enumerate().map(value).collect()
        }
        _ => vec![None; array.len()],
    }
}

fn numbers<T: ArrowPrimitiveType<Native: std::fmt::Display>>(array: &ArrayRef) -> Texts {
    let text = |value: T::Native| Some(value.to_string()).filter(|text| text != "NaN");
    array.as_primitive::<T>().iter().map(|value| value.and_then(text)).collect()
}
