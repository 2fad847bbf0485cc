//! Warnings about sets of a split that are far from their share of the records, or from the prevalence of a finding.
//! Patients are not divided, so a few patients with many images may be unable to make a set of 1%.

use std::fmt::{Display, Formatter};

use serde::{Deserialize, Serialize};

use crate::split::parts::Part;
use crate::split::types::{SplitOptions, Subset};

/// A set is far from its share of the records where it differs by more than this part of the share.
pub const SHARE_BOUND: f64 = 0.1;
/// A set is far from the prevalence of a finding where its positives differ by more than this part of the expected number.
pub const PREVALENCE_BOUND: f64 = 0.25;
/// A set that differs by no more than this many records is near to its share: whole records come no nearer.
pub const NEAREST_RECORDS: f64 = 1.0;
/// A set that differs by no more than this many positives is near to a prevalence: in a small set so few mean nothing.
pub const NEAREST_POSITIVES: f64 = 2.0;

/// A set that is far from its share, or from the prevalence of a finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitWarning {
    /// Name of the set, as in the certificate's parts.
    pub part: String,
    /// The finding; `None` for the number of records.
    pub finding: Option<String>,
    /// Expected share of the records, or prevalence among the labeled records; 0 to 1.
    pub expected: f64,
    /// Share or prevalence of the set; 0 to 1.
    pub found: f64,
    /// Records of the set, or positives among its labeled records.
    pub count: u64,
    /// Records that the share refers to (all subsets, or train), or labeled records of the set.
    pub of: u64,
}

impl SplitWarning {
    /// A warning where `count` is too far from the expected share of `of`.
    fn of(part: &Part, finding: Option<&str>, expected: f64, (count, of): (u64, u64)) -> Option<Self> {
        let wanted = expected * of as f64;
        let (bound, nearest) =
            if finding.is_some() { (PREVALENCE_BOUND, NEAREST_POSITIVES) } else { (SHARE_BOUND, NEAREST_RECORDS) };
        let far = (count as f64 - wanted).abs() > f64::max(nearest, bound * wanted);
        far.then(|| Self {
            part: part.name.clone(),
            finding: finding.map(str::to_owned),
            expected,
            found: count as f64 / of.max(1) as f64,
            count,
            of,
        })
    }
}

/// The warnings about a split: its shares, and the prevalences of the findings that it balances. Subsets are compared with
/// all subsets together (`whole`), the ratios' sets with train.
pub(crate) fn warnings(options: &SplitOptions, whole: &Part, subsets: &[Part], ratios: &[Part]) -> Vec<SplitWarning> {
    let mut found = Vec::new();
    let mut compare = |part: &Part, from: &Part, share: Option<f64>| {
        let of = (part.records, from.records);
        found.extend(share.and_then(|share| SplitWarning::of(part, None, share, of)));
        for (own, expected) in part.findings.iter().zip(&from.findings) {
            let balanced = options.stratify.is_empty() || options.stratify.contains(&own.finding);
            if balanced && part.labeled > 0 && from.labeled > 0 {
                let (finding, of) = (Some(own.finding.as_str()), (own.positives, part.labeled));
                found.extend(SplitWarning::of(part, finding, expected.prevalence, of));
            }
        }
    };
    for part in subsets {
        let share = match Subset::parse(&part.name) {
            Some(Subset::Validate) => options.validation,
            Some(Subset::Test) => options.test,
            _ => None,
        };
        compare(part, whole, share);
    }
    let train = subsets.iter().find(|part| part.name == Subset::Train.name());
    for (part, ratio) in ratios.iter().zip(&options.ratios) {
        if let Some(train) = train {
            compare(part, train, Some(ratio.share()));
        }
    }
    found
}

/// The warnings as text: a line for the share of a set, and one for all its findings.
pub fn lines<'a>(warnings: impl Iterator<Item = &'a SplitWarning>) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut last = None;
    for warning in warnings {
        match (&warning.finding, lines.last_mut()) {
            (Some(_), Some(line)) if last == Some(&warning.part) => *line += &format!(", {warning}"),
            (Some(_), _) => lines.push(format!("prevalence in {}: {warning}", set(&warning.part))),
            (None, _) => lines.push(warning.to_string()),
        }
        last = warning.finding.as_ref().map(|_| &warning.part);
    }
    lines
}

/// A part as text.
fn set(part: &str) -> String {
    if part.ends_with('%') { format!("the {part} set") } else { part.to_owned() }
}

impl Display for SplitWarning {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { part, finding, expected, found, count, of } = self;
        let (expected, found) = (100.0 * expected, 100.0 * found);
        if let Some(finding) = finding {
            write!(f, "{finding} {found:.1}% ({count} of {of}; expected {expected:.1}%)")
        } else {
            let (part, all) = (set(part), if part.ends_with('%') { "training records" } else { "records" });
            // As many decimals as the expected share has.
            let expected = format!("{expected:.9}");
            let expected = expected.trim_end_matches('0').trim_end_matches('.');
            write!(f, "{part} has {found:.1}% of the {all} ({count} of {of}), not {expected}%")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::parts::FindingCount;
    use crate::split::ratio::Ratio;

    fn part(name: &str, records: u64, positives: u64) -> Part {
        let prevalence = positives as f64 / records as f64;
        let findings = vec![FindingCount { finding: "A".to_owned(), positives, prevalence }];
        Part { name: name.to_owned(), records, studies: records, patients: records, labeled: records, findings }
    }

    #[test]
    fn bounds_of_shares_and_balanced_findings() {
        let is_far =
            |finding, expected, count, of| SplitWarning::of(&part("x", 1, 0), finding, expected, (count, of)).is_some();
        assert_eq!([2, 3].map(|count| is_far(None, 0.1, count, 10)), [false, true], "whole records");
        assert_eq!([110, 111].map(|count| is_far(None, 0.1, count, 1000)), [false, true], "a tenth");
        assert_eq!([62, 63].map(|count| is_far(Some("A"), 0.5, count, 100)), [false, true], "a quarter");

        let ratios = vec![Ratio::TEN];
        let mut options = SplitOptions { validation: Some(0.1), test: Some(0.2), ratios, ..SplitOptions::default() };
        let whole = part("all", 1000, 500);
        let subsets = [part("train", 500, 250), part("validate", 150, 0), part("test", 350, 175)];
        let of = |options: &SplitOptions| -> Vec<(String, bool)> {
            let found = warnings(options, &whole, &subsets, &[part("10%", 50, 25)]);
            found.into_iter().map(|warning| (warning.part, warning.finding.is_some())).collect()
        };
        let share = |part: &str| (part.to_owned(), false);
        assert_eq!(of(&options), [share("validate"), ("validate".to_owned(), true), share("test")]);
        options.stratify = vec!["B".to_owned()];
        assert_eq!(of(&options), [share("validate"), share("test")]);
    }

    #[test]
    fn all_findings_of_a_set_are_in_one_line() {
        let of =
            |name: &str, finding: &str| SplitWarning::of(&part(name, 20, 0), Some(finding), 0.5, (0, 20)).expect("far");
        let all = [of("validate", "A"), of("validate", "B"), of("10%", "A")];
        let each = |finding: &str| format!("{finding} 0.0% (0 of 20; expected 50.0%)");
        let expected = [
            format!("prevalence in validate: {}, {}", each("A"), each("B")),
            format!("prevalence in the 10% set: {}", each("A")),
        ];
        assert_eq!(lines(all.iter()), expected);
    }
}
