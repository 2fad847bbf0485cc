//! Groups of records that stay together (patients, studies), and the counts that a part of a split should have.

/// A group that must not be divided.
pub struct Group {
    /// Records in the group.
    pub records: f64,
    /// (label, positives of that label in the group), only those above zero.
    pub positives: Vec<(usize, f64)>,
}

/// The counts that a part should have.
pub struct Target {
    pub records: f64,
    /// Positives by label.
    pub positives: Vec<f64>,
    /// Whether every label that has positives at all must have one here, even beyond the target.
    pub keeps_all: bool,
}

/// Records and positives of each label over all groups.
pub fn totals<'a>(groups: impl IntoIterator<Item = &'a Group>, labels: usize) -> (f64, Vec<f64>) {
    let (mut records, mut positives) = (0.0, vec![0.0; labels]);
    for group in groups {
        records += group.records;
        group.positives.iter().for_each(|&(label, count)| positives[label] += count);
    }
    (records, positives)
}
