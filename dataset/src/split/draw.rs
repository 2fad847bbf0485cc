//! Draws a split: subsets by shares, by the source or by published lists, and the nested ratios of the training subset.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::name_suggestion::did_you_mean;
use crate::random::{self, Stream};
use crate::split::certificate::Certificate;
use crate::split::groups::{Group, Target, totals};
use crate::split::index_table::Roster;
use crate::split::published_lists::PublishedLists;
use crate::split::stored::Split;
use crate::split::stratify;
use crate::split::types::{Member, SplitOptions, Subset};

/// Ratios where none are asked for, in percent.
pub const RATIOS: [f64; 3] = [1.0, 10.0, 100.0];
/// Shares of the records where none are asked for and neither source nor lists say who validates and tests.
pub const VALIDATION: f64 = 0.1;
pub const TEST: f64 = 0.2;

/// Makes a split of a dataset, and measures it.
///
/// # Errors
/// When the options contradict each other or what the source or the lists hold.
pub fn make(dataset: &Dataset, name: &str, options: &SplitOptions) -> Result<(Split, Certificate)> {
    let official = if options.official { dataset.texts("subset")? } else { Vec::new() };
    draw(&Roster::load(dataset)?, dataset.findings(), official, name, options)
}

/// Makes a split of a roster, and measures it. `official` are the source's own subsets, where they are asked for.
///
/// # Errors
/// As [`make`].
pub fn draw(
    roster: &Roster,
    findings: &[String],
    official: Vec<Option<String>>,
    name: &str,
    options: &SplitOptions,
) -> Result<(Split, Certificate)> {
    let invalid = |message: String| Error::Split { name: name.to_owned(), message };
    let mut options = options.clone();
    check(name, &mut options).map_err(invalid)?;
    let order = roster.by_identifier();
    if let Some(two) = order.windows(2).find(|two| roster.records[two[0]] == roster.records[two[1]]) {
        return Err(invalid(format!("record `{}` stands twice in the dataset", roster.records[two[0]])));
    }
    let stratified = findings_to_balance(findings, &options).map_err(invalid)?;

    let (mut subset, mut published) = (vec![Some(Subset::Train); roster.len()], None);
    if options.official {
        subset = official_subsets(official).map_err(invalid)?;
    } else if let Some(folder) = &options.lists {
        let mut assignment = PublishedLists::read(folder)?.assign(roster)?;
        subset = std::mem::take(&mut assignment.subset);
        published = Some(assignment);
    } else {
        options.validation.get_or_insert(VALIDATION);
        options.test.get_or_insert(TEST);
    }
    let mut drawing = Drawing { roster, order, stratified, options: &options, subset };
    drawing.draw_subsets().map_err(invalid)?;

    // Lists of the whole training subset alone leave the smaller ratios to be drawn.
    let stated = published.as_ref().filter(|assignment| assignment.report.states_ratios());
    let (known, sets): (Vec<f64>, Vec<Vec<f64>>) = match stated {
        Some(assignment) if !options.ratios.is_empty() => {
            let known: Vec<String> = assignment.known.iter().map(f64::to_string).collect();
            return Err(invalid(format!(
                "the lists state their own ratios ({}): leave --ratios out",
                known.join(", ")
            )));
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
    let nested = (0..roster.len()).all(nests);
    let members: Vec<Member> = (0..roster.len())
        .map(|row| Member {
            record_id: roster.records[row].clone(),
            subset: subset[row],
            ratio: sets[row].first().copied().filter(|_| in_train(row)),
            ratios: (!nested && in_train(row)).then(|| sets[row].clone()),
        })
        .collect();
    let report = published.map(|assignment| assignment.report);
    let certificate = Certificate::measure(&members, roster, findings, options, report);
    if let Some(contradiction) = certificate.contradiction(&certificate, &members, roster) {
        return Err(invalid(format!("{contradiction}: this is a defect of this program")));
    }
    let (ratios, warnings) = (certificate.options.ratios.clone(), certificate.warnings.clone());
    Ok((Split { name: name.to_owned(), members, ratios, warnings }, certificate))
}

/// Checks the options by themselves and brings the ratios into order.
fn check(name: &str, options: &mut SplitOptions) -> Result<(), String> {
    if name.is_empty() || name.contains(['/', '\\', '.']) {
        return Err("a name without `/`, `\\` and `.` is needed".to_owned());
    }
    if options.official && options.lists.is_some() {
        return Err("official subsets and published lists exclude each other".to_owned());
    }
    let shares = [options.validation, options.test].into_iter().flatten();
    if let Some(share) = shares.into_iter().find(|share| !(0.0..1.0).contains(share)) {
        return Err(format!("a share of {share} for validation or test must lie in [0, 1)"));
    }
    options.ratios.sort_by(f64::total_cmp);
    options.ratios.dedup();
    // Nine decimals at most, so that certificates give the same number back.
    let is_ratio = |ratio: f64| ratio > 0.0 && ratio <= 100.0 && (ratio * 1e9).round() / 1e9 == ratio;
    match options.ratios.iter().find(|ratio| !is_ratio(**ratio)) {
        Some(ratio) => Err(format!("a ratio of {ratio}% must lie in (0, 100] and have nine decimals at most")),
        None => Ok(()),
    }
}

fn findings_to_balance(findings: &[String], options: &SplitOptions) -> Result<Vec<usize>, String> {
    if options.stratify.is_empty() {
        return Ok((0..findings.len()).collect());
    }
    let place = |wanted: &String| {
        let meant = || did_you_mean(wanted, findings.iter().map(String::as_str));
        let unknown = || format!("no finding `{wanted}`; there are: {}{}", findings.join(", "), meant());
        findings.iter().position(|finding| finding == wanted).ok_or_else(unknown)
    };
    let mut places = options.stratify.iter().map(place).collect::<Result<Vec<_>, _>>()?;
    places.sort_unstable();
    places.dedup();
    Ok(places)
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

/// What is drawn from, and what has been drawn.
struct Drawing<'a> {
    roster: &'a Roster,
    /// The rows in the order of their identifiers.
    order: Vec<usize>,
    /// The findings to balance.
    stratified: Vec<usize>,
    options: &'a SplitOptions,
    subset: Vec<Option<Subset>>,
}

impl Drawing<'_> {
    /// Takes the shares that are asked for out of the training subset.
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
        let pool = self.train();
        let wanted = shares.iter().map(|(_, share)| share * all).sum::<f64>();
        if wanted >= pool.len() as f64 {
            return Err(format!("of {} training records {wanted:.0} are wanted elsewhere: none is left", pool.len()));
        }
        if shares.is_empty() {
            return Ok(());
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

    /// Draws nested sets of the training subset, the smallest first: it is the hardest to balance, so all of train is open
    /// to it. Each next one adds to the one before. Gives per record the ratios whose set holds it; `known` and they ascend.
    fn draw_ratios(&self, known: &[f64]) -> Vec<Vec<f64>> {
        let mut sets = vec![Vec::new(); self.roster.len()];
        let (mut chosen, mut pool) = (Vec::new(), self.train());
        let (records, positives) = totals(&self.groups(&pool).0, self.counted());
        for &percent in known {
            let (groups, rows) = self.groups(&pool);
            let (left, positives_left) = totals(&groups, self.counted());
            // What the share of the whole asks for beyond what is chosen already.
            let missing = |all: f64, left: f64| (percent / 100.0 * all - (all - left)).max(0.0);
            let wanted: Vec<f64> =
                positives.iter().zip(&positives_left).map(|(&all, &left)| missing(all, left)).collect();
            let rest = positives_left.iter().zip(&wanted).map(|(left, wanted)| left - wanted).collect();
            // An empty set would be of no use. What the smallest set keeps, all others have.
            let first = chosen.is_empty();
            let wanted_records = missing(records, left).max(if first { left.min(1.0) } else { 0.0 });
            let targets = [
                Target { records: wanted_records, positives: wanted, keeps_all: first },
                Target { records: left - wanted_records, positives: rest, keeps_all: false },
            ];
            let mut random = Stream::new(&[self.options.seed, random::digest("ratio"), percent.to_bits()]);
            let parts = stratify::partition(&groups, &targets, &mut random);
            let taken: HashSet<usize> = rows
                .iter()
                .zip(parts)
                .filter(|(_, part)| *part == 0)
                .flat_map(|(rows, _)| rows.iter().copied())
                .collect();
            pool.retain(|row| !taken.contains(row));
            chosen.extend(taken);
            chosen.iter().for_each(|&row| sets[row].push(percent));
        }
        sets
    }

    /// The training rows, in the order of their identifiers.
    fn train(&self) -> Vec<usize> {
        self.order.iter().copied().filter(|&row| self.subset[row] == Some(Subset::Train)).collect()
    }

    /// What is balanced: the findings, and one more, that there is any label at all.
    fn counted(&self) -> usize {
        self.stratified.len() + 1
    }

    /// Some rows as groups that stay together, in the order of their first row, and the rows of each.
    fn groups(&self, rows: &[usize]) -> (Vec<Group>, Vec<Vec<usize>>) {
        let mut place_of = vec![None; self.roster.findings()];
        self.stratified.iter().enumerate().for_each(|(place, &finding)| place_of[finding] = Some(place));
        let mut index_of: HashMap<u32, usize> = HashMap::new();
        let mut members: Vec<Vec<usize>> = Vec::new();
        for &row in rows {
            let index = *index_of.entry(self.roster.group(self.options.unit, row)).or_insert(members.len());
            if index == members.len() {
                members.push(Vec::new());
            }
            members[index].push(row);
        }
        // Where nearly all records are labeled, to balance records is to balance these.
        let unlabeled = self.roster.labeled.iter().filter(|labeled| !**labeled).count();
        let some_unlabeled = unlabeled * 100 > self.roster.len();
        let group = |rows: &Vec<usize>| {
            let mut positives: BTreeMap<usize, f64> = BTreeMap::new();
            let labeled = rows.iter().filter(|&&row| some_unlabeled && self.roster.labeled[row]).count();
            if labeled > 0 {
                positives.insert(self.stratified.len(), labeled as f64);
            }
            let findings = rows.iter().flat_map(|&row| self.roster.positives(row));
            findings
                .filter_map(|&finding| place_of[finding])
                .for_each(|place| *positives.entry(place).or_default() += 1.0);
            Group { records: rows.len() as f64, positives: positives.into_iter().collect() }
        };
        (members.iter().map(group).collect(), members)
    }
}
