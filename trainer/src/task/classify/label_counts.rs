//! How many labels of each finding are positive, negative, uncertain and blank, and what the last two count as. Logs and
//! evaluations show it, so that the user sees when blank labels count as negative.

use serde::{Deserialize, Serialize};

use super::{Missing, Uncertain};

/// The labels of one finding over some records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelCounts {
    /// The finding.
    pub finding: String,
    /// Labels 1.
    positive: usize,
    /// Labels 0.
    negative: usize,
    /// All others.
    pub open: OpenLabels,
}

/// Labels that are neither positive nor negative, and what they count as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenLabels {
    /// Labels -1.
    pub uncertain: usize,
    /// What they count as.
    pub uncertain_as: Uncertain,
    /// Blank labels of records that have another label.
    pub blank: usize,
    /// What they count as.
    pub blank_as: Missing,
}

impl LabelCounts {
    pub(crate) fn new(finding: &str, uncertain_as: Uncertain, blank_as: Missing) -> Self {
        let open = OpenLabels { uncertain: 0, uncertain_as, blank: 0, blank_as };
        Self { finding: finding.to_owned(), positive: 0, negative: 0, open }
    }

    pub(crate) fn add(&mut self, code: Option<i8>) {
        match code {
            Some(1) => self.positive += 1,
            Some(0) => self.negative += 1,
            Some(_) => self.open.uncertain += 1,
            None => self.open.blank += 1,
        }
    }

    /// Labels that count as positive.
    pub fn positives(&self) -> usize {
        self.positive + if self.open.uncertain_as == Uncertain::Ones { self.open.uncertain } else { 0 }
    }

    /// Labels that count as negative.
    pub fn negatives(&self) -> usize {
        let uncertain = if self.open.uncertain_as == Uncertain::Zeros { self.open.uncertain } else { 0 };
        let blank = if self.open.blank_as == Missing::Zeros { self.open.blank } else { 0 };
        self.negative + uncertain + blank
    }
}

impl OpenLabels {
    /// `2 uncertain counted as negative, 9 blank ignored`; empty where there are none.
    pub fn describe(&self) -> String {
        let uncertain = match self.uncertain_as {
            Uncertain::Zeros => "counted as negative",
            Uncertain::Ones => "counted as positive",
            Uncertain::Ignore => "ignored",
        };
        let blank = match self.blank_as {
            Missing::Zeros => "counted as negative",
            Missing::Ignore => "ignored",
        };
        let parts = [(self.uncertain, "uncertain", uncertain), (self.blank, "blank", blank)];
        let parts = parts.into_iter().filter(|(count, ..)| *count > 0);
        parts.map(|(count, what, how)| format!("{count} {what} {how}")).collect::<Vec<_>>().join(", ")
    }
}

impl std::fmt::Display for LabelCounts {
    /// A line for the log.
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "  {:<28} {} positive, {} negative", self.finding, self.positives(), self.negatives())?;
        let open = self.open.describe();
        if open.is_empty() { Ok(()) } else { write!(f, " ({open})") }
    }
}

/// A remedy where ignored blank labels may mean negative; empty where no blank label is ignored.
pub fn remedy(counts: &[LabelCounts]) -> &'static str {
    let ignored = |count: &LabelCounts| count.open.blank > 0 && count.open.blank_as == Missing::Ignore;
    if counts.iter().any(ignored) {
        " (blank labels are ignored: if they mean negative in this dataset, add --set data.missing=zeros)"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_is_counted_once_by_its_policy() {
        let codes = [Some(1), Some(1), Some(0), Some(-1), None, None, None];
        let counts = |uncertain, missing| {
            let mut counts = LabelCounts::new("Edema", uncertain, missing);
            codes.iter().for_each(|code| counts.add(*code));
            counts
        };
        let all = counts(Uncertain::Zeros, Missing::Zeros);
        assert_eq!((all.positives(), all.negatives()), (2, 5));
        assert_eq!(
            all.to_string().split_whitespace().collect::<Vec<_>>().join(" "),
            "Edema 2 positive, 5 negative (1 uncertain counted as negative, 3 blank counted as negative)"
        );
        let some = counts(Uncertain::Ones, Missing::Ignore);
        assert_eq!((some.positives(), some.negatives()), (3, 1));
        assert_eq!(remedy(&[all]), "");
        assert!(remedy(std::slice::from_ref(&some)).contains("data.missing=zeros"));
        assert_eq!(some.open.describe(), "1 uncertain counted as positive, 3 blank ignored");
        let none = counts(Uncertain::Ignore, Missing::Ignore);
        assert_eq!((none.positives(), none.negatives()), (2, 1));
    }
}
