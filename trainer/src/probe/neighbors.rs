//! Classification by the k nearest training records: neighbors by the cosine of features, votes weighted by
//! `exp(cosine / 0.07)`, as in DINO (Caron et al. 2021) and instance discrimination (Wu et al. 2018).

use anyhow::Result;
use rayon::prelude::*;
use tch::Tensor;

use super::features::Features;

/// The numbers of neighbors that are tried. Of two that do equally well the smaller one is taken.
pub const GRID: [usize; 6] = [5, 10, 20, 50, 100, 200];

/// The number of neighbors where no validation record chooses one: DINO's.
pub const DEFAULT_K: usize = 20;

/// Temperature of the votes.
const TEMPERATURE: f64 = 0.07;

/// Records whose cosines are computed together.
const BLOCK: usize = 128;

/// Training records with their labels.
pub struct Neighbors {
    /// Normalized features, transposed: `[D, rows]`.
    features: Tensor,
    /// Number of training records.
    rows: usize,
    /// Width of a feature vector.
    width: usize,
    labeled: Labeled,
}

/// The labels of the training records.
struct Labeled {
    /// By finding: the records whose label counts, as positions in `lists`.
    list_of: Vec<usize>,
    /// Lists of records; findings with the same labeled records share one.
    lists: Vec<Vec<u32>>,
    /// `[rows, findings]`.
    labels: Vec<Option<bool>>,
}

impl Neighbors {
    /// Training records with labels `[rows, findings]`.
    ///
    /// # Errors
    /// When torch fails.
    ///
    /// # Panics
    /// When the number of labels is not rows · findings.
    pub fn new(features: Features, labels: &[Option<bool>], findings: usize) -> Result<Self> {
        assert_eq!(labels.len(), features.len() * findings, "labels must be rows x findings");
        let (rows, width) = (features.len(), features.width());
        let (mut lists, mut list_of): (Vec<Vec<u32>>, _) = (Vec::new(), Vec::new());
        for finding in 0..findings {
            let list: Vec<u32> =
                (0..rows).filter(|row| labels[row * findings + finding].is_some()).map(|row| row as u32).collect();
            let position = lists.iter().position(|other| *other == list);
            list_of.push(position.unwrap_or(lists.len()));
            if position.is_none() {
                lists.push(list);
            }
        }
        let normalized = Tensor::from_slice(&features.normalized()).f_view([rows as i64, width as i64])?;
        let labeled = Labeled { list_of, lists, labels: labels.to_vec() };
        Ok(Self { features: normalized.f_transpose(0, 1)?, rows, width, labeled })
    }

    /// The numbers of the grid that some finding has so many labeled records for; at least the smallest one.
    pub fn grid(&self) -> Vec<usize> {
        let most = self.labeled.lists.iter().map(Vec::len).max().unwrap_or(0);
        GRID.into_iter().filter(|&k| k <= most.max(GRID[0])).collect()
    }

    /// Scores `[records, findings]` for each number of neighbors: the weighted share of positives among the nearest training
    /// records whose label of the finding counts; 0.5 without any. Of equally near records the earlier one counts.
    ///
    /// # Errors
    /// When torch fails.
    ///
    /// # Panics
    /// When the features have another width.
    pub fn scores(&self, features: Features, numbers: &[usize]) -> Result<Vec<Vec<f32>>> {
        assert_eq!(features.width(), self.width, "features of the training records' width");
        let normalized = features.normalized();
        let (labeled, findings) = (&self.labeled, self.labeled.list_of.len());
        let mut scores: Vec<Vec<f32>> = vec![Vec::with_capacity(features.len() * findings); numbers.len()];
        for block in normalized.chunks(BLOCK * self.width) {
            let queries = Tensor::from_slice(block).f_view([-1, self.width as i64])?;
            let cosines = Vec::<f32>::try_from(&queries.f_matmul(&self.features)?.f_flatten(0, -1)?)?;
            let of_rows: Vec<Vec<f32>> =
                cosines.par_chunks(self.rows.max(1)).map(|cosines| labeled.votes(cosines, numbers)).collect();
            for votes in of_rows {
                for (scores, votes) in scores.iter_mut().zip(votes.chunks_exact(findings)) {
                    scores.extend_from_slice(votes);
                }
            }
        }
        Ok(scores)
    }
}

impl Labeled {
    /// Scores `[numbers, findings]` of one record, from its cosines with all training records.
    fn votes(&self, cosines: &[f32], numbers: &[usize]) -> Vec<f32> {
        let most = numbers.iter().copied().max().unwrap_or(0);
        let nearest: Vec<Vec<u32>> = self.lists.iter().map(|list| nearest(list, cosines, most)).collect();
        let findings = self.list_of.len();
        let mut votes = Vec::with_capacity(numbers.len() * findings);
        for &number in numbers {
            for (finding, &list) in self.list_of.iter().enumerate() {
                let (mut positive, mut all) = (0.0, 0.0);
                for &row in nearest[list].iter().take(number) {
                    let weight = (f64::from(cosines[row as usize]) / TEMPERATURE).exp();
                    all += weight;
                    if self.labels[row as usize * findings + finding] == Some(true) {
                        positive += weight;
                    }
                }
                votes.push(if all > 0.0 { (positive / all) as f32 } else { 0.5 });
            }
        }
        votes
    }
}

/// The nearest of some training records, nearest first.
fn nearest(list: &[u32], cosines: &[f32], most: usize) -> Vec<u32> {
    let mut rows = list.to_vec();
    let order = |a: &u32, b: &u32| cosines[*b as usize].total_cmp(&cosines[*a as usize]).then(a.cmp(b));
    if rows.len() > most {
        if most == 0 {
            return Vec::new();
        }
        rows.select_nth_unstable_by(most - 1, order);
        rows.truncate(most);
    }
    rows.sort_unstable_by(order);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataset::random::Stream;

    const WIDTH: usize = 6;
    const FINDINGS: usize = 3;

    fn rows(count: usize, seed: u64) -> (Vec<f32>, Vec<Option<bool>>) {
        let mut random = Stream::new(&[seed]);
        let values = (0..count * WIDTH).map(|_| (random.uniform() - 0.4) as f32).collect();
        // The first two findings are labeled everywhere, the last one in some records.
        let label = |at: usize, random: &mut Stream| {
            let positive = random.uniform() < 0.4;
            (at % FINDINGS < 2 || random.uniform() < 0.3).then_some(positive)
        };
        (values, (0..count * FINDINGS).map(|at| label(at, &mut random)).collect())
    }

    /// The score of one record by its definition, with a full sort in double precision.
    fn by_definition(train: &[f32], labels: &[Option<bool>], query: &[f32], finding: usize, k: usize) -> f64 {
        let norm = |row: &[f32]| row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let mut near: Vec<(f64, bool)> = train
            .chunks(WIDTH)
            .enumerate()
            .filter_map(|(row, x)| {
                let product: f64 = x.iter().zip(query).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                Some((product / norm(x) / norm(query), labels[row * FINDINGS + finding]?))
            })
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        near.truncate(k);
        let sum = |wanted: &dyn Fn(bool) -> bool| -> f64 {
            near.iter().filter(|(_, label)| wanted(*label)).map(|(cosine, _)| (cosine / 0.07).exp()).sum()
        };
        sum(&|label| label) / sum(&|_| true)
    }

    #[test]
    fn scores_are_the_weighted_votes_of_the_nearest_records() {
        let (train, labels) = rows(150, 1);
        let (queries, _) = rows(140, 2);
        let neighbors = Neighbors::new(Features::new(&train, WIDTH), &labels, FINDINGS).unwrap();
        assert_eq!(neighbors.labeled.lists.len(), 2);
        let numbers = [1, 5, 100];
        assert_eq!(neighbors.grid(), [5, 10, 20, 50, 100]);
        let scores = neighbors.scores(Features::new(&queries, WIDTH), &numbers).unwrap();
        for (scores, k) in scores.iter().zip(numbers) {
            assert_eq!(scores.len(), 140 * FINDINGS);
            for (at, score) in scores.iter().enumerate() {
                let query = &queries[at / FINDINGS * WIDTH..][..WIDTH];
                let expected = by_definition(&train, &labels, query, at % FINDINGS, k);
                assert!((f64::from(*score) - expected).abs() < 1e-4, "k {k}, {at}: {score} and {expected}");
            }
        }
        // A record of the training set is its own nearest neighbor.
        let own = neighbors.scores(Features::new(&train, WIDTH), &[1]).unwrap();
        let expected: Vec<f32> = labels.chunks(FINDINGS).map(|row| f32::from(u8::from(row[0] == Some(true)))).collect();
        assert!(own[0].iter().step_by(FINDINGS).eq(&expected));
    }

    #[test]
    fn few_or_no_neighbors_still_give_a_score() {
        let neighbors =
            Neighbors::new(Features::new(&[1.0, 0.0, 0.0, 1.0], 2), &[Some(true), None, Some(false), None], 2);
        let neighbors = neighbors.unwrap();
        assert_eq!(neighbors.grid(), [5]);
        let scores = neighbors.scores(Features::new(&[1.0, 0.0], 2), &[5]).unwrap();
        assert!(scores[0][0] > 0.999 && scores[0][1] == 0.5, "{scores:?}");
        // Equally near: the earlier record counts.
        let twins = Neighbors::new(Features::new(&[1.0, 1.0], 1), &[Some(false), Some(true)], 1).unwrap();
        assert_eq!(twins.scores(Features::new(&[2.0], 1), &[1]).unwrap(), [[0.0]]);
    }
}
