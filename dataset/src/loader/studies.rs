//! Studies as samples: which rows belong together, in which order their views come, and which study was before.

use std::cmp::Reverse;
use std::collections::HashMap;

use arrow_array::{Array, RecordBatch, StringArray, UInt32Array};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::format::record_checks;
use crate::format::table::column;
use crate::format::view::ViewKind;
use crate::random::{self, Stream};

/// Largest number of images of a sample.
pub const MAX_SLOTS: usize = 64;

/// Which views of a study are loaded, where it has more than are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ViewChoice {
    /// The first ones: PA, AP, frontal, lateral, others, then those whose view is not stated; of equal ones those of earlier
    /// rows.
    #[default]
    First,
    /// Others in each epoch, drawn without replacement; they come in the order above.
    Random,
}

/// How studies become samples; see [`LoaderBuilder::studies`](crate::loader::LoaderBuilder::studies).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StudyOptions {
    /// Views of a study, V. A study with fewer has empty slots.
    pub views: usize,
    /// Which views, where a study has more.
    pub choose: ViewChoice,
    /// Views of the patient's latest earlier study, P, chosen alike. 0, the default, loads none.
    pub prior: usize,
}

impl Default for StudyOptions {
    fn default() -> Self {
        Self { views: 2, choose: ViewChoice::First, prior: 0 }
    }
}

impl StudyOptions {
    /// Images of a sample, V + P.
    pub fn slots(&self) -> usize {
        self.views.saturating_add(self.prior)
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.views > 0 && self.slots() <= MAX_SLOTS {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "loader: {} views and {} of a prior study: give at least one view, and at most {MAX_SLOTS} in all",
            self.views, self.prior
        )))
    }
}

/// The place of one image of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The row of the image; none where the slot is empty.
    pub row: Option<u32>,
    /// Position of the row among those of the sample; none for a prior study.
    pub own: Option<usize>,
    /// Code of its view.
    pub view: i64,
    /// What distinguishes the random numbers of the image from those of the same record elsewhere in the pass.
    pub copy: u64,
}

/// Number of studies among some rows of a dataset: the samples of a loader of studies.
///
/// # Errors
/// When the dataset cannot be read, or a row occurs twice.
pub fn count_studies(dataset: &Dataset, rows: &[u32]) -> Result<usize> {
    Ok(Studies::read(dataset, rows, StudyOptions::default())?.len())
}

/// The studies of the chosen rows of a dataset, in the order of their first rows.
pub(crate) struct Studies {
    options: StudyOptions,
    /// The views of all studies, one study after the other, each in the order of its views.
    views: Vec<(ViewKind, u32)>,
    /// First view of each study, and the end of the last.
    starts: Vec<u32>,
    /// Digests of their identifiers, which name their random streams.
    digests: Vec<u64>,
    /// The latest earlier study of the patient; empty where none is wanted.
    priors: Vec<Option<u32>>,
}

impl Studies {
    /// Groups rows by the columns of a dataset.
    ///
    /// # Errors
    /// When they cannot be read, or a row occurs twice.
    pub fn read(dataset: &Dataset, rows: &[u32], options: StudyOptions) -> Result<Self> {
        let mut names = vec!["patient_id", "study_id", "view"];
        if options.prior > 0 {
            names.extend(["study_datetime", "study_order"]);
        }
        let batches = dataset.columns(&names)?;
        let mut chosen = vec![false; batches.iter().map(RecordBatch::num_rows).sum()];
        for &row in rows {
            match chosen.get_mut(row as usize).map(|seen| std::mem::replace(seen, true)) {
                Some(false) => {}
                Some(true) => {
                    return Err(Error::Invalid(format!(
                        "loader: row {row} was chosen twice, but a study is one sample: give each row once"
                    )));
                }
                None => return Err(Error::Invalid(format!("loader: row {row} of {} records", chosen.len()))),
            }
        }
        let mut table = Table::default();
        // The study of each row, numbered in the order of the dataset.
        let mut studies = Vec::with_capacity(chosen.len());
        for batch in &batches {
            table.add(batch, &chosen, options.prior > 0, &mut studies)?;
        }
        // Numbered in the order of the chosen rows.
        let mut numbers = vec![None; table.studies.len()];
        let mut order = Vec::with_capacity(table.studies.len());
        for &row in rows {
            let study = studies[row as usize] as usize;
            if numbers[study].is_none() {
                numbers[study] = Some(order.len() as u32);
                order.push(study);
            }
        }
        let mut views: Vec<(u32, ViewKind, u32)> = rows
            .iter()
            .filter_map(|&row| Some((numbers[studies[row as usize] as usize]?, table.kinds[row as usize], row)))
            .collect();
        views.sort_unstable();
        let mut starts = vec![0; order.len() + 1];
        views.iter().for_each(|view| starts[view.0 as usize + 1] += 1);
        (1..starts.len()).for_each(|at| starts[at] += starts[at - 1]);
        let priors = if options.prior > 0 { table.priors(&order) } else { Vec::new() };
        Ok(Self {
            options,
            views: views.into_iter().map(|(_, kind, row)| (kind, row)).collect(),
            starts,
            digests: order.iter().map(|&study| table.studies[study].digest).collect(),
            priors,
        })
    }

    /// Number of studies.
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    /// The views of a study in their order, each with its row.
    pub fn views(&self, study: usize) -> &[(ViewKind, u32)] {
        &self.views[self.starts[study] as usize..self.starts[study + 1] as usize]
    }

    /// Appends the slots of a study's sample: its views, then those of the study before. Random choices depend on the seed, the
    /// pass and the study.
    pub fn add_slots(&self, study: usize, [seed, pass, copy]: [u64; 3], slots: &mut Vec<Slot>) {
        let digest = self.digests[study];
        let mut random = (self.options.choose == ViewChoice::Random)
            .then(|| Stream::new(&[seed, random::digest("views"), digest, pass, copy]));
        let chosen = choose(self.views(study).len(), self.options.views, random.as_mut());
        let view = |study: usize, at: usize| {
            let (kind, row) = self.views(study)[at];
            Slot { row: Some(row), own: Some(at), view: kind.code(), copy }
        };
        let end = slots.len() + self.options.views;
        slots.extend(chosen.into_iter().map(|at| view(study, at)));
        slots.resize(end, Slot::default());
        if let Some(&Some(prior)) = self.priors.get(study) {
            let prior = prior as usize;
            let chosen = choose(self.views(prior).len(), self.options.prior, random.as_mut());
            // In the same pass, the study before is a sample, too, with other random numbers.
            let copy = random::mix(&[digest, copy]);
            slots.extend(chosen.into_iter().map(|at| Slot { own: None, copy, ..view(prior, at) }));
        }
        slots.resize(end + self.options.prior, Slot::default());
    }
}

/// Positions of at most so many of a study's views, ascending: the first ones, or drawn.
fn choose(count: usize, wanted: usize, random: Option<&mut Stream>) -> Vec<usize> {
    random.map_or_else(|| (0..wanted.min(count)).collect(), |random| random.subset(count, wanted))
}

/// From the first to the last moment that the rows of a study state, as numbers that grow with time.
type Span = (u64, u64);

/// What the columns say about a study.
struct Study {
    digest: u64,
    patient: u32,
    /// By `study_datetime`, by `study_order`; none where no row states it.
    times: [Option<Span>; 2],
}

/// The studies of chosen rows, in the order of the dataset.
#[derive(Default)]
struct Table {
    patients: HashMap<String, u32>,
    by_name: HashMap<(u32, String), u32>,
    studies: Vec<Study>,
    /// By row of the dataset.
    kinds: Vec<ViewKind>,
}

impl Table {
    /// Adds the rows of a batch, and appends the study of each; 0 for rows that were not chosen.
    fn add(&mut self, batch: &RecordBatch, chosen: &[bool], with_times: bool, studies: &mut Vec<u32>) -> Result<()> {
        let texts = |name: &str| {
            let wrong = || Error::Invalid(format!("loader: `{name}` is not a text column"));
            column::<StringArray>(batch, name).ok_or_else(wrong)
        };
        let (patients, ids, views) = (texts("patient_id")?, texts("study_id")?, texts("view")?);
        let datetimes = if with_times { Some(texts("study_datetime")?) } else { None };
        let orders = column::<UInt32Array>(batch, "study_order");
        for at in 0..batch.num_rows() {
            let kind = if views.is_valid(at) { ViewKind::of(views.value(at)) } else { ViewKind::Unknown };
            let is_chosen = chosen.get(self.kinds.len()) == Some(&true);
            self.kinds.push(kind);
            if !is_chosen {
                studies.push(0);
                continue;
            }
            let study = self.study(patients.value(at), ids.value(at));
            studies.push(study);
            let stated = datetimes.filter(|datetimes| datetimes.is_valid(at)).map(|datetimes| datetimes.value(at));
            let order = orders.filter(|orders| orders.is_valid(at)).map(|orders| u64::from(orders.value(at)));
            let spans = [stated.and_then(span), order.map(|order| (order, order))];
            for (known, span) in self.studies[study as usize].times.iter_mut().zip(spans) {
                *known = match (*known, span) {
                    (Some(known), Some(span)) => Some((known.0.min(span.0), known.1.max(span.1))),
                    (known, span) => known.or(span),
                };
            }
        }
        Ok(())
    }

    /// The number of a study.
    fn study(&mut self, patient_id: &str, study_id: &str) -> u32 {
        let next = self.patients.len() as u32;
        let patient = match self.patients.get(patient_id) {
            Some(&known) => known,
            None => *self.patients.entry(patient_id.to_owned()).or_insert(next),
        };
        let next = self.studies.len() as u32;
        let study = *self.by_name.entry((patient, study_id.to_owned())).or_insert(next);
        if study == next {
            let digest = random::mix(&[random::digest(patient_id), random::digest(study_id)]);
            self.studies.push(Study { digest, patient, times: [None; 2] });
        }
        study
    }

    /// The latest earlier study of the same patient, for studies in an order; the numbers are positions in it.
    ///
    /// Dates and times are compared where a study states them, else the numbers by which studies are ordered. All of the earlier
    /// study is before all of the other; of several that end at the same time, the first in the order is taken.
    fn priors(&self, order: &[usize]) -> Vec<Option<u32>> {
        let mut ends: [Vec<(u32, u64, Reverse<u32>)>; 2] = Default::default();
        for (scale, ends) in ends.iter_mut().enumerate() {
            let end = |(position, study): (u32, &usize)| {
                let study = &self.studies[*study];
                Some((study.patient, study.times[scale]?.1, Reverse(position)))
            };
            ends.extend((0..).zip(order).filter_map(end));
            ends.sort_unstable();
        }
        let prior = |study: &usize| {
            let study = &self.studies[*study];
            let scale = study.times.iter().position(Option::is_some)?;
            let start = study.times[scale]?.0;
            let before = ends[scale].partition_point(|&(patient, end, _)| (patient, end) < (study.patient, start));
            let &(patient, _, Reverse(position)) = ends[scale].get(before.checked_sub(1)?)?;
            (patient == study.patient).then_some(position)
        };
        order.iter().map(prior).collect()
    }
}

/// The seconds that a date, or a date and time, may mean; none where it is not one.
fn span(datetime: &str) -> Option<Span> {
    record_checks::datetime(datetime).ok()?;
    let digits: String = datetime.chars().filter(char::is_ascii_digit).collect();
    let number: u64 = digits.parse().ok()?;
    Some(if digits.len() == 8 { (number * 1_000_000, number * 1_000_000 + 235_959) } else { (number, number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_without_a_time_may_be_any_time_of_the_day() {
        assert_eq!(span("2110-03-07"), Some((21_100_307_000_000, 21_100_307_235_959)));
        assert_eq!(span("2110-03-07T14:05:09"), Some((21_100_307_140_509, 21_100_307_140_509)));
        assert!(["", "2110", "2110-13-07", "07.03.2110", "2110-03-07T1"].iter().all(|text| span(text).is_none()));
    }
}
