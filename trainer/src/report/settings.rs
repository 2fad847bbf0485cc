//! The section on the settings of the runs: a table of those that are compared most, and each whole configuration.

use std::fmt::Write as _;

use anyhow::Result;
use toml::{Table, Value};

use super::html::{Section, escape};
use super::run::Run;
use crate::config::ConfigFile;

/// A column, and the keys that it shows: the first that a run has.
type Column = (&'static str, &'static [&'static str]);

const COLUMNS: [Column; 14] = [
    ("preset", &["preset"]),
    ("recipe", &["recipe"]),
    ("initialization", &["init"]),
    ("task", &["task"]),
    ("split", &["split"]),
    ("labels, %", &["ratio"]),
    ("seed", &["run.seed"]),
    ("steps", &["optimizer.steps"]),
    ("batch", &["optimizer.batch_size"]),
    ("micro-batches", &["optimizer.accumulation"]),
    ("learning rate", &["optimizer.lr", "optimizer.base_lr"]),
    ("weight decay", &["optimizer.weight_decay"]),
    ("layer decay", &["optimizer.layer_decay"]),
    ("precision", &["run.precision"]),
];

/// One table over all runs that have a configuration, then the configuration of each, folded; none where no run has one.
pub(super) fn section(runs: &[Run]) -> Result<Option<Section>> {
    let known: Vec<(&Run, &ConfigFile)> = runs.iter().filter_map(|run| Some((run, run.config.as_ref()?))).collect();
    if known.is_empty() {
        return Ok(None);
    }
    let used = |(_, keys): &&Column| known.iter().any(|(_, config)| value(config.table(), keys).is_some());
    let columns: Vec<&Column> = COLUMNS.iter().filter(used).collect();
    let mut html = "<div class=\"scroll\"><table>\n<tr><th>run</th>".to_owned();
    columns.iter().try_for_each(|(title, _)| write!(html, "<th>{title}</th>"))?;
    html += "</tr>\n";
    for (run, config) in &known {
        write!(html, "<tr><td>{}</td>", escape(&run.name))?;
        for (_, keys) in &columns {
            let text = value(config.table(), keys).map_or("–".to_owned(), |text| escape(&text));
            write!(html, "<td>{text}</td>")?;
        }
        html += "</tr>\n";
    }
    html += "</table></div>\n";
    for (run, config) in &known {
        writeln!(
            html,
            "<details><summary>all settings of {}</summary><div class=\"scroll\"><pre>{}</pre></div></details>",
            escape(&run.name),
            escape(config.text())
        )?;
    }
    Ok(Some(Section { title: "Settings".to_owned(), html }))
}

/// The value of the first of some keys that a configuration has.
fn value(table: &Table, keys: &[&str]) -> Option<String> {
    let key = keys.iter().find(|key| at(table, key).is_some())?;
    // Pre-training counts in steps or, if these are 0, in epochs; its learning rate is that of a batch of 256.
    let unit = match *key {
        "optimizer.steps" if at(table, key)?.as_integer() == Some(0) => {
            return Some(format!("{} epochs", shown(at(table, "optimizer.epochs")?)));
        }
        "optimizer.base_lr" => " (batch of 256)",
        _ => "",
    };
    let text = shown(at(table, key)?);
    (!text.is_empty()).then(|| text + unit)
}

fn at<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        Some((section, key)) => at(table.get(section)?.as_table()?, key),
        None => table.get(key),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Float(number) => format!("{number}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_shows_its_unit_of_length() {
        let table: Table = "split = \"\"\n[optimizer]\nsteps = 0\nepochs = 200.0\nbase_lr = 0.00015".parse().unwrap();
        assert_eq!(value(&table, &["optimizer.steps"]).as_deref(), Some("200 epochs"));
        assert_eq!(value(&table, &["optimizer.lr", "optimizer.base_lr"]).as_deref(), Some("0.00015 (batch of 256)"));
        assert_eq!(
            [value(&table, &["split"]), value(&table, &["ratio"]), value(&table, &["run.seed"])],
            [None, None, None]
        );
    }
}
