//! Splits as they are stored beside the shards: a table and a [`Certificate`]. A split is measured again whenever it is
//! loaded.

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
use crate::split::index_table::IndexTable;
use crate::split::ratio::Ratio;
use crate::split::types::{Member, Subset, certificate_path, split_path};
use crate::split::warnings::{self, SplitWarning};
use crate::store::files;
use crate::store::storage::Storage;

/// A split, in the order of the dataset's rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// Its name.
    pub name: String,
    /// One entry for each record.
    pub members: Vec<Member>,
    /// The label ratios, ascending; where there are few records, the sets of two may be equal.
    pub ratios: Vec<Ratio>,
    /// Sets that are far from their share or from the prevalence of a finding, as measured when the split was loaded.
    pub warnings: Vec<SplitWarning>,
}

impl Split {
    /// Writes the split, in the order of identifiers, and its certificate beside the shards, over those of the same name.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn save(&self, storage: &Storage, certificate: &Certificate) -> Result<()> {
        storage.write_json(&certificate_path(&self.name), certificate)?;
        self.save_table(storage)
    }

    /// As [`Split::save`], unless there is a split of the same name and other members. The certificate is written first: in an
    /// object store, of several processes that save splits of one name the first one that writes it goes on.
    ///
    /// # Errors
    /// As [`Split::save`], and when there is another split, or its certificate, of the same name.
    pub fn save_new(&self, storage: &Storage, certificate: &Certificate) -> Result<()> {
        let exists = |difference: String| Error::SplitExists { name: self.name.clone(), difference };
        if let Some(difference) = certificate.replaces(storage, &self.name)? {
            return Err(exists(difference));
        }
        let path = certificate_path(&self.name);
        let bytes = files::json(certificate).map_err(Error::json(&storage.path(&path)))?;
        if !storage.create(&path, bytes)? {
            let stored = storage.read_json::<Certificate>(&path);
            if !stored.is_ok_and(|stored| stored.members_sha256 == certificate.members_sha256) {
                return Err(exists(
                    "as a certificate of other members, by a process that runs or was killed".to_owned(),
                ));
            }
            storage.write_json(&path, certificate)?;
        }
        self.save_table(storage)
    }

    fn save_table(&self, storage: &Storage) -> Result<()> {
        let mut members: Vec<&Member> = self.members.iter().collect();
        members.sort_by(|a, b| a.record_id.cmp(&b.record_id));
        let ids: StringArray = members.iter().map(|member| Some(member.record_id.as_str())).collect();
        let subsets: StringArray = members.iter().map(|member| member.subset.map(Subset::name)).collect();
        let ratios: Float64Array = members.iter().map(|member| member.ratio.map(Ratio::percent)).collect();
        let mut columns: Vec<(&str, ArrayRef, bool)> = vec![
            ("record_id", Arc::new(ids), false),
            ("subset", Arc::new(subsets), true),
            ("ratio", Arc::new(ratios), true),
        ];
        if members.iter().any(|member| member.ratios.is_some()) {
            let mut every = ListBuilder::new(Float64Builder::new());
            for member in members {
                every.append_option(
                    member.ratios.as_ref().map(|ratios| ratios.iter().map(|ratio| Some(ratio.percent()))),
                );
            }
            columns.push(("ratios", Arc::new(every.finish()), true));
        }
        let path = split_path(&self.name);
        storage.write(&path, to_parquet(&storage.path(&path), columns)?)
    }

    /// Reads split `name` of a dataset, sorts it into the order of the dataset's rows, and measures it again.
    ///
    /// # Errors
    /// When it is missing, names other records than the dataset's, or differs from its certificate: in particular where a
    /// patient is in two subsets.
    pub fn load(dataset: &Dataset, name: &str) -> Result<Self> {
        let storage = dataset.storage();
        let invalid = |message: String| Error::Split { name: name.to_owned(), message };
        let path = split_path(name);
        let Some(table) = storage.read_if_there(&path)? else {
            let known = known_splits(storage)?;
            return Err(invalid(if known.is_empty() {
                format!("this dataset has no split; make one: dataset split {storage} --name {name}")
            } else {
                format!("there is none of this name (there are: {}); make one with `dataset split`", known.join(", "))
            }));
        };
        let certificate: Certificate = storage.read_json(&certificate_path(name)).map_err(|error| {
            let again = format!("dataset split {storage} --name {name}");
            invalid(format!("its certificate cannot be read ({error}); make the split again: {again}"))
        })?;
        let refused = |message: String| {
            invalid(format!("{message}; make the split again: {}", certificate.command(&storage.path(""), name)))
        };

        let view = dataset.labels_view(certificate.options.labels.as_deref());
        let view = view.map_err(|error| invalid(format!("its labels are those of a join: {error}")))?;
        let index_table = IndexTable::load_with(dataset, &view)?;
        let mut members = read_members(&storage.path(&path), table, name)?;
        if members.len() != index_table.len() {
            return Err(refused(format!("it has {} records, the dataset has {}", members.len(), index_table.len())));
        }
        if members.iter().zip(&index_table.records).any(|(member, record)| member.record_id != *record) {
            let mut by_id: HashMap<String, Member> =
                members.into_iter().map(|member| (member.record_id.clone(), member)).collect();
            let of_record = |id: &String| by_id.remove(id).ok_or_else(|| refused(format!("it lacks record `{id}`")));
            members = index_table.records.iter().map(of_record).collect::<Result<_>>()?;
        }
        let measured = Certificate::measure(
            &members,
            &index_table,
            &view.findings,
            certificate.options.clone(),
            certificate.lists.clone(),
        );
        if let Some(contradiction) = certificate.contradiction(&measured, &members, &index_table) {
            let message = format!("{contradiction}: the split or the dataset was changed after the split was made");
            return Err(refused(message));
        }
        let (ratios, warnings) = (certificate.options.ratios, measured.warnings);
        Ok(Self { name: name.to_owned(), members, ratios, warnings })
    }

    /// An error unless the split has this label ratio.
    ///
    /// # Errors
    /// Names the ratios that there are.
    pub fn check_ratio(&self, ratio: Ratio) -> Result<()> {
        if self.ratios.contains(&ratio) {
            return Ok(());
        }
        let known: Vec<String> = self.ratios.iter().map(Ratio::to_string).collect();
        let message = format!("it has no ratio of {ratio}% (there are: {})", known.join(", "));
        Err(Error::Split { name: self.name.clone(), message })
    }

    /// A warning where the set of a ratio is far from its share of the training subset, or from the prevalence of one of
    /// these findings.
    pub fn ratio_warning(&self, ratio: Ratio, findings: &[String]) -> Option<String> {
        let part = format!("{ratio}%");
        let concerns = |warning: &&SplitWarning| {
            warning.part == part && warning.finding.as_ref().is_none_or(|finding| findings.contains(finding))
        };
        let lines = warnings::lines(self.warnings.iter().filter(concerns));
        let message = || format!("split `{}`: {}; a larger ratio is nearer to it", self.name, lines.join("; "));
        (!lines.is_empty()).then(message)
    }

    /// Rows of a subset, ascending; of train only those whose labels may be seen at a ratio, where one is given.
    pub fn rows(&self, subset: Subset, ratio: Option<Ratio>) -> Vec<u32> {
        let inside = |member: &Member| {
            member.subset == Some(subset) && (subset != Subset::Train || ratio.is_none_or(|ratio| member.is_at(ratio)))
        };
        (0..self.members.len() as u32).filter(|&row| inside(&self.members[row as usize])).collect()
    }
}

/// The members in a split's table.
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
                    .ok_or_else(|| broken("column ratios is not a list of float64".to_owned()))?,
            ),
        };
        for row in 0..batch.num_rows() {
            let subset = match subsets.is_valid(row).then(|| subsets.value(row)) {
                None => None,
                Some(text) => Some(Subset::parse(text).ok_or_else(|| broken(format!("unknown subset `{text}`")))?),
            };
            let ratio = |percent: f64| Ratio::from_percent(percent).map_err(|error| broken(error.to_string()));
            let of_row = |(lists, values): (&ListArray, &Float64Array)| {
                let range = lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize;
                lists.is_valid(row).then(|| values.values()[range].iter().copied().map(ratio).collect::<Result<_>>())
            };
            members.push(Member {
                record_id: ids.value(row).to_owned(),
                subset,
                ratio: ratios.is_valid(row).then(|| ratio(ratios.value(row))).transpose()?,
                ratios: every.and_then(of_row).transpose()?,
            });
        }
    }
    Ok(members)
}

/// Names of the splits in a dataset; none where the storage cannot be listed.
///
/// # Errors
/// When listing fails.
pub fn known_splits(storage: &Storage) -> Result<Vec<String>> {
    if storage.is_read_only() {
        return Ok(Vec::new());
    }
    let of = |name: &str| Some(name.strip_prefix("splits/")?.strip_suffix(".parquet")?.to_owned());
    Ok(storage.list("splits")?.iter().filter_map(|listed| of(&listed.name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_of_a_ratio_are_those_of_its_findings() {
        let warning = |part: &str, finding: Option<&str>| {
            let (part, finding) = (part.to_owned(), finding.map(str::to_owned));
            SplitWarning { part, finding, expected: 0.1, found: 0.3, count: 3, of: 10 }
        };
        let split = Split {
            name: "main".to_owned(),
            members: Vec::new(),
            ratios: vec![Ratio::ONE, Ratio::TEN, Ratio::ALL],
            warnings: vec![warning("1%", None), warning("1%", Some("A")), warning("10%", None)],
        };
        let of = |ratio, finding: &str| split.ratio_warning(ratio, &[finding.to_owned()]);
        let (without, with) = (of(Ratio::ONE, "B").expect("a warning"), of(Ratio::ONE, "A").expect("a warning"));
        assert!(!without.contains("prevalence") && with.contains("prevalence"), "{without} | {with}");
        assert_eq!(of(Ratio::ALL, "A"), None);
    }
}
