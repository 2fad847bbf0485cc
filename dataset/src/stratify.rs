//! Iterative stratification of groups with several labels.
//!
//! Sechidis, Tsoumakas, Vlahavas: "On the Stratification of Multi-Label Data" (ECML PKDD 2011), with whole groups
//! (patients, studies) in the place of single examples: a group goes to one part as a whole and counts with its
//! number of positives of each label.

use crate::random::Stream;

/// A group that must not be torn apart.
pub struct Group {
    /// Records in the group.
    pub records: f64,
    /// (label, positives of that label in the group), only those above zero.
    pub positives: Vec<(usize, f64)>,
}

/// Assigns each group to one of the parts, whose shares (summing to 1) and label balance are kept as well as whole
/// groups allow. Returns the part of each group.
///
/// Rarest label first: each of its groups goes to the part that still lacks most of that label; among equals to the
/// part that lacks most records; among equals by a seeded draw. Groups with no label left are spread by records alone.
pub fn partition(groups: &[Group], labels: usize, shares: &[f64], random: &mut Stream) -> Vec<usize> {
    let mut part_of = vec![usize::MAX; groups.len()];
    let total: f64 = groups.iter().map(|group| group.records).sum();
    let mut lacking_records: Vec<f64> = shares.iter().map(|share| share * total).collect();
    let mut remaining = vec![0.0; labels];
    let mut holders: Vec<Vec<usize>> = vec![Vec::new(); labels];
    for (index, group) in groups.iter().enumerate() {
        for &(label, count) in &group.positives {
            remaining[label] += count;
            holders[label].push(index);
        }
    }
    let mut lacking: Vec<Vec<f64>> =
        shares.iter().map(|share| remaining.iter().map(|count| share * count).collect()).collect();
    let mut assign = |index: usize, label: Option<usize>, part_of: &mut Vec<usize>, remaining: &mut Vec<f64>| {
        let need = |part: usize| (label.map_or(0.0, |label| lacking[part][label]), lacking_records[part]);
        let greater = |a: (f64, f64), b: (f64, f64)| {
            // Sums of many shares carry rounding: needs closer than this are equal.
            const EQUAL: f64 = 1e-9;
            a.0 > b.0 + EQUAL || ((a.0 - b.0).abs() <= EQUAL && a.1 > b.1 + EQUAL)
        };
        let mut best = vec![0];
        for part in 1..shares.len() {
            if greater(need(part), need(best[0])) {
                best = vec![part];
            } else if !greater(need(best[0]), need(part)) {
                best.push(part);
            }
        }
        let part = if best.len() == 1 { best[0] } else { best[random.below(best.len() as u64) as usize] };
        part_of[index] = part;
        lacking_records[part] -= groups[index].records;
        for &(label, count) in &groups[index].positives {
            lacking[part][label] -= count;
            remaining[label] -= count;
        }
    };
    // Large groups first: they are the hardest to place.
    let by_size = |indices: &mut Vec<usize>, size: &dyn Fn(usize) -> f64| {
        indices.sort_by(|&a, &b| size(b).total_cmp(&size(a)).then(a.cmp(&b)));
    };
    while let Some(label) = (0..labels)
        .filter(|&label| !holders[label].is_empty())
        .min_by(|&a, &b| remaining[a].total_cmp(&remaining[b]).then(a.cmp(&b)))
    {
        let mut open: Vec<usize> =
            std::mem::take(&mut holders[label]).into_iter().filter(|&index| part_of[index] == usize::MAX).collect();
        by_size(&mut open, &|index| {
            groups[index].positives.iter().find(|(l, _)| *l == label).map_or(0.0, |(_, count)| *count)
        });
        for index in open {
            assign(index, Some(label), &mut part_of, &mut remaining);
        }
    }
    let mut rest: Vec<usize> = (0..groups.len()).filter(|&index| part_of[index] == usize::MAX).collect();
    by_size(&mut rest, &|index| groups[index].records);
    for index in rest {
        assign(index, None, &mut part_of, &mut remaining);
    }
    part_of
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_rare_labels_are_kept() {
        let mut random = Stream::new(&[5]);
        let groups: Vec<Group> = (0..2000)
            .map(|index| {
                let records = 1.0 + random.below(4) as f64;
                let mut positives = Vec::new();
                for (label, every) in [(0, 3), (1, 10), (2, 100)] {
                    if index % every == 0 {
                        positives.push((label, records));
                    }
                }
                Group { records, positives }
            })
            .collect();
        let shares = [0.7, 0.1, 0.2];
        let part_of = partition(&groups, 3, &shares, &mut random);
        let total: f64 = groups.iter().map(|g| g.records).sum();
        for (part, share) in shares.iter().enumerate() {
            let inside = |label: Option<usize>, all: bool| -> f64 {
                groups
                    .iter()
                    .zip(&part_of)
                    .filter(|(_, p)| all || **p == part)
                    .map(|(g, _)| match label {
                        None => g.records,
                        Some(l) => g.positives.iter().find(|(x, _)| *x == l).map_or(0.0, |(_, c)| *c),
                    })
                    .sum()
            };
            assert!((inside(None, false) / total - share).abs() < 0.005);
            for label in 0..3 {
                let got = inside(Some(label), false) / inside(Some(label), true);
                assert!((got - share).abs() < 0.03, "part {part}, label {label}: {got}");
            }
        }
    }
}
