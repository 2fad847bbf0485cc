//! The table of a folder, with columns for the image, its report, its patient and its findings.

use std::collections::BTreeSet;
use std::path::Path;

use crate::error::{Error, Result};
use crate::file_system::is_file;
use crate::reject::Reject;
use crate::run::path_names::PathNames;
use crate::run::plan::Plan;
use crate::sources::folder::columns::Columns;
use crate::sources::folder::identifiers::identifiers;
use crate::sources::folder::options::TableOptions;
use crate::sources::folder::paths::{PathResolver, RowError};
use crate::sources::shared::table::Table;
use crate::sources::shared::table_file;
use crate::sources::shared::walk::Walk;

/// Plans the images of a table.
///
/// # Errors
/// When the table cannot be read, or lacks a column.
pub fn plan(raw: &Path, options: &TableOptions, walk: Walk, names: PathNames) -> Result<Plan> {
    let inner = raw.join(&options.table);
    let (mut table, path) = if let Some(text) = &options.text {
        (Table::of_text(&options.table, text)?, &options.table)
    } else {
        let path = if !is_file(&options.table)? && is_file(&inner)? { &inner } else { &options.table };
        (table_file::read(raw, path)?, path)
    };
    let rejects = [walk.rejects, std::mem::take(&mut table.rejects)].concat();
    let columns = Columns::of(&table, path, options)?;
    let mask_names: Vec<String> = options.mask_columns.iter().map(|named| named.name.clone()).collect();
    if let Some(name) =
        mask_names.iter().enumerate().find_map(|(at, name)| mask_names[..at].contains(name).then_some(name))
    {
        let message = format!("two columns of masks have the name `{name}`; give NAME=COLUMN to --mask-columns");
        return Err(Error::Table { path: path.clone(), message });
    }
    let folder = if options.text.is_some() { raw } else { path.parent().unwrap_or(Path::new("")) };
    let paths = PathResolver::new(raw, folder, &walk.files, names)?;
    let mut plan = Plan {
        rejects,
        findings: columns.findings.names.clone(),
        warnings: columns.findings.warnings.clone(),
        masks: mask_names,
        ..Plan::default()
    };
    let mut listed: BTreeSet<String> = BTreeSet::new();
    for row in 0..table.frame.height() {
        let image = columns.image[row].ok_or_else(|| RowError::Reject("the image column is empty".to_owned()));
        let outcome = image.and_then(|image| {
            let source_path = paths.image(image)?;
            listed.insert(source_path.clone());
            columns.record(row, source_path, &paths)
        });
        match outcome {
            Ok(mut record) => {
                record.source_bytes = walk.files.get(&record.source_path).copied();
                plan.records.push(record);
            }
            Err(RowError::Reject(error)) => plan.rejects.push(table.reject(row, error)),
            Err(RowError::Fatal(error)) => return Err(error),
        }
    }
    let own_names = identifiers(listed.iter().chain(walk.files.keys()).map(String::as_str));
    for record in &mut plan.records {
        let name = own_names[record.source_path.as_str()];
        record.record_id = format!("folder/{name}");
        name.rsplit('/').next().unwrap_or(name).clone_into(&mut record.image_id);
        if columns.patient.is_none() {
            name.clone_into(&mut record.patient_id);
        }
        if columns.study.is_none() {
            // Images of one patient may be years apart, so without a column each is a study of its own.
            name.clone_into(&mut record.study_id);
        }
    }
    let unlisted = walk.files.into_keys().filter(|path| !listed.contains(path));
    plan.rejects.extend(unlisted.map(Reject::unlisted));
    Ok(plan)
}
