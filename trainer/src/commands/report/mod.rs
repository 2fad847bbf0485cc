//! `trainer report`: one self-contained page over some runs: curves, tables, the label-efficiency chart, restored pictures and words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use dataset::commands::cli::counted;
use dataset::store::files;

use self::chart::{Series, chart};
use super::reconstruct::{Restored, Word};
use super::{EvaluationReport, SegmentationReport, Spread, is_segmentation, ratio_key, segmentation_picture};
use crate::config::AnyConfig;
use crate::eval::bootstrap::Interval;
use crate::eval::metrics::Scores;
use crate::train::logger::{damaged_lines, read_metrics};

mod chart;
mod segmentation;
mod settings;

const STYLE: &str = include_str!("page.css");

/// What a run's directory holds for the page.
struct Run {
    path: PathBuf,
    /// That of its folder, with the folder above where another run of the page has the same.
    name: String,
    /// The text of its configuration.
    config: Option<String>,
    metrics: Vec<serde_json::Value>,
    /// What each is of: `test`, `validate`, `train`, or `test-on-NAME` for another dataset.
    evaluations: Vec<(String, EvaluationReport)>,
    /// With the picture, if there is one.
    segmentations: Vec<(String, SegmentationReport, Option<Vec<u8>>)>,
    restored: Option<(Vec<u8>, Vec<Restored>)>,
    /// Columns of that picture.
    columns: &'static str,
}

impl Run {
    fn load(path: &Path) -> Result<Self> {
        let metrics = read_metrics(path)?;
        damaged_lines(path, metrics.damaged).iter().for_each(|warning| dataset::cli_eprintln!("{warning}"));
        let metrics = metrics.lines;
        let (mut evaluations, mut segmentations) = (Vec::new(), Vec::new());
        for (file, of) in evaluation_files(path)? {
            if is_segmentation(path) {
                let picture = std::fs::read(segmentation_picture(path, &of)).ok();
                segmentations.push((of, files::read_json(&file)?, picture));
            } else {
                evaluations.push((of, files::read_json(&file)?));
            }
        }
        if metrics.is_empty() && evaluations.is_empty() && segmentations.is_empty() {
            return Err(anyhow!("{} is not a run: neither metrics nor an evaluation", path.display()));
        }
        let picture = path.join("reconstruction.png");
        let restored = if picture.exists() {
            Some((std::fs::read(&picture)?, files::read_json(&picture.with_extension("json"))?))
        } else {
            None
        };
        let columns = match AnyConfig::load(path) {
            Ok(AnyConfig::Pretrain(config)) if !config.model.reconstructs_image() => "masked, original",
            _ => "masked, restored, original",
        };
        let config = std::fs::read_to_string(path.join("config.toml")).ok();
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { path: path.to_path_buf(), name, config, metrics, evaluations, segmentations, restored, columns })
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn series(&self, key: &str) -> Vec<(f64, f64)> {
        self.metrics.iter().filter_map(|line| Some((line["step"].as_f64()?, line[key].as_f64()?))).collect()
    }
}

/// The evaluations of a run, and what each is of.
fn evaluation_files(run: &Path) -> Result<Vec<(PathBuf, String)>> {
    let entries = std::fs::read_dir(run).with_context(|| format!("cannot read {}", run.display()))?;
    let of = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        Some(name.strip_prefix("evaluation-")?.strip_suffix(".json")?.to_owned())
    };
    let mut found: Vec<(PathBuf, String)> =
        entries.flatten().filter_map(|entry| Some((entry.path(), of(&entry.path())?))).collect();
    found.sort();
    Ok(found)
}

/// The folders that are given, and in place of one that is no run itself the runs in it.
fn with_inner(paths: &[PathBuf]) -> Vec<PathBuf> {
    let is_run = |path: &Path| path.join("config.toml").is_file();
    let mut all = Vec::new();
    for path in paths {
        let mut inside: Vec<PathBuf> = if is_run(path) {
            Vec::new()
        } else {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).filter(|inner| is_run(inner)).collect()
        };
        inside.sort();
        if inside.is_empty() {
            all.push(path.clone());
        }
        all.extend(inside);
    }
    all
}

/// Writes the page.
pub fn report(runs: &[PathBuf], out: &Path) -> Result<()> {
    let mut runs = with_inner(runs)
        .iter()
        .filter_map(|path| match Run::load(path) {
            Ok(run) => Some(run),
            Err(error) => {
                dataset::cli_eprintln!("left out: {error:#}");
                None
            }
        })
        .collect::<Vec<_>>();
    if runs.is_empty() {
        return Err(anyhow!("no run to report on"));
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    runs.iter().for_each(|run| *counts.entry(run.name.clone()).or_default() += 1);
    for run in &mut runs {
        if let (Some(2..), Some(above)) = (counts.get(&run.name), run.path.parent().and_then(Path::file_name)) {
            run.name = format!("{}/{}", above.to_string_lossy(), run.name);
        }
    }
    let mut body = String::new();
    label_efficiency(&runs, &mut body)?;
    for run in &runs {
        if let Some((picture, restored)) = &run.restored {
            restorations(&run.name(), picture, run.columns, restored, &mut body)?;
        }
    }
    segmentation::section(&runs, &mut body)?;
    curves(&runs, &mut body)?;
    evaluations(&runs, &mut body)?;
    settings::section(&runs, &mut body)?;
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>mrm report</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>Masked record modeling: report</h1>\n{body}</main>\n</body>\n</html>\n"
    );
    Ok(files::write_atomic(out, page.as_bytes())?)
}

/// The table and chart of AUROC against the share of labels, one line a start; several runs of one start and ratio (of
/// other seeds or splits) are summed up as mean and standard deviation.
fn label_efficiency(runs: &[Run], body: &mut String) -> Result<()> {
    let all = || runs.iter().flat_map(|run| &run.evaluations);
    let tests = || all().filter(|(of, _)| of == "test").map(|(_, evaluation)| evaluation);
    let tasks: BTreeSet<&str> = tests().map(|evaluation| evaluation.task.as_str()).collect();
    for task in tasks {
        efficiency_of_task(task, tests().filter(|evaluation| evaluation.task == task), body)?;
    }
    Ok(())
}

fn efficiency_of_task<'a>(
    task: &str,
    evaluations: impl Iterator<Item = &'a EvaluationReport>,
    body: &mut String,
) -> Result<()> {
    let mut lines: BTreeMap<&str, BTreeMap<u64, Vec<Interval>>> = BTreeMap::new();
    for evaluation in evaluations {
        let place = lines.entry(&evaluation.start).or_default().entry(ratio_key(evaluation.ratio)).or_default();
        place.extend(evaluation.mean.auroc);
    }
    let repeated = lines.values().flat_map(BTreeMap::values).any(|found| found.len() > 1);
    let series: Vec<Series> = lines
        .iter()
        .map(|(name, by_ratio)| {
            let values = || by_ratio.iter().filter_map(|(ratio, found)| Some((f64::from_bits(*ratio), summed(found)?)));
            Series {
                name: (*name).to_owned(),
                points: values().map(|(ratio, auroc)| (ratio, auroc.value)).collect(),
                intervals: values().map(|(ratio, auroc)| (ratio, auroc.low, auroc.high)).collect(),
            }
        })
        .filter(|series| !series.points.is_empty())
        .collect();
    let spread = if repeated {
        "mean and one standard deviation over runs of several seeds or splits (a single run: 95% interval over patients)"
    } else {
        "with 95% intervals from a bootstrap over patients"
    };
    writeln!(
        body,
        "<section>\n<h2>Label efficiency: {}</h2>\n<p>Mean AUROC on the test subset against the share of training labels, {spread}.</p>",
        escape(task)
    )?;
    if !series.is_empty() {
        writeln!(body, "<figure>{}</figure>", chart(&series, "labels, %", "mean AUROC", true)?)?;
    }
    let ratios: BTreeSet<u64> = lines.values().flat_map(|by_ratio| by_ratio.keys().copied()).collect();
    write!(body, "<div class=\"scroll\"><table>\n<tr><th>weights</th>")?;
    for ratio in &ratios {
        write!(body, "<th>{}%</th>", f64::from_bits(*ratio))?;
    }
    writeln!(body, "</tr>")?;
    for (name, by_ratio) in &lines {
        write!(body, "<tr><td>{}</td>", escape(name))?;
        for ratio in &ratios {
            let found = by_ratio.get(ratio).map_or(&[][..], Vec::as_slice);
            let cell = match (summed(found), found.len()) {
                (None, _) => "–".to_owned(),
                (Some(i), 1) => format!("{:.3} <small>{:.3}–{:.3}</small>", i.value, i.low, i.high),
                (Some(i), runs) => format!("{:.3} <small>± {:.3}, {runs} runs</small>", i.value, i.high - i.value),
            };
            write!(body, "<td>{cell}</td>")?;
        }
        writeln!(body, "</tr>")?;
    }
    writeln!(body, "</table></div>\n</section>")?;
    Ok(())
}

/// One value as it is; of several, mean and one standard deviation on either side.
fn summed(found: &[Interval]) -> Option<Interval> {
    if let [only] = found {
        return Some(*only);
    }
    let spread = Spread::of(&found.iter().map(|interval| interval.value).collect::<Vec<_>>())?;
    let Spread { mean, sd, .. } = spread;
    Some(Interval { value: mean, low: mean - sd, high: mean + sd, draws: 0 })
}

fn restorations(name: &str, picture: &[u8], columns: &str, restored: &[Restored], body: &mut String) -> Result<()> {
    let data = base64::engine::general_purpose::STANDARD.encode(picture);
    writeln!(body, "<section>\n<h2>Restored by {}</h2>", escape(name))?;
    writeln!(
        body,
        "<figure><img alt=\"{columns}\" src=\"data:image/png;base64,{data}\"><figcaption>One record a line: {columns}. Each restored patch takes mean and spread from the original, as the loss does.</figcaption></figure>"
    )?;
    if restored.iter().any(|record| !record.words.is_empty()) {
        writeln!(
            body,
            "<p>Reports of the same records. <span class=\"right\">restored as it was</span>, <span class=\"wrong\">restored otherwise <s>true word</s></span>, the rest was visible.</p>"
        )?;
    }
    for record in restored.iter().filter(|record| !record.words.is_empty()) {
        writeln!(
            body,
            "<p class=\"words\"><b>{}</b> {}</p>",
            escape(&record.record_id),
            record.words.iter().skip(1).map(word).collect::<String>()
        )?;
    }
    writeln!(body, "</section>")?;
    Ok(())
}

/// A token as text; a piece that continues a word joins it.
fn word(word: &Word) -> String {
    let text = |piece: &str| escape(piece.strip_prefix("##").unwrap_or(piece));
    let space = if word.token.starts_with("##") { "" } else { " " };
    match &word.restored {
        None => format!("{space}{}", text(&word.token)),
        Some(restored) if *restored == word.token => format!("{space}<span class=\"right\">{}</span>", text(restored)),
        Some(restored) => {
            format!("{space}<span class=\"wrong\">{} <s>{}</s></span>", text(restored), text(&word.token))
        }
    }
}

/// Every logged value of every run, one chart a value.
fn curves(runs: &[Run], body: &mut String) -> Result<()> {
    const VALUES: [(&str, &str); 6] = [
        ("loss_image", "image loss"),
        ("loss_report", "report loss"),
        ("loss", "loss"),
        ("validate_auroc", "validation AUROC"),
        ("validate_dice", "validation Dice"),
        ("lr", "learning rate"),
    ];
    let mut charts = String::new();
    for (key, title) in VALUES {
        let with = |pretraining: bool| -> Vec<Series> {
            runs.iter()
                .filter(|run| {
                    run.metrics.iter().any(|line| line.get("loss_image").or(line.get("loss_report")).is_some())
                        == pretraining
                })
                .map(|run| Series { name: run.name(), points: run.series(key), intervals: Vec::new() })
                .filter(|series| series.points.len() > 1)
                .collect()
        };
        for (series, kind) in [(with(true), "pre-training"), (with(false), "fine-tuning")] {
            let told_in_parts = key == "loss" && kind == "pre-training";
            if !series.is_empty() && !told_in_parts {
                writeln!(
                    charts,
                    "<figure>{}<figcaption>{kind}: {title}</figcaption></figure>",
                    chart(&series, "updates", title, false)?
                )?;
            }
        }
    }
    if !charts.is_empty() {
        writeln!(body, "<section>\n<h2>Curves</h2>\n<div class=\"grid\">\n{charts}</div>\n</section>")?;
    }
    Ok(())
}

fn evaluations(runs: &[Run], body: &mut String) -> Result<()> {
    for run in runs {
        for (of, evaluation) in &run.evaluations {
            writeln!(
                body,
                "<section>\n<h2>{} on {}</h2>\n<p>{} of {}; {} of the training labels; {}; seed {}.</p>\n<div class=\"scroll\"><table>\n<tr><th>finding</th><th>positive</th><th>negative</th><th>AUROC</th><th>AUPRC</th><th>sensitivity at specificity {}</th><th>Brier</th><th>ECE</th></tr>",
                escape(&run.name()),
                escape(of),
                counted(evaluation.records, "record"),
                counted(evaluation.patients, "patient"),
                format_args!("{}%", evaluation.ratio),
                escape(&evaluation.start),
                evaluation.seed,
                evaluation.specificity
            )?;
            for row in &evaluation.findings {
                let (name, counts) = (escape(&row.finding), [row.positives, row.negatives]);
                writeln!(
                    body,
                    "<tr><td>{name}</td><td>{}</td><td>{}</td>{}</tr>",
                    counts[0],
                    counts[1],
                    cells(&row.scores)
                )?;
            }
            writeln!(body, "<tr><td>mean</td><td></td><td></td>{}</tr>", cells(&evaluation.mean))?;
            writeln!(body, "</table></div>\n</section>")?;
        }
    }
    Ok(())
}

/// Metrics with their intervals as cells of a table.
fn cells(scores: &Scores<Interval>) -> String {
    let Scores { auroc, average_precision, sensitivity, brier, calibration_error } = scores;
    let cell = |value: &Option<Interval>| match value {
        Some(i) => format!("<td>{:.3} <small>{:.3}–{:.3}</small></td>", i.value, i.low, i.high),
        None => "<td>undefined</td>".to_owned(),
    };
    [auroc, average_precision, sensitivity, brier, calibration_error].map(cell).concat()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
