//! The report's section on segmentation: Dice and intersection over union, and images of a few records.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Deserialize;

use super::{SegmentationReport, examples_image};
use crate::report::{Run, Section, escape, image_figure, interval_cell};

/// One table over all segmentation runs, then the image of each; nothing where no run is evaluated.
pub(super) fn sections(runs: &[&Run]) -> Result<Vec<Section>> {
    let (mut rows, mut images) = (String::new(), String::new());
    for run in runs {
        for evaluation in &run.evaluations {
            let report = SegmentationReport::deserialize(&evaluation.json)?;
            let header = &report.header;
            write!(
                rows,
                "<tr><td>{}</td><td>{}</td><td>{}%</td><td>{}</td><td>{}</td><td>{}</td>",
                escape(&run.name),
                escape(&header.init_name),
                header.ratio,
                escape(&evaluation.stem),
                header.records,
                report.positives
            )?;
            let metrics =
                [Some(report.dice), Some(report.iou), report.dice_positive, report.iou_positive, report.mdice];
            writeln!(rows, "{}</tr>", metrics.map(interval_cell).concat())?;
            if let Ok(png) = std::fs::read(examples_image(&run.path, &evaluation.stem)) {
                let caption = format!(
                    "{} on {}. One record a line: image, drawn mask, predicted mask; {}.",
                    run.name, evaluation.stem, report.rule
                );
                images += &image_figure(&png, "image, drawn mask, predicted mask", &caption);
            }
        }
    }
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let html = format!(
        "<p>Mean over images (mDice: over background and foreground, of all pixels together), with 95% intervals from a bootstrap \
         over patients.</p>\n<div class=\"scroll\"><table>\n\
         <tr><th>run</th><th>initialization</th><th>labels</th><th>subset</th><th>records</th><th>positive</th><th>Dice</th>\
         <th>IoU</th><th>Dice, positive</th><th>IoU, positive</th><th>mDice</th></tr>\n{rows}</table></div>\n{images}"
    );
    Ok(vec![Section { title: "Segmentation".to_owned(), html }])
}
