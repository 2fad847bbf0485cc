//! Divides groups with several labels into parts with the distribution of the whole.
//!
//! Iterative stratification (Sechidis, Tsoumakas, Vlahavas: "On the Stratification of Multi-Label Data", ECML PKDD 2011)
//! with whole groups (patients, studies) in place of single examples: a group is assigned to one part as a whole, and counts
//! with its number of positives of each label. Afterwards, [`local_search`](crate::split::local_search) improves the result.

use crate::random::Stream;
use crate::split::groups::{Group, Target, totals};
use crate::split::local_search::refine;

/// Assigns each group to a part so that the parts are as near to their targets as whole groups allow. The targets add up to
/// the whole. Returns the part of each group. A part with a target of 0 records stays empty.
pub fn partition(groups: &[Group], targets: &[Target], random: &mut Stream) -> Vec<usize> {
    let open: Vec<usize> = (0..targets.len()).filter(|&part| targets[part].records > 0.0).collect();
    let wanted: Vec<&Target> = open.iter().map(|&part| &targets[part]).collect();
    if wanted.len() < 2 {
        return vec![open.first().copied().unwrap_or(0); groups.len()];
    }
    // Equal groups differ only in this order, so that each seed gives another partition.
    let mut order: Vec<usize> = (0..groups.len()).collect();
    random.shuffle(&mut order);
    let shuffled: Vec<&Group> = order.iter().map(|&index| &groups[index]).collect();
    let mut part_of = greedy(&shuffled, &wanted, random);
    refine(&shuffled, &wanted, &mut part_of, random);
    let mut parts = vec![0; groups.len()];
    order.iter().zip(part_of).for_each(|(&index, part)| parts[index] = open[part]);
    parts
}

/// Assigns groups label by label, the rarest first. Each group goes to the part where it fills the smallest share of the
/// target of that label; then the share of records decides, then a random number. Groups without a label that is left are
/// assigned by records alone.
///
/// Shares are compared, not counts: by counts, the largest part would get all large groups, which are assigned first. A
/// group that makes up more than half of a target goes to another part where possible, since the local search could not
/// correct its other findings.
fn greedy(groups: &[&Group], targets: &[&Target], random: &mut Stream) -> Vec<usize> {
    let labels = targets[0].positives.len();
    let mut part_of = vec![usize::MAX; groups.len()];
    let (_, mut remaining) = totals(groups.iter().copied(), labels);
    let mut holders: Vec<Vec<usize>> = vec![Vec::new(); labels];
    for (index, group) in groups.iter().enumerate() {
        group.positives.iter().for_each(|&(label, _)| holders[label].push(index));
    }
    let mut records = vec![0.0; targets.len()];
    let mut positives = vec![vec![0.0; labels]; targets.len()];
    let mut assign = |index: usize, label: Option<(usize, f64)>, part_of: &mut Vec<usize>, remaining: &mut Vec<f64>| {
        let share = |count: f64, target: f64| if target > 0.0 { count / target } else { f64::INFINITY };
        let filled = |part: usize| {
            let of_label = |(label, count)| share(positives[part][label] + count, targets[part].positives[label]);
            (label.map_or(0.0, of_label), share(records[part] + groups[index].records, targets[part].records))
        };
        let less = |a: (f64, f64), b: (f64, f64)| {
            // Shares closer than this are equal, since sums of many shares have rounding errors.
            const EQUAL: f64 = 1e-9;
            let equal = a.0 == b.0 || (a.0 - b.0).abs() <= EQUAL;
            if equal { a.1 < b.1 - EQUAL } else { a.0 < b.0 }
        };
        let fits = |part: &usize| {
            let target = targets[*part];
            let small = |count: f64, target: f64| 2.0 * count <= target;
            let group = groups[index];
            small(group.records, target.records)
                && group.positives.iter().all(|&(label, count)| small(count, target.positives[label]))
        };
        let mut parts: Vec<usize> = (0..targets.len()).filter(fits).collect();
        if parts.is_empty() {
            parts = (0..targets.len()).collect();
        }
        let mut best = vec![parts[0]];
        for &part in &parts[1..] {
            if less(filled(part), filled(best[0])) {
                best = vec![part];
            } else if !less(filled(best[0]), filled(part)) {
                best.push(part);
            }
        }
        let part = if best.len() == 1 { best[0] } else { best[random.below(best.len() as u64) as usize] };
        part_of[index] = part;
        records[part] += groups[index].records;
        for &(label, count) in &groups[index].positives {
            positives[part][label] += count;
            remaining[label] -= count;
        }
    };
    // Large groups are assigned first, since they are the hardest to balance.
    let by_size = |indices: &mut Vec<usize>, size: &dyn Fn(usize) -> f64| {
        indices.sort_by(|&a, &b| size(b).total_cmp(&size(a)).then(a.cmp(&b)));
    };
    while let Some(label) = (0..labels)
        .filter(|&label| !holders[label].is_empty())
        .min_by(|&a, &b| remaining[a].total_cmp(&remaining[b]).then(a.cmp(&b)))
    {
        let mut open: Vec<usize> =
            std::mem::take(&mut holders[label]).into_iter().filter(|&index| part_of[index] == usize::MAX).collect();
        let count = |index: usize| groups[index].positives.iter().find(|(l, _)| *l == label).map_or(0.0, |(_, c)| *c);
        by_size(&mut open, &count);
        for index in open {
            assign(index, Some((label, count(index))), &mut part_of, &mut remaining);
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

    fn targets(groups: &[Group], labels: usize, shares: &[f64]) -> Vec<Target> {
        let (records, positives) = totals(groups, labels);
        let target = |share: &f64| Target {
            records: share * records,
            positives: positives.iter().map(|count| share * count).collect(),
            keeps_all: true,
        };
        shares.iter().map(target).collect()
    }

    /// Positives of a label, or records, in a part.
    fn inside(groups: &[Group], part_of: &[usize], part: usize, label: Option<usize>) -> f64 {
        let count = |group: &Group| match label {
            None => group.records,
            Some(label) => group.positives.iter().find(|(l, _)| *l == label).map_or(0.0, |(_, count)| *count),
        };
        groups.iter().zip(part_of).filter(|(_, p)| **p == part).map(|(group, _)| count(group)).sum()
    }

    /// Patients with one to four records, of which all have the patient's findings.
    fn patients(count: u64, random: &mut Stream) -> Vec<Group> {
        (0..count)
            .map(|index| {
                let records = 1.0 + random.below(4) as f64;
                let held = [(0, 3), (1, 10), (2, 100)].into_iter().filter(|(_, every)| index % every == 0);
                Group { records, positives: held.map(|(label, _)| (label, records)).collect() }
            })
            .collect()
    }

    #[test]
    fn every_count_is_the_nearest_whole_number() {
        let mut random = Stream::new(&[5]);
        let groups = patients(2000, &mut random);
        let shares = [0.7, 0.1, 0.2];
        let targets = targets(&groups, 3, &shares);
        let part_of = partition(&groups, &targets, &mut random);
        for (part, target) in targets.iter().enumerate() {
            let got = inside(&groups, &part_of, part, None);
            assert!((got - target.records).abs() < 1.0, "part {part}: {got} records for {}", target.records);
            for (label, wanted) in target.positives.iter().enumerate() {
                let got = inside(&groups, &part_of, part, Some(label));
                assert!((got - wanted).abs() < 1.0, "part {part}, label {label}: {got} for {wanted}");
            }
        }
    }

    #[test]
    fn a_small_part_keeps_what_is_rare() {
        let mut random = Stream::new(&[6]);
        let groups = patients(2000, &mut random);
        let mut targets = targets(&groups, 3, &[0.004, 0.996]);
        targets[1].keeps_all = false;
        let part_of = partition(&groups, &targets, &mut random);
        assert!((inside(&groups, &part_of, 0, None) - targets[0].records).abs() < 1.0);
        assert!(targets[0].positives[2] < 0.3 && inside(&groups, &part_of, 0, Some(2)) >= 1.0);
    }

    #[test]
    fn a_part_without_a_share_stays_empty_and_seeds_differ() {
        let groups = patients(300, &mut Stream::new(&[7]));
        let with = |seed| partition(&groups, &targets(&groups, 3, &[0.8, 0.0, 0.2]), &mut Stream::new(&[seed]));
        assert!(with(1).iter().all(|&part| part != 1));
        assert_eq!(with(1), with(1));
        assert_ne!(with(1), with(2));
    }

    #[test]
    fn the_greedy_assignment_alone_fills_shares() {
        let positives = |at| if at < 30 { vec![(0, 1.0)] } else { Vec::new() };
        let groups: Vec<Group> = (0..100).map(|at| Group { records: 1.0, positives: positives(at) }).collect();
        let targets = targets(&groups, 1, &[0.7, 0.1, 0.2]);
        let (all, wanted): (Vec<&Group>, Vec<&Target>) = (groups.iter().collect(), targets.iter().collect());
        let part_of = greedy(&all, &wanted, &mut Stream::new(&[1]));
        assert_eq!([0, 1, 2].map(|part| inside(&groups, &part_of, part, Some(0))), [21.0, 3.0, 6.0]);
        assert_eq!([0, 1, 2].map(|part| inside(&groups, &part_of, part, None)), [70.0, 10.0, 20.0]);

        // Of equal parts each is taken; a group of more than half of a target goes elsewhere.
        let target = |records, label| Target { records, positives: vec![label], keeps_all: true };
        let first = |group: &Group, targets: [Target; 2], seed| {
            greedy(&[group], &targets.each_ref(), &mut Stream::new(&[seed]))[0]
        };
        let one = Group { records: 1.0, positives: Vec::new() };
        let taken: Vec<usize> = (0..20).map(|seed| first(&one, [target(0.5, 0.0), target(0.5, 0.0)], seed)).collect();
        assert!(taken.contains(&0) && taken.contains(&1));
        let large = Group { records: 10.0, positives: vec![(0, 1.0)] };
        assert_eq!(first(&large, [target(12.0, 5.0), target(88.0, 2.0)], 1), 1);
    }
}
