//! Makes a join: finds the records of the table's rows, makes the value of each record, and writes them.

use std::collections::BTreeMap;
use std::path::Path;

use dataset::Dataset;
use dataset::format::record::Record;
use dataset::join::facts::shards_sha256;
use dataset::join::writer::{JoinWriter, row_groups};
use dataset::join::{Join, JoinCounts, JoinFacts, join_path};
use dataset::progress::{OnProgress, Progress};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::join::geometry::Sizes;
use crate::join::keys::{self, Matches};
use crate::join::options::{Duplicates, JoinOptions, JoinSource};
use crate::join::problems::{Problems, SHOWN};
use crate::join::report::JoinReport;
use crate::join::table::{Block, JoinTable, TableKeys};
use crate::join::tokens::Tokens;
use crate::join::values::{Value, Values, names};
use crate::sources::folder::labels::shortened;

/// Makes a join of a dataset at a path or URL and writes it there, whole or not at all. The current rayon pool makes values.
/// `progress` counts the rows of the table in place of records.
///
/// # Errors
/// When the dataset or the table cannot be read, no row is about a record, a value cannot be read (unless such rows may be left
/// out), two rows contradict each other, or another join has this name.
pub fn join(location: &Path, options: &JoinOptions, progress: &OnProgress) -> Result<JoinReport> {
    let dataset = Dataset::open(location)?;
    check_name(&options.name)?;
    let table = JoinTable::open(options)?;
    progress(Progress::Working)?;
    let unreadable = Problems::default();
    let TableKeys { keys, filtered, broken } = table.keys(&unreadable)?;
    progress(Progress::Working)?;
    if keys.iter().all(Option::is_none) {
        let (count, first) = left_out(&broken, &unreadable);
        check_left_out(options, count, &first, &Problems::default())?;
        return Err(table.error(format!("no row is left: {filtered} have a value that is too small, {count} no key")));
    }
    let found = keys::find(&dataset, options.on, &options.key, &keys)?.map_err(|message| table.error(message))?;
    let tokens = Tokens::of(&dataset, options)?;
    let (names, warnings) = names(&table, options, &tokens)?;
    progress(Progress::Working)?;

    let facts = facts(&dataset, &table, options, names, &found);
    let mut report = JoinReport {
        name: options.name.clone(),
        facts,
        how: found.how.clone(),
        unmatched: Vec::new(),
        unreadable: Vec::new(),
        warnings,
        already_done: false,
    };
    if let Some(known) = existing(&dataset, &report.facts, options)? {
        return Ok(JoinReport { facts: known, already_done: true, ..report });
    }
    progress(Progress::Started { records: keys.len() as u64, done: 0 })?;
    let mut pass = Pass::new(&dataset, options, &tokens, &found, unreadable)?;
    let mut rows = 0;
    table.read_values(|block| {
        rows += block.rows();
        pass.add(block)?;
        Ok(progress(Progress::Advanced(block.rows() as u64))?)
    })?;
    if rows != keys.len() {
        return Err(table.error("the table was changed while it was read; run the same command again"));
    }
    let (unreadable, first) = left_out(&broken, &pass.unreadable);
    report.unreadable = first;
    check_left_out(options, unreadable, &report.unreadable, &pass.duplicates)?;
    let is_unmatched =
        |(key, records): (&Option<String>, &Vec<u32>)| key.as_ref().filter(|_| records.is_empty()).cloned();
    let unmatched: Vec<String> = keys.iter().zip(&found.records).filter_map(is_unmatched).collect();
    let with = pass.made.iter().flatten().count() as u64;
    let counts = JoinCounts {
        rows: (keys.len() + broken.len()) as u64,
        matched: found.records.iter().filter(|records| !records.is_empty()).count() as u64,
        unmatched: unmatched.len() as u64,
        filtered,
        unreadable,
        duplicates: pass.duplicates.count() as u64,
        with,
        without: dataset.len() as u64 - with,
    };
    report.unmatched = unmatched.iter().take(SHOWN).map(|key| shortened(key)).collect();
    report.facts = write(&dataset, options, report.facts, counts, pass.made, progress)?;
    Ok(report)
}

/// Writes the values of all records.
fn write(
    dataset: &Dataset,
    options: &JoinOptions,
    facts: JoinFacts,
    counts: JoinCounts,
    made: Vec<Option<Value>>,
    progress: &OnProgress,
) -> Result<JoinFacts> {
    let ids = dataset.texts("record_id")?;
    let mut file = JoinWriter::new(&options.name, facts)?;
    let mut values = made.into_iter().zip(ids);
    for rows in row_groups(dataset, file.facts())? {
        let records = values.by_ref().take(rows.len()).map(|(value, id)| {
            let has_value = value.is_some();
            let record_id = id.unwrap_or_default();
            (Record { record_id, ..value.map(Value::record).unwrap_or_default() }, has_value)
        });
        let (records, has_value): (Vec<Record>, Vec<bool>) = records.unzip();
        file.write(&records, &has_value)?;
        progress(Progress::Working)?;
    }
    if options.overwrite {
        return Ok(file.finish(dataset.storage(), counts)?);
    }
    file.finish_new(dataset.storage(), counts)?.ok_or_else(|| {
        let path = dataset.storage().path(&join_path(&options.name));
        let message = "was written meanwhile; give another --name, or replace it with --overwrite";
        failed(options, format!("{} {message}", path.display()))
    })
}

/// An error of the join that is made.
fn failed(options: &JoinOptions, message: String) -> Error {
    dataset::Error::Join { name: options.name.clone(), message }.into()
}

/// A name is a part of a file's name.
fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.contains(['/', '\\', '.']) {
        let message = "a name without `/`, `\\` and `.` is needed".to_owned();
        return Err(dataset::Error::Join { name: name.to_owned(), message }.into());
    }
    Ok(())
}

/// What the join is about, without counts.
fn facts(
    dataset: &Dataset,
    table: &JoinTable,
    options: &JoinOptions,
    names: Vec<String>,
    found: &Matches,
) -> JoinFacts {
    let file = options.table.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let label_origin = match &options.source {
        JoinSource::Labels { origin, .. } => origin.clone(),
        _ => None,
    };
    JoinFacts {
        kind: options.source.kind(),
        names,
        unmatched: options.unmatched,
        label_origin,
        table_sha256: table.sha256.clone(),
        key: options.key.clone(),
        on: found.on.name().to_owned(),
        dataset_sha256: shards_sha256(dataset.manifest()),
        command: format!("ingest join --table {file} {}", options.words.join(" ")),
        table: file,
        tool: concat!("ingest ", env!("CARGO_PKG_VERSION")).to_owned(),
        counts: JoinCounts::default(),
    }
}

/// The facts of the stored join of this name, where it was made of the same table, options and shards; `None` where it may be
/// written.
fn existing(dataset: &Dataset, facts: &JoinFacts, options: &JoinOptions) -> Result<Option<JoinFacts>> {
    if options.overwrite {
        return Ok(None);
    }
    let stored = match Join::open_if_there(dataset.storage(), &options.name) {
        Ok(None) => return Ok(None),
        Ok(Some(join)) => join.facts().clone(),
        Err(error) => {
            return Err(failed(options, format!("there is one that cannot be read ({error}); give --overwrite")));
        }
    };
    let same = JoinFacts { counts: stored.counts, tool: stored.tool.clone(), ..facts.clone() };
    if same == stored {
        return Ok(Some(stored));
    }
    let path = dataset.storage().path(&join_path(&options.name));
    let (path, command) = (path.display(), stored.command);
    Err(failed(options, format!("{path} exists (`{command}`); give another --name, or replace it with --overwrite")))
}

/// Number of rows that cannot be read, and the first ones.
fn left_out(broken: &[String], unreadable: &Problems) -> (u64, Vec<String>) {
    let first = broken.iter().cloned().chain(unreadable.first()).take(SHOWN).collect();
    ((broken.len() + unreadable.count()) as u64, first)
}

/// An error where rows would be left out that may not.
fn check_left_out(options: &JoinOptions, unreadable: u64, first: &[String], duplicates: &Problems) -> Result<()> {
    if unreadable > 0 && !options.skip_unreadable {
        let lines = first.join("\n  ");
        return Err(failed(
            options,
            format!(
                "{unreadable} rows cannot be read; correct them, or leave them out with --skip-unreadable:\n  {lines}"
            ),
        ));
    }
    if duplicates.count() > 0 && options.duplicates == Duplicates::Error {
        let (count, lines) = (duplicates.count(), duplicates.first().join("\n  "));
        return Err(failed(
            options,
            format!(
                "{count} rows contradict others; correct them, or take the first row of each record with \
                 --duplicates first:\n  {lines}"
            ),
        ));
    }
    Ok(())
}

/// Makes the values of records, block by block.
struct Pass<'a> {
    options: &'a JoinOptions,
    tokens: &'a Tokens,
    found: &'a Matches,
    /// None where values are no places in images.
    sizes: Option<Sizes>,
    unreadable: Problems,
    duplicates: Problems,
    /// By record.
    made: Vec<Option<Value>>,
}

impl<'a> Pass<'a> {
    fn new(
        dataset: &Dataset,
        options: &'a JoinOptions,
        tokens: &'a Tokens,
        found: &'a Matches,
        unreadable: Problems,
    ) -> Result<Self> {
        let is_placed = matches!(options.source, JoinSource::Boxes { .. } | JoinSource::Masks { .. });
        let sizes = if is_placed { Some(Sizes::read(dataset)?) } else { None };
        let (duplicates, made) = (Problems::default(), vec![None; dataset.len()]);
        Ok(Self { options, tokens, found, sizes, unreadable, duplicates, made })
    }

    /// Adds what the rows of a block say.
    fn add(&mut self, block: &Block) -> Result<()> {
        let values = Values::new(block, self.options, self.tokens)?;
        let mut rows_of: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (row, records) in (0..block.rows()).zip(self.found.records.iter().skip(block.first)) {
            records.iter().for_each(|&record| rows_of.entry(record).or_default().push(row));
        }
        let made: Vec<(u32, Option<Value>)> = rows_of
            .into_iter()
            .collect::<Vec<_>>()
            .into_par_iter()
            .map(|(record, rows)| (record, self.value(record as usize, &rows, block, &values)))
            .collect();
        made.into_iter().for_each(|(record, value)| self.made[record as usize] = value);
        Ok(())
    }

    /// What these rows of a block, and those before, say of a record.
    fn value(&self, record: usize, rows: &[usize], block: &Block, values: &Values) -> Option<Value> {
        let mut known = self.made[record].clone();
        let geometry = self.sizes.as_ref().map(|sizes| sizes.of(record)).transpose();
        for &row in rows {
            let said = match &geometry {
                Ok(geometry) => values.row(row, geometry.as_ref()),
                Err(message) => Err(message.clone()),
            };
            match (said, &mut known) {
                (Err(message), _) => self.unreadable.add(block.first + row, block.place(row), message),
                (Ok(None), _) => {}
                (Ok(Some(other)), None) => known = Some(other),
                (Ok(Some(other)), Some(known)) => {
                    if !known.merge(other) {
                        let message = "it differs from an earlier row about the same record".to_owned();
                        self.duplicates.add(block.first + row, block.place(row), message);
                    }
                }
            }
        }
        known
    }
}
