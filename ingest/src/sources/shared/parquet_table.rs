//! Tables in Parquet files, as other programs write them.

use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{Array, ArrowPrimitiveType, DictionaryArray, PrimitiveArray, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use dataset::format::byte_column;
use dataset::format::table::read_table;

use super::table::Table;
use super::table_builder::TableBuilder;
use crate::dicom::limits::guarded;
use crate::error::{Error, Result};
use crate::file_system::{failed, retry};

const SECONDS_A_DAY: i64 = 86_400;

/// The field of a struct that names the file from which the bytes beside it are.
const PATH: &str = "path";

/// An error as text, without the path that it begins with.
fn explained(path: &Path, error: &dataset::Error) -> String {
    let text = error.to_string();
    if text.contains("Disabled feature") {
        return "its compression is none of Snappy, Zstandard and LZ4; write it with one of these".to_owned();
    }
    text.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&text).to_owned()
}

/// Reads a table; its path in rejects is relative to `raw`. Numbers and flags become text, dates `2110-03-07`, times
/// `2110-03-07T14:05:09`; their zones are left out. Columns of other types, such as lists, are left out. A column of bytes has
/// no texts, one of structs `{bytes, path}` the paths; the bytes are not read.
///
/// # Errors
/// When the file cannot be read, or lacks one of the `required` columns.
pub fn read(raw: &Path, path: &Path, required: &[&str]) -> Result<Table> {
    let bad = |message: String| Error::Table { path: path.to_path_buf(), message };
    let found = guarded(|| match retry(|| byte_column::text_columns(path)) {
        Ok(Some(found)) => Ok(Ok((found.batches, found.byte_columns, found.struct_columns))),
        Ok(None) => read_table(path)
            .map(|batches| Ok((batches, Vec::new(), Vec::new())))
            .map_err(|error| explained(path, &error)),
        Err(error) => Ok(Err(error)),
    });
    let (batches, byte_columns, struct_columns) = found.map_err(bad)?.map_err(failed(path))?;
    let mut table = TableBuilder::new(raw, path, "row");
    let mut number = 0;
    for batch in &batches {
        let mut columns = columns(batch);
        let plain = byte_columns.iter().filter(|name| !struct_columns.contains(name));
        for name in struct_columns.iter().chain(plain) {
            let paths =
                batch.column_by_name(name).and_then(|column| texts(column.as_struct_opt()?.column_by_name(PATH)?));
            columns.push((name.clone(), paths.unwrap_or_else(|| vec![None; batch.num_rows()])));
        }
        if batch.num_rows() == 0 {
            // Its columns are known, though no row has them.
            for (name, _) in &columns {
                table.column(name);
            }
        }
        for row in 0..batch.num_rows() {
            number += 1;
            table.row(number, columns.iter().map(|(name, values)| (name.clone(), values[row].clone())))?;
        }
    }
    Ok(Table { byte_columns, ..table.finish(required)? })
}

/// The columns that have texts, with their values.
fn columns(batch: &RecordBatch) -> Vec<(String, Vec<Option<String>>)> {
    let schema = batch.schema();
    let named = schema.fields().iter().zip(batch.columns());
    named.filter_map(|(field, column)| Some((field.name().clone(), texts(column)?))).collect()
}

/// The values of a column as texts; `None` for a type that has none.
fn texts(column: &dyn Array) -> Option<Vec<Option<String>>> {
    let seconds = |units: i64, count: i64| Some(time(count.div_euclid(units)));
    Some(match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect(),
        DataType::LargeUtf8 => column.as_string::<i64>().iter().map(|text| text.map(str::to_owned)).collect(),
        DataType::Utf8View => column.as_string_view().iter().map(|text| text.map(str::to_owned)).collect(),
        DataType::Boolean => column.as_boolean().iter().map(|flag| Some(flag?.to_string())).collect(),
        DataType::Int8 => numbers::<Int8Type>(column),
        DataType::Int16 => numbers::<Int16Type>(column),
        DataType::Int32 => numbers::<Int32Type>(column),
        DataType::Int64 => numbers::<Int64Type>(column),
        DataType::UInt8 => numbers::<UInt8Type>(column),
        DataType::UInt16 => numbers::<UInt16Type>(column),
        DataType::UInt32 => numbers::<UInt32Type>(column),
        DataType::UInt64 => numbers::<UInt64Type>(column),
        DataType::Float32 => numbers::<Float32Type>(column),
        DataType::Float64 => numbers::<Float64Type>(column),
        DataType::Date32 => mapped::<Date32Type>(column, |days| Some(date(days.into()))),
        DataType::Timestamp(TimeUnit::Second, _) => mapped::<TimestampSecondType>(column, |count| seconds(1, count)),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            mapped::<TimestampMillisecondType>(column, |count| seconds(1000, count))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            mapped::<TimestampMicrosecondType>(column, |count| seconds(1_000_000, count))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            mapped::<TimestampNanosecondType>(column, |count| seconds(1_000_000_000, count))
        }
        DataType::Dictionary(key, _) => match **key {
            DataType::Int8 => categories::<Int8Type>(column)?,
            DataType::Int16 => categories::<Int16Type>(column)?,
            DataType::Int32 => categories::<Int32Type>(column)?,
            DataType::Int64 => categories::<Int64Type>(column)?,
            DataType::UInt8 => categories::<UInt8Type>(column)?,
            DataType::UInt16 => categories::<UInt16Type>(column)?,
            DataType::UInt32 => categories::<UInt32Type>(column)?,
            _ => return None,
        },
        DataType::Null => vec![None; column.len()],
        _ => return None,
    })
}

fn mapped<T: ArrowPrimitiveType>(
    column: &dyn Array,
    text: impl Fn(T::Native) -> Option<String>,
) -> Vec<Option<String>> {
    let values: &PrimitiveArray<T> = column.as_primitive();
    values.iter().map(|value| text(value?)).collect()
}

fn numbers<T: ArrowPrimitiveType<Native: std::fmt::Display>>(column: &dyn Array) -> Vec<Option<String>> {
    mapped::<T>(column, |number| Some(number.to_string()))
}

fn categories<K: arrow_array::types::ArrowDictionaryKeyType>(column: &dyn Array) -> Option<Vec<Option<String>>> {
    let coded: &DictionaryArray<K> = column.as_dictionary();
    let names = texts(coded.values().as_ref())?;
    Some((0..coded.len()).map(|row| names.get(coded.key(row)?)?.clone()).collect())
}

/// A day after 1 January 1970 (Hinnant's `civil_from_days`).
fn date(day: i64) -> String {
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let part = (5 * of_year + 2) / 153;
    let month = if part < 10 { part + 3 } else { part - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{:02}", of_year - (153 * part + 2) / 5 + 1)
}

/// A second after 1 January 1970; midnight is a date alone.
fn time(second: i64) -> String {
    let (day, second) = (second.div_euclid(SECONDS_A_DAY), second.rem_euclid(SECONDS_A_DAY));
    let date = date(day);
    if second == 0 {
        return date;
    }
    format!("{date}T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_civil() {
        assert_eq!((date(0), date(-1), date(19_782)), ("1970-01-01".into(), "1969-12-31".into(), "2024-02-29".into()));
        assert_eq!((time(SECONDS_A_DAY), time(-1)), ("1970-01-02".to_owned(), "1969-12-31T23:59:59".to_owned()));
    }
}
