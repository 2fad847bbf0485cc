//! The results of a sweep: means over runs as a table, JSON and CSV.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use arrow_array::{ArrayRef, Float64Array, StringArray, UInt64Array};
use dataset::format::csv_table;
use dataset::store::files;
use serde::Serialize;

use super::Swept;
use crate::config::Recipe;
use crate::report::{Summary, ratio_key};
use crate::task::Metric;

/// Keys of the metrics that BenchX reports for segmentation (mDice) and for tasks of one finding (F1).
pub(super) const BENCHX: [&str; 2] = ["mdice", "f1"];

/// Means over the runs of one initialization, ratio and recipe.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// Name of the initialization.
    pub init_name: String,
    /// Percentage of the training labels.
    pub ratio: f64,
    /// The way of fine-tuning.
    pub recipe: Recipe,
    /// Number of runs.
    pub runs: usize,
    /// What was chosen for each run on the validation subset, or by a range test; empty where nothing was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chosen: Vec<String>,
    /// The task's metrics on the test subset by key; none where a metric is defined in no run.
    #[serde(flatten)]
    pub metrics: BTreeMap<String, Option<Summary>>,
}

/// An evaluated run.
pub(super) struct Evaluated<'a> {
    pub init_name: &'a str,
    pub ratio: f64,
    pub recipe: Recipe,
    /// What was chosen for it, in words; empty where nothing was.
    pub chosen: String,
    /// The task's metrics on the test subset.
    pub metrics: Vec<Metric>,
}

/// One cell an initialization, ratio and recipe, over splits and seeds.
pub(super) fn cells(evaluated: Vec<Evaluated>) -> Vec<Cell> {
    let mut groups: BTreeMap<(&str, u64, Recipe), Vec<Evaluated>> = BTreeMap::new();
    for run in evaluated {
        groups.entry((run.init_name, ratio_key(run.ratio), run.recipe)).or_default().push(run);
    }
    let cell = |((name, ratio, recipe), group): ((&str, u64, Recipe), Vec<Evaluated>)| {
        let metrics = || group.iter().flat_map(|run| &run.metrics);
        let keys: BTreeSet<&str> = metrics().map(|metric| metric.key).collect();
        let values = |key: &str| -> Vec<f64> {
            metrics().filter(|metric| metric.key == key).filter_map(|metric| Some(metric.value?.value)).collect()
        };
        Cell {
            init_name: name.to_owned(),
            ratio: f64::from_bits(ratio),
            recipe,
            runs: group.len(),
            chosen: group.iter().map(|run| run.chosen.clone()).filter(|chosen| !chosen.is_empty()).collect(),
            metrics: keys.into_iter().map(|key| (key.to_owned(), Summary::of(&values(key)))).collect(),
        }
    };
    groups.into_iter().map(cell).collect()
}

/// Writes `sweep.json`, `sweep.csv` and `sweep.md`.
pub(super) fn write(swept: &Swept, out: &Path) -> Result<()> {
    files::write_json(&out.join("sweep.json"), &swept.cells)?;
    let lines: Vec<(&Cell, &String, Option<Summary>)> = (swept.cells.iter())
        .flat_map(|cell| cell.metrics.iter().map(move |(key, summary)| (cell, key, *summary)))
        .collect();
    let texts = |text: &dyn Fn(&Cell) -> String| -> ArrayRef {
        Arc::new(lines.iter().map(|(cell, ..)| Some(text(cell))).collect::<StringArray>())
    };
    let numbers = |number: &dyn Fn(Summary) -> f64| -> ArrayRef {
        Arc::new(lines.iter().map(|(.., summary)| summary.map(number)).collect::<Float64Array>())
    };
    let counts = |count: &dyn Fn(&Cell, Option<Summary>) -> usize| -> ArrayRef {
        Arc::new(lines.iter().map(|(cell, _, summary)| Some(count(cell, *summary) as u64)).collect::<UInt64Array>())
    };
    let ratios: Float64Array = lines.iter().map(|(cell, ..)| Some(cell.ratio)).collect();
    let keys: StringArray = lines.iter().map(|(_, key, _)| Some(key.as_str())).collect();
    let columns: [(&str, ArrayRef, bool); 9] = [
        ("init_name", texts(&|cell| cell.init_name.clone()), false),
        ("recipe", texts(&|cell| cell.recipe.to_string()), false),
        ("ratio", Arc::new(ratios), false),
        ("metric", Arc::new(keys), false),
        ("mean", numbers(&|summary| summary.mean), true),
        ("sd", numbers(&|summary| summary.sd), true),
        ("runs", counts(&|cell, _| cell.runs), false),
        ("defined_in", counts(&|_, summary| summary.map_or(0, |summary| summary.values)), false),
        ("chosen", texts(&|cell| cell.chosen.join("; ")), false),
    ];
    csv_table::write(&out.join("sweep.csv"), &columns)?;
    Ok(files::write_atomic(&out.join("sweep.md"), table(swept).as_bytes())?)
}

/// `lr=1e-3 in 2, lr=3e-4`: what was chosen, in how many runs.
fn counted(chosen: &[String]) -> String {
    let mut counts: Vec<(&String, usize)> = Vec::new();
    for value in chosen {
        match counts.iter_mut().find(|(known, _)| *known == value) {
            Some((_, count)) => *count += 1,
            None => counts.push((value, 1)),
        }
    }
    let shown = |(value, count): &(&String, usize)| match (counts.len(), *count) {
        (1, _) | (_, 1) => (*value).clone(),
        (_, count) => format!("{value} in {count}"),
    };
    counts.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// A table of the headline metric and, where the task has it, one of the metric that BenchX reports, each below its title.
pub fn table(swept: &Swept) -> String {
    let titled =
        |what: &str, metric: &(String, String)| format!("{what}: {}\n\n{}", metric.1, table_of(&swept.cells, metric));
    let mut text = titled("Headline metric", &swept.headline);
    if let Some(metric) = &swept.benchx {
        text += &format!("\n{}", titled("BenchX's metric of segmentation and of tasks with one finding", metric));
    }
    text
}

/// The cells as a table of one metric, given by key and title: a line an initialization, a column a ratio and recipe.
fn table_of(cells: &[Cell], (key, title): &(String, String)) -> String {
    let columns: BTreeSet<(u64, Recipe)> = cells.iter().map(|cell| (ratio_key(cell.ratio), cell.recipe)).collect();
    let recipes: BTreeSet<Recipe> = cells.iter().map(|cell| cell.recipe).collect();
    let mut names: Vec<&str> = cells.iter().map(|cell| cell.init_name.as_str()).collect();
    names.dedup();
    let by = match recipes.iter().collect::<Vec<_>>().as_slice() {
        [only] if **only != Recipe::default() => format!(", recipe {only}"),
        _ => String::new(),
    };
    let head = |(ratio, recipe): &(u64, Recipe)| {
        let of_recipe = if recipes.len() > 1 { format!(", {recipe}") } else { String::new() };
        format!(" {}%{of_recipe} |", f64::from_bits(*ratio))
    };
    let heads: String = columns.iter().map(head).collect();
    let mut text = format!("| test {title}, mean ± sd{by} |{heads}\n| --- |{}\n", " --- |".repeat(columns.len()));
    for name in names {
        text += &format!("| {name} |");
        for (ratio, recipe) in &columns {
            let is_here =
                |cell: &&Cell| cell.init_name == name && ratio_key(cell.ratio) == *ratio && cell.recipe == *recipe;
            let cell = cells.iter().find(is_here);
            text += &match cell.and_then(|cell| Some((cell, (*cell.metrics.get(key)?)?))) {
                Some((cell, metric)) => {
                    let spread = if cell.runs == 1 { String::new() } else { format!(" ± {:.3}", metric.sd) };
                    let runs = match (cell.runs, metric.values) {
                        (1, _) => "1 run".to_owned(),
                        (runs, values) if runs == values => format!("{runs} runs"),
                        (runs, values) => format!("defined in {values} of {runs} runs"),
                    };
                    let chosen = counted(&cell.chosen);
                    let chosen = if chosen.is_empty() { chosen } else { format!("; {chosen}") };
                    format!(" {:.3}{spread} ({runs}{chosen}) |", metric.mean)
                }
                None => " undefined |".to_owned(),
            };
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(name: &str, ratio: f64, recipe: Recipe, values: &[f64], chosen: &[&str]) -> Cell {
        Cell {
            init_name: name.to_owned(),
            ratio,
            recipe,
            runs: 3,
            chosen: chosen.iter().map(|&text| text.to_owned()).collect(),
            metrics: [("auroc".to_owned(), Summary::of(values))].into(),
        }
    }

    fn swept(cells: Vec<Cell>) -> Swept {
        let headline = ("auroc".to_owned(), "AUROC".to_owned());
        Swept { cells, headline, benchx: None, runs: Vec::new(), stopped: false }
    }

    #[test]
    fn the_table_has_a_line_an_initialization() {
        let cell = |name: &str, ratio, values: &[f64]| cell(name, ratio, Recipe::Release, values, &[]);
        let cells = vec![cell("mrm", 1.0, &[0.6, 0.7, 0.8]), cell("mrm", 10.0, &[0.8]), cell("none", 1.0, &[])];
        let text = table(&swept(cells));
        assert!(text.starts_with("Headline metric: AUROC\n\n| test AUROC, mean ± sd | 1% | 10% |\n"), "{text}");
        assert!(text.contains("| mrm | 0.700 ± 0.100 (3 runs) | 0.800 ± 0.000 (defined in 1 of 3 runs) |"), "{text}");
        assert!(text.ends_with("| none | undefined | undefined |\n"), "{text}");
    }

    #[test]
    fn the_metric_of_benchx_has_a_table_of_its_own() {
        let mut mrm = cell("mrm", 1.0, Recipe::Release, &[0.6, 0.7, 0.8], &[]);
        mrm.metrics.insert("f1".to_owned(), Summary::of(&[0.2, 0.3, 0.4]));
        let other = cell("none", 1.0, Recipe::Release, &[0.5; 3], &[]);
        let benchx = Some(("f1".to_owned(), "macro F1".to_owned()));
        let text = table(&Swept { benchx, ..swept(vec![mrm, other]) });
        let lines = [
            "Headline metric: AUROC",
            "",
            "| test AUROC, mean ± sd | 1% |",
            "| --- | --- |",
            "| mrm | 0.700 ± 0.100 (3 runs) |",
            "| none | 0.500 ± 0.000 (3 runs) |",
            "",
            "BenchX's metric of segmentation and of tasks with one finding: macro F1",
            "",
            "| test macro F1, mean ± sd | 1% |",
            "| --- | --- |",
            "| mrm | 0.300 ± 0.100 (3 runs) |",
            "| none | undefined |",
            "",
        ];
        assert_eq!(text, lines.join("\n"));
    }

    #[test]
    fn recipes_are_columns_and_chosen_values_stand_in_the_cells() {
        let chosen = ["lr=1e-3", "lr=3e-4", "lr=1e-3"];
        let cells = vec![
            cell("mrm", 1.0, Recipe::Release, &[0.6, 0.7, 0.8], &chosen),
            cell("mrm", 1.0, Recipe::Benchx, &[0.5, 0.75, 1.0], &["lr=1e-2"; 3]),
        ];
        let text = table(&swept(cells.clone()));
        assert!(text.contains("\n| test AUROC, mean ± sd | 1%, release | 1%, benchx |\n"), "{text}");
        let line = "| mrm | 0.700 ± 0.100 (3 runs; lr=1e-3 in 2, lr=3e-4) | 0.750 ± 0.250 (3 runs; lr=1e-2) |";
        assert!(text.contains(line), "{text}");
        assert!(table(&swept(cells[1..].to_vec())).contains("\n| test AUROC, mean ± sd, recipe benchx | 1% |\n"));

        let folder = std::env::temp_dir().join(format!("trainer-sweep-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        write(&swept(cells), &folder).unwrap();
        let csv = std::fs::read_to_string(folder.join("sweep.csv")).unwrap();
        assert_eq!(csv.lines().next(), Some("init_name,recipe,ratio,metric,mean,sd,runs,defined_in,chosen"));
        assert!(csv.contains("mrm,benchx,1,auroc,0.75,0.25,3,3,"), "{csv}");
        assert!(csv.contains("lr=1e-3; lr=3e-4; lr=1e-3\n"), "{csv}");
        let json: serde_json::Value = dataset::store::files::read_json(&folder.join("sweep.json")).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!((&json[1]["recipe"], &json[0]["chosen"][1]), (&"benchx".into(), &"lr=3e-4".into()));
    }
}
