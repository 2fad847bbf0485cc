//! Checks all values of a join.

use arrow_array::{Array, RecordBatch, StringArray};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::format::record_checks;
use crate::format::record_rows::from_columns;
use crate::format::table::column;
use crate::join::facts::{JoinFacts, JoinKind};
use crate::split::types::Subset;

/// Problems of a join that are shown.
const SHOWN: usize = 10;

/// What is wrong with join `name`, a line each: it cannot be read, belongs to other shards, or has a value that a record may
/// not have.
///
/// # Errors
/// When the dataset itself cannot be read.
pub(crate) fn problems(dataset: &Dataset, name: &str) -> Result<Vec<String>> {
    let join = match dataset.join(name) {
        Ok(join) => join,
        Err(error) => return Ok(vec![error.to_string()]),
    };
    let facts = join.facts();
    let mut problems = Vec::new();
    let (mut row, mut with) = (0, 0);
    for group in 0..join.groups().count() {
        let batch = match join.columns(group, &["record_id", facts.kind.name()]) {
            Ok(batch) => batch,
            Err(error) => {
                problems.push(error.to_string());
                continue;
            }
        };
        for at in 0..batch.num_rows() {
            let own = dataset.record_id(row)?;
            let sides = dataset.image_size(row)?;
            let stated = column::<StringArray>(&batch, "record_id").map(|ids| ids.value(at));
            let checked = if stated == Some(own) {
                value(&batch, at, facts, dataset.manifest(), sides)
            } else {
                Err(format!("record `{}`, the dataset has `{own}` here", stated.unwrap_or_default()))
            };
            with += u64::from(batch.column(1).is_valid(at));
            if let Err(message) = checked {
                problems
                    .push(Error::Join { name: name.to_owned(), message: format!("row {row}: {message}") }.to_string());
            }
            row += 1;
        }
    }
    if problems.is_empty() && with != facts.counts.with {
        let message = format!("{with} records have a value, {} are stated", facts.counts.with);
        problems.push(Error::Join { name: name.to_owned(), message }.to_string());
    }
    let more = problems.len().saturating_sub(SHOWN);
    problems.truncate(SHOWN);
    if more > 0 {
        problems.push(format!("join `{name}`: {more} more"));
    }
    Ok(problems)
}

/// Checks the value of a row, of an image of this height and width.
fn value(
    batch: &RecordBatch,
    at: usize,
    facts: &JoinFacts,
    manifest: &Manifest,
    sides: (u16, u16),
) -> Result<(), String> {
    if batch.column(1).is_null(at) {
        return Ok(());
    }
    let record = from_columns(batch, at, facts.kind.name())?;
    match facts.kind {
        // The codes were checked when they were read.
        JoinKind::Labels => Ok(()),
        JoinKind::Subset => record.subset.as_deref().map_or(Ok(()), |text| match Subset::parse(text) {
            Some(_) => Ok(()),
            None => Err(format!("unknown subset `{text}`")),
        }),
        JoinKind::Boxes => record.boxes.iter().try_for_each(|stored| record_checks::boxed(stored, sides)),
        JoinKind::Masks => {
            record_checks::mask_names(record.masks.iter().map(|mask| mask.name.as_str()), &facts.names)?;
            record.masks.iter().try_for_each(|stored| record_checks::mask(&stored.png, sides))
        }
        JoinKind::Texts => {
            let (vocabulary, most) = (manifest.text.vocabulary, manifest.text.max_tokens);
            record.texts.iter().try_for_each(|text| record_checks::text(text, vocabulary, most))
        }
    }
}
