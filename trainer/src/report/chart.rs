//! Line charts of the page, as inline SVG with a legend in HTML.

use std::ops::Range;

use anyhow::{Context, Result, anyhow};
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::html::escape;

/// Replaced by the page's text color, which a chart does not know when it is drawn.
const INK: RGBColor = RGBColor(1, 2, 3);
/// Classes `c0` to `c6` of the style sheet: a color for a light background and one for a dark one.
pub(super) const COLORS: usize = 7;
/// Dashes and gaps of lines, so that they differ without color. Colors, dashes and markers have no common divisor: the
/// next line with the same three is the 210th.
pub(super) const DASHES: [&str; 6] = ["", "7 4", "2 3", "11 3 2 3", "16 5", "11 3 2 3 2 3"];
/// Outlines of markers around the origin: circle, square, triangle, diamond, cross.
const MARKERS: [&str; 5] = [
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M-3.5-3.5h7v7h-7z",
    "M0-4.5L4.5 3.5h-9z",
    "M0-5L5 0L0 5L-5 0z",
    "M-4-4L4 4M4-4L-4 4",
];
/// Markers of a curve with many points.
const MARKERS_A_CURVE: usize = 8;

/// A line of a chart or of its legend, through points in pixels.
pub(super) fn line(index: usize, points: &[(i32, i32)]) -> String {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x},{y}")).collect();
    let dashes = DASHES[index % DASHES.len()];
    format!(
        "<polyline fill=\"none\" stroke=\"currentColor\" stroke-width=\"2\" stroke-dasharray=\"{}\" points=\"{}\"/>",
        if dashes.is_empty() { "none" } else { dashes },
        points.join(" ")
    )
}

pub(super) fn marker(index: usize, (x, y): (i32, i32)) -> String {
    let outline = MARKERS[index % MARKERS.len()];
    format!(
        "<path fill=\"currentColor\" stroke=\"currentColor\" stroke-width=\"1.5\" transform=\"translate({x} {y})\" d=\"{outline}\"/>"
    )
}

/// A named line of points, with intervals where there are some.
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// x and y.
    pub points: Vec<(f64, f64)>,
    /// x, low and high.
    pub intervals: Vec<(f64, f64, f64)>,
}

const WIDTH: u32 = 640;
const HEIGHT: u32 = 360;

/// An axis with ticks at chosen values.
struct Axis {
    axis: RangedCoordf64,
    ticks: Vec<f64>,
}

impl Axis {
    /// Ticks at these values, each once; without values, at round numbers.
    fn new(range: Range<f64>, ticks: Option<Vec<f64>>) -> Self {
        let axis = RangedCoordf64::from(range);
        let mut ticks = ticks.unwrap_or_else(|| axis.key_points(6));
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        Self { axis, ticks }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.axis.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.axis.range()
    }
}

/// The legend below a chart; empty for a single line, unless it is always wanted.
pub(super) fn legend(series: &[Series], always: bool, marked: bool) -> String {
    if series.len() < 2 && !always {
        return String::new();
    }
    let entry = |(index, series): (usize, &Series)| {
        let marker = if marked { marker(index, (22, 6)) } else { String::new() };
        format!(
            "<span><svg class=\"c{}\" viewBox=\"0 0 44 12\" aria-hidden=\"true\">{}{marker}</svg>{}</span>",
            index % COLORS,
            line(index, &[(0, 6), (44, 6)]),
            escape(&series.name)
        )
    };
    format!("<div class=\"legend\">{}</div>", series.iter().enumerate().map(entry).collect::<String>())
}

/// A line chart as inline SVG with a legend. `shares`: x is a percentage on a logarithmic axis.
///
/// # Errors
/// When there is no point, or the chart cannot be drawn.
pub fn chart(series: &[Series], x_title: &str, y_title: &str, shares: bool) -> Result<String> {
    let bad = |e: &dyn std::fmt::Display| anyhow!("chart: {e}");
    let position = |x: f64| if shares { x.log10() } else { x };
    let xs = || series.iter().flat_map(|s| s.points.iter().map(|p| position(p.0)));
    let ys =
        || series.iter().flat_map(|s| s.points.iter().map(|p| p.1).chain(s.intervals.iter().flat_map(|i| [i.1, i.2])));
    let span = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
    };
    let ((x0, x1), (y0, y1)) = (span(&mut xs()), span(&mut ys()));
    let x_room = if x1 > x0 { (x1 - x0) * 0.04 } else { 0.5 };
    let y_room = if y1 > y0 { (y1 - y0) * 0.08 } else { 0.1 };

    // With more lines than kinds of dashes, markers distinguish them.
    let marked = shares || series.len() > DASHES.len();
    let (mut svg, mut lines) = (String::new(), String::new());
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        let font = |size: i32| ("sans-serif", size).into_font().color(&INK);
        let mut builder = ChartBuilder::on(&area);
        builder.margin(10).x_label_area_size(36).y_label_area_size(58);
        let x_axis = Axis::new(x0 - x_room..x1 + x_room, shares.then(|| xs().collect()));
        let mut plot = builder.build_cartesian_2d(x_axis, y0 - y_room..y1 + y_room).map_err(|e| bad(&e))?;
        let x_label = |x: &f64| {
            let value = if shares { 10f64.powf(*x) } else { *x };
            if value >= 10_000.0 {
                format!("{}k", (value / 1000.0).round())
            } else {
                format!("{}", (value * 100.0).round() / 100.0)
            }
        };
        let y_label = |y: &f64| if y.abs() > 0.0 && y1.abs() < 0.05 { format!("{y:.1e}") } else { format!("{y:.2}") };
        plot.configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(INK.mix(0.12))
            .axis_style(INK.mix(0.6))
            .x_label_formatter(&x_label)
            .y_label_formatter(&y_label)
            .x_desc(x_title)
            .y_desc(y_title)
            .label_style(font(13))
            .axis_desc_style(font(14))
            .draw()
            .map_err(|e| bad(&e))?;
        let place = |x: f64, y: f64| plot.plotting_area().map_coordinate(&(x, y));
        for (index, drawn) in series.iter().enumerate() {
            // Intervals of several lines at one ratio are drawn beside each other, within the margin of the axis.
            let step = if shares { (x_room * 0.3).min(x_room * 1.6 / series.len() as f64) } else { 0.0 };
            let shift = (index as f64 - (series.len() - 1) as f64 / 2.0) * step;
            let points: Vec<(i32, i32)> = drawn.points.iter().map(|&(x, y)| place(position(x) + shift, y)).collect();
            lines += &format!("<g class=\"c{}\">{}", index % COLORS, line(index, &points));
            if marked {
                let every = if shares { 1 } else { points.len().div_ceil(MARKERS_A_CURVE).max(1) };
                // Curves that are close to each other have their markers at different positions.
                let first = index * every / series.len();
                lines.extend(points.iter().skip(first).step_by(every).map(|&point| marker(index, point)));
            }
            for &(x, low, high) in &drawn.intervals {
                let [(x, low), (_, high)] = [low, high].map(|y| place(position(x) + shift, y));
                lines += &format!("<path stroke=\"currentColor\" stroke-width=\"2\" d=\"M{x} {low}V{high}\"/>");
            }
            lines += "</g>\n";
        }
        area.present().map_err(|e| bad(&e))?;
    }
    let sized = format!("<svg width=\"{WIDTH}\" height=\"{HEIGHT}\"");
    let svg = svg.split_once("<svg").map(|(_, rest)| format!("<svg{rest}")).context("no SVG was drawn")?;
    let svg = svg.replacen(&sized, "<svg role=\"img\"", 1).replace("#010203", "currentColor");
    let svg = svg.replace("</svg>", &format!("{lines}</svg>"));
    Ok(svg + &legend(series, shares, marked))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn many_lines_differ_with_and_without_color() {
        let series = |count: usize| -> Vec<Series> {
            let points = |at: usize| (0..20).map(|x| (f64::from(x), at as f64)).collect();
            (0..count)
                .map(|at| Series { name: format!("run {at}"), points: points(at), intervals: Vec::new() })
                .collect()
        };
        let looks = |count: usize, with_color: bool| -> usize {
            let page = chart(&series(count), "steps", "loss", false).unwrap();
            let entries = page.split("<span>").skip(1).map(|entry| {
                let value = |name: &str| {
                    let rest = entry.split(&format!(" {name}=\"")).nth(1);
                    rest.and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned()
                };
                let color = if with_color { value("class") } else { String::new() };
                [color, value("stroke-dasharray"), value("d")]
            });
            entries.collect::<BTreeSet<_>>().len()
        };
        for count in [2, 6, 7, 12, 30] {
            assert_eq!([looks(count, true), looks(count, false)], [count, count]);
        }
        assert_eq!(looks(60, true), 60);
        // Points of all lines are within the chart, however many are beside each other.
        let shares: Vec<Series> = (0..20)
            .map(|at| Series {
                name: at.to_string(),
                points: vec![(1.0, 0.5), (100.0, 0.6)],
                intervals: vec![(1.0, 0.4, 0.6)],
            })
            .collect();
        let page = chart(&shares, "labels, %", "AUROC", true).unwrap();
        let places: Vec<u32> = page
            .split("<g class=\"c")
            .skip(1)
            .filter_map(|line| line.split("points=\"").nth(1)?.split('"').next())
            .flat_map(|points| points.split(' '))
            .filter_map(|point| point.split(',').next()?.parse().ok())
            .collect();
        assert!(places.len() == 40 && places.iter().all(|place| (68..=630).contains(place)), "{places:?}");
    }
}
