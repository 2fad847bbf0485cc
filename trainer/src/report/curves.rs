//! Curves of logged values: one chart a value and kind, a line a run.

use std::fmt::Write as _;

use anyhow::Result;

use super::chart::{Series, chart};
use super::html::{Section, escape};
use super::run::Run;
use crate::task::{Registry, Task};

/// The learning rate, under its key and that of older logs.
const LR: [&str; 2] = ["lr", "rate"];

/// The section; none where no run has a curve.
pub(super) fn section(registry: &Registry, runs: &[Run]) -> Result<Option<Section>> {
    let mut charts = String::new();
    for task in registry.tasks() {
        let of_task: Vec<&Run> = runs.iter().filter(|run| run.kind == task.kind()).collect();
        for &(key, title) in task.curves() {
            charts += &figure(task, &of_task, &[key], title)?;
        }
        charts += &figure(task, &of_task, &LR, "learning rate")?;
    }
    if charts.is_empty() {
        return Ok(None);
    }
    Ok(Some(Section { title: "Curves".to_owned(), html: format!("<div class=\"grid\">\n{charts}</div>\n") }))
}

/// A chart of a logged value; empty where no run has two points of it.
fn figure(task: &dyn Task, runs: &[&Run], keys: &[&str], title: &str) -> Result<String> {
    let series = |run: &&Run| Series { name: run.name.clone(), points: run.series(keys), intervals: Vec::new() };
    let series: Vec<Series> = runs.iter().map(series).filter(|series| series.points.len() > 1).collect();
    let mut html = String::new();
    if !series.is_empty() {
        let caption = escape(&format!("{}: {title}", task.title()));
        let chart = chart(&series, "steps", title, false)?;
        writeln!(html, "<figure>{chart}<figcaption>{caption}</figcaption></figure>")?;
    }
    Ok(html)
}
