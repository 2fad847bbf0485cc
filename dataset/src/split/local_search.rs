//! Improves a greedy stratification by local search: groups are moved to other parts, or exchanged, as long as that brings
//! the parts nearer to their targets. Where no step helps although a count differs, a large group or a few random groups
//! are moved; this is undone unless it leads to better steps.
//!
//! Groups with the same counts form a class, so that steps are chosen among classes, not among tens of thousands of
//! patients. No step moves the last positive of a finding out of a part that must keep one.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::random::Stream;
use crate::split::groups::{Group, Target, totals};

/// Number of classes that are exchanged: those of the smallest groups, which make the finest steps.
const EXCHANGED: usize = 400;
/// Smallest gain of a step; smaller ones are rounding errors.
const GAIN: f64 = 1e-6;
/// Number of attempts to leave a local optimum.
const TRIALS: usize = 200;
/// Largest number of groups that such an attempt moves at random.
const RANDOM_STEPS: u64 = 6;

/// Moves and exchanges whole groups until no step helps. The result depends on the order of the groups and the seed.
pub fn refine(groups: &[&Group], targets: &[&Target], part_of: &mut [usize], random: &mut Stream) {
    let mut search = Search::new(groups, targets, part_of);
    search.restore_findings();
    search.descend();
    for trial in 0..TRIALS {
        if search.is_even() {
            break;
        }
        let (before, cost) = (search.steps.len(), search.cost());
        if trial % 2 == 0 {
            search.move_large_group(trial / 2);
        } else {
            (0..=random.below(RANDOM_STEPS)).for_each(|_| search.step_at_random(random));
        }
        search.restore_findings();
        search.descend();
        // An equally good state is kept, since other steps may help from there.
        let after = search.cost();
        if after.0 > cost.0 || (after.0 == cost.0 && after.1 > cost.1 + GAIN) {
            search.undo(before);
        }
    }
    for class in &search.classes {
        for (part, members) in class.members.iter().enumerate() {
            members.iter().for_each(|&group| part_of[group] = part);
        }
    }
}

/// Groups with the same counts.
struct Class {
    /// (dimension, count): positives by label, and the records as last dimension.
    counts: Vec<(usize, f64)>,
    /// Groups of the class in each part.
    members: Vec<Vec<usize>>,
}

/// Records of each group of a class.
fn records(class: &Class) -> u64 {
    class.counts.last().map_or(0.0, |&(_, records)| records) as u64
}

/// The change of a step: the number of findings that vanish from parts that must keep them, then the cost. The first has
/// precedence.
type Change = (i32, f64);

struct Search {
    /// `[part][dimension]`
    targets: Vec<Vec<f64>>,
    counts: Vec<Vec<f64>>,
    must_keep: Vec<Vec<bool>>,
    /// Weight of each part: one record changes a prevalence in proportion to one over the size of the part.
    weights: Vec<f64>,
    classes: Vec<Class>,
    /// The classes that are exchanged.
    small: Vec<usize>,
    /// The steps so far: class, from, to.
    steps: Vec<(usize, usize, usize)>,
}

impl Search {
    fn new(groups: &[&Group], targets: &[&Target], part_of: &[usize]) -> Self {
        let labels = targets[0].positives.len();
        let (_, existing) = totals(groups.iter().copied(), labels);
        let mut counts = vec![vec![0.0; labels + 1]; targets.len()];
        let mut classes: Vec<Class> = Vec::new();
        let mut class_of: HashMap<Vec<(usize, u64)>, usize> = HashMap::new();
        for (index, (group, &part)) in groups.iter().zip(part_of).enumerate() {
            let own: Vec<(usize, f64)> =
                group.positives.iter().copied().chain(std::iter::once((labels, group.records))).collect();
            own.iter().for_each(|&(dimension, count)| counts[part][dimension] += count);
            let key = own.iter().map(|&(dimension, count)| (dimension, count.to_bits())).collect();
            let class = *class_of.entry(key).or_insert_with(|| {
                classes.push(Class { counts: own, members: vec![Vec::new(); targets.len()] });
                classes.len() - 1
            });
            classes[class].members[part].push(index);
        }
        let population = |class: usize| classes[class].members.iter().map(Vec::len).sum::<usize>();
        let mut small: Vec<usize> = (0..classes.len()).collect();
        small.sort_by_key(|&class| (records(&classes[class]), Reverse(population(class)), class));
        small.truncate(EXCHANGED);
        let smallest = targets.iter().map(|target| target.records).fold(f64::INFINITY, f64::min);
        Self {
            targets: targets.iter().map(|t| t.positives.iter().copied().chain([t.records]).collect()).collect(),
            must_keep: targets
                .iter()
                .map(|target| existing.iter().map(|&count| target.keeps_all && count > 0.0).chain([false]).collect())
                .collect(),
            weights: targets.iter().map(|target| smallest / target.records).collect(),
            counts,
            classes,
            small,
            steps: Vec::new(),
        }
    }

    /// The ordered pairs of parts.
    fn ways(&self) -> Vec<(usize, usize)> {
        let parts = self.targets.len();
        (0..parts).flat_map(|from| (0..parts).map(move |to| (from, to))).filter(|(from, to)| from != to).collect()
    }

    /// Half the derivative of the cost by a count that moves from one part to another.
    fn pull(&self, dimension: usize, from: usize, to: usize) -> f64 {
        let off = |part: usize| self.weights[part] * (self.counts[part][dimension] - self.targets[part][dimension]);
        off(to) - off(from)
    }

    /// The change when a group of a class moves from one part to another. The cost of a part is its weight times the sum of
    /// the squared differences between its counts and their targets.
    fn change(&self, class: usize, from: usize, to: usize) -> Change {
        let both = self.weights[from] + self.weights[to];
        let (mut vanished, mut cost) = (0, 0.0);
        for &(dimension, count) in &self.classes[class].counts {
            cost += count * (2.0 * self.pull(dimension, from, to) + both * count);
            vanished += i32::from(self.must_keep[from][dimension] && self.counts[from][dimension] - count < 1.0);
            vanished -= i32::from(self.must_keep[to][dimension] && self.counts[to][dimension] < 1.0);
        }
        (vanished, cost)
    }

    /// The findings that are missing from parts that must keep them, and the cost of all parts.
    fn cost(&self) -> Change {
        let (mut vanished, mut cost) = (0, 0.0);
        for (part, counts) in self.counts.iter().enumerate() {
            for (dimension, count) in counts.iter().enumerate() {
                cost += self.weights[part] * (count - self.targets[part][dimension]).powi(2);
                vanished += i32::from(self.must_keep[part][dimension] && *count < 1.0);
            }
        }
        (vanished, cost)
    }

    /// The part with the largest target.
    fn largest(&self) -> usize {
        let parts = 0..self.weights.len();
        parts.min_by(|&a, &b| self.weights[a].total_cmp(&self.weights[b])).unwrap_or_default()
    }

    /// Whether every count is the whole number next to its target. The largest part takes what rounding leaves.
    fn is_even(&self) -> bool {
        let even = |(count, target): (&f64, &f64)| (count - target).abs() <= 0.5 + GAIN;
        let mut parts = (0..self.weights.len()).filter(|&part| part != self.largest());
        parts.all(|part| self.counts[part].iter().zip(&self.targets[part]).all(even))
    }

    /// Moves one of the largest groups of the smaller parts, the one of this rank, to the largest part.
    fn move_large_group(&mut self, rank: usize) {
        let to = self.largest();
        let classes = self.classes.iter().enumerate();
        let candidates =
            classes.flat_map(|(class, own)| own.members.iter().enumerate().map(move |(from, m)| (class, from, m)));
        let mut candidates: Vec<(usize, usize)> = candidates
            .filter(|(_, from, members)| *from != to && !members.is_empty())
            .map(|(class, from, _)| (class, from))
            .collect();
        candidates.sort_by_key(|&(class, from)| (Reverse(records(&self.classes[class])), class, from));
        if let Some(&(class, from)) = candidates.get(rank % candidates.len().max(1)) {
            self.step(class, from, to);
        }
    }

    fn step(&mut self, class: usize, from: usize, to: usize) {
        self.steps.push((class, from, to));
        self.shift(class, from, to);
    }

    fn shift(&mut self, class: usize, from: usize, to: usize) {
        let class = &mut self.classes[class];
        let Some(group) = class.members[from].pop() else { return };
        class.members[to].push(group);
        for &(dimension, count) in &class.counts {
            self.counts[from][dimension] -= count;
            self.counts[to][dimension] += count;
        }
    }

    /// Undoes steps until so many are left.
    fn undo(&mut self, steps: usize) {
        for (class, from, to) in self.steps.split_off(steps).into_iter().rev() {
            self.shift(class, to, from);
        }
    }

    fn step_at_random(&mut self, random: &mut Stream) {
        let mut below = |n: usize| random.below(n as u64) as usize;
        let (class, ways) = (self.small[below(self.small.len())], self.ways());
        let ways: Vec<_> =
            ways.into_iter().filter(|&(from, _)| !self.classes[class].members[from].is_empty()).collect();
        let (from, to) = ways[below(ways.len())];
        self.step(class, from, to);
    }

    fn descend(&mut self) {
        while self.move_groups() | self.exchange_groups() {}
    }

    /// Moves to each part the findings that it must keep and lacks, rarest first, by the step with the least cost.
    fn restore_findings(&mut self) {
        let total = |search: &Self, label: usize| search.counts.iter().map(|counts| counts[label]).sum::<f64>();
        let mut labels: Vec<usize> = (0..self.targets[0].len() - 1).collect();
        labels.sort_by(|&a, &b| total(self, a).total_cmp(&total(self, b)).then(a.cmp(&b)));
        // Each step reduces the number of missing findings, so this ends.
        let mut again = true;
        while std::mem::take(&mut again) {
            for &label in &labels {
                for to in 0..self.targets.len() {
                    if !self.must_keep[to][label] || self.counts[to][label] >= 1.0 {
                        continue;
                    }
                    let best = (0..self.classes.len())
                        .filter(|&class| self.classes[class].counts.iter().any(|&(dimension, _)| dimension == label))
                        .flat_map(|class| (0..self.targets.len()).map(move |from| (class, from)))
                        .filter(|&(class, from)| from != to && !self.classes[class].members[from].is_empty())
                        .map(|(class, from)| (self.change(class, from, to), class, from))
                        .min_by(|a, b| a.0.0.cmp(&b.0.0).then(a.0.1.total_cmp(&b.0.1)));
                    if let Some(((vanished, _), class, from)) = best
                        && vanished < 0
                    {
                        self.step(class, from, to);
                        again = true;
                    }
                }
            }
        }
    }

    /// Moves single groups; returns whether any was moved.
    fn move_groups(&mut self) -> bool {
        let mut moved = false;
        for class in 0..self.classes.len() {
            for (from, to) in self.ways() {
                while !self.classes[class].members[from].is_empty() {
                    let (vanished, cost) = self.change(class, from, to);
                    if vanished > 0 || (vanished == 0 && cost > -GAIN) {
                        break;
                    }
                    self.step(class, from, to);
                    moved = true;
                }
            }
        }
        moved
    }

    /// Exchanges groups of the small classes with their best partners; returns whether any was exchanged.
    fn exchange_groups(&mut self) -> bool {
        let mut exchanged = false;
        for given in self.small.clone() {
            for (from, to) in self.ways() {
                if let Some(taken) = self.partner(given, from, to) {
                    self.step(given, from, to);
                    self.step(taken, to, from);
                    exchanged = true;
                }
            }
        }
        exchanged
    }

    /// The best class for an exchange with a group of class `given`; `None` where no exchange helps.
    fn partner(&self, given: usize, from: usize, to: usize) -> Option<usize> {
        if self.classes[given].members[from].is_empty() {
            return None;
        }
        let both = self.weights[from] + self.weights[to];
        let mut given_counts = vec![0.0; self.targets[0].len()];
        self.classes[given].counts.iter().for_each(|&(dimension, count)| given_counts[dimension] = count);
        let pull: Vec<f64> = given_counts
            .iter()
            .enumerate()
            .map(|(dimension, count)| self.pull(dimension, from, to) + both * count)
            .collect();
        let (_, alone) = self.change(given, from, to);
        let mut best = (-GAIN, None);
        for &taken in &self.small {
            let class = &self.classes[taken];
            if taken == given || class.members[to].is_empty() {
                continue;
            }
            let back = |&(dimension, count): &(usize, f64)| count * (both * count - 2.0 * pull[dimension]);
            let cost = alone + class.counts.iter().map(back).sum::<f64>();
            if cost < best.0 && self.keeps(given, &given_counts, taken, from, to) {
                best = (cost, Some(taken));
            }
        }
        best.1
    }

    /// Whether both parts have the findings that they must keep after an exchange.
    fn keeps(&self, given: usize, given_counts: &[f64], taken: usize, from: usize, to: usize) -> bool {
        let taken_count = |dimension: usize| {
            self.classes[taken].counts.iter().find(|(own, _)| *own == dimension).map_or(0.0, |&(_, count)| count)
        };
        let gives = |&(dimension, count): &(usize, f64)| {
            !self.must_keep[from][dimension] || self.counts[from][dimension] - count + taken_count(dimension) >= 1.0
        };
        let returns = |&(dimension, count): &(usize, f64)| {
            !self.must_keep[to][dimension] || self.counts[to][dimension] - count + given_counts[dimension] >= 1.0
        };
        self.classes[given].counts.iter().all(gives) && self.classes[taken].counts.iter().all(returns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(share: f64, (records, positives): &(f64, Vec<f64>)) -> Target {
        let positives = positives.iter().map(|count| share * count).collect();
        Target { records: share * records, positives, keeps_all: true }
    }

    #[test]
    fn steps_change_the_cost_as_predicted_and_exchanges_are_the_best_ones() {
        let mut random = Stream::new(&[11]);
        let mut groups = Vec::new();
        for _ in 0..40 {
            let records = 1.0 + random.below(3) as f64;
            let mut positives = Vec::new();
            for (label, every) in [3, 10].into_iter().enumerate() {
                if random.below(every) == 0 {
                    positives.push((label, 1.0 + random.below(records as u64) as f64));
                }
            }
            groups.push(Group { records, positives });
        }
        let whole = totals(&groups, 2);
        let targets = [0.6, 0.1, 0.3].map(|share| target(share, &whole));
        let part_of: Vec<usize> = groups.iter().map(|_| random.below(3) as usize).collect();
        let groups: Vec<&Group> = groups.iter().collect();
        let mut search = Search::new(&groups, &targets.each_ref(), &part_of);
        assert!(search.weights.iter().zip([1.0 / 6.0, 1.0, 1.0 / 3.0]).all(|(a, b)| (a - b).abs() < 1e-9));
        for _ in 0..2000 {
            let class = random.below(search.classes.len() as u64) as usize;
            let (from, to) = search.ways()[random.below(6) as usize];
            if search.classes[class].members[from].is_empty() {
                continue;
            }
            let (steps, before, counts) = (search.steps.len(), search.cost(), search.counts.clone());
            let mut best: Option<(f64, usize)> = None;
            for taken in search.small.clone() {
                if taken == class || search.classes[taken].members[to].is_empty() {
                    continue;
                }
                search.step(class, from, to);
                search.step(taken, to, from);
                let has = |class: usize, part: usize| {
                    let mut counts = search.classes[class].counts.iter();
                    counts.all(|&(at, _)| !search.must_keep[part][at] || search.counts[part][at] >= 1.0)
                };
                let gain = search.cost().1 - before.1;
                let is_best = best.is_none_or(|(least, _)| gain < least - 1e-9);
                if has(class, from) && has(taken, to) && gain < -1e-5 && is_best {
                    best = Some((gain, taken));
                }
                search.undo(steps);
            }
            assert_eq!(search.counts, counts, "undone");
            assert_eq!(search.partner(class, from, to), best.map(|(_, taken)| taken));
            let change = search.change(class, from, to);
            search.step(class, from, to);
            let after = search.cost();
            assert_eq!(after.0 - before.0, change.0);
            assert!((after.1 - before.1 - change.1).abs() < 1e-6);
        }
    }

    #[test]
    fn attempts_improve_what_steps_cannot_and_are_undone_otherwise() {
        let mut improved = 0;
        for seed in 0..24 {
            let mut random = Stream::new(&[seed]);
            let mut groups = Vec::new();
            for _ in 0..14 {
                let mut positives = Vec::new();
                for label in 0..3 {
                    if random.below(3) == 0 {
                        positives.push((label, 1.0 + random.below(2) as f64));
                    }
                }
                groups.push(Group { records: 3.0 + random.below(18) as f64, positives });
            }
            let whole = totals(&groups, 3);
            let targets = [0.7, 0.1, 0.2].map(|share| target(share, &whole));
            let mut part_of: Vec<usize> = groups.iter().map(|_| random.below(3) as usize).collect();
            let (groups, targets) = (groups.iter().collect::<Vec<_>>(), targets.each_ref());
            let mut steps = Search::new(&groups, &targets, &part_of);
            steps.restore_findings();
            steps.descend();
            refine(&groups, &targets, &mut part_of, &mut random);
            let (before, after) = (steps.cost(), Search::new(&groups, &targets, &part_of).cost());
            assert!(after.0 <= before.0, "{before:?} {after:?}");
            assert!(after.0 < before.0 || after.1 <= before.1 + GAIN, "{before:?} {after:?}");
            improved += usize::from(after.0 < before.0 || after.1 < before.1 - GAIN);
        }
        assert!(improved >= 12, "{improved} of 24");
    }

    #[test]
    fn large_groups_of_the_smaller_parts_move_to_the_largest_by_rank() {
        let groups: Vec<Group> =
            (1..=5).map(|records| Group { records: f64::from(records), positives: Vec::new() }).collect();
        let groups: Vec<&Group> = groups.iter().collect();
        let targets = [9.0, 4.0, 2.0].map(|records| Target { records, positives: Vec::new(), keeps_all: true });
        let moved = |rank| {
            let mut search = Search::new(&groups, &targets.each_ref(), &[0, 1, 1, 2, 0]);
            search.move_large_group(rank);
            search.steps
        };
        // Class, from, to.
        assert_eq!([0, 1, 2, 3].map(moved), [[(3, 2, 0)], [(2, 1, 0)], [(1, 1, 0)], [(3, 2, 0)]]);
    }

    #[test]
    fn missing_findings_are_restored_with_the_fewest_steps_the_rarest_first() {
        // Three groups with one finding, four with a second one, all in the first part.
        let positives = |at| match at {
            0..3 => vec![(0, 1.0)],
            3..7 => vec![(1, 1.0)],
            _ => Vec::new(),
        };
        let groups: Vec<Group> = (0..20).map(|at| Group { records: 1.0, positives: positives(at) }).collect();
        let whole = totals(&groups, 2);
        let targets = [0.6, 0.15, 0.25].map(|share| target(share, &whole));
        let part_of: Vec<usize> = (0..20).map(|at| usize::from(at >= 12) + usize::from(at >= 15)).collect();
        let groups: Vec<&Group> = groups.iter().collect();
        let mut search = Search::new(&groups, &targets.each_ref(), &part_of);
        assert_eq!((search.cost().0, search.largest()), (4, 0));
        search.restore_findings();
        assert_eq!(search.steps, [(0, 0, 1), (0, 0, 2), (1, 0, 1), (1, 0, 2)]);
        assert_eq!(search.cost().0, 0);
    }

    #[test]
    fn parts_are_even_within_half_a_record() {
        let groups: Vec<Group> = (0..10).map(|_| Group { records: 1.0, positives: Vec::new() }).collect();
        let groups: Vec<&Group> = groups.iter().collect();
        let target = |records| Target { records, positives: Vec::new(), keeps_all: true };
        let search = |first: f64, inside: usize| {
            let part_of: Vec<usize> = (0..10).map(|at| usize::from(at >= inside)).collect();
            Search::new(&groups, &[&target(first), &target(10.0 - first)], &part_of)
        };
        assert_eq!((search(7.0, 7).largest(), search(3.0, 3).largest()), (0, 1));
        assert_eq!([7, 6, 8].map(|inside| search(7.0, inside).is_even()), [true, false, false]);
        assert!(search(6.5, 7).is_even(), "half a record");
    }
}
