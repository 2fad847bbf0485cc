//! The page's section on how the runs were made: the settings that people compare, and each configuration as a whole.

use std::fmt::Write as _;

use anyhow::Result;
use toml::{Table, Value};

use super::{Run, escape};

/// A column, and the keys that it shows: the first that a run has.
type Column = (&'static str, &'static [&'static str]);

const COLUMNS: [Column; 13] = [
    ("preset", &["preset"]),
    ("start weights", &["init"]),
    ("task", &["task"]),
    ("split", &["split"]),
    ("labels, %", &["ratio"]),
    ("seed", &["run.seed"]),
    ("updates", &["optimizer.steps"]),
    ("batch", &["optimizer.batch_size"]),
    ("micro-batches", &["optimizer.accumulation"]),
    ("learning rate", &["optimizer.rate", "optimizer.base_rate"]),
    ("weight decay", &["optimizer.weight_decay"]),
    ("layer decay", &["optimizer.layer_decay"]),
    ("precision", &["run.precision"]),
];

/// One table over all runs that have a configuration, then the configuration of each, folded.
pub(super) fn section(runs: &[Run], body: &mut String) -> Result<()> {
    let known: Vec<(&Run, &str, Table)> = runs
        .iter()
        .filter_map(|run| {
            let text = run.config.as_deref()?;
            Some((run, text, text.parse().ok()?))
        })
        .collect();
    if known.is_empty() {
        return Ok(());
    }
    let columns = COLUMNS.iter().filter(|(_, keys)| known.iter().any(|(.., table)| value(table, keys).is_some()));
    let columns: Vec<&Column> = columns.collect();
    write!(body, "<section>\n<h2>Settings</h2>\n<div class=\"scroll\"><table>\n<tr><th>run</th>")?;
    columns.iter().try_for_each(|(title, _)| write!(body, "<th>{title}</th>"))?;
    writeln!(body, "</tr>")?;
    for (run, _, table) in &known {
        write!(body, "<tr><td>{}</td>", escape(&run.name()))?;
        for (_, keys) in &columns {
            write!(body, "<td>{}</td>", value(table, keys).map_or("–".to_owned(), |text| escape(&text)))?;
        }
        writeln!(body, "</tr>")?;
    }
    writeln!(body, "</table></div>")?;
    for (run, text, _) in &known {
        writeln!(
            body,
            "<details><summary>all settings of {}</summary><div class=\"scroll\"><pre>{}</pre></div></details>",
            escape(&run.name()),
            escape(text)
        )?;
    }
    writeln!(body, "</section>")?;
    Ok(())
}

/// What a run has for the first of some keys that it knows.
fn value(table: &Table, keys: &[&str]) -> Option<String> {
    let key = keys.iter().find(|key| at(table, key).is_some())?;
    // Pre-training counts in updates or, if there are 0 of them, in epochs; its rate is that of a batch of 256.
    let unit = match *key {
        "optimizer.steps" if at(table, key)?.as_integer() == Some(0) => {
            return Some(format!("{} epochs", shown(at(table, "optimizer.epochs")?)));
        }
        "optimizer.base_rate" => " (batch of 256)",
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
    fn a_run_shows_what_it_counts_in() {
        let table: Table = "split = \"\"\n[optimizer]\nsteps = 0\nepochs = 200.0\nbase_rate = 0.00015".parse().unwrap();
        assert_eq!(value(&table, &["optimizer.steps"]).as_deref(), Some("200 epochs"));
        assert_eq!(
            value(&table, &["optimizer.rate", "optimizer.base_rate"]).as_deref(),
            Some("0.00015 (batch of 256)")
        );
        assert_eq!(
            [value(&table, &["split"]), value(&table, &["ratio"]), value(&table, &["run.seed"])],
            [None, None, None]
        );
    }
}
