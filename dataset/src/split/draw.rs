//! Draws a split: subsets by shares, by the source or by published lists, and nested ratios of the training subset.

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow_array::{Array, StringArray};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::name_suggestion::did_you_mean;
use crate::progress::OnProgress;
use crate::random::{self, Stream};
use crate::split::certificate::Certificate;
use crate::split::duplicates::{self, KeptDuplicates};
use crate::split::groups::{Group, Target, totals};
use crate::split::index_table::IndexTable;
use crate::split::published_lists::PublishedLists;
use crate::split::ratio::Ratio;
use crate::split::stored::Split;
use crate::split::stratify;
use crate::split::types::{Member, SplitOptions, Subset};

/// Default of [`SplitOptions::ratios`].
pub const RATIOS: [Ratio; 3] = [Ratio::ONE, Ratio::TEN, Ratio::ALL];
/// Default of [`SplitOptions::validation`], where neither source nor lists give the subsets.
pub const VALIDATION: f64 = 0.1;
/// Default of [`SplitOptions::test`], where neither source nor lists give the subsets.
pub const TEST: f64 = 0.2;

/// Makes a split of a dataset, and measures it. Images are read only where those that are equal stay together.
///
/// # Errors
/// When the options contradict each other, the source or the lists, or `progress` cancels.
pub fn make(
    dataset: &Dataset,
    name: &str,
    options: &SplitOptions,
    progress: &OnProgress,
) -> Result<(Split, Certificate)> {
    let official = match &options.subset_from {
        Some(join) => joined_subsets(dataset, join)?,
        None if options.official => dataset.texts("subset")?,
        None => Vec::new(),
    };
    let view = dataset.labels_view(options.labels.as_deref())?;
    let mut index_table = IndexTable::load_with(dataset, &view)?;
    if options.keep_duplicates_together {
        let groups = duplicates::groups(dataset, progress)?;
        let joined = duplicates::joined(&index_table, options.unit, &groups);
        index_table.keep_together(groups, joined);
    }
    draw(&index_table, &view.findings, official, name, options)
}

/// The subsets of a join, in the order of the dataset's rows.
fn joined_subsets(dataset: &Dataset, name: &str) -> Result<Vec<Option<String>>> {
    let join = dataset.join(name)?;
    let subsets = join.values(0..join.rows())?;
    let subsets = subsets.as_any().downcast_ref::<StringArray>().ok_or_else(|| Error::Join {
        name: name.to_owned(),
        message: "it has no subsets: give a join that was made with `--as subset`".to_owned(),
    })?;
    Ok(subsets.iter().map(|subset| subset.map(str::to_owned)).collect())
}

/// Makes a split of the records of an index table, and measures it. `official` contains the source's own subsets, in the
/// order of the table, where the options ask for them.
///
/// # Errors
/// As [`make`].
pub fn draw(
    index_table: &IndexTable,
    findings: &[String],
    official: Vec<Option<String>>,
    name: &str,
    options: &SplitOptions,
) -> Result<(Split, Certificate)> {
    let invalid = |message: String| Error::Split { name: name.to_owned(), message };
    let mut options = options.clone();
    check(name, &mut options).map_err(invalid)?;
    let order = index_table.by_identifier();
    if let Some(two) = order.windows(2).find(|two| index_table.records[two[0]] == index_table.records[two[1]]) {
        return Err(invalid(format!("record `{}` occurs twice in the dataset", index_table.records[two[0]])));
    }
    let stratified = findings_to_balance(findings, &options).map_err(invalid)?;

    let (mut subset, mut published) = (vec![Some(Subset::Train); index_table.len()], None);
    if options.official {
        subset = official_subsets(official).map_err(invalid)?;
    } else if let Some(folder) = &options.lists {
        let mut assignment = PublishedLists::read(folder)?.assign(index_table)?;
        subset = std::mem::take(&mut assignment.subset);
        published = Some(assignment);
    } else {
        options.validation.get_or_insert(VALIDATION);
        options.test.get_or_insert(TEST);
    }
    let mut drawing = Drawing { index_table, order, stratified, options: &options, subset };
    drawing.draw_subsets().map_err(invalid)?;

    // Where the lists give the whole training subset only, the smaller ratios are drawn.
    let stated = published.as_ref().filter(|assignment| assignment.report.states_ratios());
    let (known, sets): (Vec<Ratio>, Vec<Vec<Ratio>>) = match stated {
        Some(assignment) if !options.ratios.is_empty() => {
            let known: Vec<String> = assignment.known.iter().map(Ratio::to_string).collect();
            return Err(invalid(format!("the lists give their own ratios ({}): leave --ratios out", known.join(", "))));
        }
        Some(assignment) => (assignment.known.clone(), assignment.ratios.clone()),
        None => {
            let known = if options.ratios.is_empty() { RATIOS.to_vec() } else { options.ratios.clone() };
            let sets = drawing.draw_ratios(&known);
            (known, sets)
        }
    };
    let subset = drawing.subset;
    options.ratios = known;
    let in_train = |row: usize| subset[row] == Some(Subset::Train);
    let nests = |row: usize| !in_train(row) || options.ratios.ends_with(&sets[row]);
    let nested = (0..index_table.len()).all(nests);
    let members: Vec<Member> = (0..index_table.len())
        .map(|row| Member {
            record_id: index_table.records[row].clone(),
            subset: subset[row],
            ratio: sets[row].first().copied().filter(|_| in_train(row)),
            ratios: (!nested && in_train(row)).then(|| sets[row].clone()),
        })
        .collect();
    let report = published.map(|assignment| assignment.report);
    let mut certificate = Certificate::measure(&members, index_table, findings, options, report);
    certificate.duplicates =
        index_table.duplicates().map(|groups| KeptDuplicates::measure(&members, index_table, groups));
    if let Some(contradiction) = certificate.contradiction(&certificate, &members, index_table) {
        return Err(invalid(format!("internal error (a bug in mrm): {contradiction}")));
    }
    let (ratios, warnings) = (certificate.options.ratios.clone(), certificate.warnings.clone());
    Ok((Split { name: name.to_owned(), members, ratios, warnings }, certificate))
}

/// Checks the options, and sorts the ratios.
fn check(name: &str, options: &mut SplitOptions) -> Result<(), String> {
    if name.is_empty() || name.contains(['/', '\\', '.']) {
        return Err("a name without `/`, `\\` and `.` is needed".to_owned());
    }
    if options.official && options.lists.is_some() {
        return Err("official subsets and published lists exclude each other".to_owned());
    }
    // The subsets of a join are official ones, too.
    options.official |= options.subset_from.is_some();
    if options.official && options.lists.is_some() {
        return Err("the subsets of a join and published lists exclude each other".to_owned());
    }
    options.ratios.sort_unstable();
    options.ratios.dedup();
    let shares = [options.validation, options.test].into_iter().flatten();
    match shares.into_iter().find(|share| !(0.0..1.0).contains(share)) {
        Some(share) => Err(format!("the share {share} for validation or test must be in [0, 1)")),
        None => Ok(()),
    }
}

/// Positions of the findings to balance.
fn findings_to_balance(findings: &[String], options: &SplitOptions) -> Result<Vec<usize>, String> {
    if options.stratify.is_empty() {
        return Ok((0..findings.len()).collect());
    }
    let position = |wanted: &String| {
        let suggestion = || did_you_mean(wanted, findings.iter().map(String::as_str));
        let unknown = || format!("no finding `{wanted}`; there are: {}{}", findings.join(", "), suggestion());
        findings.iter().position(|finding| finding == wanted).ok_or_else(unknown)
    };
    let mut positions = options.stratify.iter().map(position).collect::<Result<Vec<_>, _>>()?;
    positions.sort_unstable();
    positions.dedup();
    Ok(positions)
}

/// The source's own subsets.
fn official_subsets(texts: Vec<Option<String>>) -> Result<Vec<Option<Subset>>, String> {
    if texts.iter().all(Option::is_none) {
        return Err("this source has no official subsets: leave --official out".to_owned());
    }
    let parse = |text: String| {
        Subset::parse(&text).ok_or_else(|| format!("unknown subset `{text}`; give {}", Subset::accepted()))
    };
    texts.into_iter().map(|text| text.map(parse).transpose()).collect()
}

/// The state of a draw.
struct Drawing<'a> {
    index_table: &'a IndexTable,
    /// The rows in the order of their identifiers.
    order: Vec<usize>,
    /// Positions of the findings to balance.
    stratified: Vec<usize>,
    options: &'a SplitOptions,
    subset: Vec<Option<Subset>>,
}

impl Drawing<'_> {
    /// Draws the validation and test subsets from the training subset.
    fn draw_subsets(&mut self) -> Result<(), String> {
        let all = self.subset.iter().flatten().count() as f64;
        let shares = [(Subset::Validate, self.options.validation), (Subset::Test, self.options.test)];
        let shares: Vec<(Subset, f64)> = shares
            .into_iter()
            .filter_map(|(subset, share)| Some((subset, share.filter(|share| *share > 0.0)?)))
            .collect();
        if let Some((stated, _)) = shares.iter().find(|(subset, _)| self.subset.contains(&Some(*subset))) {
            let flag = if *stated == Subset::Validate { "validation" } else { "test" };
            return Err(format!("there is a {} subset already: leave --{flag} out", stated.name()));
        }
        if shares.is_empty() {
            return Ok(());
        }
        let pool = self.train();
        let wanted = shares.iter().map(|(_, share)| share * all).sum::<f64>();
        if wanted >= pool.len() as f64 {
            return Err(format!(
                "validation and test need {wanted:.0} of {} training records: none would be left",
                pool.len()
            ));
        }
        let (groups, rows) = self.groups(&pool);
        let (records, positives) = totals(&groups, self.counted());
        let target = |share: f64| Target {
            records: share * records,
            positives: positives.iter().map(|count| share * count).collect(),
            keeps_all: true,
        };
        let taken = shares.iter().map(|(_, share)| share * all / records);
        let targets: Vec<Target> = std::iter::once(1.0 - wanted / records).chain(taken).map(target).collect();
        let mut random = Stream::new(&[self.options.seed, random::digest("subsets")]);
        for (rows, part) in rows.iter().zip(stratify::partition(&groups, &targets, &mut random)) {
            if part > 0 {
                rows.iter().for_each(|&row| self.subset[row] = Some(shares[part - 1].0));
            }
        }
        Ok(())
    }

    /// Draws nested sets of the training subset. The smallest one is drawn first, from all of train, since it is the hardest
    /// to balance; each next one adds to the one before. Returns for each record the ratios whose set contains it,
    /// ascending as `known`.
    fn draw_ratios(&self, known: &[Ratio]) -> Vec<Vec<Ratio>> {
        let mut sets = vec![Vec::new(); self.index_table.len()];
        let (mut chosen, mut pool) = (Vec::new(), self.train());
        let (records, positives) = totals(&self.groups(&pool).0, self.counted());
        for &ratio in known {
            let (groups, rows) = self.groups(&pool);
            let (left, positives_left) = totals(&groups, self.counted());
            // The share of the whole, less what is chosen already.
            let missing = |all: f64, left: f64| (ratio.share() * all - (all - left)).max(0.0);
            let wanted: Vec<f64> =
                positives.iter().zip(&positives_left).map(|(&all, &left)| missing(all, left)).collect();
            let rest = positives_left.iter().zip(&wanted).map(|(left, wanted)| left - wanted).collect();
            // No set may be empty. What the smallest set keeps, all others have.
            let first = chosen.is_empty();
            let wanted_records = missing(records, left).max(if first { left.min(1.0) } else { 0.0 });
            let targets = [
                Target { records: wanted_records, positives: wanted, keeps_all: first },
                Target { records: left - wanted_records, positives: rest, keeps_all: false },
            ];
            let mut random = Stream::new(&[self.options.seed, random::digest("ratio"), ratio.percent().to_bits()]);
            let parts = stratify::partition(&groups, &targets, &mut random);
            let taken: HashSet<usize> = rows
                .iter()
                .zip(parts)
                .filter(|(_, part)| *part == 0)
                .flat_map(|(rows, _)| rows.iter().copied())
                .collect();
            pool.retain(|row| !taken.contains(row));
            chosen.extend(taken);
            chosen.iter().for_each(|&row| sets[row].push(ratio));
        }
        sets
    }

    /// The training rows, in the order of their identifiers.
    fn train(&self) -> Vec<usize> {
        self.order.iter().copied().filter(|&row| self.subset[row] == Some(Subset::Train)).collect()
    }

    /// Number of counts to balance: one for each finding, and the number of labeled records.
    fn counted(&self) -> usize {
        self.stratified.len() + 1
    }

    /// Groups of rows that stay together, in the order of their first row, and the rows of each.
    fn groups(&self, rows: &[usize]) -> (Vec<Group>, Vec<Vec<usize>>) {
        let mut position_of = vec![None; self.index_table.findings()];
        self.stratified.iter().enumerate().for_each(|(position, &finding)| position_of[finding] = Some(position));
        let mut index_of: HashMap<u32, usize> = HashMap::new();
        let mut members: Vec<Vec<usize>> = Vec::new();
        for &row in rows {
            let index = *index_of.entry(self.index_table.group(self.options.unit, row)).or_insert(members.len());
            if index == members.len() {
                members.push(Vec::new());
            }
            members[index].push(row);
        }
        // Where nearly all records are labeled, balancing the records balances the labeled ones.
        let unlabeled = self.index_table.labeled.iter().filter(|labeled| !**labeled).count();
        let some_unlabeled = unlabeled * 100 > self.index_table.len();
        let group = |rows: &Vec<usize>| {
            let mut positives: BTreeMap<usize, f64> = BTreeMap::new();
            let labeled = rows.iter().filter(|&&row| some_unlabeled && self.index_table.labeled[row]).count();
            if labeled > 0 {
                positives.insert(self.stratified.len(), labeled as f64);
            }
            let findings = rows.iter().flat_map(|&row| self.index_table.positives(row));
            findings
                .filter_map(|&finding| position_of[finding])
                .for_each(|position| *positives.entry(position).or_default() += 1.0);
            Group { records: rows.len() as f64, positives: positives.into_iter().collect() }
        };
        (members.iter().map(group).collect(), members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::index_table::Entry;

    /// A split of records of one patient each, the first of which are labeled; finding `A` is positive in none.
    fn drawn(
        name: &str,
        (records, labeled): (usize, usize),
        official: &[&str],
        options: &SplitOptions,
    ) -> Result<(Split, Certificate)> {
        let ids: Vec<String> = (0..records).map(|row| format!("r{row:04}")).collect();
        let entry = |row: usize| Entry {
            record: &ids[row],
            patient: &ids[row],
            study: "s",
            positives: Vec::new(),
            labeled: row < labeled,
        };
        let table = IndexTable::new(1, (0..records).map(entry).collect());
        let official = official.iter().map(|subset| Some((*subset).to_owned())).collect();
        draw(&table, &["A".to_owned()], official, name, options)
    }

    #[test]
    fn labeled_records_are_balanced_where_many_or_nearly_all_are_not() {
        for (labeled, expected) in [(1500, [1050, 150, 300]), (40, [28, 4, 8])] {
            let (_, certificate) = drawn("main", (5000, labeled), &[], &SplitOptions::default()).expect("a split");
            let found: Vec<u64> = certificate.parts[..3].iter().map(|part| part.labeled).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn options_are_checked() {
        let message = |options: &SplitOptions| drawn("main", (4, 4), &[], options).expect_err("refused").to_string();
        let halves = SplitOptions { validation: Some(0.5), test: Some(0.5), ..SplitOptions::default() };
        assert!(message(&halves).contains("none would be left"));
        assert!(message(&SplitOptions { test: Some(1.0), ..SplitOptions::default() }).contains("must be in [0, 1)"));
        let unknown = SplitOptions { stratify: vec!["C".to_owned()], ..SplitOptions::default() };
        assert!(message(&unknown).contains("no finding `C`"));
        for name in ["", "a/b", "a\\b", "a.b"] {
            let refused = drawn(name, (4, 4), &[], &SplitOptions::default()).expect_err("refused").to_string();
            assert!(refused.contains("a name without"), "{refused}");
        }
        let ratios = vec![Ratio::ALL, Ratio::ONE, Ratio::ONE];
        let options = SplitOptions { ratios, ..SplitOptions::default() };
        assert_eq!(drawn("main", (40, 40), &[], &options).expect("a split").0.ratios, [Ratio::ONE, Ratio::ALL]);
    }

    #[test]
    fn nothing_is_drawn_where_no_share_is_asked_for() {
        let options = SplitOptions { official: true, test: Some(0.0), ..SplitOptions::default() };
        let of = |official: &[&str]| {
            let (_, certificate) =
                drawn("main", (official.len(), official.len()), official, &options).expect("a split");
            [0, 1, 2].map(|part| certificate.parts[part].records)
        };
        assert_eq!(of(&["train", "train", "train", "test"]), [3, 0, 1]);
        assert_eq!(of(&["test", "test"]), [0, 0, 2]);
    }
}
