//! Compares a finished dataset with its raw directory; every file is read again.

use std::collections::HashSet;
use std::path::Path;

use arrow_array::{Array, FixedSizeBinaryArray, StringArray};
use dataset::Storage;
use dataset::format::manifest::{Manifest, REJECTS};
use dataset::format::record::FORMAT_VERSION;
use dataset::format::shard::Shard;
use dataset::format::table::{self, column};
use dataset::progress::{Canceled, OnProgress, Progress};

use crate::dicom::limits::MAX_FILE_BYTES;
use crate::error::{Error, Result};
use crate::report::read::{NoReport, read_report};
use crate::run::check_sums::CheckSums;
use crate::run::hashing_reader::{self, Hashing, Stamps};
use crate::run::image_tables::{ImageTables, in_order_of_rows};
use crate::run::keys::INPUT;
use crate::run::options::ReportText;
use crate::run::plan::{Plan, PlannedRecord};
use crate::run::source_digest::SourceDigest;

/// The differences between a dataset and its raw directory: `path: what changed` for each input, in the order of the
/// dataset; empty where nothing changed.
///
/// Image files are compared by their digest, reports by their text, tables by the plan that they give (not in a dataset of
/// format 1, whose digest of the plan is another one). Inputs that the dataset rejected are compared by name. The options of
/// the dataset are read from its manifest.
///
/// # Errors
/// When `out` holds no finished dataset, or cannot be read, or `progress` cancels.
pub fn check_input(raw: &Path, out: &Path, mut plan: Plan, jobs: usize, progress: &OnProgress) -> Result<Vec<String>> {
    let storage = Storage::at(out)?;
    let manifest = Manifest::load(&storage)?;
    let options = StoredOptions::of(&manifest);
    plan.finalize();
    plan.check()?;
    plan.records.truncate(options.limit);
    let plan = &plan;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(jobs)
        .build()
        .map_err(|e| Error::Output { path: out.to_path_buf(), message: e.to_string() })?;
    progress(Progress::Started { records: manifest.totals.records, done: 0 })?;
    pool.install(|| {
        let (mut differing, mut known, tables) = (Vec::new(), HashSet::new(), ImageTables::default());
        for info in &manifest.shards {
            let shard = Shard::open(&storage, info)?;
            let names = ["record_id", "source_path", "source_digest", "report", "findings", "impression"];
            for batch in shard.columns(&names)? {
                let row = |row: usize| Row::of(&batch, row);
                let rows: Vec<Row> = (0..batch.num_rows()).map(row).collect::<Option<_>>().ok_or_else(|| {
                    let message = "a column has another type than the format's".to_owned();
                    Error::Output { path: storage.path(&info.path), message }
                })?;
                known.extend(rows.iter().map(|row| row.record_id.to_owned()));
                let image_row = |row| planned(plan, row)?.image_row.as_ref().filter(|_| options.images);
                let found: Vec<Option<String>> = in_order_of_rows(&rows, image_row, |row| {
                    let difference = planned(plan, row).map_or(Some("is not listed any more"), |planned| {
                        row.difference(raw, plan, planned, options, &tables)
                    });
                    progress(Progress::Advanced(1))?;
                    Ok(difference.map(|difference| format!("{}: {difference}", row.source_path)))
                })
                .into_iter()
                .collect::<Result<_, Canceled>>()?;
                differing.extend(found.into_iter().flatten());
            }
        }
        for batch in table::from_parquet(&storage.path(REJECTS), storage.read(REJECTS)?)? {
            if let Some(ids) = column::<StringArray>(&batch, "record_id") {
                known.extend(ids.iter().flatten().map(str::to_owned));
            }
        }
        let added = plan.records.iter().filter(|record| !known.contains(&record.record_id));
        differing.extend(added.map(|record| format!("{}: is new", plan.path_names.stored(&record.source_path))));
        let is_of_this_format = manifest.format_version == FORMAT_VERSION;
        let digest = manifest.arguments.get(INPUT).and_then(|digest| digest.as_str());
        if differing.is_empty() && is_of_this_format && digest != Some(&plan.sha256()) {
            differing.push("the tables or the rejected inputs have other entries than before".to_owned());
        }
        Ok(differing)
    })
}

/// The record of a row in the plan.
fn planned<'a>(plan: &'a Plan, row: &Row) -> Option<&'a PlannedRecord> {
    let at = plan.records.binary_search_by(|record| record.record_id.as_str().cmp(row.record_id));
    Some(&plan.records[at.ok()?])
}

/// The options of a dataset that matter for a comparison.
#[derive(Clone, Copy)]
struct StoredOptions {
    images: bool,
    limit: usize,
    digest: SourceDigest,
    report_text: ReportText,
}

impl StoredOptions {
    fn of(manifest: &Manifest) -> Self {
        let argument = |name: &str| manifest.arguments.get(name).cloned().unwrap_or_default();
        Self {
            images: argument("no_images") != true,
            limit: argument("limit").as_u64().map_or(usize::MAX, |limit| limit as usize),
            // Earlier versions had SHA-256 only.
            digest: serde_json::from_value(argument("source_digest")).unwrap_or(SourceDigest::Sha256),
            report_text: serde_json::from_value(argument("report_text")).unwrap_or_default(),
        }
    }
}

/// The columns of a record that are compared with its inputs.
struct Row<'a> {
    record_id: &'a str,
    source_path: &'a str,
    source_digest: &'a [u8],
    report: Option<&'a str>,
    findings: Option<&'a str>,
    impression: Option<&'a str>,
}

impl<'a> Row<'a> {
    fn of(batch: &'a arrow_array::RecordBatch, row: usize) -> Option<Self> {
        let text = |name: &str| -> Option<Option<&'a str>> {
            let array = column::<StringArray>(batch, name)?;
            Some(array.is_valid(row).then(|| array.value(row)))
        };
        Some(Self {
            record_id: text("record_id")??,
            source_path: text("source_path")??,
            source_digest: column::<FixedSizeBinaryArray>(batch, "source_digest")?.value(row),
            report: text("report")?,
            findings: text("findings")?,
            impression: text("impression")?,
        })
    }

    /// What changed, if anything.
    fn difference(
        &self,
        raw: &Path,
        plan: &Plan,
        planned: &PlannedRecord,
        options: StoredOptions,
        tables: &ImageTables,
    ) -> Option<&'static str> {
        if options.images {
            let hashing = Hashing { algorithm: options.digest, expected: None };
            let found = match &planned.image_row {
                Some(row) => hashing_reader::read_row(tables, raw, row, options.digest, &mut Vec::new()),
                None => hashing_reader::stamp(&raw.join(&planned.source_path), MAX_FILE_BYTES, hashing),
            };
            match found {
                Ok(found) if found.digest == self.source_digest => {}
                Ok(_) => return Some("has other bytes"),
                Err(_) => return Some("cannot be read any more"),
            }
        }
        let (report, sections) = match read_report(raw, plan, planned, &CheckSums::default(), &mut Stamps::new()) {
            Ok(Some(found)) => (found.tokenized(options.report_text), found.sections),
            Ok(None) | Err(NoReport::Unusable(_)) => Default::default(),
            Err(NoReport::Refused { .. }) => return Some("has a report that cannot be read"),
        };
        let same = self.report.unwrap_or_default() == report
            && self.findings == sections.findings.as_deref()
            && self.impression == sections.impression.as_deref();
        (!same).then_some("has another report")
    }
}
