//! The table of a folder, with columns for the image, its report, its patient and its findings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::file_system::is_file;
use crate::reject::Reject;
use crate::run::path_names::PathNames;
use crate::run::plan::{Plan, PlannedRecord};
use crate::sources::folder::columns::Columns;
use crate::sources::folder::glob::Glob;
use crate::sources::folder::identifiers::identifiers;
use crate::sources::folder::image_rows::ImageRows;
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
    let (mut table, path, folder) = if let Some(text) = &options.text {
        (Table::of_text(&options.table, text)?, options.table.clone(), raw.to_path_buf())
    } else {
        read(raw, &options.table)?
    };
    let rejects = [walk.rejects, std::mem::take(&mut table.rejects)].concat();
    let columns = Columns::of(&table, &path, options)?;
    let image_rows = ImageRows::of(raw, &table, &path, &options.image_column)?;
    let mask_names: Vec<String> = options.mask_columns.iter().map(|named| named.name.clone()).collect();
    if let Some(name) =
        mask_names.iter().enumerate().find_map(|(at, name)| mask_names[..at].contains(name).then_some(name))
    {
        let message = format!("two columns of masks have the name `{name}`; give NAME=COLUMN to --mask-columns");
        return Err(Error::Table { path, message });
    }
    let paths = PathResolver::new(raw, &folder, &walk.files, names)?;
    let mut plan = Plan {
        rejects,
        findings: columns.findings.names.clone(),
        warnings: columns.findings.warnings.clone(),
        masks: mask_names,
        ..Plan::default()
    };
    let mut listed: BTreeSet<String> = BTreeSet::new();
    // Identifiers that are not made of the path of a file, by record.
    let mut given: BTreeMap<usize, String> = BTreeMap::new();
    for row in 0..table.frame.height() {
        let mut outcome = || -> Result<(Option<String>, PlannedRecord), RowError> {
            let id = match &columns.id {
                Some(values) => {
                    Some(values[row].ok_or_else(|| "the identifier column is empty".to_owned())?.to_owned())
                }
                None => image_rows.as_ref().map(|rows| rows.name(row)),
            };
            let record = if let Some(rows) = &image_rows {
                rows.record(row, columns.record(row, rows.source_path(row), &paths)?)
            } else {
                let image = columns.image[row].ok_or_else(|| "the image column is empty".to_owned())?;
                let source_path = paths.image(image)?;
                listed.insert(source_path.clone());
                let mut record = columns.record(row, source_path, &paths)?;
                record.source_bytes = walk.files.get(&record.source_path).copied();
                record
            };
            Ok((id, record))
        };
        match outcome() {
            Ok((id, record)) => {
                given.extend(id.map(|id| (plan.records.len(), id)));
                plan.records.push(record);
            }
            Err(RowError::Reject(error)) => plan.rejects.push(table.reject(row, error)),
            Err(RowError::Fatal(error)) => return Err(error),
        }
    }
    let own_names = identifiers(listed.iter().chain(walk.files.keys()).map(String::as_str));
    for (at, record) in plan.records.iter_mut().enumerate() {
        let name = given.get(&at).map_or_else(|| own_names[record.source_path.as_str()], String::as_str);
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

/// The table of a path, or all tables of a pattern as one, with a path for errors and the folder that paths may be relative to.
fn read(raw: &Path, table: &Path) -> Result<(Table, PathBuf, PathBuf)> {
    let inner = raw.join(table);
    let is_here = is_file(table)?;
    let pattern = table.strip_prefix(raw).unwrap_or(table).to_string_lossy();
    if is_here || !pattern.contains(['*', '?']) || is_file(&inner)? {
        let path = if !is_here && is_file(&inner)? { &inner } else { table };
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        return Ok((table_file::read(raw, path)?, path.to_path_buf(), folder));
    }
    let glob = Glob::from_str(&pattern).map_err(|message| Error::Table { path: table.to_path_buf(), message })?;
    let walk = Walk::of(raw, raw, &table_file::ENDINGS)?;
    let mut tables = walk.files.into_keys().filter(|path| glob.matches(path)).map(|path| raw.join(path));
    let first = tables.next().ok_or_else(|| Error::MissingTable {
        folder: raw.to_path_buf(),
        wanted: format!("table `{pattern}`"),
        remedy: format!(
            "give --table a pattern of paths of tables relative to RAW_DIR ({})",
            table_file::ENDINGS.join(", ")
        ),
    })?;
    let mut all = table_file::read(raw, &first)?;
    tables.try_for_each(|path| all.append(table_file::read(raw, &path)?))?;
    all.rejects.extend(walk.rejects.into_iter().filter(|reject| glob.matches(&reject.source_path)));
    let path = if all.names().count() == 1 { first } else { inner };
    Ok((all, path, raw.to_path_buf()))
}
