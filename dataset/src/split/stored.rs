//! A split beside the shards of its dataset: made once ([`draw`](crate::split::draw)), written with a [`Certificate`] of what
//! it promises, and measured again whenever it is loaded.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{Float64Builder, ListBuilder};
use arrow_array::{Array, ArrayRef, Float64Array, ListArray, StringArray};
use bytes::Bytes;

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::format::table::{column, from_parquet, to_parquet};
use crate::split::certificate::Certificate;
use crate::split::index_table::Roster;
use crate::split::types::{Member, Subset, certificate_path, split_path};
use crate::split::warnings::{self, SplitWarning};
use crate::store::storage::Storage;

/// A split, in the order of the dataset's rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    pub name: String,
    pub members: Vec<Member>,
    /// The label ratios in percent, ascending; the sets of two may be the same where there are few records.
    pub ratios: Vec<f64>,
    /// Sets that are far from their share or from the prevalence of a finding, as measured when the split was loaded.
    pub warnings: Vec<SplitWarning>,
}

impl Split {
    /// Writes the split, in the order of identifiers, and its certificate beside the shards.
    pub fn save(&self, storage: &Storage, certificate: &Certificate) -> Result<()> {
        let mut members: Vec<&Member> = self.members.iter().collect();
        members.sort_by(|a, b| a.record_id.cmp(&b.record_id));
        let ids: StringArray = members.iter().map(|member| Some(member.record_id.as_str())).collect();
        let subsets: StringArray = members.iter().map(|member| member.subset.map(Subset::name)).collect();
        let ratios: Float64Array = members.iter().map(|member| member.ratio).collect();
        let mut columns: Vec<(&str, ArrayRef, bool)> = vec![
            ("record_id", Arc::new(ids), false),
            ("subset", Arc::new(subsets), true),
            ("ratio", Arc::new(ratios), true),
        ];
        if members.iter().any(|member| member.ratios.is_some()) {
            let mut every = ListBuilder::new(Float64Builder::new());
            for member in members {
                every.append_option(member.ratios.as_ref().map(|ratios| ratios.iter().copied().map(Some)));
            }
            columns.push(("ratios", Arc::new(every.finish()), true));
        }
        let path = split_path(&self.name);
        storage.write_json(&certificate_path(&self.name), certificate)?;
        storage.write(&path, to_parquet(&storage.path(&path), columns)?)
    }

    /// Reads split `name` of a dataset, brings it into the order of the dataset's rows, and measures it again.
    ///
    /// # Errors
    /// When it is missing, names other records than the dataset's, or is not what its certificate says: a patient in two
    /// subsets above all.
    pub fn load(dataset: &Dataset, name: &str) -> Result<Self> {
        let storage = dataset.storage();
        let invalid = |message: String| Error::Split { name: name.to_owned(), message };
        let path = split_path(name);
        let Some(table) = storage.read_if_there(&path)? else {
            let known = known_splits(storage)?;
            return Err(invalid(if known.is_empty() {
                format!("this dataset has no split yet; make it: dataset split {storage} --name {name}")
            } else {
                format!("there is none of this name (there are: {}); `dataset split` makes one", known.join(", "))
            }));
        };
        let certificate: Certificate = storage.read_json(&certificate_path(name)).map_err(|error| {
            let again = format!("dataset split {storage} --name {name}");
            invalid(format!("it has no certificate that can be read ({error}); make it anew: {again}"))
        })?;
        let refused = |message: String| {
            invalid(format!("{message}; make it anew: {}", certificate.command(&storage.path(""), name)))
        };

        let roster = Roster::load(dataset)?;
        let mut members = read_members(&storage.path(&path), table, name)?;
        if members.len() != roster.len() {
            return Err(refused(format!("{} records, the dataset has {}", members.len(), roster.len())));
        }
        if members.iter().zip(&roster.records).any(|(member, record)| member.record_id != *record) {
            let mut by_id: HashMap<String, Member> =
                members.into_iter().map(|member| (member.record_id.clone(), member)).collect();
            let of_record = |id: &String| by_id.remove(id).ok_or_else(|| refused(format!("it lacks record `{id}`")));
            members = roster.records.iter().map(of_record).collect::<Result<_>>()?;
        }
        let measured = Certificate::measure(
            &members,
            &roster,
            dataset.findings(),
            certificate.options.clone(),
            certificate.lists.clone(),
        );
        if let Some(contradiction) = certificate.contradiction(&measured, &members, &roster) {
            let message = format!("{contradiction}: split or dataset were changed after the split was made");
            return Err(refused(message));
        }
        let (ratios, warnings) = (certificate.options.ratios, measured.warnings);
        Ok(Self { name: name.to_owned(), members, ratios, warnings })
    }

    /// An error unless the split has this label ratio, in percent.
    pub fn check_ratio(&self, percent: f64) -> Result<()> {
        if self.ratios.contains(&percent) {
            return Ok(());
        }
        let known: Vec<String> = self.ratios.iter().map(f64::to_string).collect();
        let message = format!("it has no ratio of {percent}% (there are: {})", known.join(", "));
        Err(Error::Split { name: self.name.clone(), message })
    }

    /// Says where the set of a ratio, in percent, is far from its share of the training subset, or from the prevalence of
    /// one of these findings.
    pub fn missed_by_ratio(&self, percent: f64, findings: &[String]) -> Option<String> {
        let part = format!("{percent}%");
        let counts = |warning: &&SplitWarning| {
            warning.part == part && warning.finding.as_ref().is_none_or(|finding| findings.contains(finding))
        };
        let lines = warnings::lines(self.warnings.iter().filter(counts));
        let told = || format!("split `{}`: {}; a larger ratio comes nearer", self.name, lines.join("; "));
        (!lines.is_empty()).then(told)
    }

    /// Rows of a subset; in train only those whose labels may be seen at `ratio` percent.
    pub fn rows(&self, subset: Subset, ratio: Option<f64>) -> Vec<u32> {
        let inside = |member: &Member| {
            member.subset == Some(subset)
                && (subset != Subset::Train || ratio.is_none_or(|percent| member.is_at(percent)))
        };
        (0..self.members.len() as u32).filter(|&row| inside(&self.members[row as usize])).collect()
    }
}

/// The rows of a split's table.
fn read_members(path: &Path, table: Bytes, name: &str) -> Result<Vec<Member>> {
    let broken = |message: String| Error::Split { name: name.to_owned(), message };
    let mut members = Vec::new();
    for batch in from_parquet(path, table)? {
        let ids = column::<StringArray>(&batch, "record_id");
        let subsets = column::<StringArray>(&batch, "subset");
        let ratios = column::<Float64Array>(&batch, "ratio");
        let (Some(ids), Some(subsets), Some(ratios)) = (ids, subsets, ratios) else {
            return Err(broken("columns record_id, subset (text) and ratio (float64) are needed".to_owned()));
        };
        let every = match batch.column_by_name("ratios") {
            None => None,
            Some(column) => Some(
                column
                    .as_any()
                    .downcast_ref::<ListArray>()
                    .and_then(|lists| Some((lists, lists.values().as_any().downcast_ref::<Float64Array>()?)))
                    .ok_or_else(|| broken("column ratios is no list of float64".to_owned()))?,
            ),
        };
        for row in 0..batch.num_rows() {
            let subset = match subsets.is_valid(row).then(|| subsets.value(row)) {
                None => None,
                Some(text) => Some(Subset::parse(text).ok_or_else(|| broken(format!("unknown subset `{text}`")))?),
            };
            let of_row = |(lists, values): (&ListArray, &Float64Array)| {
                let range = lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize;
                lists.is_valid(row).then(|| values.values()[range].to_vec())
            };
            members.push(Member {
                record_id: ids.value(row).to_owned(),
                subset,
                ratio: ratios.is_valid(row).then(|| ratios.value(row)),
                ratios: every.and_then(of_row),
            });
        }
    }
    Ok(members)
}

/// Names of the splits stored in a dataset.
pub(crate) fn known_splits(storage: &Storage) -> Result<Vec<String>> {
    let of = |name: &str| Some(name.strip_prefix("splits/")?.strip_suffix(".parquet")?.to_owned());
    Ok(storage.list("splits")?.iter().filter_map(|listed| of(&listed.name)).collect())
}
