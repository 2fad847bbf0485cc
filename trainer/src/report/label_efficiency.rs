//! Label efficiency: the headline metric of a task on the test subset against the share of training labels, a line an
//! initialization. Runs of one initialization and ratio (of other seeds or splits) are averaged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::chart::{Series, chart};
use super::html::{Section, escape, marked_cell, with_note};
use super::run::Run;
use crate::config::Recipe;
use crate::eval::bootstrap::Interval;
use crate::task::{Registry, Stage};

/// Mean and standard deviation of a metric over runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The mean.
    pub mean: f64,
    /// Sample standard deviation; 0 for one value.
    pub sd: f64,
    /// In how many runs the metric was defined.
    pub values: usize,
}

impl Summary {
    /// Of some values; none of no value.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len();
        let mean = (count > 0).then(|| values.iter().sum::<f64>() / count as f64)?;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Some(Self { mean, sd: if count > 1 { (squares / (count - 1) as f64).sqrt() } else { 0.0 }, values: count })
    }
}

/// A ratio as a number with the same order, for maps.
pub(crate) fn ratio_key(ratio: f64) -> u64 {
    ratio.to_bits() // of two positive numbers the greater has the greater bits
}

/// The values of the headline metric, with the draws that were asked for, by initialization (with its recipe, where that is not
/// the default) and ratio.
type Values = BTreeMap<String, BTreeMap<u64, Vec<(Interval, usize)>>>;

/// One section for each kind and task with an evaluation on a test subset.
pub(super) fn sections(registry: &Registry, runs: &[Run]) -> Result<Vec<Section>> {
    let mut tasks: BTreeMap<(&str, &str), (&str, Values)> = BTreeMap::new();
    for evaluation in runs.iter().flat_map(|run| &run.evaluations).filter(|evaluation| evaluation.stem == "test") {
        let header = &evaluation.header;
        // Pre-training uses no labels.
        let Ok(task) = registry.of_kind(&header.kind) else { continue };
        if task.stage() == Stage::Pretraining {
            continue;
        }
        let Some(headline) = task.metrics(&evaluation.json)?.into_iter().next() else { continue };
        let (_, values) = tasks.entry((&header.kind, &header.task)).or_insert((headline.title, BTreeMap::new()));
        let name = match header.recipe {
            recipe if recipe == Recipe::default() => header.init_name.clone(),
            recipe => format!("{}, {recipe}", header.init_name),
        };
        let of_ratio = values.entry(name).or_default().entry(ratio_key(header.ratio)).or_default();
        of_ratio.extend(headline.value.map(|value| (value, header.draws)));
    }
    let section = |((_, task), (title, values)): ((&str, &str), (&str, Values))| {
        Ok(Section { title: format!("Label efficiency: {task}"), html: of_task(title, &values)? })
    };
    tasks.into_iter().map(section).collect()
}

fn of_task(title: &str, values: &Values) -> Result<String> {
    let repeated = values.values().flat_map(BTreeMap::values).any(|runs| runs.len() > 1);
    let series: Vec<Series> = values
        .iter()
        .map(|(name, by_ratio)| {
            let points = || by_ratio.iter().filter_map(|(ratio, runs)| Some((f64::from_bits(*ratio), averaged(runs)?)));
            Series {
                name: name.clone(),
                points: points().map(|(ratio, metric)| (ratio, metric.value)).collect(),
                intervals: points().map(|(ratio, metric)| (ratio, metric.low, metric.high)).collect(),
            }
        })
        .filter(|series| !series.points.is_empty())
        .collect();
    let spread = if repeated {
        "mean and one standard deviation over runs of several seeds or splits (a single run: 95% interval over patients)"
    } else {
        "with 95% intervals from a bootstrap over patients"
    };
    let mut html = format!("<p>Mean {title} on the test subset against the share of training labels, {spread}.</p>\n");
    if !series.is_empty() {
        writeln!(html, "<figure>{}</figure>", chart(&series, "labels, %", &format!("mean {title}"), true)?)?;
    }
    let ratios: BTreeSet<u64> = values.values().flat_map(|by_ratio| by_ratio.keys().copied()).collect();
    html += "<div class=\"scroll\"><table>\n<tr><th>initialization</th>";
    for ratio in &ratios {
        write!(html, "<th>{}%</th>", f64::from_bits(*ratio))?;
    }
    html += "</tr>\n";
    for (name, by_ratio) in values {
        write!(html, "<tr><td>{}</td>", escape(name))?;
        for ratio in &ratios {
            let runs = by_ratio.get(ratio).map_or(&[][..], Vec::as_slice);
            html += &match (runs, averaged(runs)) {
                ([(only, draws)], _) => marked_cell(Some(*only), *draws),
                (_, Some(i)) => {
                    let (sd, count) = (i.high - i.value, runs.len());
                    format!("<td>{:.3} <small>± {sd:.3}, {count} runs</small></td>", i.value)
                }
                (_, None) => "<td>–</td>".to_owned(),
            };
        }
        html += "</tr>\n";
    }
    html += "</table></div>\n";
    Ok(with_note(html))
}

/// One value with its interval; of several, the mean and one standard deviation on either side.
fn averaged(runs: &[(Interval, usize)]) -> Option<Interval> {
    if let [(only, _)] = runs {
        return Some(*only);
    }
    let Summary { mean, sd, .. } = Summary::of(&runs.iter().map(|(interval, _)| interval.value).collect::<Vec<_>>())?;
    Some(Interval { value: mean, low: mean - sd, high: mean + sd, draws: 0 })
}
