//! The certificate of a split: what was measured when it was made. It is measured again whenever the split is loaded.

use std::fmt::{Display, Formatter};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::split::duplicates::KeptDuplicates;
use crate::split::index_table::IndexTable;
use crate::split::parts::{Deviation, Part};
use crate::split::published_lists::ListsReport;
use crate::split::ratio::Ratio;
use crate::split::types::{Member, SplitOptions, Subset, Unit, certificate_path, split_path};
use crate::split::warnings::{self, SplitWarning};
use crate::store::files;
use crate::store::storage::Storage;

/// What was measured on a split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// How the split was made, with defaults filled in.
    pub options: SplitOptions,
    /// One entry a subset, then one a ratio, ascending.
    pub parts: Vec<Part>,
    /// Records that belong to no subset.
    pub outside: u64,
    /// Whether each ratio's set contains those of all smaller ratios.
    pub nested: bool,
    /// Patients with records in more than one subset.
    pub shared_patients: u64,
    /// Studies with records in more than one subset.
    pub shared_studies: u64,
    /// Patients of the training subset of whom a ratio's set contains some records, but not all.
    pub torn_patients: u64,
    /// Studies of which the same is true.
    pub torn_studies: u64,
    /// Largest difference of a prevalence between a subset and all subsets together.
    pub subset_deviation: Option<Deviation>,
    /// Largest difference of a prevalence between a ratio's set and the training subset.
    pub ratio_deviation: Option<Deviation>,
    /// Sets that are far from their share or from the prevalence of a finding; empty in certificates of older builds.
    #[serde(default)]
    pub warnings: Vec<SplitWarning>,
    /// SHA-256 of all members, in the order of identifiers.
    pub members_sha256: String,
    /// The published lists that the split was made of.
    pub lists: Option<ListsReport>,
    /// What was done with equal images, where they are kept together. It is not measured again, since all images would be
    /// read; `members_sha256` shows changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicates: Option<KeptDuplicates>,
}

impl Certificate {
    /// Says how the stored split of this name differs, where its members are others than this one's or are unknown; `None`
    /// where it may be replaced, or there is none.
    ///
    /// # Errors
    /// When the storage cannot be read.
    pub fn replaces(&self, storage: &Storage, name: &str) -> Result<Option<String>> {
        if storage.read_if_there(&split_path(name))?.is_none() {
            return Ok(None);
        }
        let Ok(stored) = storage.read_json::<Self>(&certificate_path(name)) else {
            return Ok(Some("with a certificate that cannot be read".to_owned()));
        };
        let command = || stored.command(&storage.path(""), name);
        let differs = stored.members_sha256 != self.members_sha256;
        Ok(differs.then(|| format!("with other members (`{}`)", command())))
    }

    /// Measures a split whose members are in the order of the index table.
    pub fn measure(
        members: &[Member],
        index_table: &IndexTable,
        findings: &[String],
        options: SplitOptions,
        lists: Option<ListsReport>,
    ) -> Self {
        let part = |name: String, inside: &dyn Fn(&Member) -> bool| {
            Part::measure(name, members, index_table, findings, inside)
        };
        let whole = part("all".to_owned(), &|member| member.subset.is_some());
        let subsets = Subset::ALL.map(|subset| part(subset.name().to_owned(), &|member| member.subset == Some(subset)));
        let ratios: Vec<Part> =
            options.ratios.iter().map(|&ratio| part(format!("{ratio}%"), &|member| member.is_at(ratio))).collect();
        let nested =
            |member: &Member| options.ratios.windows(2).all(|two| !member.is_at(two[0]) || member.is_at(two[1]));
        Self {
            outside: members.iter().filter(|member| member.subset.is_none()).count() as u64,
            nested: members.iter().all(nested),
            shared_patients: conflicts(&index_table.patients, members, subset_of).count() as u64,
            shared_studies: conflicts(&index_table.studies, members, subset_of).count() as u64,
            torn_patients: conflicts(&index_table.patients, members, ratios_of).count() as u64,
            torn_studies: conflicts(&index_table.studies, members, ratios_of).count() as u64,
            subset_deviation: Deviation::largest(&subsets, &whole),
            ratio_deviation: Deviation::largest(&ratios, &subsets[0]),
            warnings: warnings::warnings(&options, &whole, &subsets, &ratios),
            members_sha256: digest(members, index_table),
            parts: subsets.into_iter().chain(ratios).collect(),
            options,
            lists,
            duplicates: None,
        }
    }

    /// The command that makes this split of the dataset in `folder` (a path or URL) again.
    pub fn command(&self, folder: &Path, name: &str) -> String {
        let options = &self.options;
        let mut words = vec![format!("dataset split {} --name {name}", folder.display())];
        words.push(format!("--unit {} --seed {}", options.unit.name(), options.seed));
        if !self.lists.as_ref().is_some_and(ListsReport::states_ratios) {
            let ratios: Vec<String> = options.ratios.iter().map(Ratio::to_string).collect();
            words.push(format!("--ratios {}", ratios.join(",")));
        }
        words.extend((options.official && options.subset_from.is_none()).then(|| "--official".to_owned()));
        words.extend(options.subset_from.iter().map(|join| format!("--subset-from {join}")));
        words.extend(options.labels.iter().map(|join| format!("--labels {join}")));
        words.extend(options.lists.iter().map(|lists| format!("--lists {}", lists.display())));
        words.extend(options.validation.map(|share| format!("--validation {share}")));
        words.extend(options.test.map(|share| format!("--test {share}")));
        words.extend(options.keep_duplicates_together.then(|| "--keep-duplicates-together".to_owned()));
        words.extend((!options.stratify.is_empty()).then(|| format!("--stratify '{}'", options.stratify.join(","))));
        words.join(" ")
    }

    /// Why this certificate does not describe the split on which `measured` was measured; `None` where it does.
    pub fn contradiction(&self, measured: &Self, members: &[Member], index_table: &IndexTable) -> Option<String> {
        let (unit, drawn) = (self.options.unit, !self.options.official && self.options.lists.is_none());
        // A split that was drawn by whole groups must have none, whatever its certificate states.
        let promised = |stated: u64, kept: bool| if kept { 0 } else { stated };
        let whole_patients = promised(self.shared_patients, drawn && unit == Unit::Patient);
        if measured.shared_patients > whole_patients {
            return conflicts(&index_table.patients, members, subset_of).next().map(|(one, other)| {
                let of = |row: usize| {
                    format!(
                        "{} (record `{}`)",
                        members[row].subset.map_or("none", Subset::name),
                        index_table.records[row]
                    )
                };
                format!(
                    "patient `{}` is in {} and in {}; {} patients are in more than one subset, {whole_patients} are \
                     certified",
                    index_table.patient_names[index_table.patients[one] as usize],
                    of(one),
                    of(other),
                    measured.shared_patients
                )
            });
        }
        let counts = [
            ("shared patients", self.shared_patients, measured.shared_patients),
            ("shared studies", promised(self.shared_studies, drawn && unit != Unit::Image), measured.shared_studies),
            (
                "patients torn by a ratio",
                promised(self.torn_patients, drawn && unit == Unit::Patient),
                measured.torn_patients,
            ),
            (
                "studies torn by a ratio",
                promised(self.torn_studies, drawn && unit != Unit::Image),
                measured.torn_studies,
            ),
            ("records in no subset", self.outside, measured.outside),
            ("parts", self.parts.len() as u64, measured.parts.len() as u64),
        ];
        let counts = counts.into_iter().map(|(what, stated, found)| (what.to_owned(), stated, found));
        let of_parts = self.parts.iter().zip(&measured.parts).flat_map(|(stated, found)| stated.compared(found));
        if let Some((what, stated, found)) = counts.chain(of_parts).find(|(_, stated, found)| stated != found) {
            return Some(format!("{found} {what}, {stated} are certified"));
        }
        let near = |stated: &Option<Deviation>, measured: &Option<Deviation>| match (stated, measured) {
            (None, None) => true,
            (Some(a), Some(b)) => same(a.value, b.value) && a.finding == b.finding && a.part == b.part,
            _ => false,
        };
        let prevalences = |part: &Part| part.findings.iter().map(|count| count.prevalence).collect::<Vec<_>>();
        let parts_alike = self.parts.iter().zip(&measured.parts).all(|(stated, found)| {
            stated.name == found.name
                && stated.findings.len() == found.findings.len()
                && stated.findings.iter().zip(&found.findings).all(|(a, b)| a.finding == b.finding)
                && prevalences(stated).iter().zip(prevalences(found)).all(|(&a, b)| same(a, b))
        });
        if !parts_alike
            || self.nested != measured.nested
            || !near(&self.subset_deviation, &measured.subset_deviation)
            || !near(&self.ratio_deviation, &measured.ratio_deviation)
        {
            return Some("other prevalences than are certified".to_owned());
        }
        (self.members_sha256 != measured.members_sha256).then(|| "other members than are certified".to_owned())
    }
}

/// Whether two shares are equal but for the last digits of their text.
fn same(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

/// The key that is the same for all records of a patient: the subset, where there is one.
fn subset_of(member: &Member) -> Option<Subset> {
    member.subset
}

/// The key that should be the same for all training records of a patient: the ratios.
fn ratios_of(member: &Member) -> Option<(Option<Ratio>, Option<&[Ratio]>)> {
    (member.subset == Some(Subset::Train)).then_some((member.ratio, member.ratios.as_deref()))
}

/// The groups whose records have different keys: for each of them its first record with a key, and the first with another
/// one. `of_row` has the group of each row.
fn conflicts<'a, K: PartialEq + 'a>(
    of_row: &'a [u32],
    members: &'a [Member],
    key: impl Fn(&'a Member) -> Option<K> + 'a,
) -> impl Iterator<Item = (usize, usize)> + 'a {
    let groups = of_row.iter().max().map_or(0, |&last| last as usize + 1);
    let (mut first, mut reported) = (vec![None; groups], vec![false; groups]);
    (0..members.len()).filter_map(move |row| {
        let (group, own) = (of_row[row] as usize, key(&members[row])?);
        let one = *first[group].get_or_insert(row);
        (!reported[group] && key(&members[one]) != Some(own)).then(|| {
            reported[group] = true;
            (one, row)
        })
    })
}

/// SHA-256 over identifier, subset and ratios of each record, in the order of identifiers.
fn digest(members: &[Member], index_table: &IndexTable) -> String {
    let mut bytes = Vec::new();
    for row in index_table.by_identifier() {
        let member = &members[row];
        bytes.extend(member.record_id.bytes());
        bytes.extend([0, member.subset.map_or(0, |subset| 1 + subset as u8)]);
        let ratios = member.ratio.iter().chain(member.ratios.iter().flatten());
        ratios.for_each(|ratio| bytes.extend(ratio.percent().to_le_bytes()));
        bytes.push(b'\n');
    }
    files::hex(&Sha256::digest(&bytes))
}

/// A table for a terminal: a row for each finding, a column for each subset and ratio.
impl Display for Certificate {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let names = self.parts.iter().flat_map(|part| &part.findings).map(|count| count.finding.chars().count());
        let width = names.chain([16]).max().unwrap_or_default();
        let mut line = |name: &str, cells: &mut dyn Iterator<Item = String>| {
            let cells: String = cells.map(|cell| format!("{cell:>10}")).collect();
            writeln!(f, "{}", format!("{name:<width$}{cells}").trim_end())
        };
        line("", &mut self.parts.iter().map(|part| part.name.clone()))?;
        line("records", &mut self.parts.iter().map(|part| part.records.to_string()))?;
        line("studies", &mut self.parts.iter().map(|part| part.studies.to_string()))?;
        line("patients", &mut self.parts.iter().map(|part| part.patients.to_string()))?;
        if let Some(first) = self.parts.first().filter(|part| !part.findings.is_empty()) {
            if self.parts.iter().any(|part| part.labeled < part.records) {
                line("labeled", &mut self.parts.iter().map(|part| part.labeled.to_string()))?;
            }
            line("positive in %", &mut std::iter::empty())?;
            for (index, count) in first.findings.iter().enumerate() {
                let prevalence = |part: &Part| match part.labeled {
                    0 => "–".to_owned(),
                    _ => format!("{:.2}", part.findings[index].prevalence * 100.0),
                };
                line(&count.finding, &mut self.parts.iter().map(prevalence))?;
            }
        }
        for part in &self.parts {
            let occurs = |index: usize| self.parts.iter().any(|part| part.findings[index].positives > 0);
            let missing =
                part.findings.iter().enumerate().filter(|(index, count)| count.positives == 0 && occurs(*index));
            let missing: Vec<&str> = missing.map(|(_, count)| count.finding.as_str()).collect();
            if part.records == 0 {
                writeln!(f, "no record in {}", part.name)?;
            } else if !missing.is_empty() {
                writeln!(f, "no positive in {}: {}", part.name, missing.join(", "))?;
            }
        }
        if self.outside > 0 {
            writeln!(f, "records in no subset: {}", self.outside)?;
        }
        if let Some(deviation) = &self.subset_deviation {
            writeln!(f, "largest deviation of a subset from all subsets: {deviation}")?;
        }
        if let Some(deviation) = &self.ratio_deviation {
            writeln!(f, "largest deviation of a ratio from train: {deviation}")?;
        }
        for line in warnings::lines(self.warnings.iter()) {
            writeln!(f, "warning: {line}")?;
        }
        if !self.nested {
            writeln!(f, "the ratios do not nest: column `ratios` has every ratio of a record")?;
        }
        if self.torn_patients > 0 {
            writeln!(f, "patients torn by a ratio: {}", self.torn_patients)?;
        }
        if let Some(KeptDuplicates { groups, records, of_several_patients, shared }) = &self.duplicates {
            writeln!(
                f,
                "equal images: {groups} groups of {records} records, {of_several_patients} of several patients; {shared} in \
                 more than one subset"
            )?;
        }
        write!(f, "patients in more than one subset: {}", self.shared_patients)?;
        self.lists.iter().try_for_each(|lists| write!(f, "{lists}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::index_table::Entry;

    type Place = fn(&mut Certificate) -> &mut Option<Deviation>;

    /// One patient torn by a ratio, no validation record, one record in no subset.
    fn measured() -> (Vec<Member>, IndexTable, Certificate) {
        let entry = |record, patient, study, positives, labeled| Entry { record, patient, study, positives, labeled };
        let entries = vec![
            entry("a", "0", "0", vec![0], true),
            entry("b", "0", "1", vec![1], true),
            entry("c", "1", "2", vec![], false),
            entry("d", "2", "3", vec![0], true),
            entry("e", "3", "4", vec![], false),
        ];
        let table = IndexTable::new(2, entries);
        let member = |id: &str, subset, ratio| Member { record_id: id.to_owned(), subset, ratio, ratios: None };
        let train = Some(Subset::Train);
        let members = vec![
            member("a", train, Some(Ratio::TEN)),
            member("b", train, Some(Ratio::ALL)),
            member("c", train, Some(Ratio::ALL)),
            member("d", Some(Subset::Test), None),
            member("e", None, None),
        ];
        let ratios = vec![Ratio::TEN, Ratio::ALL];
        let options = SplitOptions { ratios, unit: Unit::Image, ..SplitOptions::default() };
        let certificate = Certificate::measure(&members, &table, &["A", "B"].map(str::to_owned), options, None);
        (members, table, certificate)
    }

    #[test]
    fn a_certificate_is_shown_whole() {
        let (_, _, mut certificate) = measured();
        let lines = [
            "                     train  validate      test       10%      100%",
            "records                  3         0         1         1         3",
            "studies                  3         0         1         1         3",
            "patients                 2         0         1         1         2",
            "labeled                  2         0         1         1         2",
            "positive in %",
            "A                    50.00         –    100.00    100.00     50.00",
            "B                    50.00         –      0.00      0.00     50.00",
            "no record in validate",
            "no positive in test: B",
            "no positive in 10%: B",
            "records in no subset: 1",
            "largest deviation of a subset from all subsets: 33.333 points (A, test)",
            "largest deviation of a ratio from train: 50.000 points (A, 10%)",
            "patients torn by a ratio: 1",
            "patients in more than one subset: 0",
        ];
        assert_eq!(certificate.to_string(), lines.join("\n"));
        (certificate.outside, certificate.torn_patients, certificate.nested) = (0, 0, false);
        certificate.parts.iter_mut().for_each(|part| part.labeled = part.records);
        let text = certificate.to_string();
        for absent in ["in no subset", "torn", "\nlabeled"] {
            assert!(!text.contains(absent), "{text}");
        }
        assert!(text.contains("the ratios do not nest"), "{text}");
    }

    #[test]
    fn each_number_of_a_certificate_is_compared() {
        let (members, table, whole) = measured();
        let found = |stated: &Certificate, measured: &Certificate| stated.contradiction(measured, &members, &table);
        assert_eq!(found(&whole, &whole), None);
        let changed = |place: Place, change: fn(&mut Deviation)| {
            let mut other = whole.clone();
            change(place(&mut other).as_mut().expect("a deviation"));
            found(&other, &whole)
        };
        let expected = Some("other prevalences than are certified".to_owned());
        let places: [Place; 2] = [|it| &mut it.subset_deviation, |it| &mut it.ratio_deviation];
        for place in places {
            assert_eq!(changed(place, |it| it.value += 0.01), expected);
            assert_eq!(changed(place, |it| it.finding = "B".to_owned()), expected);
            assert_eq!(changed(place, |it| it.part = "train".to_owned()), expected);
        }
        assert_eq!(found(&Certificate { nested: false, ..whole.clone() }, &whole), expected);
        let none = Certificate { subset_deviation: None, ratio_deviation: None, ..whole.clone() };
        assert_eq!((found(&none, &whole), found(&none, &none)), (expected, None));
    }

    #[test]
    fn the_command_has_the_options_that_differ() {
        let (_, _, mut certificate) = measured();
        let command = |certificate: &Certificate| certificate.command(Path::new("d"), "n");
        assert_eq!(command(&certificate), "dataset split d --name n --unit image --seed 0 --ratios 10,100");
        certificate.options.stratify = vec!["A".to_owned(), "B".to_owned()];
        assert!(command(&certificate).ends_with(" --ratios 10,100 --stratify 'A,B'"));
        (certificate.options.official, certificate.options.subset_from) = (true, Some("j".to_owned()));
        let of_join = command(&certificate);
        assert!(of_join.contains(" --subset-from j") && !of_join.contains("--official"), "{of_join}");
    }
}
