//! What the greedy stratification leaves uneven, evened out: groups change their part, alone or against another, as long
//! as that brings the parts nearer to their targets. Where no step helps though a count is still off, a large group is put
//! out or a few groups change their part at random: that opens the way to better steps, or is taken back.
//!
//! Groups with the same counts are one class, so a step is chosen among classes, not among tens of thousands of
//! patients. A step never gives one part's last positive away where that part must keep it.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::random::Stream;
use crate::split::groups::{Group, Target, totals};

/// Classes that are tried against each other: those of the smallest groups, which make the finest steps.
const EXCHANGED: usize = 400;
/// Gains below this are rounding.
const GAIN: f64 = 1e-6;
/// How often such ways are tried, and how many groups change their part at random at most.
const TRIALS: usize = 200;
const RANDOM_STEPS: u64 = 6;

/// Moves and exchanges whole groups until no step helps. The outcome depends on the order of the groups and the seed.
pub fn refine(groups: &[&Group], targets: &[&Target], part_of: &mut [usize], random: &mut Stream) {
    let mut search = Search::new(groups, targets, part_of);
    search.bring_back();
    search.descend();
    for trial in 0..TRIALS {
        if search.is_even() {
            break;
        }
        let (before, cost) = (search.steps.len(), search.cost());
        if trial % 2 == 0 {
            search.put_out(trial / 2);
        } else {
            (0..=random.below(RANDOM_STEPS)).for_each(|_| search.step_at_random(random));
        }
        search.bring_back();
        search.descend();
        // What is as good as before is kept: from there other steps may help.
        let after = search.cost();
        if after.0 > cost.0 || (after.0 == cost.0 && after.1 > cost.1 + GAIN) {
            search.take_back(before);
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
    /// By part.
    members: Vec<Vec<usize>>,
}

/// Records of each group of a class.
fn records(class: &Class) -> u64 {
    class.counts.last().map_or(0.0, |&(_, records)| records) as u64
}

/// What a step changes: findings that vanish from parts that must keep them, then the cost. The first counts more.
type Change = (i32, f64);

struct Search {
    /// `[part][dimension]`
    targets: Vec<Vec<f64>>,
    counts: Vec<Vec<f64>>,
    must_keep: Vec<Vec<bool>>,
    /// A record too many changes a prevalence in proportion to one over the size of the part.
    weights: Vec<f64>,
    classes: Vec<Class>,
    /// The classes that are tried against each other.
    small: Vec<usize>,
    /// Class, from, to.
    steps: Vec<(usize, usize, usize)>,
}

impl Search {
    fn new(groups: &[&Group], targets: &[&Target], part_of: &[usize]) -> Self {
        let labels = targets[0].positives.len();
        let (_, held) = totals(groups.iter().copied(), labels);
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
                .map(|target| held.iter().map(|&count| target.keeps_all && count > 0.0).chain([false]).collect())
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

    /// Half the slope of the cost for records or positives that go from one part to another.
    fn pull(&self, dimension: usize, from: usize, to: usize) -> f64 {
        let off = |part: usize| self.weights[part] * (self.counts[part][dimension] - self.targets[part][dimension]);
        off(to) - off(from)
    }

    /// What changes when a group of a class goes from one part to another. The cost of a part is its weight times the
    /// sum of the squared distances of its counts from their targets.
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

    /// The cost of all parts, and what vanished from parts that must keep it.
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

    /// Whether every count is the whole number next to its target; the largest part takes what rounding leaves.
    fn is_even(&self) -> bool {
        let even = |(count, target): (&f64, &f64)| (count - target).abs() <= 0.5 + GAIN;
        let mut parts = (0..self.weights.len()).filter(|&part| part != self.largest());
        parts.all(|part| self.counts[part].iter().zip(&self.targets[part]).all(even))
    }

    /// Moves a group of the largest ones of the smaller parts, the one of this rank, to the largest part.
    fn put_out(&mut self, rank: usize) {
        let to = self.largest();
        let classes = self.classes.iter().enumerate();
        let held =
            classes.flat_map(|(class, own)| own.members.iter().enumerate().map(move |(from, m)| (class, from, m)));
        let mut held: Vec<(usize, usize)> = held
            .filter(|(_, from, members)| *from != to && !members.is_empty())
            .map(|(class, from, _)| (class, from))
            .collect();
        held.sort_by_key(|&(class, from)| (Reverse(records(&self.classes[class])), class, from));
        if let Some(&(class, from)) = held.get(rank % held.len().max(1)) {
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

    /// Takes steps back until so many are left.
    fn take_back(&mut self, steps: usize) {
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

    /// Brings to each part what it must keep and lacks, rarest label first, by the move that costs least.
    fn bring_back(&mut self) {
        let held = |search: &Self, label: usize| search.counts.iter().map(|counts| counts[label]).sum::<f64>();
        let mut labels: Vec<usize> = (0..self.targets[0].len() - 1).collect();
        labels.sort_by(|&a, &b| held(self, a).total_cmp(&held(self, b)).then(a.cmp(&b)));
        // Each step takes one from what is missing, so this ends.
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

    /// Moves single groups; whether any was moved.
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

    /// Exchanges each of the small classes against the best partner; whether any was exchanged.
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

    /// The class of which a group should come back for a group of class `given`; `None` where no exchange helps.
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

    /// Whether an exchange leaves to both parts what they must keep.
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
