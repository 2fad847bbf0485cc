//! A table of evaluations, for tasks that have no section of their own.

use super::html::{Section, escape, marked_cell, with_note};
use super::run::{Run, StoredEvaluation};
use crate::eval::bootstrap::Interval;

/// A section with a line an evaluation: run, initialization, and the values of all metrics; none without evaluations.
pub fn metrics_section(
    task: &str,
    titles: &[&str],
    rows: &[(&Run, &StoredEvaluation, Vec<Option<Interval>>)],
) -> Vec<Section> {
    let row = |(run, evaluation, values): &(&Run, &StoredEvaluation, Vec<Option<Interval>>)| {
        let header = &evaluation.header;
        format!(
            "<tr><td>{}</td><td>{}</td><td>{}%</td><td>{}</td><td>{}</td>{}</tr>\n",
            escape(&run.name),
            escape(&header.init_name),
            header.ratio,
            escape(&evaluation.stem),
            header.records,
            values.iter().map(|value| marked_cell(*value, header.draws)).collect::<String>()
        )
    };
    let rows: String = rows.iter().map(row).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let heads: String = titles.iter().map(|title| format!("<th>{}</th>", escape(title))).collect();
    let html = format!(
        "<p>With 95% intervals from a bootstrap over patients.</p>\n<div class=\"scroll\"><table>\n<tr><th>run</th>\
         <th>initialization</th><th>labels</th><th>subset</th><th>records</th>{heads}</tr>\n{rows}</table></div>\n"
    );
    vec![Section { title: format!("Evaluations: {task}"), html: with_note(html) }]
}
