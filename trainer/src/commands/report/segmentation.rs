//! The page's section on segmentation: Dice and intersection over union, and pictures.

use std::fmt::Write as _;

use anyhow::Result;
use base64::Engine as _;

use super::{Run, escape};
use crate::eval::bootstrap::Interval;

/// One table over all segmentation runs, then the picture of each. Nothing where there is none.
pub(super) fn section(runs: &[Run], body: &mut String) -> Result<()> {
    if runs.iter().all(|run| run.segmentations.is_empty()) {
        return Ok(());
    }
    writeln!(
        body,
        "<section>\n<h2>Segmentation</h2>\n<p>Mean by image, with 95% intervals from a bootstrap over patients.</p>\n<div class=\"scroll\"><table>\n<tr><th>run</th><th>weights</th><th>labels</th><th>subset</th><th>records</th><th>positive</th><th>Dice</th><th>IoU</th><th>Dice, positive</th><th>IoU, positive</th></tr>"
    )?;
    for run in runs {
        for (of, report, _) in &run.segmentations {
            write!(
                body,
                "<tr><td>{}</td><td>{}</td><td>{}%</td><td>{}</td><td>{}</td><td>{}</td>",
                escape(&run.name()),
                escape(&report.start),
                report.ratio,
                escape(of),
                report.records,
                report.positives
            )?;
            for interval in [Some(report.dice), Some(report.iou), report.dice_positive, report.iou_positive] {
                write!(body, "<td>{}</td>", shown(interval))?;
            }
            writeln!(body, "</tr>")?;
        }
    }
    writeln!(body, "</table></div>")?;
    for run in runs {
        for (of, report, picture) in &run.segmentations {
            let Some(picture) = picture else { continue };
            let data = base64::engine::general_purpose::STANDARD.encode(picture);
            writeln!(
                body,
                "<figure><img alt=\"image, drawn mask, predicted mask\" src=\"data:image/png;base64,{data}\"><figcaption>{} on {}. One record a line: image, drawn mask, predicted mask; {}.</figcaption></figure>",
                escape(&run.name()),
                escape(of),
                escape(&report.rule)
            )?;
        }
    }
    writeln!(body, "</section>")?;
    Ok(())
}

fn shown(interval: Option<Interval>) -> String {
    interval.map_or("undefined".to_owned(), |i| format!("{:.3} <small>{:.3}–{:.3}</small>", i.value, i.low, i.high))
}
